//! What went on stays on, and what went off stays off, for as long as is promised: whatever drops out,
//! restarts or is replaced, and without another row that would say so again.

use serde_json::json;

use super::stage::{Copies, RUN, Stage, WANT, switch};

async fn stage(terms: &str) -> Stage {
    let terms = format!("expiry = \"60s\"\nfailsafe = {{ run = false }}\n{terms}");
    Stage::running(&switch(&terms), &["run"], &[WANT]).await
}

async fn want(stage: &mut Stage, run: bool) {
    stage.row("want", json!({ "run": run })).await;
}

/// home-assistant/core#61050: the minimum time began anew at each dropout, and the boiler was never switched
/// off.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_dropout_does_not_restart_the_minimum_time() {
    let mut stage = stage("min_on = \"3s\"").await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    want(&mut stage, false).await;
    for _ in 0..6 {
        let before = stage.device.printed();
        stage.device.tell(json!({ "do": "hang_up" })).await;
        stage.device.seen_after(before, "\"up\": true").await;
        stage.pass(0.3).await;
    }
    stage.holds(RUN, 0).await;
    let writes = stage.writes_to(RUN);
    let on = writes.iter().find(|write| write.value == 1).unwrap();
    let off = writes.last().unwrap();
    // Counted anew from the last dropout it would be more than this.
    assert!(off.t - on.t < 4_700_000_000, "{writes:?}");
    stage.judge(&["minimum times"]).await;
}

/// home-assistant/core#64730: the minimum time was looked at only when a reading came.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_had_to_wait_goes_out_by_itself() {
    let mut stage = stage("min_on = \"1s\"\nmin_off = \"2s\"").await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    want(&mut stage, false).await;
    stage.holds(RUN, 0).await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    stage.judge(&["minimum times"]).await;
}

/// home-assistant/core#160967, #76557, #82395: a keep-alive, and a preset, passed the minimum time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn neither_a_refresh_nor_an_override_passes_the_minimum_time() {
    let mut stage = stage("min_off = \"3s\"\nrefresh = \"300ms\"").await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    want(&mut stage, false).await;
    stage.holds(RUN, 0).await;
    stage.overrides("pump", "run", json!(true), 20.0).await;
    want(&mut stage, false).await;
    stage.holds(RUN, 1).await;
    stage.judge(&["minimum times", "refresh"]).await;
}

/// home-assistant/core#56642, #41354, #37739, #92017: times were lost in a restart or a reload. And check 19:
/// lines drop, the rule is replaced, the box is killed and started; no on before its time, then on by itself.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn the_minimum_time_lasts_over_a_dropout_a_new_version_and_a_restart() {
    let mut stage = stage("min_off = \"8s\"").await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    want(&mut stage, false).await;
    stage.holds(RUN, 0).await;
    want(&mut stage, true).await;
    stage.device.tell(json!({ "do": "hang_up" })).await;
    let newer = format!("-- another version\n{}", Copies::only(&["run"]).sql());
    stage.change_rule("follow", Some(&newer)).await;
    want(&mut stage, true).await;
    stage.kill().await;
    stage.start().await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    stage.judge(&["minimum times"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn the_minimum_time_lasts_over_a_stop_in_good_order() {
    let mut stage = stage("min_off = \"6s\"").await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    want(&mut stage, false).await;
    stage.holds(RUN, 0).await;
    stage.stop().await;
    stage.start().await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    stage.judge(&["minimum times"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn only_a_trip_passes_the_minimum_time() {
    let terms = r#"expiry = "1s"
failsafe = { run = false }
min_on = "3s"
interlock = { when = "tank.level > 10", max_age = "never" }"#;
    let mut stage = Stage::running(&switch(terms), &["run"], &[WANT, super::stage::TANK]).await;
    stage.row("tank", json!({ "level": 20 })).await;
    // Failsafe has to wait: its claim lives for a second.
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    stage.holds(RUN, 0).await;
    want(&mut stage, true).await;
    stage.holds(RUN, 1).await;
    stage.row("tank", json!({ "level": 5 })).await;
    stage.holds(RUN, 0).await;
    stage.judge(&["minimum times", "reached"]).await;
}
