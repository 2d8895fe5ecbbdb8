//! Somebody else writes to the device.

use serde_json::{Value, json};
use tidegate_tests::client::Client;
use tidegate_tests::recording_device::Write;

use super::stage::{Copies, RUN, SPEED, Stage, TANK, WANT, drive, switch};

const LOOKS: &str = r#"expiry = "60s"
failsafe = "hold"
read_back = { within = "500ms", every = "500ms" }
"#;
const ALARMS: &str = "[outputs.alarms]\nconnection = \"plant\"\ntopic = \"alarms\"\n";

fn want(speed: f64) -> Value {
    json!({ "speed": speed })
}

/// One that runs, in which it is told what somebody else has written.
async fn stage(outputs: &str, columns: &[&str], streams: &[(&str, &[&str])]) -> (Stage, Client) {
    let mut stage = Stage::new(&(ALARMS.to_owned() + outputs), streams).await;
    stage.copies(Copies::only(columns)).await;
    let said = r#"INSERT INTO alarms SELECT output, outcome, "values" FROM tidegate_writes
WHERE outcome = 'external'"#;
    stage.site.rule("alarms", said);
    let alarms = Client::subscriber(&stage.plant, "alarms").await;
    stage.start().await;
    (stage, alarms)
}

async fn is_told(alarms: &mut Client, column: &str, value: Value) {
    let alarm = alarms.next().await.json();
    assert_eq!((&alarm["output"], &alarm["outcome"]), (&json!("pump"), &json!("external")), "{alarm}");
    let values: Value = serde_json::from_str(alarm["values"].as_str().unwrap()).unwrap();
    assert_eq!(values[column], value, "{alarm}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn it_is_said_and_left_so_until_something_else_is_wanted() {
    let (mut stage, mut alarms) = stage(&drive(LOOKS), &["speed"], &[WANT]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.pass(1.5).await;
    stage.device.panel(SPEED, 700).await;
    is_told(&mut alarms, "speed", json!(70.0)).await;
    stage.says(&["why", "pump"], &["somebody else has written", "speed = 70"]).await;
    stage.row("want", want(20.0)).await;
    stage.pass(2.0).await;
    assert_eq!(stage.written(SPEED), [200]);
    stage.row("want", want(30.0)).await;
    stage.holds(SPEED, 300).await;
    stage.pass(2.0).await;
    assert_eq!(alarms.rest(), [], "said once");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn an_interlock_that_trips_stops_also_what_was_turned_on_at_the_panel() {
    let terms = LOOKS.replace("\"hold\"", "{ run = false }")
        + "interlock = { when = \"tank.level > 10\", max_age = \"never\" }";
    let (mut stage, mut alarms) = stage(&switch(&terms), &["run"], &[WANT, TANK]).await;
    stage.row("tank", json!({ "level": 20 })).await;
    stage.row("want", json!({ "run": false })).await;
    stage.holds(RUN, 0).await;
    stage.pass(1.0).await;
    stage.device.panel(RUN, 1).await;
    is_told(&mut alarms, "run", json!(true)).await;
    assert_eq!(stage.written(RUN), [0]);
    stage.row("tank", json!({ "level": 5 })).await;
    stage.device.wait_until(|writes| writes.len() >= 2).await;
    assert_eq!(stage.written(RUN), [0, 0]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn an_output_yields_until_it_is_released() {
    let terms = format!("{LOOKS}external = \"yield\"");
    let (mut stage, mut alarms) = stage(&drive(&terms), &["speed"], &[WANT]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.pass(1.0).await;
    stage.device.panel(SPEED, 700).await;
    is_told(&mut alarms, "speed", json!(70.0)).await;
    stage.row("want", want(30.0)).await;
    stage.pass(1.5).await;
    assert_eq!(stage.written(SPEED), [200]);
    assert!(stage.said(&["output", "show", "pump"]).await.contains("somebody else"));
    stage.says(&["status"], &["1 overridden", "somebody else"]).await;
    stage.person("release", "pump").await;
    stage.holds(SPEED, 300).await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_is_wanted_is_written_again_from_where_the_panel_left_it() {
    let terms =
        format!("{LOOKS}external = \"reassert\"\nslew = {{ speed = \"40/s\" }}\nslew_every = \"250ms\"");
    let (mut stage, mut alarms) = stage(&drive(&terms), &["speed"], &[WANT]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.pass(1.0).await;
    let before = stage.written(SPEED).len();
    stage.device.panel(SPEED, 450).await;
    is_told(&mut alarms, "speed", json!(45.0)).await;
    let of_speed = |writes: &[Write]| writes.iter().filter(|write| write.place == SPEED).count();
    stage.device.wait_until(|writes| of_speed(writes) >= before + 3).await;
    assert_eq!(stage.written(SPEED).split_off(before), [350, 250, 200]);
    stage.stop().await;
}
