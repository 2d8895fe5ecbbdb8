//! Forwards and reverse of a drive are never both on.

use serde_json::{Value, json};

use super::stage::{Copies, Stage};

const FORWARDS: &str = "coil 1";
const REVERSE: &str = "coil 2";
const DRIVE: (&str, &[&str]) = ("drive", &["forwards bool", "reverse bool"]);

fn outputs() -> String {
    let output = |name: &str, coil: u8, more: &str| {
        format!(
            "[outputs.{name}]\nconnection = \"plc\"\nfields = {{ run = {{ coil = {coil} }} \
             }}\n[outputs.{name}.contract]\nexpiry = \"60s\"\nfailsafe = {{ run = false }}\n{more}\n"
        )
    };
    // Named in one of them, it holds in both directions.
    output("forwards", 1, "never_with = [\"reverse\"]\ndead_time = \"500ms\"") + &output("reverse", 2, "")
}

async fn stage() -> Stage {
    let stage = Stage::new(&outputs(), &[DRIVE]).await;
    for (output, columns) in [("forwards", &["run: forwards"]), ("reverse", &["run: reverse"])] {
        stage.copies(Copies { rule: output, output, stream: "drive", columns, ..Copies::default() }).await;
    }
    stage
}

fn want(forwards: bool, reverse: bool) -> Value {
    json!({ "forwards": forwards, "reverse": reverse })
}

/// esphome/issues#3571: demands raced, and both relays were on. esphome-core#753: reversed without a dead
/// time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn demands_of_one_batch_have_never_both_on() {
    let mut stage = stage().await;
    stage.start().await;
    stage.burst("drive", vec![want(true, false), want(false, true), want(true, false)]).await;
    stage.holds(FORWARDS, 1).await;
    stage.burst("drive", vec![want(false, false), want(false, true)]).await;
    stage.holds(REVERSE, 1).await;
    // Both are demanded: which of them is on is not promised, but that it is one at most.
    stage
        .burst("drive", vec![want(true, true), want(true, true), want(false, true), want(true, false)])
        .await;
    stage.holds(FORWARDS, 1).await;
    stage.row("drive", want(false, true)).await;
    stage.holds(REVERSE, 1).await;
    stage.judge(&["never both"]).await;
}

/// Tasmota#18670: both were on after a reboot.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn after_a_start_the_other_one_is_told_to_be_off_first() {
    let mut stage = stage().await;
    stage.start().await;
    stage.row("drive", want(true, false)).await;
    stage.holds(FORWARDS, 1).await;
    for in_order in [false, true] {
        if in_order {
            stage.stop().await
        } else {
            stage.kill().await
        }
        // Another master, or the panel, has it on when the box comes.
        stage.device.panel(FORWARDS, 1).await;
        stage.start().await;
        stage.row("drive", want(false, true)).await;
        stage.holds(REVERSE, 1).await;
    }
    stage.judge(&["never both"]).await;
}

/// Tasmota#2987: off of one released the other.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn off_of_one_leaves_the_other_on() {
    let mut stage = stage().await;
    stage.start().await;
    stage.row("drive", want(true, false)).await;
    stage.holds(FORWARDS, 1).await;
    let writes = stage.written(FORWARDS).len();
    for _ in 0..5 {
        stage.row("drive", want(true, false)).await;
    }
    stage.row("drive", json!({ "forwards": true, "reverse": null })).await;
    stage.row("drive", want(false, true)).await;
    stage.holds(REVERSE, 1).await;
    assert_eq!(stage.written(FORWARDS)[writes..], [0], "it went off when that was demanded, and not before");
    stage.judge(&["never both"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn off_that_nobody_answers_is_not_off() {
    let mut stage = stage().await;
    stage.start().await;
    stage.row("drive", want(true, false)).await;
    stage.holds(FORWARDS, 1).await;
    stage.device.misbehave_times("lost", FORWARDS, 1).await;
    stage.row("drive", want(false, true)).await;
    stage.holds(FORWARDS, 0).await;
    stage.holds(REVERSE, 1).await;
    // A device that says no to off: the other one never goes on.
    stage.device.misbehave("refuse", REVERSE).await;
    stage.row("drive", want(true, false)).await;
    stage.device.wait_until(|writes| writes.last().is_some_and(|write| write.did == "refused")).await;
    stage.pass(1.5).await;
    assert_eq!(stage.written(FORWARDS).last(), Some(&0));
    stage.device.behave().await;
    stage.row("drive", want(false, false)).await;
    stage.judge(&["never both"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn after_an_outage_nothing_is_confirmed() {
    let mut stage = stage().await;
    stage.start().await;
    stage.row("drive", want(true, false)).await;
    stage.holds(FORWARDS, 1).await;
    stage.row("drive", want(false, false)).await;
    stage.holds(FORWARDS, 0).await;
    stage.device.tell(json!({ "do": "deafen" })).await;
    stage.device.panel(FORWARDS, 1).await;
    stage.row("drive", want(false, true)).await;
    stage.device.tell(json!({ "do": "listen" })).await;
    stage.holds(REVERSE, 1).await;
    stage.judge(&["never both"]).await;
}
