//! Ed25519 keys, in files as openssl makes them: `openssl genpkey -algorithm ed25519`.
//!
//! Keys are PEM: PKCS#8 for secret ones (RFC 8410), SubjectPublicKeyInfo for public ones. In signed documents
//! a public key is the base64 of its 32 bytes.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _};
use ed25519_dalek::pkcs8::{KeypairBytes, spki::EncodePublicKey as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

/// The length of a signature.
pub const SIGNATURE_LENGTH: usize = ed25519_dalek::SIGNATURE_LENGTH;

/// A secret key. It is wiped from memory when it is dropped, and does not print itself.
pub struct SecretKey(SigningKey);

/// A public key that a signature can be believed for: points of small order, which fit many, are none.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

/// Bytes that are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A file without a key.
    #[error("this is no key in PEM: make one with `openssl genpkey -algorithm ed25519 -out key.pem`")]
    NoPem,
    /// The other half of a pair.
    #[error(
        "this is a public key, and the secret one is needed: the file that begins with BEGIN PRIVATE KEY"
    )]
    Public,
    /// The half that nobody else should have.
    #[error(
        "this is a secret key, and the public one is needed: `openssl pkey -in key.pem -pubout` prints it. \
         Whoever has read this file can sign"
    )]
    Secret,
    /// A file with a password.
    #[error("this key has a password: `openssl pkey -in key.pem -out plain.pem` takes it off")]
    Encrypted,
    /// A key of another program.
    #[error(
        "this is a key in the format of {0}: make one with `openssl genpkey -algorithm ed25519 -out key.pem`"
    )]
    OtherFormat(&'static str),
    /// RSA, ECDSA and so on.
    #[error("this is no Ed25519 key: make one with `openssl genpkey -algorithm ed25519 -out key.pem`")]
    OtherAlgorithm,
    /// A file that was cut off or edited.
    #[error("the key is damaged: copy the file again, or make a new key")]
    Damaged,
    /// A public key that is no point, or one of small order.
    #[error("these 32 bytes are no public key that a signature can be checked with")]
    Weak,
    /// A public key in a document.
    #[error(
        "a public key is the base64 of 32 bytes: \
         `openssl pkey -in key.pem -pubout -outform DER | tail -c 32 | base64` prints it"
    )]
    NoBase64,
}

/// What the first line of a file says that it is, or what else is wrong with it.
fn label(pem: &str) -> Result<&str, KeyError> {
    let begin = pem.split_once("-----BEGIN ").ok_or(KeyError::NoPem)?.1;
    begin.split_once("-----").map(|(label, _)| label).ok_or(KeyError::NoPem)
}

/// Why a file whose label is not the wanted one cannot be used.
fn other(label: &str) -> KeyError {
    match label {
        "PUBLIC KEY" => KeyError::Public,
        "PRIVATE KEY" => KeyError::Secret,
        "ENCRYPTED PRIVATE KEY" => KeyError::Encrypted,
        "OPENSSH PRIVATE KEY" => KeyError::OtherFormat("OpenSSH"),
        "PGP PRIVATE KEY BLOCK" | "PGP PUBLIC KEY BLOCK" => KeyError::OtherFormat("OpenPGP"),
        _ => KeyError::OtherAlgorithm,
    }
}

/// The identifier of Ed25519 in DER (RFC 8410, section 3), which all its files have near their beginning.
const ALGORITHM: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// Why a file with the right label could not be read: a key of another kind, or no whole one.
fn unreadable(pem: &str) -> KeyError {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let body = Zeroizing::new(lines.flat_map(|line| line.trim().chars()).collect::<String>());
    match STANDARD.decode(body.as_bytes()).map(Zeroizing::new) {
        Ok(der) if !der.windows(ALGORITHM.len()).take(16).any(|part| part == ALGORITHM) => {
            KeyError::OtherAlgorithm
        }
        _ => KeyError::Damaged,
    }
}

impl SecretKey {
    /// A new key from 32 bytes of a source of randomness that is good enough for keys, and wipes them.
    #[must_use]
    pub fn from_random(seed: &mut [u8; 32]) -> Self {
        let key = Self(SigningKey::from_bytes(seed));
        seed.zeroize();
        key
    }

    /// Reads a file that begins with `BEGIN PRIVATE KEY`.
    ///
    /// # Errors
    /// What the file is instead, and how to make a right one.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        match label(pem)? {
            "PRIVATE KEY" => SigningKey::from_pkcs8_pem(pem.trim()).map(Self).map_err(|_| unreadable(pem)),
            label => Err(other(label)),
        }
    }

    /// The file for it. It is written without the public key, since openssl does not read it otherwise.
    ///
    /// # Errors
    /// [`KeyError::Damaged`], which cannot happen to a key that is one.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        bytes.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::Damaged)
    }

    /// What others check its signatures with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl PublicKey {
    /// # Errors
    /// [`KeyError::Weak`], when it is not a point, or one for which signatures fit several messages.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            _ => Err(KeyError::Weak),
        }
    }

    /// Reads a file that begins with `BEGIN PUBLIC KEY`.
    ///
    /// # Errors
    /// What the file is instead, and how to make a right one.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        match label(pem)? {
            "PUBLIC KEY" => {
                let key = VerifyingKey::from_public_key_pem(pem.trim()).map_err(|_| unreadable(pem))?;
                Self::from_bytes(key.as_bytes())
            }
            label => Err(other(label)),
        }
    }

    /// The file for it.
    ///
    /// # Errors
    /// [`KeyError::Damaged`], which cannot happen to a key that is one.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|_| KeyError::Damaged)
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether its owner signed exactly `message`. No second signature can be made from one that is good.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| KeyError::NoBase64)?;
        Self::from_bytes(&bytes.try_into().map_err(|_| KeyError::NoBase64)?)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digits: Vec<u8> = hex.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
        let pairs: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
        pairs.try_into().unwrap()
    }

    #[test]
    fn signs_as_the_standard_says() {
        // RFC 8032, section 7.1: tests 1, 2 and 3.
        for (secret, public, message, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &[][..],
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
                 5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &[0x72][..],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                &[0xaf, 0x82][..],
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
                 18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let key = SecretKey::from_random(&mut bytes(secret));
            assert_eq!(key.public().as_bytes(), &bytes(public));
            let signature = bytes::<64>(signature);
            assert_eq!(key.sign(message), signature);
            assert!(key.public().verifies(message, &signature));
            assert!(!key.public().verifies(b"another", &signature));
        }
    }

    #[test]
    fn a_second_signature_cannot_be_made_from_a_good_one() {
        // s + L is the same scalar (RFC 8032, section 5.1.7, wants it refused); L is little-endian in section
        // 5.1.
        let order = bytes::<32>("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let key = SecretKey::from_random(&mut [1; 32]);
        let mut signature = key.sign(b"open");
        let mut carry = 0;
        for (byte, addend) in signature.iter_mut().skip(32).zip(order) {
            let sum = u16::from(*byte) + u16::from(addend) + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        assert!(!key.public().verifies(b"open", &signature));
    }

    #[test]
    fn a_key_for_which_one_signature_fits_many_messages_is_none() {
        // Points of small order: the neutral element, and one of order 8.
        for weak in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            // no point of the curve
            "0200000000000000000000000000000000000000000000000000000000000000",
        ] {
            assert_eq!(PublicKey::from_bytes(&bytes(weak)), Err(KeyError::Weak), "{weak}");
        }
        assert_eq!("AQ==".parse::<PublicKey>(), Err(KeyError::NoBase64));
    }

    /// RFC 8410, section 10.3: without and with the public key; section 10.1.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    const PRIVATE_AND_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----\n\
        MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
        Z9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn files_are_those_of_the_standard() {
        let key = SecretKey::from_pem(PRIVATE).unwrap();
        assert_eq!(key.public().to_string(), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
        assert_eq!(key.to_pem().unwrap().as_str(), PRIVATE);
        assert_eq!(key.public().to_pem().unwrap(), PUBLIC);
        assert_eq!(PublicKey::from_pem(PUBLIC).unwrap(), key.public());
        assert_eq!(SecretKey::from_pem(PRIVATE_AND_PUBLIC).unwrap().public(), key.public());
        assert_eq!(SecretKey::from_pem(&PRIVATE.replace('\n', "\r\n")).unwrap().public(), key.public());
    }

    #[test]
    fn the_wrong_file_is_told_what_it_is() {
        let labelled = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        // P-256, made with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
        let p256 = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAESyP627z5DPEUxDvsGMr62jVTwt47\n\
            lSeQiANJgTMRIAKiQXj/L7BcVkUVtZC9SZEUz+N9FhINgEO5Qo7rrgDDog==\n\
            -----END PUBLIC KEY-----\n";
        for (pem, expected) in [
            (PUBLIC.to_owned(), KeyError::Public),
            (labelled("ENCRYPTED PRIVATE KEY"), KeyError::Encrypted),
            (labelled("OPENSSH PRIVATE KEY"), KeyError::OtherFormat("OpenSSH")),
            (labelled("RSA PRIVATE KEY"), KeyError::OtherAlgorithm),
            ("9d61b19deffd5a60ba844af492ec2cc4".to_owned(), KeyError::NoPem),
            (String::new(), KeyError::NoPem),
            (PRIVATE.replace("MC4C", "MC4"), KeyError::Damaged),
        ] {
            assert_eq!(SecretKey::from_pem(&pem).unwrap_err(), expected, "{pem}");
        }
        assert_eq!(PublicKey::from_pem(PRIVATE), Err(KeyError::Secret));
        assert_eq!(PublicKey::from_pem(p256), Err(KeyError::OtherAlgorithm));
    }

    #[test]
    fn a_secret_key_does_not_print_itself() {
        let mut seed = [0xab; 32];
        let key = SecretKey::from_random(&mut seed);
        assert_eq!(seed, [0; 32], "and what it was made of is wiped");
        let printed = format!("{key:?} {:?} {:#?}", Some(&key), [&key]);
        let base64 = STANDARD.encode([0xab; 32]);
        for secret in ["abab", "171", "AB, AB", base64.get(..8).unwrap()] {
            assert!(!printed.contains(secret), "{printed}");
        }
        assert!(printed.contains(&key.public().to_string()));
    }
}
