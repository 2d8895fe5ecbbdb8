//! A box is managed from afar, by a plain MQTT client: as documents say, and as nobody should.

use serde_json::{Value, json};
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;

const VALVE: &str = r#"
[streams.tank]
connection = "plant"
topic = "tank"
fields = { level = "float64" }

[outputs.valve]
connection = "plant"
topic = "valve/set"
contract = { expiry = "never", failsafe = { open = false } }

[management]
connection = "plant"
groups = ["valves"]
"#;

/// A box, its broker, and somebody who listens to all that it says of itself.
struct Stage {
    broker: Mosquitto,
    site: Site,
    operator: Client,
}

impl Stage {
    async fn new(version: &str, unsigned: &str) -> Self {
        let broker = Mosquitto::start().await;
        let management = format!("{VALVE}unsigned = \"{unsigned}\"\n");
        let site = Site::new(&format!("{}{management}", connection("plant", &broker, version)));
        site.rule("fill", "INSERT INTO valve SELECT level < 5 AS open FROM tank;");
        let operator = Client::subscriber(&broker, "tidegate/v1/box/#").await;
        Self { broker, site, operator }
    }

    /// The next thing that the box says under this topic.
    async fn said(&mut self, topic: &str) -> Value {
        let topic = format!("tidegate/v1/box/{topic}");
        let seen = self.operator.take_until(|message| message.topic == topic).await;
        seen.last().map(|message| message.json()).unwrap()
    }

    /// The newest nonce that the box takes.
    async fn nonce(&mut self) -> String {
        self.said("cap").await["nonce"].as_str().unwrap().to_owned()
    }

    /// How a command ends.
    async fn end_of(&mut self, op: &str, id: &str) -> Value {
        loop {
            let report = self.said(&format!("res/{op}/{id}")).await;
            if ["successful", "failed"].contains(&report["status"].as_str().unwrap()) {
                return report;
            }
        }
    }

    async fn started(&mut self) -> (RunningBox, String) {
        let the_box = self.site.run();
        let nonce = self.nonce().await;
        (the_box, nonce)
    }
}

fn command(op: &str, id: &str, nonce: &str, args: Value) -> (String, String) {
    let payload = json!({ "box": "box", "op": op, "id": id, "nonce": nonce, "args": args });
    (format!("tidegate/v1/box/cmd/{op}/{id}"), payload.to_string())
}

fn open_it() -> Value {
    json!({ "output": "valve", "values": { "open": true }, "lease": "45min", "reason": "seal change" })
}

#[tokio::test]
async fn a_person_overrides_an_output_from_afar_and_gives_it_back() {
    for version in ["3.1.1", "5"] {
        let mut stage = Stage::new(version, "allow").await;
        let mut valve = Client::subscriber(&stage.broker, "valve/set").await;
        let (the_box, nonce) = stage.started().await;
        let status = stage.said("status").await;
        assert_eq!(status["online"], json!(true), "{version}");
        let (topic, payload) = command("output.override", "01JD3Z0001", &nonce, open_it());
        stage.operator.publish(&topic, payload).await;
        let report = stage.end_of("output.override", "01JD3Z0001").await;
        assert_eq!(report["status"], "successful", "{report:#}");
        let seen = valve.take_until(|message| message.json()["open"] == true).await;
        assert!(!seen.is_empty());
        let shown = stage.site.tidegate(&["why", "valve"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("seal change"), "{shown}");
        // To all boxes of a group, and to this one.
        let release = json!({ "box": "@valves", "op": "output.release", "id": "01JD3Z0002", "nonce": nonce,
            "args": { "output": "valve" } });
        let topic = "tidegate/v1/@valves/cmd/output.release/01JD3Z0002";
        stage.operator.publish(topic, release.to_string()).await;
        let report = stage.end_of("output.release", "01JD3Z0002").await;
        assert_eq!(report["status"], "successful", "{report:#}");
        assert!(the_box.stop().await.success());
        assert_eq!(stage.said("status").await["online"], json!(false), "{version}");
    }
}

#[tokio::test]
async fn what_the_broker_has_kept_moves_nothing_later() {
    let mut stage = Stage::new("5", "allow").await;
    let (the_box, nonce) = stage.started().await;
    the_box.kill().await;
    let (topic, payload) = command("output.override", "01JD3Z0001", &nonce, open_it());
    stage.operator.retain(&topic, payload.clone()).await;
    let mut valve = Client::subscriber(&stage.broker, "valve/set").await;
    let (the_box, nonce) = stage.started().await;
    let report = stage.end_of("output.override", "01JD3Z0001").await;
    assert_eq!((&report["status"], &report["code"]), (&json!("failed"), &json!("not_fresh")), "{report:#}");
    // One that is done, and comes back with each connection, is done once.
    let (topic, payload) = command("output.override", "01JD3Z0002", &nonce, open_it());
    stage.operator.retain(&topic, payload).await;
    assert_eq!(stage.end_of("output.override", "01JD3Z0002").await["status"], "successful");
    drop(valve.take_until(|message| message.json()["open"] == true).await);
    let args = json!({ "output": "valve" });
    let (topic, payload) = command("output.release", "01JD3Z0003", &nonce, args);
    stage.operator.publish(&topic, payload).await;
    assert_eq!(stage.end_of("output.release", "01JD3Z0003").await["status"], "successful");
    assert!(the_box.stop().await.success());
    let (the_box, _) = stage.started().await;
    assert_eq!(stage.end_of("output.override", "01JD3Z0002").await["status"], "successful");
    let shown = stage.site.tidegate(&["output", "show", "valve", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert!(!shown.to_string().contains("seal change"), "{shown:#}");
    assert!(the_box.stop().await.success());
}

#[tokio::test]
async fn a_box_without_keys_does_what_nobody_has_signed_only_if_its_own_file_says_so() {
    let mut stage = Stage::new("5", "queries").await;
    let (the_box, nonce) = stage.started().await;
    let (topic, payload) = command("output.override", "01JD3Z0001", &nonce, open_it());
    stage.operator.publish(&topic, payload).await;
    let report = stage.end_of("output.override", "01JD3Z0001").await;
    assert_eq!(report["code"], "unsigned", "{report:#}");
    // A question is answered where answers belong.
    let port = stage.broker.port().to_string();
    let question = json!({ "box": "box", "op": "status", "id": "01JD3Z0002", "args": {} }).to_string();
    let asked = tokio::process::Command::new("mosquitto_rr")
        .args(["-V", "5", "-h", "127.0.0.1", "-p", &port, "-W", "20", "-q", "1"])
        .args(["-t", "tidegate/v1/box/ask/status", "-e", "tidegate/v1/box/ans/me", "-m", &question])
        .output()
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(answer["result"]["box"]["name"], "box", "{answer:#}");
    // Nobody knows what this is, and the next command works.
    stage.operator.publish("tidegate/v1/box/cmd/output.reset/01JD3Z0003", vec![b'x'; 5 << 20]).await;
    assert_eq!(stage.end_of("output.reset", "01JD3Z0003").await["code"], "invalid");
    the_box.verify();
    assert!(the_box.stop().await.success());
}
