//! Payloads that are no JSON, from the device to the far side.

use serde_json::{Value, json};
use tidegate_tests::box_under_test::{Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;

const STREAMS: &str = r#"
[streams.temperature]
connection = "plant"
topic = "home/{room}/temperature"
format = "raw"
fields = { celsius = "float64" }

[streams.relay]
connection = "plant"
topic = "stat/{d}/POWER"
format = "raw"
fields = { run = "bool" }

[streams.counters]
connection = "plant"
topic = "plc/{line}"
format = { csv = { delimiter = ";", header = true } }
fields = { good = "int64", bad = "int64" }

[streams.sensor]
connection = "plant"
topic = "cbor/{d}"
format = "cbor"
ts = "t"
fields = { level = "float64", raw = "bytes" }

[streams.radio]
connection = "plant"
topic = "radio/{d}/up"
format = "raw"
fields = { data = "bytes" }

[outputs.down]
connection = "plant"
topic = "radio/{d}/down"
payload = "{data}"

[uplink]
connection = "plant"
"#;

const RULE: &str = "
INSERT INTO uplink SELECT room, celsius FROM temperature WHERE celsius > 20;
INSERT INTO uplink SELECT d, run FROM relay WHERE run;
INSERT INTO uplink SELECT line, good + bad AS pieces FROM counters;
INSERT INTO uplink SELECT ts, level, raw, encode(raw, 'hex') AS hex FROM sensor;
INSERT INTO down SELECT d, decode(encode(data, 'hex') || '00', 'hex') AS data FROM radio;
";

#[tokio::test]
async fn a_device_that_speaks_no_json_is_heard_and_answered() {
    let broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{STREAMS}", connection("plant", &broker, "5")));
    site.rule("rule", RULE);
    let devices = Client::publisher(&broker).await;
    let mut results = Client::subscriber(&broker, "tidegate/box/rule").await;
    let mut radio = Client::subscriber(&broker, "radio/+/down").await;
    let _the_box = site.run();
    for topic in ["home/+/temperature", "stat/+/POWER", "plc/+", "cbor/+", "radio/+/up"] {
        broker.subscribed(topic).await;
    }
    for (topic, payload) in
        [("home/bath/temperature", "23.5"), ("stat/pump/POWER", "OFF"), ("stat/pump/POWER", "ON")]
    {
        devices.publish(topic, payload).await;
    }
    devices.publish("plc/7", "good;bad\n40;2\n").await;
    // {"t": 1(1772366400), "level": 23.5, "raw": h'00ff'}, RFC 8949
    let sensor = b"\xa3\x61t\xc1\x1a\x69\xa4\x2a\x40\x65level\xf9\x4d\xe0\x63raw\x42\x00\xff";
    devices.publish("cbor/7", sensor.as_slice()).await;
    devices.publish("radio/3/up", [0xde, 0xad].as_slice()).await;
    let mut rows: Vec<Value> =
        results.take(4).await.iter().map(|message| message.json()["row"].clone()).collect();
    rows.sort_by_key(Value::to_string);
    assert_eq!(
        rows,
        [
            json!({ "celsius": 23.5, "room": "bath" }),
            json!({ "d": "pump", "run": true }),
            json!({ "hex": "00ff", "level": 23.5, "raw": "AP8=", "ts": "2026-03-01T12:00:00Z" }),
            json!({ "line": "7", "pieces": 42 }),
        ]
    );
    let answer = radio.next().await;
    assert_eq!((answer.topic.as_str(), &answer.payload[..]), ("radio/3/down", [0xde, 0xad, 0].as_slice()));
}
