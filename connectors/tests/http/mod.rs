//! Posts to a server that others wrote (Python's `http.server`), which fails as it is told.

use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tidegate_connectors::http::{Client, PostError, UplinkConfig};
use tidegate_peers::http_server::HttpServer;

fn client(server: &HttpServer, settings: Value) -> Client {
    let mut config = json!({ "url": format!("http://127.0.0.1:{}/in", server.port()) });
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    Client::open(&serde_json::from_value::<UplinkConfig>(config).unwrap()).unwrap()
}

fn transient(posted: Result<(), PostError>) -> (String, Option<Duration>) {
    match posted {
        Err(PostError::Transient { reason, retry_after }) => (reason, retry_after),
        other => panic!("{other:?} may go through later"),
    }
}

#[tokio::test]
async fn the_answer_decides_what_becomes_of_a_request() {
    let server = HttpServer::start(&["take", "503:7", "400", "401", "drop", "stall", "take"]).await;
    let client = client(&server, json!({ "timeout": "2s", "headers": { "X-Site": "north" } }));
    let post = |n: u64| client.post(json!([{ "id": n }]).to_string().into(), "key");
    assert_eq!(post(1).await, Ok(()));
    let (reason, retry_after) = transient(post(2).await);
    assert!(reason.contains("503") && reason.contains("the script says 503"), "{reason}");
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    let refused = post(3).await.unwrap_err();
    assert!(
        matches!(&refused, PostError::Permanent(reason) if reason.ends_with("400 Bad Request: the script \
            says 400")),
        "{refused}"
    );
    transient(post(4).await);
    let (reason, _) = transient(post(5).await);
    assert!(reason.contains(&format!("127.0.0.1:{}", server.port())), "{reason}");
    assert!(transient(post(6).await).0.contains("no answer within 2s"));
    assert_eq!(post(7).await, Ok(()));
    let requests = server.wait_until(|requests| requests.len() >= 7).await;
    assert_eq!(
        requests.iter().map(|request| request.body[0]["id"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7]
    );
    let headers = &requests[0].headers;
    let header = |name: &str| headers[name].as_str();
    assert_eq!(
        (header("x-site"), header("content-type"), header("idempotency-key")),
        ("north", "application/json", "\"key\"")
    );
    assert_eq!(requests[0].path, "/in");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_called_again_later() {
    let mut server = HttpServer::start(&[]).await;
    let client = client(&server, json!({}));
    server.kill().await;
    let (reason, _) = transient(client.post("[]".into(), "key").await);
    assert!(reason.contains("refused"), "{reason}");
    server.restart(&[]).await;
    assert_eq!(client.post("[]".into(), "key").await, Ok(()));
}

#[tokio::test]
async fn a_token_that_has_changed_is_read_again_after_a_refusal() {
    let server = HttpServer::start(&["401"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old\n").unwrap();
    let client = client(&server, json!({ "bearer": { "file": file.path() } }));
    std::fs::write(file.path(), "new\n").unwrap();
    transient(client.post("[]".into(), "key").await);
    assert_eq!(client.post("[]".into(), "key").await, Ok(()));
    let requests = server.wait_until(|requests| requests.len() >= 2).await;
    let tokens: Vec<String> =
        requests.into_iter().map(|request| request.headers["authorization"].clone()).collect();
    assert_eq!(tokens, ["Bearer old", "Bearer new"]);
}

/// Writes `NAME.pem` and `NAME.key` for 127.0.0.1, signed by `issuer`.
fn certificate(dir: &Path, name: &str, purpose: ExtendedKeyUsagePurpose, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![purpose];
    std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, issuer).unwrap().pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn tls_with_an_own_authority_and_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "plant authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    certificate(dir.path(), "server", ExtendedKeyUsagePurpose::ServerAuth, &issuer);
    certificate(dir.path(), "box", ExtendedKeyUsagePurpose::ClientAuth, &issuer);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let environment =
        [("TLS_CERT", path("server.pem")), ("TLS_KEY", path("server.key")), ("TLS_CA", path("ca.pem"))];
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = HttpServer::with_environment(&[], &environment).await;
    let url = format!("https://127.0.0.1:{}/in", server.port());
    let with = |tls: Value| client(&server, json!({ "url": url, "tls": tls }));
    let good = with(json!({ "ca": path("ca.pem"), "cert": path("box.pem"), "key": path("box.key") }));
    assert_eq!(good.post("[]".into(), "key").await, Ok(()));
    // Without a certificate of its own it is turned away, and a server of another authority is not spoken to.
    transient(with(json!({ "ca": path("ca.pem") })).post("[]".into(), "key").await);
    let (reason, _) = transient(with(json!({ "ca": path("server.pem") })).post("[]".into(), "key").await);
    assert!(reason.contains("certificate"), "{reason}");
    assert_eq!(server.wait_until(|requests| !requests.is_empty()).await.len(), 1);
}
