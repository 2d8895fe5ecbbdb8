//! `tidegate backtest` and `tidegate replay` with contracts: what they say, and of what.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use serde_json::{Value, json};
use tidegate::buffer::{JournalEntry, JournalStep};
use tidegate_core::{Ack, Rows, Seqs};

use super::{SECOND, buffer, dir_with, err, lines, out, tidegate};

const CONFIG: &str = r#"
name = "box"
[buffer]
path = "box.db"
[connections.plant]
kind = "mqtt"
host = "localhost"
[streams.tank]
connection = "plant"
topic = "tank"
ts = "ts"
journal = true
fields = { level = "float64" }
[streams.press]
connection = "plant"
topic = "press"
qos = 0
ts = "ts"
fields = { force = "float64" }
[outputs.pump]
connection = "plant"
topic = "pump"
"#;
const CONTRACT: &str =
    "[outputs.pump.contract]\nexpiry = \"60s\"\nfailsafe = { run = false }\nmin_on = \"5s\"\n";
/// 2026-03-01T12:00:00Z
const NOON: i64 = 1_772_366_400 * SECOND;

fn rule(threshold: u32) -> String {
    format!("INSERT INTO pump SELECT level > {threshold} AS run FROM tank;")
}

fn site(contract: &str) -> tempfile::TempDir {
    let dir = dir_with(&format!("{CONFIG}{contract}"));
    std::fs::create_dir(dir.path().join("new")).unwrap();
    std::fs::write(dir.path().join("rules/level.sql"), rule(80)).unwrap();
    std::fs::write(dir.path().join("new/level.sql"), rule(70)).unwrap();
    dir
}

fn rows(name: &str, second: i64, column: ArrayRef) -> RecordBatch {
    let ts = TimestampNanosecondArray::from(vec![NOON + second * SECOND]).with_timezone("UTC");
    RecordBatch::try_from_iter_with_nullable([("ts", Arc::new(ts) as ArrayRef, false), (name, column, true)])
        .unwrap()
}

/// Keeps levels of the tank in the journal, each with the number of its entry and the second at which it
/// came.
fn journal(dir: &tempfile::TempDir, entries: &[(u64, i64, f64)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (buffer, writer) = buffer(dir.path());
    let writer = runtime.spawn(writer);
    for (id, second, level) in entries {
        let batch = rows("level", *second, Arc::new(Float64Array::from(vec![*level])));
        let rows = Rows { batch, seqs: Seqs::Run { first: 100 + id } };
        let step = JournalStep::Rows { stream: "tank".into(), rows, marks: Vec::new(), ack: Ack::none() };
        let at = NOON + second * SECOND;
        let entry = JournalEntry { id: *id, now_ns: at, wall_ns: at, step };
        runtime.block_on(buffer.journal(entry, true)).unwrap();
    }
    runtime.block_on(buffer.close());
    runtime.block_on(writer).unwrap();
}

const LEVELS: [(u64, i64, f64); 4] = [(1, 0, 60.0), (2, 1, 75.0), (3, 2, 85.0), (4, 3, 72.0)];

fn report(dir: &tempfile::TempDir, args: &[&str]) -> Value {
    let all = [&["backtest"][..], args, &["--since", "2026-03-01", "--json"]].concat();
    let output = tidegate(dir.path(), &all);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn where_two_versions_differ_is_told_with_the_rows() {
    let dir = site("");
    journal(&dir, &LEVELS);
    let report = report(&dir, &["new/level.sql"]);
    assert_eq!(report["journal"]["rows"], json!({ "tank": 4 }));
    // Between 70 and 80 they do not agree: 75 and 72.
    assert_eq!(
        report["written"],
        json!([{ "rule": "level", "target": "pump", "now": 4, "new": 4, "same": 2 }])
    );
    let told = |cause: &str, time: &str, level: f64| {
        json!({ "time": time, "cause": cause, "row": { "ts": time, "level": level }, "rule": "level",
            "target": "pump", "now": [{ "run": false }], "new": [{ "run": true }] })
    };
    assert_eq!(
        report["differences"],
        json!([
            told("tank:102", "2026-03-01T12:00:01Z", 75.0),
            told("tank:104", "2026-03-01T12:00:03Z", 72.0)
        ])
    );
    assert_eq!(report["differing"], json!(2));
    let output = tidegate(dir.path(), &["backtest", "new/level.sql", "--since", "2026-03-01"]);
    for part in [
        "back-test of level: new/level.sql (",
        "4 rows of tank",
        "2 differences",
        "2026-03-01T12:00:01Z tank:102 {",
        "\"level\":75.0",
        "  now       level -> pump: {\"run\":false}",
        "  new       level -> pump: {\"run\":true}",
        "open loop",
        "warm-up",
    ] {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
}

#[test]
fn the_version_that_runs_does_what_it_does() {
    let dir = site("");
    journal(&dir, &LEVELS);
    let report = report(&dir, &["level"]);
    assert_eq!(
        (&report["is_the_one_that_runs"], &report["differing"], &report["written"][0]["same"]),
        (&json!(true), &json!(0), &json!(4))
    );
}

#[test]
fn a_replay_of_the_journal_gives_the_same_rows() {
    let dir = site(CONTRACT);
    journal(&dir, &LEVELS);
    let report = report(&dir, &["new/level.sql"]);
    let args = ["replay", "--buffer", "box.db", "--rules", "new", "--decisions", "decisions.jsonl"];
    let output = tidegate(dir.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let replayed = lines(out(&output));
    let sent: Vec<&Value> = replayed.iter().filter(|line| line["output"] == "pump").collect();
    let written = replayed.iter().filter(|line| line["rule"] == "level").count();
    let new = |rule: Option<&str>| {
        let of = report["written"].as_array().unwrap().iter().find(|count| count["rule"].as_str() == rule);
        of.map_or(0, |count| count["new"].as_u64().unwrap())
    };
    assert_eq!((new(Some("level")), new(None)), (written as u64, sent.len() as u64));
    assert_eq!(written, 4);
    // At 75 it goes on, and stays so.
    let rows: Vec<(&Value, &Value)> = sent.iter().map(|line| (&line["row"], &line["cause"])).collect();
    assert_eq!(
        rows,
        [(&json!({ "run": false }), &json!("tank:101")), (&json!({ "run": true }), &json!("tank:102"))]
    );
    let decisions = std::fs::read_to_string(dir.path().join("decisions.jsonl")).unwrap();
    let sent_decisions =
        lines(&decisions).iter().filter(|line| line["decision"]["verdict"]["what"] == "sent").count();
    assert_eq!(sent_decisions, 2, "{decisions}");
}

#[test]
fn what_other_rules_make_of_it_is_compared_too() {
    let dir = site("[streams.hot]\nfields = { level = \"float64\" }\n");
    let hot =
        |threshold: u32| format!("INSERT INTO hot SELECT ts, level FROM tank WHERE level > {threshold};");
    std::fs::write(dir.path().join("rules/level.sql"), hot(80)).unwrap();
    std::fs::write(dir.path().join("new/level.sql"), hot(70)).unwrap();
    std::fs::write(dir.path().join("rules/cool.sql"), "INSERT INTO pump SELECT true AS run FROM hot;")
        .unwrap();
    std::fs::write(dir.path().join("rules/other.sql"), "INSERT INTO hotter SELECT ts FROM tank;").unwrap();
    journal(&dir, &LEVELS);
    let output = tidegate(dir.path(), &["backtest", "new/level.sql", "--since", "2026-03-01", "--json"]);
    // A rule that is wrong, and has nothing to do with it, is no reason not to test another.
    assert!(err(&output).contains("hotter"), "{}", err(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Above 80 there is 85, and above 70 there are 75, 85 and 72.
    assert_eq!(
        report["written"],
        json!([
            { "rule": "cool", "target": "pump", "now": 1, "new": 3, "same": 1 },
            { "rule": "level", "target": "hot", "now": 1, "new": 3, "same": 1 },
        ])
    );
    assert_eq!(report["differing"], json!(4));
}

#[test]
fn what_the_journal_lacks_is_said() {
    let dir = site("");
    journal(&dir, &[(1, 0, 60.0), (2, 1, 75.0), (5, 9, 85.0)]);
    let report = report(&dir, &["new/level.sql"]);
    assert_eq!(report["journal"]["missing"], json!(2));
    assert_eq!(
        report["journal"]["gaps"],
        json!([{ "from": "2026-03-01T12:00:01Z", "to": "2026-03-01T12:00:09Z", "entries": 2 }])
    );
    let later = report_since(&dir, "2026-03-01T12:00:01Z");
    assert_eq!(later["journal"]["rows"], json!({ "tank": 2 }));
    // What is asked for begins behind the hole.
    let behind = report_since(&dir, "2026-03-01T12:00:05Z");
    assert_eq!(
        (&behind["journal"]["rows"], &behind["journal"]["missing"]),
        (&json!({ "tank": 1 }), &json!(0))
    );
}

fn report_since(dir: &tempfile::TempDir, since: &str) -> Value {
    let output = tidegate(dir.path(), &["backtest", "new/level.sql", "--since", since, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_cannot_be_tested_is_refused_with_advice() {
    let dir = site("");
    std::fs::write(dir.path().join("new/force.sql"), "INSERT INTO pump SELECT force > 1 AS run FROM press;")
        .unwrap();
    std::fs::write(dir.path().join("new/wrong.sql"), "INSERT INTO pump SELECT levle FROM tank;").unwrap();
    let said = |args: &[&str]| {
        let output = tidegate(dir.path(), &[&["backtest"][..], args].concat());
        (output.status.code(), err(&output).to_owned())
    };
    let (code, text) = said(&["new/level.sql"]);
    assert!(code == Some(3) && text.contains("box.db") && text.contains("there is no"), "{code:?} {text}");
    journal(&dir, &LEVELS);
    for (rule, parts) in [
        ("levle", ["there is no rule `levle`", "did you mean `level`?"]),
        (
            "new/force.sql",
            ["the rule `force` reads `press`, of which the box keeps no journal", "journal = true"],
        ),
        ("new/wrong.sql", ["new/wrong.sql:1:", "did you mean `level`?"]),
    ] {
        let (code, text) = said(&[rule, "--since", "2026-03-01"]);
        assert!(code == Some(3) && parts.iter().all(|part| text.contains(part)), "{rule}: {code:?} {text}");
    }
    let (code, text) = said(&["new/level.sql", "--since", "2026-03-02"]);
    assert!(code == Some(3) && text.contains("nothing was journaled in that time"), "{code:?} {text}");
}

#[test]
fn a_replay_holds_claims_against_contracts() {
    let dir = site(CONTRACT);
    let text = "ts,level\n2026-03-01T12:00:00Z,81\n2026-03-01T12:00:01Z,79\n2026-03-01T12:00:06Z,79\n";
    std::fs::write(dir.path().join("tank.csv"), text).unwrap();
    let output = tidegate(dir.path(), &["replay", "--input", "tank=tank.csv", "--decisions", "why.jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let sent: Vec<Value> = lines(out(&output)).into_iter().filter(|line| line["output"] == "pump").collect();
    let sent: Vec<[&Value; 4]> =
        sent.iter().map(|line| ["row", "time", "cause", "by"].map(|key| &line[key])).collect();
    // It has to be on for five seconds, and goes off by itself when they are over.
    let by = json!("rule level claims it");
    assert_eq!(
        sent,
        [
            [&json!({ "run": true }), &json!("2026-03-01T12:00:00Z"), &json!("tank.csv:2"), &by],
            [&json!({ "run": false }), &json!("2026-03-01T12:00:05Z"), &json!("time"), &by],
        ],
        "{}",
        err(&output)
    );
    let why = std::fs::read_to_string(dir.path().join("why.jsonl")).unwrap();
    let held: Vec<Value> =
        lines(&why).into_iter().filter(|line| line["decision"]["verdict"]["what"] == "held").collect();
    assert_eq!(held.len(), 1, "{why}");
    assert_eq!(
        (&held[0]["cause"], &held[0]["decision"]["steps"][0]["clause"]),
        (&json!("tank.csv:3"), &json!("min_on"))
    );
    for part in ["output=pump", "sent=2", "held=1", "no device was there", "assumed=2"] {
        assert!(err(&output).contains(part), "{part}: {}", err(&output));
    }
}

#[test]
fn a_line_that_was_down_is_down_in_a_replay() {
    let dir = site(CONTRACT);
    let tank = "ts,level\n2026-03-01T12:00:00Z,60\n2026-03-01T12:00:02Z,81\n2026-03-01T12:00:04Z,81\n";
    std::fs::write(dir.path().join("tank.csv"), tank).unwrap();
    let connections =
        "ts,connection,connected\n2026-03-01T12:00:01Z,plant,false\n2026-03-01T12:00:03Z,plant,true\n";
    std::fs::write(dir.path().join("lines.csv"), connections).unwrap();
    let args = ["replay", "--input", "tank=tank.csv", "--input", "tidegate_connections=lines.csv"];
    let output = tidegate(dir.path(), &args);
    let sent: Vec<Value> = lines(out(&output)).into_iter().filter(|line| line["output"] == "pump").collect();
    let sent: Vec<[&Value; 2]> = sent.iter().map(|line| ["row", "time"].map(|key| &line[key])).collect();
    // Nothing is sent while nobody is there; what is claimed when the line is back goes out.
    assert_eq!(
        sent,
        [
            [&json!({ "run": false }), &json!("2026-03-01T12:00:00Z")],
            [&json!({ "run": true }), &json!("2026-03-01T12:00:03Z")],
        ],
        "{}",
        err(&output)
    );
}
