//! Signed documents: DSSE, the Dead Simple Signing Envelope (<https://github.com/secure-systems-lab/dsse>).
//!
//! A signature covers the document's type and its exact bytes. There is no way to its content but through
//! [`Envelope::open`], which checks the signatures: nobody parses what nobody signed. Other than in DSSE, one
//! signature that is not good is enough to refuse all of it, and so are fields that DSSE does not know.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::json;
use crate::key::{PublicKey, SIGNATURE_LENGTH, SecretKey};
use crate::outcome::Code;
use crate::refusal::Refusal;

/// What a document is. It is part of what is signed, so that no signature for one kind serves for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// from whoever manages a box
    Command,
    /// from the owners of root keys
    KeySet,
    /// from a box, about its audit
    Checkpoint,
    /// from a box, about a command
    Report,
}

impl Kind {
    /// `payloadType` in the envelope.
    #[must_use]
    pub fn payload_type(self) -> &'static str {
        match self {
            Self::Command => "application/vnd.tidegate.command.v1+json",
            Self::KeySet => "application/vnd.tidegate.keys.v1+json",
            Self::Checkpoint => "application/vnd.tidegate.checkpoint.v1+json",
            Self::Report => "application/vnd.tidegate.report.v1+json",
        }
    }

    /// The longest envelope. That of commands fits the 64 KB that some brokers retain.
    #[must_use]
    pub fn max_bytes(self) -> usize {
        match self {
            Self::Command | Self::KeySet | Self::Report => 48 * 1024,
            Self::Checkpoint => 4 * 1024,
        }
    }

    /// Each signature may be tried with every key, so a stranger's message costs as many verifications.
    #[must_use]
    pub fn max_signatures(self) -> usize {
        match self {
            Self::Command => 2,
            Self::KeySet => 16,
            Self::Checkpoint | Self::Report => 1,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::KeySet => "key set",
            Self::Checkpoint => "checkpoint",
            Self::Report => "report",
        }
    }
}

/// An envelope that was read, and whose signatures nobody has checked.
#[derive(Debug, Clone)]
pub struct Envelope {
    kind: Kind,
    payload: Vec<u8>,
    signatures: Vec<SignatureOfKey>,
}

#[derive(Debug, Clone)]
struct SignatureOfKey {
    /// Whoever carries the envelope can change it, so it only says which key to try first.
    key_id: Option<String>,
    bytes: [u8; SIGNATURE_LENGTH],
}

/// What was in an envelope, and who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// the exact bytes that were signed
    pub payload: Vec<u8>,
    /// whose signatures are on it: all that were there
    pub signers: BTreeSet<PublicKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<SignatureFields>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    sig: String,
}

/// DSSE lets signers use either alphabet; padding may be missing, but no bit may be there for nothing.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let is_url_safe = text.contains(['-', '_']);
    let alphabet = if is_url_safe { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config).decode(text).map_err(|error| error.to_string())
}

/// DSSE's pre-authentication encoding: what is signed.
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Puts `payload` into an envelope that all of `keys` sign, each under the name that the key set gives it.
#[must_use]
pub fn seal(kind: Kind, payload: &[u8], keys: &[(&str, &SecretKey)]) -> String {
    let signed = pre_authentication_encoding(kind.payload_type(), payload);
    let signature = |(id, key): &(&str, &SecretKey)| SignatureFields {
        keyid: Some((*id).to_owned()),
        sig: STANDARD.encode(key.sign(&signed)),
    };
    let fields = Fields {
        payload: STANDARD.encode(payload),
        payload_type: kind.payload_type().to_owned(),
        signatures: keys.iter().map(signature).collect(),
    };
    serde_json::json!(fields).to_string()
}

impl Envelope {
    /// Reads an envelope of that kind, and nothing of what is in it.
    ///
    /// # Errors
    /// `invalid`, when it is too long, no envelope, or one of another kind; `unsigned`, when nobody signed
    /// it.
    pub fn read(kind: Kind, bytes: &[u8]) -> Result<Self, Refusal> {
        let invalid = |why: String| no_envelope(kind, &why);
        if bytes.len() > kind.max_bytes() {
            let (is, may) = (bytes.len(), kind.max_bytes());
            return Err(invalid(format!("it has {is} bytes, and {may} are allowed"))
                .help("send what is large as an artifact, by its SHA-256"));
        }
        Self::from_json(kind, json::read(bytes).map_err(invalid)?)
    }

    /// The same, of bytes that are not too long and were read as JSON.
    pub(crate) fn from_json(kind: Kind, value: Value) -> Result<Self, Refusal> {
        let invalid = |why: String| no_envelope(kind, &why);
        let fields: Fields = json::from_value(value).map_err(invalid)?;
        if fields.payload_type != kind.payload_type() {
            let (is, should) = (brief(&fields.payload_type), kind.payload_type());
            return Err(
                invalid(format!("its payloadType is {is}")).help(format!("it has to be \"{should}\""))
            );
        }
        let payload =
            decode(&fields.payload).map_err(|why| invalid(format!("payload is no base64: {why}")))?;
        let about = Refusal { digest: Some(Digest::sha256(&payload)), ..invalid(String::new()) };
        let (is, may) = (fields.signatures.len(), kind.max_signatures());
        if is == 0 {
            let reason = format!("the {} has no signature", kind.noun());
            return Err(Refusal { code: Code::Unsigned, reason, ..about });
        }
        if is > may {
            let reason = format!("it has {is} signatures, and {may} are allowed");
            return Err(Refusal { reason, ..about });
        }
        let signature = |fields: SignatureFields| {
            let bytes = decode(&fields.sig).ok().and_then(|bytes| bytes.try_into().ok());
            let reason = format!("a signature is the base64 of {SIGNATURE_LENGTH} bytes, and this is none");
            let bytes = bytes.ok_or_else(|| Refusal { reason, ..about.clone() })?;
            Ok(SignatureOfKey { key_id: fields.keyid, bytes })
        };
        let signatures = fields.signatures.into_iter().map(signature).collect::<Result<_, Refusal>>()?;
        Ok(Self { kind, payload, signatures })
    }

    /// The SHA-256 of what is in it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.payload)
    }

    /// What is in it, if each signature is that of one of `keys`, which have names for the error.
    ///
    /// # Errors
    /// `bad_signature` or `unknown_key`, depending on whether the key's name is known.
    pub fn open(self, keys: &[(&str, PublicKey)]) -> Result<Opened, Refusal> {
        let signed = pre_authentication_encoding(self.kind.payload_type(), &self.payload);
        let mut signers = BTreeSet::new();
        for signature in &self.signatures {
            let named = |(name, _): &&(&str, PublicKey)| signature.key_id.as_deref() == Some(*name);
            let hinted = keys.iter().filter(named);
            let others = keys.iter().filter(|key| !named(key));
            let mut candidates = hinted.chain(others).map(|(_, key)| key);
            match candidates.find(|key| key.verifies(&signed, &signature.bytes)) {
                Some(key) => signers.insert(*key),
                None => return Err(self.not_signed(signature.key_id.as_deref(), keys)),
            };
        }
        Ok(Opened { payload: self.payload, signers })
    }

    /// What is in it, if one of its signatures, at least, is that of one of `keys`.
    pub(crate) fn open_any(self, keys: &[(&str, PublicKey)]) -> Result<Vec<u8>, Refusal> {
        let signed = pre_authentication_encoding(self.kind.payload_type(), &self.payload);
        let is_good =
            |signature: &SignatureOfKey| keys.iter().any(|(_, key)| key.verifies(&signed, &signature.bytes));
        if self.signatures.iter().any(is_good) {
            return Ok(self.payload);
        }
        let first = self.signatures.first().and_then(|signature| signature.key_id.as_deref());
        Err(self.not_signed(first, keys))
    }

    /// The content, whoever made it: for boxes that want no signatures, and for first key sets.
    pub(crate) fn unchecked(self) -> Vec<u8> {
        self.payload
    }

    fn not_signed(&self, key_id: Option<&str>, keys: &[(&str, PublicKey)]) -> Refusal {
        let noun = self.kind.noun();
        let about = |code, reason: String, help: String| Refusal {
            digest: Some(self.digest()),
            ..Refusal::new(code, reason).help(help)
        };
        let names = keys.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        match key_id {
            Some(id) if keys.iter().any(|(name, _)| *name == id) => about(
                Code::BadSignature,
                format!("the signature of key {} does not fit the {noun}", brief(id)),
                "it was changed on its way, or signed with another key of that name: sign it again, and \
                 compare the public key with the one in the key set"
                    .into(),
            ),
            Some(id) => about(
                Code::UnknownKey,
                format!("the {noun} is signed by {}, which is not in the key set here", brief(id)),
                format!("sign with one of these, or update the key set: {names}"),
            ),
            None => about(
                Code::BadSignature,
                format!("the signature is that of none of the keys in the key set here ({names})"),
                "it was changed on its way, or signed with a key that is not in the set".into(),
            ),
        }
    }
}

fn no_envelope(kind: Kind, why: &str) -> Refusal {
    Refusal::new(Code::Invalid, format!("this is no signed {}: {why}", kind.noun()))
}

/// Text of a stranger as it can stand in an error: quoted, on one line and not for ever.
pub(crate) fn brief(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_what_dsse_says() {
        // The example of protocol.md.
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        // Lengths are those of bytes.
        assert_eq!(pre_authentication_encoding("\u{fc}", b""), b"DSSEv1 2 \xc3\xbc 0 ");
    }

    #[test]
    fn text_of_strangers_stays_on_its_line() {
        assert_eq!(brief("a\n\u{1b}[2J\""), r#""a\n\u{1b}[2J\"""#);
        assert!(brief(&"x".repeat(10_000)).len() < 70);
    }
}
