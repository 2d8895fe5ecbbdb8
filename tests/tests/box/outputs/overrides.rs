//! A person says otherwise, for a while.

use serde_json::{Value, json};

use super::stage::{Copies, RUN, SPEED, Stage, WANT, drive, switch};

fn want(speed: f64) -> Value {
    json!({ "speed": speed })
}

const RAMP: &str = r#"expiry = "60s"
failsafe = { speed = 0 }
range = { speed = [0, 80] }
slew = { speed = "40/s" }
slew_every = "250ms""#;

/// Check 24, and hvorragend/ha-blueprints#669: at the end of an override it moved at once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn when_its_lease_ends_automatic_goes_on_by_slew() {
    let mut stage = Stage::running(&drive(RAMP), &["speed"], &[WANT]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.overrides("pump", "speed", json!(60), 4.0).await;
    stage.holds(SPEED, 600).await;
    stage.row("want", want(30.0)).await;
    let listed = stage.json(&["output", "list"]).await.to_string();
    assert!(listed.contains("pump") && listed.contains("override"), "{listed}");
    stage.holds(SPEED, 300).await;
    stage.judge(&["slew", "wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn range_holds_for_it_and_a_release_ends_it() {
    let mut stage = Stage::running(&drive(RAMP), &["speed"], &[WANT]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    // Refused, or clamped: 80 is the end of the range.
    let asked = ["output", "override", "pump", "speed=95", "--lease", "60s", "--reason", "a test"];
    let t = stage.device.time().await;
    if stage.tidegate(&asked).await.status.success() {
        let event =
            json!({ "what": "override", "t": t, "output": "pump", "values": { "speed": 95 }, "lease": 60 });
        stage.note(event).await;
        stage.holds(SPEED, 800).await;
        stage.person("release", "pump").await;
        stage.holds(SPEED, 200).await;
    }
    stage.overrides("pump", "speed", json!(70), 60.0).await;
    stage.holds(SPEED, 700).await;
    stage.person("release", "pump").await;
    stage.holds(SPEED, 200).await;
    stage.judge(&["range", "slew", "wanted"]).await;
}

/// Check 24: the process is killed and starts again while an override lasts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn it_outlives_a_restart_and_ends_all_the_same() {
    let mut stage = Stage::running(&drive(RAMP), &["speed"], &[WANT]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.overrides("pump", "speed", json!(60), 12.0).await;
    stage.holds(SPEED, 600).await;
    stage.kill().await;
    stage.start().await;
    for _ in 0..3 {
        stage.row("want", want(20.0)).await;
    }
    let shown = stage.said(&["output", "show", "pump"]).await;
    assert!(shown.contains("override") && shown.contains("a test"), "{shown}");
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.judge(&["slew", "wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn it_stands_above_all_ranks() {
    let mut stage = Stage::new(&drive("expiry = \"60s\"\nfailsafe = { speed = 0 }"), &[WANT]).await;
    stage.copies(Copies { rank: 1, ..Copies::only(&["speed"]) }).await;
    stage.start().await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.overrides("pump", "speed", json!(50), 30.0).await;
    stage.holds(SPEED, 500).await;
    for speed in [25.0, 30.0] {
        stage.row("want", want(speed)).await;
    }
    stage.person("release", "pump").await;
    stage.holds(SPEED, 300).await;
    assert_eq!(stage.written(SPEED), [200, 500, 300]);
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_lease_is_needed_and_may_not_be_longer_than_the_contract_says() {
    let terms = r#"expiry = "60s"
failsafe = { run = false }
max_lease = "1h""#;
    let stage = Stage::running(&switch(terms), &["run"], &[WANT]).await;
    for wrong in [
        &["output", "override", "pump", "run=true", "--reason", "a test"][..],
        &["output", "override", "pump", "run=true", "--lease", "2h", "--reason", "a test"],
        &["output", "override", "pump", "run=true", "--lease", "10min"],
        &["output", "override", "pump", "speed=3", "--lease", "10min", "--reason", "a test"],
        &["output", "override", "pump", "run=fast", "--lease", "10min", "--reason", "a test"],
        &["output", "override", "pumpe", "run=true", "--lease", "10min", "--reason", "a test"],
    ] {
        let output = stage.tidegate(wrong).await;
        assert!(!output.status.success(), "{wrong:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(stage.written(RUN), [0; 0]);
    stage.judge(&[]).await;
}
