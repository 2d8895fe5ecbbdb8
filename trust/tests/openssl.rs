//! People at a site have openssl: its keys are read, its signatures are good, and it reads ours.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod site;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use site::{Site, deploy, key_set, signed_set, topic_of};
use tidegate_trust::envelope::{Kind, pre_authentication_encoding, seal};
use tidegate_trust::gate::Admission;
use tidegate_trust::key::{KeyError, PublicKey, SecretKey};
use tidegate_trust::key_set::KeySet;

fn openssl(dir: &Path, arguments: &str) -> Vec<u8> {
    let run =
        Command::new("openssl").args(arguments.split(' ')).current_dir(dir).stdin(Stdio::null()).output();
    let output = run.unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A folder in which openssl has made the pair `key.pem` and `public.pem`.
fn with_keys() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    openssl(dir.path(), "genpkey -algorithm ed25519 -out key.pem");
    openssl(dir.path(), "pkey -in key.pem -pubout -out public.pem");
    dir
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn keys_go_both_ways() {
    let dir = with_keys();
    let secret = SecretKey::from_pem(&read(dir.path(), "key.pem")).unwrap();
    let public = PublicKey::from_pem(&read(dir.path(), "public.pem")).unwrap();
    assert_eq!(secret.public(), public);
    // The advice of KeyError::NoBase64.
    let der = openssl(dir.path(), "pkey -in key.pem -pubout -outform DER");
    assert_eq!(STANDARD.encode(&der[der.len() - 32..]).parse(), Ok(public));
    fs::write(dir.path().join("ours.pem"), secret.to_pem().unwrap().as_bytes()).unwrap();
    let printed = openssl(dir.path(), "pkey -in ours.pem -pubout");
    assert_eq!(String::from_utf8(printed).unwrap(), public.to_pem().unwrap());
}

#[test]
fn a_key_with_a_password_and_one_of_another_kind_are_told_so() {
    let dir = with_keys();
    openssl(dir.path(), "pkey -in key.pem -aes256 -passout pass:secret -out locked.pem");
    openssl(dir.path(), "genpkey -algorithm x25519 -out x25519.pem");
    openssl(dir.path(), "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem");
    for (file, expected) in [
        ("locked.pem", KeyError::Encrypted),
        ("x25519.pem", KeyError::OtherAlgorithm),
        ("p256.pem", KeyError::OtherAlgorithm),
    ] {
        assert_eq!(SecretKey::from_pem(&read(dir.path(), file)).unwrap_err(), expected, "{file}");
    }
    // The advice of KeyError::Encrypted.
    openssl(dir.path(), "pkey -in locked.pem -passin pass:secret -out plain.pem");
    assert!(SecretKey::from_pem(&read(dir.path(), "plain.pem")).is_ok());
}

#[test]
fn a_command_that_openssl_signed_is_admitted() {
    let dir = with_keys();
    let public = PublicKey::from_pem(&read(dir.path(), "public.pem")).unwrap();
    let mut set = key_set();
    set["keys"][2]["ed25519"] = json!(public);
    let mut site = Site::default();
    site.trust.keys = Some(KeySet::first(signed_set(&set, &["root-a", "root-b"]).as_bytes()).unwrap().0);
    let payload = deploy(1).to_string();
    let signed = pre_authentication_encoding(Kind::Command.payload_type(), payload.as_bytes());
    fs::write(dir.path().join("signed"), signed).unwrap();
    let signature = openssl(dir.path(), "pkeyutl -sign -inkey key.pem -rawin -in signed");
    let envelope = json!({
        "payloadType": Kind::Command.payload_type(),
        "payload": STANDARD.encode(&payload),
        "signatures": [{"keyid": "dora", "sig": STANDARD.encode(signature)}],
    });
    let admission = site.admit_at(&topic_of(&deploy(1)), envelope.to_string().as_bytes());
    assert!(matches!(admission, Ok(Admission::New(admitted)) if admitted.signers[0].key == public));
}

#[test]
fn openssl_finds_our_signatures_good() {
    let dir = with_keys();
    let secret = SecretKey::from_pem(&read(dir.path(), "key.pem")).unwrap();
    let envelope: Value = serde_json::from_str(&seal(Kind::Checkpoint, b"{}", &[("box", &secret)])).unwrap();
    let signature = STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
    fs::write(dir.path().join("signature"), signature).unwrap();
    fs::write(dir.path().join("signed"), "DSSEv1 43 application/vnd.tidegate.checkpoint.v1+json 2 {}")
        .unwrap();
    openssl(dir.path(), "pkeyutl -verify -pubin -inkey public.pem -rawin -in signed -sigfile signature");
}
