//! `tidegate why` says why.

use serde_json::{Value, json};

use super::stage::{SPEED, Stage, WANT, drive};

/// A journal that is gone as soon as it may be.
const SHORT: &str = r#"[buffer]
journal_size = "1KiB"
journal_age = "1s"
snapshot_every = "1s"
"#;

fn want(speed: f64) -> Value {
    json!({ "speed": speed })
}

/// Check 25.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn each_write_is_explained_also_when_the_journal_has_gone() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }
range = { speed = [0, 77] }"#;
    let mut stage = Stage::running(&(drive(terms) + SHORT), &["speed"], &[WANT]).await;
    for speed in [20.0, 95.5] {
        stage.row("want", want(speed)).await;
    }
    stage.holds(SPEED, 770).await;
    for trimmed in [false, true] {
        if trimmed {
            stage.pass(3.0).await;
            stage.kill().await;
            stage.start().await;
        }
        // the rule, the row, what the clause made of it
        stage.says(&["why", "pump"], &["pump", "follow", "95.5", "77", "range"]).await;
        let whole = stage.json(&["why", "pump"]).await.to_string();
        assert!(whole.contains("follow") && whole.contains("95.5"), "{whole}");
    }
    stage.judge(&["wanted"]).await;
}

/// Check 25: what a rule in shadow would have done is on no wire.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_rule_in_shadow_writes_nothing() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }"#;
    let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
    stage.site.rule(
        "trial",
        "--! mode = \"shadow\"\n--! rank = 1\nINSERT INTO pump SELECT speed + 7 AS speed FROM want",
    );
    for speed in 1..20 {
        stage.row("want", want(f64::from(speed))).await;
    }
    stage.holds(SPEED, 190).await;
    assert!(stage.written(SPEED).iter().all(|value| *value <= 190));
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn why_not_tells_what_was_held_back() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }
max_input_age = "10s""#;
    let mut stage = Stage::running(&drive(terms), &["speed"], &[("want", &["ts", "speed float64"])]).await;
    stage.row("want", want(20.0)).await;
    stage.holds(SPEED, 200).await;
    let n = stage.send_old("want", want(61.5), 3_600).await;
    stage.passed(n).await;
    stage.says(&["why", "pump", "--not"], &["61.5", "follow"]).await;
    assert!(stage.said(&["output", "show", "pump"]).await.contains("20"));
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn an_output_that_moves_a_machine_needs_a_contract_or_says_that_it_has_none() {
    let without = r#"[outputs.pump]
connection = "plc"
fields = { run = { coil = 5 } }
"#;
    for (text, good) in [(String::new(), false), ("contract = \"none\"\n".to_owned(), true)] {
        let stage = Stage::new(&format!("{without}{text}"), &[WANT]).await;
        let checked = stage.tidegate(&["check"]).await;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.success(), good, "{said}");
        assert!(good || said.contains("contract") && said.contains("pump"), "{said}");
    }
}
