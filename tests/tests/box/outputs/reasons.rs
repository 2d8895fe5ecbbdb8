//! `tidegate why` says why.

use std::collections::BTreeMap;

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

/// What was decided before stays as it was, also when the box has lost what it would count on from.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_box_that_has_lost_its_journal_does_not_write_over_older_decisions() {
    let terms = r#"expiry = "60s"
failsafe = { speed = 0 }"#;
    let decided = |database: &rusqlite::Connection| -> BTreeMap<i64, Vec<u8>> {
        let mut select = database.prepare("SELECT id, data FROM decision").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    for lost in ["DELETE FROM journal", "DELETE FROM journal WHERE id % 2 = 0"] {
        let mut stage = Stage::running(&drive(terms), &["speed"], &[WANT]).await;
        for speed in 1..6 {
            stage.row("want", want(f64::from(speed))).await;
        }
        stage.holds(SPEED, 50).await;
        stage.says(&["why", "pump"], &["speed = 5", "acknowledged"]).await;
        stage.kill().await;
        let database = rusqlite::Connection::open(stage.site.path("data/buffer.db")).unwrap();
        // As a box that has met the damage leaves it: its sums are right.
        let sums = "UPDATE meta SET journal_bytes = (SELECT coalesce(sum(length(data) + octet_length(edit) + \
            length(marks)), 0) FROM journal) + (SELECT coalesce(sum(length(bytes)), 0) FROM content)";
        database.execute_batch(&format!("DELETE FROM snapshot; {lost}; {sums};")).unwrap();
        let before = decided(&database);
        stage.start().await;
        stage.row("want", want(70.0)).await;
        stage.holds(SPEED, 700).await;
        stage.says(&["why", "pump"], &["speed = 70"]).await;
        let after = decided(&database);
        assert!(after.len() > before.len(), "{lost}");
        assert!(before.iter().all(|(id, data)| after.get(id) == Some(data)), "{lost}");
        stage.judge(&["wanted"]).await;
    }
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn why_says_what_is_missing_where_nothing_was_decided() {
    let mut stage =
        Stage::running(&drive("expiry = \"60s\"\nfailsafe = { speed = 0 }"), &["speed"], &[WANT]).await;
    for (output, said) in [
        ("pump", "the box runs, but no rule has claimed anything of it"),
        ("seen", "`seen` has no contract"),
        ("pumpe", "did you mean `pump`?"),
    ] {
        let asked = stage.tidegate(&["why", output]).await;
        let text = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(!asked.status.success() && text.contains(said), "{output}: {text}");
    }
    stage.stop().await;
    let asked = stage.tidegate(&["why", "pump"]).await;
    let text = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(text.contains("it has a contract, but no box runs here"), "{text}");
}
