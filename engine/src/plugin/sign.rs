//! Signatures of plugins, in minisign's format.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use minisign::{SecretKey, SecretKeyBox};
use tidegate_core::Diagnostic;
use tidegate_rules::wasm::signature::{signed_bytes, with_signature};

use super::file::PluginFile;

/// Signs a plugin, with its manifest, by the secret key in the file `key`. Asks for its password on the
/// terminal, if it has one. Returns which file the signature is in.
///
/// # Errors
/// When a file cannot be read or written, or the key cannot be used.
pub fn sign(plugin: &PluginFile, key: &Path) -> Result<PathBuf, Diagnostic> {
    let wrong = |what: String| Diagnostic::new(key.display().to_string(), what);
    let secret = secret_key(key).map_err(|(what, help)| wrong(what).help(help))?;
    let manifest = plugin.manifest()?;
    let bytes = signed_bytes(&plugin.component, manifest);
    let name = plugin.path.file_stem().unwrap_or_default().to_string_lossy();
    let comment = format!("Tidegate plugin {name}");
    let signature = minisign::sign(
        None,
        &secret,
        Cursor::new(bytes),
        Some(&comment),
        Some("signature of a Tidegate plugin"),
    )
    .map_err(|error| wrong(format!("cannot sign: {error}")))?;
    plugin.write_manifest(&with_signature(manifest, &signature.into_string()))
}

fn secret_key(path: &Path) -> Result<SecretKey, (String, String)> {
    let help = || "make a key pair with `minisign -G`".to_owned();
    let text =
        fs::read_to_string(path).map_err(|error| (format!("the key cannot be read: {error}"), help()))?;
    // A comment, and the key.
    if text.lines().count() < 2 {
        return Err(("this is no secret key of minisign".to_owned(), help()));
    }
    let boxed = || {
        SecretKeyBox::from_string(&text)
            .map_err(|error| (format!("this is no secret key of minisign: {error}"), help()))
    };
    if let Ok(key) = SecretKey::from_unencrypted_box(boxed()?) {
        return Ok(key);
    }
    SecretKey::from_box(boxed()?, None).map_err(|error| {
        (
            format!("the key cannot be used: {error}"),
            "is it a secret key of minisign, and is the password right?".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use minisign::{KeyPair, PublicKey, SignatureBox};
    use tidegate_rules::wasm::pack;

    use super::*;

    /// An empty component.
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const MANIFEST: &str = "reads = [\"tank\"]\n[config]\nlimit = 1\n";

    /// Whether minisign itself takes the signature of the plugin at `path`.
    fn is_good(path: &Path, key: &PublicKey) -> bool {
        let plugin = PluginFile::read(path).unwrap();
        let manifest = plugin.manifest().unwrap();
        let table: toml::Table = manifest.parse().unwrap();
        let signature = SignatureBox::from_string(table["signature"].as_str().unwrap()).unwrap();
        let bytes = Cursor::new(signed_bytes(&plugin.component, manifest));
        minisign::verify(key, &signature, bytes, true, false, false).is_ok()
    }

    #[test]
    fn component_and_manifest_are_signed_and_signed_again() {
        let dir = tempfile::tempdir().unwrap();
        let (key, path) = (dir.path().join("minisign.key"), dir.path().join("heat.wasm"));
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        fs::write(&key, pair.sk.to_box(None).unwrap().into_string()).unwrap();
        for packed in [false, true] {
            let beside = path.with_extension("toml");
            if packed {
                fs::remove_file(&beside).unwrap();
                fs::write(&path, pack(COMPONENT, MANIFEST)).unwrap();
            } else {
                fs::write(&beside, MANIFEST).unwrap();
                fs::write(&path, COMPONENT).unwrap();
            }
            for _ in 0..2 {
                let written = sign(&PluginFile::read(&path).unwrap(), &key).unwrap();
                assert_eq!(written, if packed { path.clone() } else { beside.clone() });
                assert!(is_good(&path, &pair.pk));
            }
            let plugin = PluginFile::read(&path).unwrap();
            plugin.write_manifest(&plugin.manifest().unwrap().replace("limit = 1", "limit = 2")).unwrap();
            assert!(!is_good(&path, &pair.pk));
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (key, path) = (dir.path().join("minisign.key"), dir.path().join("heat.wasm"));
        fs::write(&path, pack(COMPONENT, MANIFEST)).unwrap();
        let plugin = PluginFile::read(&path).unwrap();
        let error = sign(&plugin, &key).unwrap_err();
        assert!(error.message.starts_with("the key cannot be read"), "{error}");
        assert_eq!(error.help.as_deref(), Some("make a key pair with `minisign -G`"));
        fs::write(&key, "no key").unwrap();
        let error = sign(&plugin, &key).unwrap_err();
        assert!(error.message.starts_with("this is no secret key of minisign"), "{error}");
    }
}
