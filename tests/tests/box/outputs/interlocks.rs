//! A trip is stronger than everything that anybody claims.

use serde_json::{Value, json};

use super::stage::{Copies, RUN, SPEED, Stage, TANK, WANT, drive, switch};

fn terms(interlock: &str) -> String {
    format!("expiry = \"60s\"\nfailsafe = {{ run = false }}\ninterlock = {{ {interlock} }}")
}

fn level(level: impl Into<Value>) -> Value {
    let level: Value = level.into();
    json!({ "level": level })
}

/// Check 21.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_stream_that_falls_silent_trips_over_an_override() {
    let outputs = switch(&terms("when = \"tank.level > 10\", max_age = \"1s\""));
    let mut stage = Stage::running(&outputs, &["run"], &[WANT, TANK]).await;
    stage.row("tank", level(20)).await;
    stage.row("want", json!({ "run": true })).await;
    stage.holds(RUN, 1).await;
    stage.row("tank", level(20)).await;
    stage.overrides("pump", "run", json!(true), 60.0).await;
    stage.holds(RUN, 0).await;
    for _ in 0..5 {
        stage.row("want", json!({ "run": true })).await;
    }
    let shown = stage.said(&["output", "show", "pump"]).await;
    assert!(shown.contains("interlock") && shown.contains("tank"), "{shown}");
    // `reached` needs some time to speak of.
    stage.pass(7.0).await;
    assert_eq!(stage.written(RUN).last(), Some(&0));
    stage.row("tank", level(20)).await;
    stage.holds(RUN, 1).await;
    stage.holds(RUN, 0).await;
    stage.judge(&["reached", "wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_is_unknown_trips_as_what_is_false_does() {
    let outputs = switch(&terms("when = \"tank.level > 10\", max_age = \"never\""));
    let mut stage = Stage::running(&outputs, &["run"], &[WANT, TANK]).await;
    stage.row("want", json!({ "run": true })).await;
    for bad in [level(9), level(Value::Null), level(10), json!({})] {
        stage.row("tank", level(20)).await;
        stage.holds(RUN, 1).await;
        stage.row("tank", bad).await;
        stage.holds(RUN, 0).await;
        stage.row("want", json!({ "run": true })).await;
        stage.says(&["why", "pump"], &["interlock", "tank.level"]).await;
    }
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn each_of_several_interlocks_trips_by_itself() {
    let press: (&str, &[&str]) = ("press", &["guard_open bool"]);
    let condition = "when = \"tank.level > 10 AND NOT press.guard_open\", max_age = \"never\"";
    let mut stage = Stage::running(&switch(&terms(condition)), &["run"], &[WANT, TANK, press]).await;
    let guard = |open: bool| json!({ "guard_open": open });
    stage.row("want", json!({ "run": true })).await;
    stage.row("tank", level(20)).await;
    stage.row("press", guard(false)).await;
    stage.holds(RUN, 1).await;
    for (stream, bad, good) in [
        ("press", guard(true), guard(false)),
        ("tank", level(5), level(20)),
        ("press", json!({}), guard(false)),
    ] {
        stage.row(stream, bad).await;
        stage.holds(RUN, 0).await;
        stage.row(stream, good).await;
        stage.holds(RUN, 1).await;
    }
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn it_clears_late_or_by_a_person() {
    for interlock in ["max_age = \"never\", clear_after = \"2s\"", "max_age = \"never\", latch = true"] {
        let outputs = switch(&terms(&format!("when = \"tank.level > 10\", {interlock}")));
        let mut stage = Stage::running(&outputs, &["run"], &[WANT, TANK]).await;
        stage.row("tank", level(20)).await;
        stage.row("want", json!({ "run": true })).await;
        stage.holds(RUN, 1).await;
        stage.row("tank", level(5)).await;
        stage.holds(RUN, 0).await;
        stage.row("tank", level(20)).await;
        stage.row("want", json!({ "run": true })).await;
        if interlock.contains("latch") {
            stage.pass(2.0).await;
            assert_eq!(stage.written(RUN).last(), Some(&0), "nobody has reset it");
            // It outlives the box.
            stage.kill().await;
            stage.start().await;
            stage.row("tank", level(20)).await;
            stage.row("want", json!({ "run": true })).await;
            stage.pass(1.5).await;
            assert_eq!(stage.written(RUN).last(), Some(&0), "a restart is no person");
            stage.person("reset", "pump").await;
        }
        stage.holds(RUN, 1).await;
        stage.judge(&["wanted"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_trip_jumps_unless_it_is_to_go_by_slew() {
    for ramp in [false, true] {
        let interlock = format!(
            "when = \"tank.level > 10\", max_age = \"never\", trip = {{ speed = 5 }}, trip_ramp = {ramp}"
        );
        let terms = format!(
            "expiry = \"60s\"\nfailsafe = {{ speed = 0 }}\nslew = {{ speed = \"40/s\" }}\nslew_every = \
             \"200ms\"\ndeadband = {{ speed = 1 }}\nrate = \"20/s\"\ninterlock = {{ {interlock} }}"
        );
        let mut stage = Stage::running(&drive(&terms), &["speed"], &[WANT, TANK]).await;
        stage.row("tank", level(20)).await;
        stage.row("want", json!({ "speed": 40 })).await;
        stage.holds(SPEED, 400).await;
        stage.row("tank", level(5)).await;
        stage.holds(SPEED, 50).await;
        let written = stage.written(SPEED);
        let top = written.iter().rposition(|value| *value == 400).unwrap();
        assert_eq!(written.len() - top > 2, ramp, "{written:?}");
        stage.row("tank", level(20)).await;
        stage.holds(SPEED, 400).await;
        stage.judge(&["slew", "wanted"]).await;
    }
}

/// A trip above all ranks, and ranks among each other.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn the_strongest_rank_wins_until_it_lets_go_and_a_trip_beats_it() {
    let strong: (&str, &[&str]) = ("strong", &["speed float64"]);
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }
interlock = { when = "tank.level > 10", max_age = "never" }"#;
    let mut stage = Stage::new(&drive(terms), &[WANT, TANK, strong]).await;
    stage.copies(Copies::only(&["speed"])).await;
    let first = Copies { rule: "strong", stream: "strong", rank: 2, ..Copies::only(&["speed"]) };
    stage.copies(first).await;
    stage.start().await;
    stage.row("tank", level(20)).await;
    stage.row("want", json!({ "speed": 20 })).await;
    stage.holds(SPEED, 200).await;
    stage.row("strong", json!({ "speed": 60 })).await;
    stage.holds(SPEED, 600).await;
    stage.row("want", json!({ "speed": 30 })).await;
    stage.row("tank", level(1)).await;
    stage.holds(SPEED, 0).await;
    stage.row("strong", json!({ "speed": 70 })).await;
    stage.row("tank", level(20)).await;
    stage.holds(SPEED, 700).await;
    // It gives its claim up.
    stage.row("strong", json!({ "speed": null })).await;
    stage.holds(SPEED, 300).await;
    stage.row("strong", json!({ "speed": 50 })).await;
    stage.holds(SPEED, 500).await;
    stage.change_rule("strong", None).await;
    stage.holds(SPEED, 300).await;
    stage.judge(&["wanted"]).await;
}
