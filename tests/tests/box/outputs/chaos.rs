//! Whatever happens, in whatever order: what the contract promises holds, and in the end what is wanted is
//! there.

use serde_json::{Value, json};
use tidegate_tests::PATIENCE;
use tidegate_tests::dice::Dice;

use super::stage::{RUN, SPEED, Stage, TANK, WANT, pump};

const TERMS: &str = r#"expiry = "2s"
failsafe = { run = false, speed = 0 }
interlock = { when = "tank.level > 10", max_age = "1500ms" }
min_on = "1s"
min_off = "1500ms"
range = { speed = [0, 80] }
slew = { speed = "60/s" }
slew_every = "200ms"
deadband = { speed = 1 }
rate = "10/s"
retries = 2
retry_after = "300ms"
"#;

/// What may happen at a step, and how often in a hundred.
async fn step(stage: &mut Stage, dice: &mut Dice) {
    match dice.below(100) {
        0..45 => {
            let speed = dice.below(1_000) as f64 / 10.0;
            stage.row("want", json!({ "run": dice.chance(2, 3), "speed": speed })).await;
        }
        45..80 => {
            let level: Value = if dice.chance(1, 12) { Value::Null } else { (12 + dice.below(3)).into() };
            stage.row("tank", json!({ "level": level })).await;
        }
        80..83 => stage.row("tank", json!({ "level": 5 })).await,
        83..87 => {
            let how = ["lost", "silent", "refuse"][dice.below(3) as usize];
            stage.device.misbehave_times(how, "", 1).await;
        }
        87..89 => {
            stage.device.tell(json!({ "do": "hang_up" })).await;
        }
        89..91 => {
            stage.device.tell(json!({ "do": "deafen" })).await;
            stage.pass(dice.below(20) as f64 / 10.0).await;
            stage.device.tell(json!({ "do": "listen" })).await;
        }
        91..93 => {
            let (column, value) =
                if dice.chance(1, 2) { ("run", json!(true)) } else { ("speed", json!(dice.below(80))) };
            stage.overrides("pump", column, value, 0.5 + dice.below(20) as f64 / 10.0).await;
        }
        93..94 => {
            stage.kill().await;
            stage.start().await;
        }
        _ => stage.pass(dice.below(6) as f64 / 10.0).await,
    }
}

async fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut stage = Stage::running(&pump(TERMS), &["run", "speed"], &[WANT, TANK]).await;
    for _ in 0..120 {
        step(&mut stage, &mut dice).await;
    }
    stage.device.behave().await;
    for speed in [70.0, 13.5] {
        let ends = tokio::time::timeout(PATIENCE, settles(&mut stage, speed)).await;
        assert!(ends.is_ok(), "{speed} was never reached:\n{}", stage.device.record().join("\n"));
    }
    stage.judge(&["wanted", "range", "slew"]).await;
}

/// Wants this speed until it is there: an override may last for a moment yet.
async fn settles(stage: &mut Stage, speed: f64) {
    loop {
        stage.row("tank", json!({ "level": 20 })).await;
        stage.row("want", json!({ "run": true, "speed": speed })).await;
        let is = |place: &str, value: f64| stage.written(place).last() == Some(&(value as u64));
        if is(RUN, 1.0) && is(SPEED, speed * 10.0) {
            return;
        }
        stage.pass(0.2).await;
    }
}

#[allow(clippy::print_stderr, reason = "shown by the test harness beside what went wrong")]
fn say(what: &str) {
    eprintln!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn contracts_hold_in_a_storm() {
    let seeds: u64 = std::env::var("TIDEGATE_STORMS").map_or(2, |text| text.parse().unwrap());
    let first: u64 = std::env::var("TIDEGATE_SEED").map_or(1, |text| text.parse().unwrap());
    for seed in first..first + seeds {
        say(&format!("TIDEGATE_SEED={seed}"));
        run(seed).await;
    }
}
