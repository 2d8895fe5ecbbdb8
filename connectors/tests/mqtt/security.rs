//! Who may connect, and to whom.

use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tidegate_connectors::status::LineStatus;

use tidegate_peers::mosquitto::Mosquitto;

use super::session::VERSIONS;
use crate::rig::Setup;

#[tokio::test]
async fn a_user_with_the_right_password_gets_in_and_one_with_a_wrong_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad, users) = (dir.path().join("good"), dir.path().join("bad"), dir.path().join("users"));
    std::fs::write(&good, "tide\n").unwrap();
    std::fs::write(&bad, "ebb\n").unwrap();
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&users)
        .args(["box", "tide"])
        .output()
        .unwrap();
    assert!(made.status.success(), "mosquitto_passwd (of the package mosquitto) failed: {made:?}");
    let broker =
        Mosquitto::with_config(&format!("allow_anonymous false\npassword_file {}\n", users.display())).await;
    for version in VERSIONS {
        let setup = |file| {
            Setup::mqtt(version, broker.port())
                .set("username", json!("box"))
                .set("password", json!({ "file": file }))
        };
        let rig = setup(&good).run();
        rig.connected_after(0).await;
        rig.end().await;
        let refused = setup(&bad).run();
        // It goes on trying, and is told in words; it never gets in.
        let error = refused.trouble().await;
        assert!(error.contains("refused") && error.contains("NotAuthorized"), "{version}: {error}");
        refused.end().await;
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "plant authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
}

/// Certificate and key, in PEM.
fn certificate(authority: &Authority, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    // With the authority's own name it would pass for self-signed.
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![purpose];
    (params.signed_by(&key, &authority.issuer).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn tls_with_an_own_authority_and_a_client_certificate() {
    let plant = authority();
    let (server_cert, server_key) = certificate(&plant, "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
    let (client_cert, client_key) = certificate(&plant, "box", ExtendedKeyUsagePurpose::ClientAuth);
    let broker = Mosquitto::with_files(
        "allow_anonymous true\nrequire_certificate true\ncafile {dir}/ca.pem\ncertfile {dir}/server.pem\n\
        keyfile {dir}/server.key\n",
        &[
            ("ca.pem", &plant.pem),
            ("server.pem", &server_cert),
            ("server.key", &server_key),
            ("client.pem", &client_cert),
            ("client.key", &client_key),
            ("other.pem", &authority().pem),
            ("empty.pem", "nothing here"),
        ],
    )
    .await;
    let file = |name: &str| json!(broker.file(name));
    let full = json!({ "ca": file("ca.pem"), "cert": file("client.pem"), "key": file("client.key") });
    for version in VERSIONS {
        let setup = |tls: Value| Setup::mqtt(version, broker.port()).set("tls", tls);
        let rig = setup(full.clone()).run();
        rig.connected_after(0).await;
        rig.end().await;
        let strange =
            setup(json!({ "ca": file("other.pem"), "cert": file("client.pem"), "key": file("client.key") }))
                .run();
        let error = strange.trouble().await;
        assert!(error.contains("UnknownIssuer") || error.contains("certificate"), "{version}: {error}");
        strange.end().await;
    }
    for (tls, why) in [
        (json!({ "ca": file("missing.pem") }), "missing.pem: cannot be read"),
        (json!({ "ca": file("empty.pem") }), "empty.pem: no PEM certificate"),
        (json!({ "ca": file("ca.pem"), "cert": file("client.pem") }), "tls.cert needs tls.key"),
        (
            json!({ "ca": file("ca.pem"), "cert": file("client.pem"), "key": file("ca.pem") }),
            "ca.pem: no PEM private key",
        ),
    ] {
        let error = Setup::mqtt("5", broker.port())
            .set("tls", tls)
            .open(&Arc::new(LineStatus::default()))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(why), "{error}");
    }
}
