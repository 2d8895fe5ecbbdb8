//! The box starts, stops, is killed, and rules come and go.

use serde_json::{Value, json};

use super::stage::{Copies, RUN, SPEED, Stage, TANK, WANT, drive, switch};

fn want(speed: f64) -> Value {
    json!({ "speed": speed })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn nothing_is_written_after_a_start_before_somebody_claims_something() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }"#;
    let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
    stage.pass(1.5).await;
    assert_eq!(stage.written(SPEED), [0; 0]);
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.kill().await;
    stage.device.panel(SPEED, 120).await;
    stage.start().await;
    stage.pass(1.5).await;
    assert_eq!(stage.written(SPEED), [200], "claims do not survive");
    stage.row("want", want(30.0)).await;
    stage.holds(SPEED, 300).await;
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn nothing_is_written_before_interlocks_have_rows_of_after_the_start() {
    let terms = r#"expiry = "60s"
failsafe = { run = false }
interlock = { when = "tank.level > 10", max_age = "never" }"#;
    let mut stage = Stage::running(&switch(terms), &["run"], &[WANT, TANK]).await;
    stage.row("tank", json!({ "level": 20 })).await;
    stage.row("want", json!({ "run": true })).await;
    stage.holds(RUN, 1).await;
    stage.kill().await;
    stage.start().await;
    let before = stage.written(RUN).len();
    stage.row("want", json!({ "run": true })).await;
    stage.pass(1.0).await;
    assert!(!stage.written(RUN)[before..].contains(&1), "the tank has not spoken since the start");
    stage.row("tank", json!({ "level": 20 })).await;
    stage.holds(RUN, 1).await;
    stage.judge(&["wanted"]).await;
}

/// home-assistant/core#56642 and others: the heater stayed on after a restart, since nobody switched it off.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_heater_that_was_on_when_the_box_was_killed_goes_off_after_the_start() {
    let terms = r#"expiry = "60s"
failsafe = { run = false }
startup = "failsafe"
startup_grace = "1s""#;
    let mut stage = Stage::running(&switch(terms), &["run"], &[WANT]).await;
    stage.row("want", json!({ "run": true })).await;
    stage.holds(RUN, 1).await;
    stage.kill().await;
    stage.start().await;
    stage.holds(RUN, 0).await;
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_box_that_stops_in_good_order_leaves_outputs_as_is_said() {
    for (on_stop, left) in
        [("", 0), ("on_stop = \"failsafe\"", 0), ("on_stop = \"hold\"", 1), ("on_stop = \"release\"", 1)]
    {
        let terms = format!("expiry = \"60s\"\nfailsafe = {{ run = false }}\n{on_stop}");
        let mut stage = Stage::running(&switch(&terms), &["run"], &[WANT]).await;
        stage.row("want", json!({ "run": true })).await;
        stage.holds(RUN, 1).await;
        stage.stop().await;
        assert_eq!(stage.written(RUN).last(), Some(&left), "{on_stop}");
        stage.judge(&["wanted"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_claim_ends_with_its_time() {
    for (failsafe, left) in [("{ run = false }", 0), ("\"hold\"", 1), ("\"release\"", 1)] {
        let mut stage =
            Stage::running(&switch(&format!("expiry = \"1s\"\nfailsafe = {failsafe}")), &["run"], &[WANT])
                .await;
        stage.row("want", json!({ "run": true })).await;
        stage.holds(RUN, 1).await;
        if left == 0 {
            stage.holds(RUN, 0).await;
        }
        stage.pass(7.5).await;
        assert_eq!(stage.written(RUN).last(), Some(&left), "{failsafe}");
        stage.judge(if left == 0 { &["reached"] } else { &["wanted"] }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn failsafe_waits_for_as_long_as_is_said() {
    let terms = r#"expiry = "1s"
failsafe = { speed = 0 }
failsafe_after = "2s""#;
    let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    stage.holds(SPEED, 0).await;
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn null_gives_a_claim_up() {
    let terms = r#"expiry = "60s"
failsafe = { run = false, speed = 0 }"#;
    let mut stage = Stage::running(&super::stage::pump(terms), &["run", "speed"], &[WANT]).await;
    stage.row("want", json!({ "run": true, "speed": 40 })).await;
    stage.holds(RUN, 1).await;
    stage.holds(SPEED, 400).await;
    stage.row("want", json!({ "run": true, "speed": null })).await;
    stage.holds(SPEED, 0).await;
    assert_eq!(stage.written(RUN), [1], "columns are claimed one by one");
    stage.row("want", json!({ "run": null, "speed": null })).await;
    stage.holds(RUN, 0).await;
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_new_version_takes_over_without_a_bump_and_a_rule_that_is_gone_claims_nothing() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }"#;
    for last in [None, Some("--! mode = \"shadow\"\n"), Some("--! mode = \"off\"\n")] {
        let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
        let text = Copies::only(&["speed"]).sql();
        stage.row("want", want(20.0)).await;
        stage.holds(SPEED, 200).await;
        stage.change_rule("follow", Some(&format!("-- another version\n{text}"))).await;
        stage.pass(0.5).await;
        assert_eq!(stage.written(SPEED), [200], "its claim stays until the new version writes");
        stage.row("want", want(30.0)).await;
        stage.holds(SPEED, 300).await;
        stage.change_rule("follow", last.map(|mode| format!("{mode}{text}")).as_deref()).await;
        stage.holds(SPEED, 0).await;
        stage.row("want", want(50.0)).await;
        stage.pass(0.5).await;
        assert_eq!(stage.written(SPEED), [200, 300, 0]);
        stage.judge(&["wanted"]).await;
    }
}
