//! A message comes in, a rule fires, an output moves.

use serde_json::json;
use tidegate_tests::box_under_test::{Site, connection};
use tidegate_tests::client::{Client, Message};
use tidegate_tests::mosquitto::Mosquitto;

const VERSIONS: [&str; 2] = ["3.1.1", "5"];

const TANKS: &str = r#"
[streams.tank]
connection = "plant"
topic = "plant/{site}/{device}/telemetry"
fields = { temperature = "float64" }

[streams.alarm]
fields = { device = "utf8", temperature = "float64" }

[outputs.pump]
connection = "plant"
topic = "plant/{site}/{device}/pump/set"
payload = "run={run} because {temperature}"

[outputs.state]
connection = "plant"
topic = "state/{device}"
retain = true

[outputs.horn]
connection = "plant"
topic = "horn"
"#;

#[tokio::test]
async fn a_rule_fires_and_the_output_topic_gets_it() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let site = Site::new(&format!("{}{TANKS}", connection("plant", &broker, version)));
        site.rule(
            "cooling",
            "INSERT INTO pump SELECT site, device, temperature, TRUE AS run FROM tank WHERE temperature > 80;
             INSERT INTO state SELECT device, 'hot' AS state FROM tank WHERE temperature > 80;",
        );
        let mut pumps = Client::subscriber(&broker, "plant/+/+/pump/set").await;
        let mut states = Client::subscriber(&broker, "state/#").await;
        let the_box = site.run();
        broker.subscribed("plant/+/+/telemetry").await;
        let devices = Client::publisher(&broker).await;
        devices.publish("plant/north/t1/telemetry", r#"{"temperature": 79.5}"#).await;
        devices.publish("plant/north/t2/telemetry", r#"{"temperature": 80.5, "unknown": [1]}"#).await;
        devices.publish("plant/elsewhere/t2/other", r#"{"temperature": 99}"#).await;
        devices.publish("plant/south/t3/telemetry", r#"[{"temperature": 81}, {"temperature": 2}]"#).await;

        let said: Vec<(String, String)> =
            pumps.take(2).await.into_iter().map(|m| (m.topic.clone(), m.text().to_owned())).collect();
        let expected = [
            ("plant/north/t2/pump/set".to_owned(), "run=true because 80.5".to_owned()),
            ("plant/south/t3/pump/set".to_owned(), "run=true because 81.0".to_owned()),
        ];
        assert_eq!(said, expected, "MQTT {version}");
        states.take(2).await;
        let kept = Client::subscriber(&broker, "state/t2").await.next().await;
        assert!(kept.retained);
        assert_eq!(kept.json(), json!({ "device": "t2", "state": "hot" }));
        assert!(the_box.stop().await.success());
        assert_eq!((pumps.rest(), states.rest()), (vec![], vec![]), "nothing else was written");
    }
}

#[tokio::test]
async fn a_rule_reads_what_another_rule_wrote() {
    let broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{TANKS}", connection("plant", &broker, "5")));
    // The reader comes first by name, the writer by the flow of data.
    site.rule(
        "a_reader",
        "INSERT INTO horn SELECT device, temperature - 80 AS excess FROM alarm WHERE temperature > 90",
    );
    site.rule(
        "b_writer",
        "INSERT INTO alarm SELECT ts, device, temperature FROM tank WHERE temperature > 80",
    );
    let mut horn = Client::subscriber(&broker, "horn").await;
    let _the_box = site.run();
    broker.subscribed("plant/+/+/telemetry").await;
    let devices = Client::publisher(&broker).await;
    for temperature in [50, 85, 91, 99] {
        devices.publish("plant/north/t1/telemetry", json!({ "temperature": temperature }).to_string()).await;
    }
    let said: Vec<_> = horn.take(2).await.iter().map(Message::json).collect();
    assert_eq!(said, [json!({ "device": "t1", "excess": 11.0 }), json!({ "device": "t1", "excess": 19.0 })]);
}

/// A pump that is told `on, on, off` instead of `on, off, on` is a pump that stands still.
#[tokio::test]
async fn on_and_off_keep_their_order_within_a_burst() {
    let broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{TANKS}", connection("plant", &broker, "5")));
    site.rule(
        "hysteresis",
        "INSERT INTO horn SELECT temperature, TRUE AS run FROM tank WHERE temperature > 80;
         INSERT INTO horn SELECT temperature, FALSE AS run FROM tank WHERE temperature < 70;",
    );
    let mut horn = Client::subscriber(&broker, "horn").await;
    let _the_box = site.run();
    broker.subscribed("plant/+/+/telemetry").await;
    let devices = Client::publisher(&broker).await;
    let row = |i: usize| json!({ "temperature": if i.is_multiple_of(2) { 1_000 + i } else { i % 70 } });
    // One message of many rows, which is one batch, then many messages.
    let burst: Vec<_> = (0..500).map(row).collect();
    devices.publish("plant/north/t1/telemetry", json!(burst).to_string()).await;
    devices
        .publish_all((500..1_000).map(|i| ("plant/north/t1/telemetry".to_owned(), row(i).to_string())))
        .await;
    for (i, message) in horn.take(1_000).await.iter().enumerate() {
        let expected = row(i)["temperature"].as_f64().unwrap();
        assert_eq!(message.json(), json!({ "temperature": expected, "run": i.is_multiple_of(2) }), "row {i}");
    }
}

/// Nobody sends a row to say that none comes any more.
#[tokio::test]
async fn what_waits_for_time_happens_though_no_row_comes() {
    let broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{TANKS}", connection("plant", &broker, "5")));
    site.rule(
        "alarms",
        "INSERT INTO horn
         SELECT device, 'hot for a second' AS alarm
         FROM (SELECT ts, device, held(temperature > 80, INTERVAL '1' SECOND) OVER (PARTITION BY device) AS \
        hot FROM tank) AS tanks
         QUALIFY became(hot) OVER (PARTITION BY device);

         INSERT INTO horn
         SELECT device, 'no cooling' AS alarm
         FROM tank MATCH_RECOGNIZE (
           PARTITION BY device ORDER BY ts
           PATTERN (hot) NOT FOLLOWED BY cool WITHIN INTERVAL '2' SECOND
           DEFINE hot AS temperature > 90, cool AS temperature < 90
         );",
    );
    let mut horn = Client::subscriber(&broker, "horn").await;
    let the_box = site.run();
    broker.subscribed("plant/+/+/telemetry").await;
    let devices = Client::publisher(&broker).await;
    for (device, temperature) in [("t1", 95), ("t2", 85), ("t3", 99), ("t3", 70)] {
        devices
            .publish(
                &format!("plant/north/{device}/telemetry"),
                json!({ "temperature": temperature }).to_string(),
            )
            .await;
    }
    let mut said: Vec<String> = horn.take(3).await.iter().map(|message| message.json().to_string()).collect();
    said.sort();
    let expected = [("t1", "hot for a second"), ("t2", "hot for a second"), ("t1", "no cooling")];
    assert_eq!(said, expected.map(|(device, alarm)| json!({ "device": device, "alarm": alarm }).to_string()));
    assert!(the_box.stop().await.success());
    assert_eq!(horn.rest(), vec![], "the third has cooled down");
}
