//! Rules of one rank.

use serde_json::json;

use super::stage::{SPEED, Stage, drive};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn among_rules_of_one_rank_it_is_said_who_wins() {
    // after 40 of one rule and 30 of the other; and after 20 of the first
    for (tie, then, after) in [("min", 300, 200), ("max", 400, 300), ("newest", 300, 200), ("off", 300, 200)]
    {
        let terms = format!("expiry = \"60s\"\nfailsafe = {{ speed = 0 }}\ntie = \"{tie}\"");
        let streams: [(&str, &[&str]); 2] = [("one", &["speed float64"]), ("two", &["speed float64"])];
        let mut stage = Stage::new(&drive(&terms), &streams).await;
        for (rule, stream) in [("first", "one"), ("second", "two")] {
            stage.site.rule(rule, &format!("INSERT INTO pump SELECT speed FROM {stream}"));
        }
        stage.start().await;
        stage.row("one", json!({ "speed": 40 })).await;
        stage.holds(SPEED, 400).await;
        stage.row("two", json!({ "speed": 30 })).await;
        stage.holds(SPEED, then).await;
        stage.row("one", json!({ "speed": 20 })).await;
        stage.holds(SPEED, after).await;
        stage.says(&["why", "pump"], &["first", "second"]).await;
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn without_a_tie_the_second_rule_of_a_rank_is_refused() {
    let streams: [(&str, &[&str]); 2] = [("one", &["speed float64"]), ("two", &["speed float64"])];
    let mut stage = Stage::new(&drive("expiry = \"60s\"\nfailsafe = { speed = 0 }"), &streams).await;
    for (rule, stream) in [("first", "one"), ("second", "two")] {
        stage.site.rule(rule, &format!("INSERT INTO pump SELECT speed FROM {stream}"));
    }
    stage.start().await;
    stage.row("two", json!({ "speed": 70 })).await;
    stage.row("one", json!({ "speed": 40 })).await;
    stage.holds(SPEED, 400).await;
    assert_eq!(stage.written(SPEED), [400]);
    stage.the_box().log().wait("rank").await;
    stage.stop().await;
}
