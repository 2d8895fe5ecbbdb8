//! The command line from outside: exit codes, what is printed, and where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "cli/backtest.rs"]
mod backtest;
#[path = "cli/preflight.rs"]
mod preflight;
#[path = "cli/replay.rs"]
mod replay;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use serde_json::{Value, json};
use tidegate::buffer::{Buffer, JournalEntry, JournalStep, OutboxRows, Uplinks};
use tidegate::config;
use tidegate::disk::SystemDisk;
use tidegate_core::clock::SystemClock;
use tidegate_core::{Ack, Rows, Seqs};

const GOOD: &str = "name = \"box\"\n[connections.plant]\nkind = \"mqtt\"\nhost = \"localhost\"\n\
    [streams.tank]\nconnection = \"plant\"\ntopic = \"tank\"\n[outputs.pump]\nconnection = \"plant\"\ntopic \
    = \"pump\"\n";
const WRONG: &str =
    "name = \"box\"\n[connections.plant]\nkind = \"mqtt\"\nhots = \"localhost\"\npassword = \"hunter2\"\n";

fn tidegate(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).current_dir(dir).stdin(Stdio::null()).env_remove("TIDEGATE_LOG");
    command
}

fn dir_with(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), config).unwrap();
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    dir
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_good_configuration_is_summed_up() {
    let dir = dir_with(GOOD);
    let output = tidegate(dir.path(), &["check"]);
    assert_eq!(
        (output.status.code(), out(&output), err(&output)),
        (Some(0), "ok: 1 connection, 1 stream, 1 output, 0 rules\n", "")
    );
    let output = tidegate(dir.path(), &["check", "--format", "json"]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), "[]\n"));
}

#[test]
fn a_wrong_configuration_is_shown_with_lines_and_carets_but_without_its_secret() {
    let dir = dir_with(WRONG);
    let output = tidegate(dir.path(), &["check", "--config", "tidegate.toml"]);
    assert_eq!(output.status.code(), Some(3));
    let expected = "tidegate.toml:2:14: the key `host` is missing in [connections.plant]
  2 | [connections.plant]
    |              ^
help: add `host = ..`

tidegate.toml:4:1: unknown key `hots` in [connections.plant]
  4 | hots = \"localhost\"
    | ^
help: did you mean `host`?

tidegate.toml:5:12: the secret `password` must not be written into this file
  5 | password = \"...\"
    |            ^
help: keep it in a file or in the environment: `password = { file = \"..\" }` or `password = { env = \"..\" \
        }`; then change the secret, since this file may have been copied
";
    assert_eq!(out(&output), expected);
}

#[test]
fn rules_that_an_uplink_names_and_that_are_not_there_are_named() {
    let uplinks = "[uplinks.night]\nurl = \"http://localhost/a\"\nrules = [\"levels\", \"alrams\"]\n\
        [uplinks.day]\nurl = \"http://localhost/b\"\nrules = [\"alarms\"]\n";
    let dir = dir_with(&format!("{GOOD}{uplinks}"));
    for rule in ["alarms", "levels"] {
        std::fs::write(
            dir.path().join("rules").join(format!("{rule}.sql")),
            "INSERT INTO pump SELECT * FROM tank",
        )
        .unwrap();
    }
    let output = tidegate(dir.path(), &["check"]);
    assert_eq!(output.status.code(), Some(3));
    let said = "tidegate.toml:13:20: there is no rule `alrams` that [uplinks.night] could take\n";
    assert!(
        out(&output).starts_with(said) && out(&output).contains("did you mean `alarms`?"),
        "{}",
        out(&output)
    );
    std::fs::rename(dir.path().join("rules/levels.sql"), dir.path().join("rules/alrams.sql")).unwrap();
    let output = tidegate(dir.path(), &["check"]);
    assert!(
        !out(&output).contains("no rule `alrams`") && out(&output).contains("there is no rule `levels`"),
        "{}",
        out(&output)
    );
}

#[test]
fn errors_as_json_are_an_array_with_places() {
    let dir = dir_with(WRONG);
    let output = tidegate(dir.path(), &["check", "--format", "json"]);
    assert_eq!(output.status.code(), Some(3));
    let diagnostics: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        diagnostics[1],
        serde_json::json!({ "file": "tidegate.toml", "line": 4, "column": 1,
            "message": "unknown key `hots` in [connections.plant]", "help": "did you mean `host`?", "severity": "error" })
    );
    assert_eq!(diagnostics.as_array().unwrap().len(), 3);
    assert!(!out(&output).contains("hunter2"));
}

#[test]
fn what_cannot_start_says_so_on_standard_error() {
    let dir = dir_with(WRONG);
    for args in [&["run"][..], &["replay", "--input", "tank=x.csv"]] {
        let output = tidegate(dir.path(), args);
        assert_eq!((output.status.code(), out(&output)), (Some(3), ""));
        assert!(err(&output).contains("tidegate.toml:4:1: unknown key `hots`"), "{}", err(&output));
    }
}

#[test]
fn a_missing_configuration_is_wrong_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let output = tidegate(dir.path(), &["check", "--config", "none.toml"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        out(&output),
        "none.toml: there is no such configuration file\nhelp: name the file with `--config FILE`\n"
    );
    let output = tidegate(dir.path(), &["check", "--config", "."]);
    assert_eq!(output.status.code(), Some(3));
}

const TANK: &str = "name = \"box\"\n[buffer]\npath = \"box.db\"\n[connections.plant]\nkind = \"mqtt\"\nhost \
    = \"localhost\"\n[streams.tank]\nconnection = \"plant\"\ntopic = \"tank\"\nfields = { at \
    = \"timestamp\", device = \"utf8\", level = \"float64\", n = \"int64\", on = \"bool\" }\n\
    [outputs.pump]\nconnection = \"plant\"\ntopic = \"pump\"\n";
const SECOND: i64 = 1_000_000_000;

/// Rows of the stream `tank` with values that are hard to write down.
fn tank() -> RecordBatch {
    let texts = [Some("007"), Some("true"), Some("a,\"b\"\nc"), None, Some("größer"), Some("null")];
    let levels = [Some(0.1 + 0.2), Some(-0.0), Some(5e-324), Some(f64::MAX), None, Some(80.0)];
    let times = |first: i64| {
        Arc::new(
            TimestampNanosecondArray::from_iter_values((0..6).map(|i| first + i * SECOND))
                .with_timezone("UTC"),
        )
    };
    let columns: [(&str, ArrayRef); 6] = [
        ("ts", times(1_772_366_400 * SECOND)),
        ("at", times(1)),
        ("device", Arc::new(StringArray::from(texts.to_vec()))),
        ("level", Arc::new(Float64Array::from(levels.to_vec()))),
        (
            "n",
            Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), None, Some(0), Some(1), Some(2)])),
        ),
        ("on", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true), None, None]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, name != "ts")))
        .unwrap()
}

/// The buffer of that directory, and its writer.
fn buffer(dir: &Path) -> (Buffer, impl Future<Output = ()> + Send + use<>) {
    let settings = config::Buffer::at(dir.join("box.db"));
    Buffer::open(&settings, Uplinks::default(), Arc::new(SystemClock), Arc::new(SystemDisk), Arc::default())
        .unwrap()
}

/// A directory with a configuration and a buffer, in which rows of `tank` are in the journal, and rows of
/// `level` and `odd` wait.
fn dir_with_buffer() -> tempfile::TempDir {
    let dir = dir_with(TANK);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (buffer, writer) = buffer(dir.path());
    let writer = runtime.spawn(writer);
    let rows = Rows { batch: tank(), seqs: Seqs::Run { first: 10 } };
    let step =
        JournalStep::Rows { stream: "tank".into(), rows: rows.clone(), marks: Vec::new(), ack: Ack::none() };
    runtime
        .block_on(
            buffer.journal(JournalEntry { id: 1, now_ns: 1, wall_ns: 1_772_366_400 * SECOND, step }, true),
        )
        .unwrap();
    let level = Rows { batch: rows.batch.project(&[0, 3]).unwrap(), seqs: rows.seqs.clone() };
    let odd = Rows { batch: rows.batch.project(&[2]).unwrap().slice(2, 1), seqs: Seqs::Run { first: 12 } };
    let of = |rule: &str, rows: Rows| OutboxRows {
        rule: rule.into(),
        ordinals: vec![0; rows.len()],
        rows,
        delivery: tidegate_rules::DeliveryPolicy::default(),
        now_ns: 1,
        ack: Ack::none(),
    };
    runtime.block_on(buffer.append(vec![of("level", level), of("odd", odd)])).unwrap();
    runtime.block_on(buffer.close());
    runtime.block_on(writer).unwrap();
    dir
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_in_a_buffer_is_shown_to_people_and_to_programs() {
    let dir = dir_with_buffer();
    let output = tidegate(dir.path(), &["buffer", "stats"]);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    for line in [
        "7 rows in 2 blocks",
        "from row 10 of 2026-03-01T12:00:00Z to row 15 of",
        "refused   nothing",
        "6 rows in 1 entry",
    ] {
        assert!(out(&output).contains(line), "{line}: {}", out(&output));
    }
    let output = tidegate(dir.path(), &["buffer", "stats", "--buffer", "box.db", "--format", "json"]);
    let stats: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&stats["layout"], &stats["outbox"]["rows"], &stats["journal"]["streams"][0]["rows"]),
        (&json!(6), &json!(7), &json!(6))
    );
    assert_eq!(stats["outbox"]["oldest"], json!({ "seq": 10, "wall_ns": 1_772_366_400 * SECOND }));
}

#[test]
fn waiting_rows_are_shown_as_the_uplink_sends_them() {
    let dir = dir_with_buffer();
    let output = tidegate(dir.path(), &["buffer", "peek", "--limit", "1"]);
    let expected = "{\"id\":\"box/level/10/0\",\"rule\":\"level\",\"row\":{\"ts\":\"2026-03-01T12:00:00Z\",\"level\":0.30000000000000004}}\n";
    assert_eq!((output.status.code(), out(&output), err(&output)), (Some(0), expected, ""));
    let output = tidegate(dir.path(), &["buffer", "peek", "--buffer", "box.db", "--newest", "--limit", "1"]);
    assert_eq!(
        out(&output),
        "{\"id\":\"odd/12/0\",\"rule\":\"odd\",\"row\":{\"device\":\"a,\\\"b\\\"\\nc\"}}\n"
    );
    let output = tidegate(dir.path(), &["buffer", "peek", "--stream", "tank", "--limit", "100"]);
    let found = lines(out(&output));
    assert_eq!((found.len(), &found[3]["seq"], &found[3]["stream"]), (6, &json!(13), &json!("tank")));
    assert_eq!(
        found[3]["row"],
        json!({ "ts": "2026-03-01T12:00:03Z", "at": "1970-01-01T00:00:03.000000001Z", "device": null,
        "level": f64::MAX, "n": 0, "on": true })
    );
    let output = tidegate(dir.path(), &["buffer", "peek", "--rule", "levle"]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), ""));
    assert!(
        err(&output).contains("none that were asked for") && err(&output).contains("level, odd"),
        "{}",
        err(&output)
    );
}

#[test]
fn an_exported_stream_is_replayed_to_the_same_rows() {
    let dir = dir_with_buffer();
    std::fs::write(dir.path().join("rules/all.sql"), "INSERT INTO pump SELECT * FROM tank").unwrap();
    let rows: Vec<Value> = lines(out(&tidegate(dir.path(), &["buffer", "peek", "--stream", "tank"])))
        .iter()
        .map(|line| line["row"].clone())
        .collect();
    assert_eq!(rows.len(), 6);
    for file in ["tank.jsonl", "tank.csv"] {
        let output = tidegate(dir.path(), &["buffer", "export", "--stream", "tank", "--output", file]);
        assert_eq!((output.status.code(), out(&output), err(&output)), (Some(0), "", ""));
        let output = tidegate(dir.path(), &["replay", "--input", &format!("tank={file}")]);
        let replayed: Vec<Value> = lines(out(&output)).iter().map(|line| line["row"].clone()).collect();
        assert_eq!(replayed, rows, "{file}: {}", err(&output));
    }
    // All of them came at 12:00:00, whatever their `ts` is.
    for (since, until, count) in [
        ("2026-03-01T12:00:00Z", "2026-03-01T13:00:01+01:00", 6),
        ("2026-03-01T12:00:01Z", "2026-03-02", 0),
        ("2026-03-01", "2026-03-01T12:00:00Z", 0),
    ] {
        let between =
            ["buffer", "export", "--stream", "tank", "--since", since, "--until", until, "--output", "-"];
        let output = tidegate(dir.path(), &between);
        assert_eq!(lines(out(&output)), rows[..count], "{since} {until}");
    }
}

#[test]
fn exported_rows_of_rules_keep_their_identities() {
    let dir = dir_with_buffer();
    let output = tidegate(dir.path(), &["buffer", "export", "--output", "-"]);
    let peeked = tidegate(dir.path(), &["buffer", "peek", "--limit", "100"]);
    assert_eq!((lines(out(&output)).len(), out(&output)), (7, out(&peeked)));
    let output = tidegate(dir.path(), &["buffer", "export", "--output", "all.csv"]);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    let table = std::fs::read_to_string(dir.path().join("all.csv")).unwrap();
    assert!(
        table.starts_with(
            "id,rule,row.ts,row.level,row.device\n\
            box/level/10/0,level,2026-03-01T12:00:00Z,0.30000000000000004,\n"
        ),
        "{table}"
    );
    assert!(table.ends_with("box/odd/12/0,odd,,,\"a,\"\"b\"\"\nc\"\n"), "{table}");
    // Rows without `ts`, too.
    let output = tidegate(dir.path(), &["buffer", "export", "--since", "2026-03-01", "--output", "-"]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), out(&peeked)));
    let output = tidegate(dir.path(), &["buffer", "export", "--output", "rows.parquet"]);
    assert_eq!(
        err(&output),
        "tidegate: rows.parquet does not say how to write rows: name it FILE.jsonl or FILE.csv\n"
    );
}

#[test]
fn rows_are_purged_only_when_that_is_said_and_no_box_has_them() {
    let dir = dir_with_buffer();
    let output = tidegate(dir.path(), &["buffer", "purge", "--rule", "level"]);
    assert_eq!((output.status.code(), out(&output)), (Some(1), ""));
    assert!(
        err(&output).starts_with("tidegate: nothing was deleted: this would delete 6 rows of 1 block"),
        "{}",
        err(&output)
    );
    let running = buffer(dir.path());
    let output = tidegate(dir.path(), &["buffer", "purge", "--rule", "level", "--yes"]);
    assert_eq!((output.status.code(), out(&output)), (Some(1), ""));
    assert_eq!(
        err(&output),
        "tidegate: the buffer ./box.db is in use by a box that runs: stop the box first, and start it again \
        afterwards\n"
    );
    drop(running);
    let output = tidegate(dir.path(), &["buffer", "purge", "--rule", "level", "--yes"]);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    assert!(out(&output).starts_with("deleted 6 rows of 1 block ("), "{}", out(&output));
    let stats: Value =
        serde_json::from_slice(&tidegate(dir.path(), &["buffer", "stats", "--format", "json"]).stdout)
            .unwrap();
    let gap = &stats["gaps"][0];
    assert_eq!(
        (&stats["outbox"]["rows"], &gap["rule"], &gap["reason"], &gap["rows"]),
        (&json!(1), &json!("level"), &json!("purged"), &json!(6))
    );
    let output = tidegate(dir.path(), &["buffer", "purge", "--gaps", "--yes", "--format", "json"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        json!({ "entries": 1, "rows": 6, "bytes": 0 })
    );
}

#[test]
fn a_buffer_is_verified_and_what_is_wrong_is_named() {
    let dir = dir_with_buffer();
    let output = tidegate(dir.path(), &["buffer", "verify"]);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    assert_eq!(
        out(&output),
        "ok: 2 blocks, 0 gap records, 1 journal entry, 0 states, 0 sources of rules and tables, 0 decisions\n"
    );
    rusqlite::Connection::open(dir.path().join("box.db"))
        .unwrap()
        .execute("UPDATE block SET rows = 7 WHERE id = 1", [])
        .unwrap();
    let output = tidegate(dir.path(), &["buffer", "verify", "--buffer", "box.db"]);
    assert_eq!(output.status.code(), Some(1));
    let expected =
        "table meta: `waiting` is 7, but there are 8 rows that wait\nblock 1: `rows` is 7, but it holds 6\n";
    assert_eq!(out(&output), expected);
    assert!(err(&output).starts_with("tidegate: the buffer box.db has 2 problems; "), "{}", err(&output));
    let output = tidegate(dir.path(), &["buffer", "verify", "--format", "json"]);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &verdict["problems"][1]["place"]), (Some(1), &json!("block 1")));
}

#[test]
fn what_is_no_buffer_is_an_error_of_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let texts = [
        ("none.db", "there is no buffer none.db: a box makes it when it first runs"),
        ("noise.db", "cannot use the buffer noise.db: file is not a database; check the disk"),
        ("newer.db", "the buffer newer.db has layout 99, this program knows 6; run the newer tidegate"),
        ("foreign.db", "foreign.db is another program's database, with a table \"letters\""),
    ];
    std::fs::write(dir.path().join("noise.db"), [7; 9000]).unwrap();
    for (name, version) in [("newer.db", 99), ("foreign.db", 0)] {
        let raw = rusqlite::Connection::open(dir.path().join(name)).unwrap();
        raw.execute_batch(&format!("CREATE TABLE letters (text); PRAGMA user_version = {version}")).unwrap();
    }
    let commands: [&[&str]; 5] =
        [&["stats"], &["peek"], &["export", "--output", "-"], &["purge", "--gaps", "--yes"], &["verify"]];
    for (name, text) in texts {
        for command in commands {
            let output = tidegate(dir.path(), &[&["buffer"], command, &["--buffer", name]].concat());
            assert_eq!((output.status.code(), out(&output)), (Some(1), ""), "{command:?} {name}");
            assert!(err(&output).contains(text), "{command:?} {name}: {}", err(&output));
        }
    }
    let output = tidegate(dir.path(), &["buffer", "stats"]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_wrong_command_line_is_exit_code_two() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["chekc"],
        &["check", "--fromat", "json"],
        &["replay"],
        &["replay", "--input", "tank"],
        &["buffer"],
        &["buffer", "peek", "--rule", "a", "--stream", "b"],
        &["buffer", "purge", "--yes"],
        &["buffer", "purge", "--gaps", "--refused", "--yes"],
        &["buffer", "export"],
        &["buffer", "export", "--stream", "tank", "--since", "yesterday", "--output", "-"],
        &["-v", "--log-level", "warn", "schema"],
    ] {
        let output = tidegate(dir.path(), args);
        assert_eq!((output.status.code(), out(&output)), (Some(2), ""), "{args:?}");
        assert!(!err(&output).is_empty());
    }
}

#[test]
fn the_schema_is_json_and_names_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let output = tidegate(dir.path(), &["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for table in ["connections", "streams", "outputs", "uplink", "rules", "buffer"] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
}

#[test]
fn completions_exist_for_the_usual_shells() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = tidegate(dir.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains("replay"), "{shell}");
    }
}

#[test]
fn help_names_every_command_and_every_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let output = tidegate(dir.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "run",
        "check",
        "explain",
        "demo",
        "replay",
        "buffer",
        "schema",
        "completions",
        "  3  the configuration or a rule is wrong",
        "TIDEGATE_LOG",
    ] {
        assert!(out(&output).contains(word), "{word}");
    }
    let output = tidegate(dir.path(), &["--version"]);
    assert_eq!(out(&output), format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let dir = dir_with(GOOD);
    for args in [&["schema"][..], &["check"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(dir.path(), args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!((output.status.code(), err(&output)), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_log_filter_that_cannot_be_understood_is_named() {
    let dir = dir_with(GOOD);
    let output = command(dir.path(), &["check"]).env("TIDEGATE_LOG", "info,=,x=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("TIDEGATE_LOG"), "{}", err(&output));
}

const COOLING: &str = "--! description = \"Cool the tank\"\n--! lateness = \"2s\"\nINSERT INTO pump SELECT \
    device, TRUE AS run FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, \
    window_end, device HAVING avg(level) > 80";

fn dir_with_rules() -> tempfile::TempDir {
    let dir = dir_with(TANK);
    let rules = [
        ("cooling", COOLING),
        (
            "high",
            "INSERT INTO pump SELECT device FROM tank WHERE device = 'it''s' AND level > 80.5 AND \
            sqrt(level) <> 9",
        ),
        ("full", "INSERT INTO pump SELECT device, level * 2 AS twice FROM tank WHERE level BETWEEN 1 AND 3"),
        ("wrong", "INSERT INTO pump SELECT devce FROM tank"),
    ];
    for (name, text) in rules {
        std::fs::write(dir.path().join("rules").join(name).with_extension("sql"), text).unwrap();
    }
    dir
}

#[test]
fn a_rule_is_explained_with_its_operators_and_its_neighbours() {
    let dir = dir_with_rules();
    let output = tidegate(dir.path(), &["explain", "high"]);
    let expected = "\
rule high (./rules/high.sql), active

INSERT INTO pump
  compute device
    filter sqrt(level) != 9
      filter device = 'it''s' AND level > 80.5
        stream tank

stream tank: rows with device = 'it''s' and level from 80.5 up; 2 other rules read it, 1 by index
on one worker with: cooling, full
";
    assert_eq!((output.status.code(), out(&output), err(&output)), (Some(0), expected, ""));
    let output = tidegate(dir.path(), &["explain", "cooling"]);
    let text = out(&output);
    assert!(
        text.starts_with("rule cooling (./rules/cooling.sql), active\n  Cool the tank\n\nINSERT INTO pump\n"),
        "{text}"
    );
    for line in [
        "        stream tank\n",
        "\nstream tank: every row; 2 other rules read it, 2 by index\n",
        "\ntime: lateness 2s, idle_after none\nstate: up to 64MiB, then the rule stops\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(!text.contains('@'), "{text}");
}

#[test]
fn it_is_explained_with_whom_a_window_is_shared() {
    let dir = dir_with_rules();
    let other = COOLING.replace("> 80", "> 95").replace("INSERT INTO pump", "INSERT INTO uplink");
    std::fs::write(dir.path().join("rules/hotter.sql"), other).unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), TANK.to_owned() + "[uplink]\nconnection = \"plant\"\n")
        .unwrap();
    let output = tidegate(dir.path(), &["explain", "cooling"]);
    let shared: Vec<&str> = out(&output)
        .lines()
        .filter(|line| line.ends_with(" [once for this rule and hotter]"))
        .map(str::trim)
        .collect();
    assert!(
        matches!(shared[..], [window] if window.starts_with("aggregate TUMBLE(tank")),
        "{}{}",
        out(&output),
        err(&output)
    );
}

#[test]
fn a_rule_file_from_elsewhere_is_explained_in_place_of_its_older_version_also_as_json() {
    let dir = dir_with_rules();
    std::fs::write(dir.path().join("full.sql"), "INSERT INTO uplink SELECT n FROM tank WHERE n IN (1, 2)")
        .unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), TANK.to_owned() + "[uplink]\nconnection = \"plant\"\n")
        .unwrap();
    let output = tidegate(dir.path(), &["explain", "full.sql", "--format", "json"]);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "rule": "full",
        "file": "full.sql",
        "description": null,
        "mode": "active",
        "lateness": "0s",
        "idle_after": null,
        "max_state": "64MiB",
        "when_state_full": "stop",
        "statements": [{ "statement": "INSERT INTO uplink", "operators": [
            { "depth": 1, "does": "compute n", "shared_with": [] },
            { "depth": 2, "does": "filter n = 1 OR n = 2", "shared_with": [] },
            { "depth": 3, "does": "stream tank", "shared_with": [] },
        ] }],
        "streams": [{ "stream": "tank", "indexed_by": ["n = 1", "n = 2"], "other_rules": 2, "other_rules_indexed": 1 }],
        "on_one_worker_with": [],
    });
    assert_eq!(found, expected);
}

#[test]
fn a_rule_that_is_wrong_or_not_there_cannot_be_explained() {
    let dir = dir_with_rules();
    let output = tidegate(dir.path(), &["explain", "wrong"]);
    assert_eq!((output.status.code(), out(&output)), (Some(3), ""));
    assert!(
        err(&output).starts_with("./rules/wrong.sql:1:25: there is no column `devce`"),
        "{}",
        err(&output)
    );
    let output = tidegate(dir.path(), &["explain", "coling"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(err(&output), "./rules: there is no rule `coling`\nhelp: did you mean `cooling`?\n");
}
