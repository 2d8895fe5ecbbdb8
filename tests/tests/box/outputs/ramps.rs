//! How far and how fast, and that it gets there.

use serde_json::{Value, json};
use tidegate_tests::dice::Dice;

use super::stage::{SPEED, Stage, WANT, drive};

fn want(speed: f64) -> Value {
    json!({ "speed": speed })
}

fn terms(more: &str) -> String {
    format!("expiry = \"60s\"\nfailsafe = {{ speed = 0 }}\n{more}")
}

/// Check 22: the demand steps once, and comes again and again in batches that are cut anyhow.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn slew_deadband_and_rate_together_reach_the_value_exactly() {
    let more = r#"range = { speed = [0, 100] }
slew = { speed = "40/s" }
slew_every = "250ms"
deadband = { speed = 2 }
rate = "3/s""#;
    let mut stage = Stage::running(&drive(&terms(more)), &["speed"], &[WANT]).await;
    let mut dice = Dice::new(22);
    for (goal, register) in [(37.3, 373), (36.0, 373), (5.2, 52), (100.0, 1_000), (0.0, 0)] {
        for _ in 0..4 {
            let rows = (0..=dice.below(7)).map(|_| want(goal)).collect();
            stage.burst("want", rows).await;
        }
        stage.holds(SPEED, register).await;
    }
    stage.judge(&["slew", "rate", "range", "deadband"]).await;
}

/// phetsims/arch#1: a throttle lost the last value.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn the_last_value_of_a_burst_is_always_sent() {
    let mut stage = Stage::running(&drive(&terms("rate = \"2/s\"")), &["speed"], &[WANT]).await;
    for last in [30.0, 5.5, 99.9] {
        let rows = (0..20).map(|n| want(f64::from(n))).chain([want(last)]).collect();
        stage.burst("want", rows).await;
        stage.holds(SPEED, (last * 10.0) as u64).await;
    }
    stage.judge(&["rate"]).await;
}

/// esphome-core#408: a throttle never fired, since the next value always came before its time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn values_that_never_stop_coming_are_sent_as_often_as_the_rate_allows() {
    let mut stage = Stage::running(&drive(&terms("rate = \"4/s\"")), &["speed"], &[WANT]).await;
    let mut speed = 0.0;
    let begin = stage.device.time().await;
    while stage.writes_to(SPEED).len() < 8 {
        speed = (speed + 0.5) % 100.0;
        stage.row("want", want(speed)).await;
    }
    let took = stage.writes_to(SPEED).last().unwrap().t - begin;
    assert!(took > 1_000_000_000, "8 at 4 a second, in {took} ns");
    stage.judge(&["rate", "wanted"]).await;
}

/// OStrama/weishaupt_modbus#187, wlcrs/huawei_solar#1321: a register in EEPROM takes 100 000 writes in its
/// life.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_is_there_already_is_not_written_again() {
    let mut stage = Stage::running(&drive(&terms("deadband = { speed = 1 }")), &["speed"], &[WANT]).await;
    stage.row("want", want(50.0)).await;
    stage.holds(SPEED, 500).await;
    for n in 0..50 {
        stage.row("want", want(50.0 + f64::from(n % 3) * 0.4)).await;
    }
    stage.row("want", want(60.0)).await;
    stage.holds(SPEED, 600).await;
    assert_eq!(stage.written(SPEED), [500, 600]);
    stage.judge(&["deadband"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn failsafe_is_gone_to_by_slew_when_the_claim_ends() {
    let terms = r#"expiry = "1500ms"
failsafe = { speed = 10 }
slew = { speed = "40/s" }
slew_every = "250ms""#;
    let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
    for _ in 0..10 {
        // Renewed, it lives on.
        stage.row("want", want(60.0)).await;
        stage.pass(0.3).await;
    }
    stage.holds(SPEED, 600).await;
    stage.holds(SPEED, 100).await;
    // `reached` needs some time to speak of.
    stage.pass(10.0).await;
    stage.judge(&["slew", "reached"]).await;
}

/// sunspec/models#215, home-assistant-solaredge-modbus#232: a device falls back when it hears nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_device_that_falls_back_by_itself_is_refreshed_while_there_is_a_claim() {
    let terms = r#"expiry = "4s"
failsafe = "release"
refresh = "400ms""#;
    let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
    stage.row("want", want(50.0)).await;
    stage.device.wait_until(|writes| writes.len() >= 5).await;
    stage.pass(5.0).await;
    let then = stage.written(SPEED).len();
    stage.pass(1.5).await;
    assert_eq!(stage.written(SPEED).len(), then, "nobody claims it any more");
    stage.judge(&["refresh"]).await;
}
