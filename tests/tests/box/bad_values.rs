//! A bad value, or a row without its time, costs itself and nothing else.

use serde_json::{Value, json};
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;

struct Stage {
    _broker: Mosquitto,
    devices: Client,
    results: Client,
    the_box: RunningBox,
    site: Site,
}

/// A box with the stream `s`, which has these keys besides its connection, and this rule.
async fn stage(topic: &str, keys: &str, rule: &str) -> Stage {
    let broker = Mosquitto::start().await;
    let stream = format!(
        "[streams.s]\nconnection = \"plant\"\ntopic = \"{topic}\"\n{keys}\n[uplink]\nconnection = \"plant\"\n"
    );
    let site = Site::new(&format!("{}{stream}", connection("plant", &broker, "5")));
    site.rule("rule", rule);
    let devices = Client::publisher(&broker).await;
    let results = Client::subscriber(&broker, "tidegate/box/rule").await;
    let the_box = site.run();
    broker.subscribed(&topic.replace("{d}", "+")).await;
    Stage { _broker: broker, devices, results, the_box, site }
}

impl Stage {
    async fn rows(&mut self, count: usize) -> Vec<Value> {
        self.results.take(count).await.iter().map(|message| message.json()["row"].clone()).collect()
    }
}

#[tokio::test]
async fn a_message_without_its_time_does_not_make_the_others_late() {
    let rule = "--! lateness = \"5s\"\nINSERT INTO uplink SELECT window_start, count(*) AS n \
                FROM TUMBLE(s, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;";
    let mut stage = stage("a/{d}", "ts = \"time\"\nfields = { v = \"float64\" }", rule).await;
    for second in 0..30 {
        if second == 8 {
            for bad in
                [r#"{"uptime":3,"v":1}"#, r#"{"time":null,"v":1}"#, r#"{"time":"2026-03-01T00:00:08","v":1}"#]
            {
                stage.devices.publish("a/2", bad).await;
            }
        }
        stage
            .devices
            .publish("a/1", json!({ "time": format!("2026-03-01T00:00:{second:02}Z"), "v": 1 }).to_string())
            .await;
    }
    let windows = stage.rows(2).await;
    assert_eq!(windows[0], json!({ "window_start": "2026-03-01T00:00:00Z", "n": 10 }));
    assert_eq!(windows[1], json!({ "window_start": "2026-03-01T00:00:10Z", "n": 10 }));
    let said = stage.the_box.log().wait("are left out").await;
    assert!(said.contains("WARN") && said.contains("there is no \\\"time\\\""), "{said}");
}

#[tokio::test]
async fn one_text_does_not_spoil_an_inferred_number() {
    let mut stage = stage("i/{d}", "", "INSERT INTO uplink SELECT d, t FROM s WHERE t > 80;").await;
    for value in ["79", "81"] {
        stage.devices.publish("i/1", format!("{{\"t\":{value}}}")).await;
    }
    // Until then the column is one of whole numbers, and rules are compiled for that.
    assert_eq!(stage.rows(1).await[0]["t"], 81);
    for value in ["81.5", "\"nan\"", "9", "100", "82.5", "82"] {
        stage.devices.publish("i/1", format!("{{\"t\":{value}}}")).await;
    }
    let values: Vec<f64> = stage.rows(4).await.iter().map(|row| row["t"].as_f64().unwrap()).collect();
    assert_eq!(values, [81.5, 100.0, 82.5, 82.0]);
    let widened = stage.the_box.log().wait("another type").await;
    assert!(widened.contains("t int64 -> float64") && widened.contains("rules=\"rule\""), "{widened}");
    let said = stage.the_box.log().wait("do not fit").await;
    assert!(said.contains("column t: expected float64, found the string"), "{said}");
    // Nor after a restart.
    let Stage { the_box, site, devices, mut results, _broker } = stage;
    the_box.kill().await;
    let _again = site.run();
    devices.publish("i/1", r#"{"t":"n/a"}"#).await;
    devices.publish("i/1", r#"{"t":90.5}"#).await;
    results.take_until(|message| message.json()["row"]["t"] == 90.5).await;
}

#[tokio::test]
async fn a_new_key_breaks_no_rule_that_has_run() {
    let rule = "INSERT INTO uplink SELECT x FROM (SELECT *, t * 2 AS x FROM s) AS doubled;
                INSERT INTO uplink SELECT avg(t) AS mean FROM COUNT_WINDOW(s PARTITION BY d, 2)
                GROUP BY window_start, window_end, d;";
    let mut stage = stage("i/{d}", "qos = 1", rule).await;
    stage.devices.publish("i/1", r#"{"t":1}"#).await;
    assert_eq!(stage.rows(1).await, [json!({ "x": 2 })]);
    for message in [r#"{"t":2,"window_end":"no","x":"boo"}"#, r#"{"t":3}"#, r#"{"t":4,"x":1}"#] {
        stage.devices.publish("i/1", message).await;
    }
    // Rows of one batch come statement by statement.
    let (means, doubled): (Vec<Value>, Vec<Value>) =
        stage.rows(5).await.into_iter().partition(|row| row["mean"].is_number());
    assert_eq!(means, [json!({ "mean": 1.5 }), json!({ "mean": 3.5 })]);
    assert_eq!(doubled, [json!({ "x": 4 }), json!({ "x": 6 }), json!({ "x": 8 })]);
    let said = stage.the_box.log().wait("does not see the new columns").await;
    assert!(said.contains("`window_end`, `x` of `s`") && said.contains("rule.sql:1:"), "{said}");
    // Nor after a crash.
    let Stage { the_box, site, devices, mut results, _broker } = stage;
    the_box.kill().await;
    let the_box = site.run();
    _broker.subscribed("i/+").await;
    devices.publish("i/1", r#"{"t":5,"x":2}"#).await;
    devices.publish("i/1", r#"{"t":6,"window_end":1}"#).await;
    let rows = results.take_until(|message| message.json()["row"]["mean"] == 5.5).await;
    let rows: Vec<Value> = rows.iter().map(|message| message.json()["row"].clone()).collect();
    // Some that were not confirmed when it was killed may come again.
    assert!(rows.contains(&json!({ "x": 10 })) && rows.contains(&json!({ "x": 12 })), "{rows:?}");
    the_box.stop().await;
}

#[tokio::test]
async fn what_is_outside_the_rows_is_read_by_each() {
    let keys = "rows = \"vals\"\nts = { path = \"^.at\", unit = \"s\" }\n\
                fields = { k = \"utf8\", age = { type = \"utf8\", path = \"^.age\" } }";
    let mut stage = stage("d/{d}", keys, "INSERT INTO uplink SELECT * FROM s;").await;
    stage.devices.publish("d/1", r#"{"at":1700000000,"age":"18","vals":[{"k":"t"},{"k":"h"}]}"#).await;
    let row = |k: &str| json!({ "ts": "2023-11-14T22:13:20Z", "d": "1", "k": k, "age": "18" });
    assert_eq!(stage.rows(2).await, [row("t"), row("h")]);
}
