//! What a device answers, and what it does not.

use serde_json::{Value, json};
use tidegate_tests::client::Client;

use super::stage::{Copies, RUN, SPEED, Stage, WANT, drive, switch};

fn want(speed: f64) -> Value {
    json!({ "speed": speed })
}

/// Check 23, and 0xAHA/Growatt_ModbusTCP#375: what was lost is written again, and not for ever.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_write_that_nobody_answers_is_repeated_so_often_and_no_oftener() {
    let terms = r#"expiry = "60s"
failsafe = "hold"
retries = 2
retry_after = "400ms""#;
    let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
    stage.row("want", want(10.0)).await;
    stage.holds(SPEED, 100).await;
    stage.device.misbehave("lost", "").await;
    stage.row("want", want(20.0)).await;
    stage.device.wait_until(|writes| writes.len() >= 4).await;
    stage.pass(3.0).await;
    assert_eq!(stage.written(SPEED), [100, 200, 200, 200]);
    stage.device.behave().await;
    stage.row("want", want(30.0)).await;
    stage.holds(SPEED, 300).await;
    // Lost once, it gets there.
    stage.device.misbehave_times("lost", "", 1).await;
    stage.row("want", want(40.0)).await;
    stage.holds(SPEED, 400).await;
    assert_eq!(stage.written(SPEED)[5..], [400, 400]);
    stage.judge(&["retries", "wanted"]).await;
}

/// 0xAHA/Growatt_ModbusTCP#375: the first write after the device had dropped an idle connection was lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn the_first_write_after_the_device_has_hung_up_gets_there() {
    let terms = r#"expiry = "60s"
failsafe = "hold""#;
    let mut stage = Stage::idle(&drive(terms), &[WANT]).await;
    stage.copies(Copies::only(&["speed"])).await;
    stage.start().await;
    for round in 1..6_u64 {
        stage.row("want", want(round as f64)).await;
        stage.holds(SPEED, 10 * round).await;
        stage.device.tell(json!({ "do": "hang_up" })).await;
    }
    stage.judge(&["wanted"]).await;
}

/// grid-x/modbus#135: a reconnect sent the write again, and the device acted twice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_pulse_is_never_sent_twice() {
    let terms = r#"kind = "event"
expiry = "5s"
failsafe = "release"
retries = 3
retry_after = "200ms""#;
    let mut stage = Stage::running(&switch(terms), &["run"], &[WANT]).await;
    let pulse = || json!({ "run": true });
    stage.row("want", pulse()).await;
    stage.device.wait_until(|writes| writes.len() == 1).await;
    for how in ["silent", "lost", "refuse"] {
        let before = stage.device.writes().len();
        stage.device.misbehave_times(how, "", 1).await;
        stage.row("want", pulse()).await;
        stage.device.wait_until(|writes| writes.len() > before).await;
        let printed = stage.device.printed();
        stage.device.tell(json!({ "do": "hang_up" })).await;
        stage.device.seen_after(printed, "\"up\": true").await;
        stage.pass(1.5).await;
    }
    stage.row("want", pulse()).await;
    stage.device.wait_until(|writes| writes.len() >= 5).await;
    assert_eq!(stage.written(RUN).len(), 5, "one for each row");
    stage.judge(&["pulses"]).await;
}

/// Check 23: nothing that was demanded during an outage is written when it is over and nobody claims it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_was_demanded_during_an_outage_is_not_made_up_for() {
    let terms = r#"expiry = "2s"
failsafe = { speed = 0 }"#;
    let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.device.tell(json!({ "do": "deafen" })).await;
    for speed in [70.0, 80.0, 90.0] {
        stage.row("want", want(speed)).await;
    }
    stage.pass(3.0).await;
    stage.device.tell(json!({ "do": "listen" })).await;
    stage.holds(SPEED, 0).await;
    // What is claimed still is sent, and nothing that was before it.
    stage.device.tell(json!({ "do": "deafen" })).await;
    for speed in [70.0, 80.0, 35.0] {
        stage.row("want", want(speed)).await;
    }
    stage.device.tell(json!({ "do": "listen" })).await;
    stage.row("want", want(35.0)).await;
    stage.holds(SPEED, 350).await;
    assert_eq!(stage.written(SPEED), [200, 0, 350]);
    stage.judge(&["wanted"]).await;
}

/// A device that says yes, and does nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_is_not_there_when_it_is_read_back_is_repeated_and_said() {
    let alarms = r#"[outputs.alarms]
connection = "plant"
topic = "alarms"
"#;
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }
read_back = { within = "500ms", tolerance = { speed = 0.5 }, retries = 1 }"#;
    let mut stage = Stage::new(&(alarms.to_owned() + &drive(terms)), &[WANT]).await;
    stage.copies(Copies::only(&["speed"])).await;
    let said = "INSERT INTO alarms SELECT output, outcome FROM tidegate_writes WHERE outcome = 'mismatch'";
    stage.site.rule("alarms", said);
    let mut alarms = Client::subscriber(&stage.plant, "alarms").await;
    stage.start().await;
    stage.device.misbehave_times("ignore", SPEED, 1).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    assert_eq!(stage.written(SPEED), [200, 200]);
    stage.device.misbehave("ignore", SPEED).await;
    stage.row("want", want(30.0)).await;
    let alarm = alarms.next().await.json();
    assert_eq!((&alarm["output"], &alarm["outcome"]), (&json!("pump"), &json!("mismatch")));
    stage.pass(1.5).await;
    assert_eq!(stage.written(SPEED)[2..], [300, 300]);
    stage.judge(&["retries"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_became_of_each_write_comes_back_as_a_row() {
    let outcomes =
        "[outputs.outcomes]\nconnection = \"plant\"\ntopic = \"outcomes\"\nwhen_full = \"block\"\n";
    let terms = r#"expiry = "60s"
failsafe = "hold"
retries = 0"#;
    let mut stage = Stage::new(&(outcomes.to_owned() + &drive(terms)), &[WANT]).await;
    stage.copies(Copies::only(&["speed"])).await;
    let back = r#"INSERT INTO outcomes SELECT output, instance, "write", rule, outcome, "values"
FROM tidegate_writes WHERE output = 'pump'"#;
    stage.site.rule("back", back);
    let mut outcomes = Client::subscriber(&stage.plant, "outcomes").await;
    stage.start().await;
    let mut number = 0;
    for (how, outcome, speed) in [
        ("", "acknowledged", 10.0),
        ("refuse", "refused", 20.0),
        ("silent", "unknown", 30.0),
        ("", "acknowledged", 40.0),
    ] {
        if !how.is_empty() {
            stage.device.misbehave_times(how, SPEED, 1).await;
        }
        stage.row("want", want(speed)).await;
        let came = outcomes.take_until(|message| message.json()["outcome"] != "superseded").await;
        let row = came.last().unwrap().json();
        assert_eq!((&row["outcome"], &row["rule"]), (&json!(outcome), &json!("follow")), "{row}");
        let values: Value = serde_json::from_str(row["values"].as_str().unwrap()).unwrap();
        assert_eq!(values["speed"], speed, "{row}");
        assert!(row["write"].as_i64() > Some(number), "the output counts: {row}");
        number = row["write"].as_i64().unwrap();
    }
    stage.judge(&["wanted"]).await;
}
