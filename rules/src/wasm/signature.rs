//! Whether somebody whom the box trusts has signed a plugin.
//!
//! What is signed is the component, by its hash, and the manifest without the entry `signature`: limits and
//! targets are as much part of a plugin as its code.

use std::ops::Range;

use toml::de::DeTable;

use crate::source::sha256;

/// The key of the manifest that holds the signature.
const KEY: &str = "signature";

/// The bytes to sign for `component` with `manifest`, whether that is signed already or not.
#[must_use]
pub fn signed_bytes(component: &[u8], manifest: &str) -> Vec<u8> {
    let entry = entry(manifest).unwrap_or_default();
    let (before, after) = (manifest.get(..entry.start), manifest.get(entry.end..));
    let text = [before.unwrap_or_default(), after.unwrap_or_default()].concat();
    format!("tidegate plugin 1\n{}\n{text}", sha256(component)).into_bytes()
}

/// `manifest` with `signature`, which minisign has written, instead of one that is there.
#[must_use]
pub fn with_signature(manifest: &str, signature: &str) -> String {
    let entry = entry(manifest).unwrap_or_default();
    let (before, after) = (manifest.get(..entry.start), manifest.get(entry.end..));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    // In front, since no table has begun there.
    format!("{KEY} = \"\"\"\n{}\n\"\"\"\n{before}{after}", signature.trim_end())
}

/// The lines of the entry `signature`.
fn entry(manifest: &str) -> Option<Range<usize>> {
    let root = DeTable::parse(manifest).ok()?;
    let (key, value) = root.get_ref().iter().find(|(key, _)| key.get_ref() == KEY)?;
    let (start, end) = (key.span().start, value.span().end);
    let rest = manifest.get(end..)?;
    Some(start..end + rest.find('\n').map_or(rest.len(), |at| at + 1))
}

/// Looks for one of the `trusted` keys that has signed `component` and `manifest`.
///
/// # Errors
/// When none has, or `signature` is none; with what to do.
#[cfg(feature = "wasm")]
pub(super) fn check(
    component: &[u8],
    manifest: &str,
    signature: &str,
    trusted: &[String],
) -> Result<(), (String, String)> {
    use minisign_verify::{Error, PublicKey, Signature};

    let signature = Signature::decode(signature.trim_start()).map_err(|error| {
        let help = "sign the plugin with `tidegate plugin sign`".to_owned();
        (format!("the signature cannot be read: {error}"), help)
    })?;
    let signed = signed_bytes(component, manifest);
    let mut refusal = "it was signed with a key that this box does not trust";
    for trusted in trusted {
        let key = PublicKey::from_base64(trusted.trim()).map_err(|error| {
            let help = "write the second line of the file minisign.pub".to_owned();
            (format!("`{trusted}` in `trusted_keys` is no public key: {error}"), help)
        })?;
        match key.verify(&signed, &signature, false) {
            Ok(()) => return Ok(()),
            Err(Error::UnexpectedKeyId) => {}
            Err(_) => {
                refusal = "the signature is not good: the plugin or its manifest is not what was signed"
            }
        }
    }
    Err((refusal.to_owned(), "have it signed again by somebody whom this box trusts".to_owned()))
}

#[cfg(all(test, feature = "wasm"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::with_signature;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
    const MANIFEST: &str = "reads = [\"tank\"]\nwrites = [\"pump\"]\n";
    // Made with minisign 0.11: `minisign -G -W`, then `minisign -S -m FILE`, where FILE holds "tidegate plugin 1",
    // the output of sha256sum for EMPTY, and MANIFEST.
    const KEY: &str = "RWTjMd/chK3+FO6GRe072y+JtgyQnlY6q7atffSFBImFftUTxEnaX05O";
    const OTHER_KEY: &str = "RWRvrFLVF31ROg+A1kLPHW1rPLZapqomvCkLAwklVxTqAeajAnjt6B56";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RUTjMd/chK3+FIPwrjevtpGd1BU5Gc1wO8HnEhwlZygfdOTX/tlHA3r91HueQrGif3xzIj/aHgh4PLlzIJICgO9/LrNFMm2ocgg=\n\
        trusted comment: made for a test\n\
        JSMGJdqpUojPbCIFYcscPV30Q9ZiZfnNjBoJIppUyIipS4M3WKxQECK5MEeQbop3lrnE2CmRoPpOKKhKUtGQDw==\n";

    fn check(component: &[u8], manifest: &str, signature: &str, trusted: &[&str]) -> Result<(), String> {
        let trusted: Vec<String> = trusted.iter().map(|key| (*key).to_owned()).collect();
        super::check(component, manifest, signature, &trusted).map_err(|(what, _)| what)
    }

    #[test]
    fn what_minisign_has_signed_is_good() {
        assert_eq!(check(EMPTY, MANIFEST, SIGNATURE, &[OTHER_KEY, KEY]), Ok(()));
        // With the signature in it, as it comes to the box.
        let signed = with_signature(MANIFEST, SIGNATURE);
        let kept = toml::from_str::<toml::Table>(&signed).unwrap();
        let kept = kept.get(super::KEY).unwrap().as_str().unwrap();
        assert_eq!(check(EMPTY, &signed, kept, &[KEY]), Ok(()));
        assert_eq!(with_signature(&signed, SIGNATURE), signed);
        // Wherever it stands.
        let behind = format!("{MANIFEST}signature = '''\n{SIGNATURE}'''\n");
        assert_eq!(check(EMPTY, &behind, kept, &[KEY]), Ok(()));
    }

    #[test]
    fn nothing_else_is() {
        let changed =
            Err("the signature is not good: the plugin or its manifest is not what was signed".to_owned());
        assert_eq!(check(b"\0asm\x0d\0\x01\0\0", MANIFEST, SIGNATURE, &[KEY]), changed);
        assert_eq!(check(EMPTY, &MANIFEST.replace("pump", "heat"), SIGNATURE, &[KEY]), changed);
        assert_eq!(check(EMPTY, &format!("{MANIFEST}\n"), SIGNATURE, &[KEY]), changed);
        let comment = SIGNATURE.replace("made for a test", "made for a pump");
        assert_eq!(check(EMPTY, MANIFEST, &comment, &[KEY]), changed);
        let unknown = Err("it was signed with a key that this box does not trust".to_owned());
        assert_eq!(check(EMPTY, MANIFEST, SIGNATURE, &[OTHER_KEY]), unknown);
        for none in ["", "x", "untrusted comment: x\nAAAA\ntrusted comment: x\nAAAA"] {
            let why = check(EMPTY, MANIFEST, none, &[KEY]).unwrap_err();
            assert!(why.starts_with("the signature cannot be read: "), "{why}");
        }
        let why = check(EMPTY, MANIFEST, SIGNATURE, &["RW"]).unwrap_err();
        assert!(why.starts_with("`RW` in `trusted_keys` is no public key: "), "{why}");
    }
}
