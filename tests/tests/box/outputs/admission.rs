//! What rests on old or bad data claims nothing.

use serde_json::json;
use tidegate_tests::client::Client;

use super::stage::{Copies, SPEED, Stage, drive};

/// A number that the rule reads from text, so that it can be none.
fn number(text: &str) -> serde_json::Value {
    json!({ "number": text })
}

async fn stage(terms: &str, columns: &[&str]) -> Stage {
    let stage = Stage::new(&drive(terms), &[("want", columns)]).await;
    stage.site.rule("follow", "INSERT INTO pump SELECT CAST(number AS DOUBLE) AS speed FROM want");
    stage.note_rule(Copies::only(&["speed: number"]), "").await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_is_no_number_or_out_of_range_is_not_written_and_why_not_says_so() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }
range = { speed = [0, 60] }
out_of_range = "refuse""#;
    let mut stage = stage(terms, &["number utf8"]).await;
    stage.start().await;
    stage.row("want", number("20")).await;
    stage.holds(SPEED, 200).await;
    for bad in ["NaN", "inf", "-inf", "-5", "60.5", "1e300"] {
        stage.row("want", number(bad)).await;
    }
    stage.says(&["why", "pump", "--not"], &["60.5"]).await;
    stage.row("want", number("60")).await;
    stage.holds(SPEED, 600).await;
    assert_eq!(stage.written(SPEED), [200, 600]);
    stage.judge(&["range", "wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_is_out_of_range_is_clamped_if_nothing_else_is_said() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }
range = { speed = [10, 60] }"#;
    let mut stage = stage(&terms.replace("speed = 0 ", "speed = 10 "), &["number utf8"]).await;
    stage.start().await;
    for (asked, written) in [("80", 600), ("-3", 100), ("1e300", 600)] {
        stage.row("want", number(asked)).await;
        stage.holds(SPEED, written).await;
    }
    stage.judge(&["range", "wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_backlog_of_two_hours_ago_moves_nothing_after_an_outage() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }
max_input_age = "10s""#;
    let mut stage = stage(terms, &["ts", "number utf8"]).await;
    stage.start().await;
    stage.row("want", number("20")).await;
    stage.holds(SPEED, 200).await;
    stage.kill().await;
    // The broker keeps them for the box.
    let mut last = 0;
    for value in 30..50 {
        last = stage.send_old("want", number(&value.to_string()), 7_200).await;
    }
    stage.start().await;
    stage.passed(last).await;
    stage.row("want", number("25")).await;
    stage.holds(SPEED, 250).await;
    assert_eq!(stage.written(SPEED), [200, 250]);
    stage.says(&["why", "pump", "--not"], &["old"]).await;
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_row_that_rests_on_another_stream_that_fell_silent_claims_nothing() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }
max_input_age = { tank = "1s" }"#;
    let streams: [(&str, &[&str]); 2] =
        [("want", &["site utf8", "speed float64"]), ("tank", &["site utf8", "level float64"])];
    let mut stage = Stage::new(&drive(terms), &streams).await;
    let rule = "INSERT INTO pump SELECT w.speed AS speed FROM want w JOIN tank FOR SYSTEM_TIME AS OF \
                CURRENT_TIMESTAMP AS t ON w.site = t.site";
    stage.site.rule("follow", rule);
    stage.note_rule(Copies { reads: &["tank"], ..Copies::only(&["speed"]) }, "").await;
    stage.start().await;
    let want = |speed: i64| json!({ "site": "north", "speed": speed });
    let tank = json!({ "site": "north", "level": 20 });
    stage.row("tank", tank.clone()).await;
    stage.row("want", want(20)).await;
    stage.holds(SPEED, 200).await;
    stage.pass(2.0).await;
    stage.row("want", want(50)).await;
    stage.row("tank", tank).await;
    stage.row("want", want(30)).await;
    stage.holds(SPEED, 300).await;
    assert_eq!(stage.written(SPEED), [200, 300]);
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_row_that_is_not_good_claims_nothing() {
    let terms = "expiry = \"60s\"\nfailsafe = { speed = 0 }";
    let columns: &[&str] = &["speed float64", "quality utf8"];
    let mut stage = Stage::running(&drive(terms), &["speed"], &[("want", columns)]).await;
    for (speed, quality) in [(20, "good"), (50, "bad"), (60, "stale"), (70, "uncertain"), (30, "good")] {
        stage.row("want", json!({ "speed": speed, "quality": quality })).await;
    }
    stage.holds(SPEED, 300).await;
    assert_eq!(stage.written(SPEED), [200, 300]);
    stage.says(&["why", "pump", "--not"], &["bad", "stale", "uncertain"]).await;
    stage.stop().await;
}

/// What the broker had kept is a claim of nobody knows when.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn what_the_broker_had_retained_moves_nothing() {
    let terms = "expiry = \"60s\"\nfailsafe = { speed = 0 }\nmax_input_age = \"10s\"";
    let setpoint = "[streams.setpoint]\nconnection = \"plant\"\ntopic = \"setpoint\"\n\
        retained_column = \"retained\"\nfields = { speed = \"float64\" }\n";
    let mut stage =
        Stage::new(&(setpoint.to_owned() + &drive(terms)), &[("other", &["speed float64"])]).await;
    stage.site.rule("follow", "INSERT INTO pump SELECT speed FROM setpoint");
    let client = Client::publisher(&stage.plant).await;
    client.retain("setpoint", json!({ "speed": 70 }).to_string()).await;
    stage.start().await;
    stage.says(&["why", "pump", "--not"], &["retained"]).await;
    client.publish("setpoint", json!({ "speed": 20 }).to_string()).await;
    stage.holds(SPEED, 200).await;
    assert_eq!(stage.written(SPEED), [200]);
    stage.stop().await;
}
