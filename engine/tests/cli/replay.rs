//! `tidegate replay`: what it reads, what it leaves out and says, and what it prints.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{command, dir_with, err, lines, out, tidegate};

const CONFIG: &str = r#"
name = "box"
[connections.plant]
kind = "mqtt"
host = "localhost"
[streams.s]
connection = "plant"
topic = "s/{device}"
ts = "time"
fields = { v = "float64", w = "float64", t = "utf8" }
[outputs.out]
connection = "plant"
topic = "out"
[uplink]
connection = "plant"
"#;

fn site(rule: &str) -> tempfile::TempDir {
    let dir = dir_with(CONFIG);
    std::fs::write(dir.path().join("rules/rule.sql"), rule).unwrap();
    dir
}

fn write(dir: &tempfile::TempDir, file: &str, text: &str) {
    std::fs::write(dir.path().join(file), text).unwrap();
}

/// Standard error and the exit code of a replay of `text`, which is written to `file` as rows of `s`.
fn said(dir: &tempfile::TempDir, file: &str, text: &str) -> (Option<i32>, String) {
    write(dir, file, text);
    let output = tidegate(dir.path(), &["replay", "--input", &format!("s={file}")]);
    (output.status.code(), err(&output).to_owned())
}

#[test]
fn rows_that_cannot_be_computed_are_counted_whole_at_the_end() {
    let dir = site("INSERT INTO uplink SELECT ts, CAST(t AS DOUBLE) AS x FROM s;");
    let row = |second: usize| {
        let t = if second.is_multiple_of(2) { "1" } else { "x" };
        format!("{{\"ts\": \"2026-01-01T00:00:{second:02}Z\", \"device\": \"a\", \"t\": \"{t}\"}}\n")
    };
    let (code, said) = said(&dir, "in.jsonl", &(0..20).map(row).collect::<String>());
    assert_eq!(code, Some(0));
    assert!(
        said.contains("rows=10") && said.contains("targets=\"uplink 10\"") && said.contains("left_out=10"),
        "{said}"
    );
    let last = said.lines().last().unwrap();
    assert!(last.contains("the results are without them") && last.contains("left_out=10"), "{said}");
    assert!(said.contains("rows=20") && said.contains("from=\"2026-01-01T00:00:00Z\""), "{said}");
}

#[test]
fn a_rule_that_was_stopped_is_said_at_the_end_and_by_the_exit_code() {
    let dir = site(
        "--! max_state = \"64KiB\"
        INSERT INTO uplink SELECT array_agg(t) AS l FROM TUMBLE(s, DESCRIPTOR(ts), INTERVAL '1' DAY) GROUP \
        BY window_start, window_end;",
    );
    let row = |n: usize| format!("{{\"ts\": {n}, \"device\": \"a\", \"t\": \"{}\"}}\n", "x".repeat(1000));
    let (code, said) = said(&dir, "in.jsonl", &(0..200).map(row).collect::<String>());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("was stopped before the end"), "{said}");
    assert!(said.contains("tidegate: stopped before the end: rule `rule`, since "), "{said}");
}

#[test]
fn a_column_whose_name_is_written_wrong_is_said() {
    let dir = site("INSERT INTO uplink SELECT ts, v FROM s;");
    let csv = "ts,device,V\n2026-01-01T00:00:00Z,7,95\n2026-01-01T00:00:01Z,7,96\n";
    let json = "{\"ts\":\"2026-01-01T00:00:00Z\",\"device\":\"7\",\"V\":95}\n\
        {\"ts\":\"2026-01-01T00:00:01Z\",\"V\":96}\n";
    for (file, text) in [("in.csv", csv), ("in.jsonl", json)] {
        let (code, said) = said(&dir, file, text);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            said.matches("a column `V` that the stream does not have; did you mean `v`?").count(),
            1,
            "{said}"
        );
        assert!(said.contains("always_null=\"t, v, w\""), "{said}");
    }
}

#[test]
fn a_flood_of_wrong_values_is_said_once_and_counted() {
    let dir = site("INSERT INTO uplink SELECT ts, v FROM s;");
    let rows: String =
        (0..300).map(|n| format!("2026-01-01T00:{:02}:{:02}Z,a,\"79,5\"\n", n / 60, n % 60)).collect();
    let (code, said) = said(&dir, "in.csv", &format!("ts,device,v\n{rows}"));
    assert_eq!((code, said.matches("79,5").count()), (Some(0), 1), "{said}");
    assert!(said.contains("write the decimal point as `.`") && said.contains("wrong_values=300"), "{said}");
}

#[test]
fn a_recording_whose_first_row_is_none_is_refused_with_advice() {
    let dir = site("INSERT INTO uplink SELECT ts, v FROM s;");
    for (file, text, place, parts) in [
        (
            "a.csv",
            "ts;device;v\n2026-01-01T00:00:00Z;a;1\n",
            "a.csv:1:1: ",
            &["separated by `;`", "separate them with `,`"][..],
        ),
        (
            "b.csv",
            "time,device,v\n2026-01-01T00:00:00Z,a,1\n",
            "b.csv:1:1: ",
            &["no `ts`", "`time`, `device`, `v`", "call it `ts`"],
        ),
        (
            "c.csv",
            "ts,v\n2026-01-01 10:00:00,1\n",
            "c.csv:2:",
            &["`ts` is \"2026-01-01 10:00:00\"", "RFC 3339 with its offset"],
        ),
        ("d.csv", "ts,v\n,1\n", "d.csv:2:", &["`ts` is empty"]),
        (
            "e.jsonl",
            "\n{\"timestamp\":5,\"v\":1}\n",
            "e.jsonl:2:",
            &["no `ts`", "if `timestamp` is the event time"],
        ),
        ("f.jsonl", "{\"ts\":5,\"v\":oops}\n", "f.jsonl:1:13: ", &["not JSON"]),
    ] {
        let (code, said) = said(&dir, file, text);
        assert!(code == Some(3) && said.starts_with(place), "{file}: {code:?} {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{file}: {said}");
    }
}

#[test]
fn a_later_row_that_cannot_be_read_costs_itself() {
    let dir = site("INSERT INTO uplink SELECT ts, v FROM s;");
    let text = "{\"ts\":1000,\"v\":1}\n{\"v\":2}\n{\"ts\":3000,\"v\":3}\n{\"ts\":4000,\"v\":";
    write(&dir, "in.jsonl", text);
    let output = tidegate(dir.path(), &["replay", "--input", "s=in.jsonl"]);
    assert_eq!(output.status.code(), Some(0));
    let values: Vec<Value> = lines(out(&output)).iter().map(|line| line["row"]["v"].clone()).collect();
    assert_eq!(values, [json!(1.0), json!(3.0)]);
    assert!(err(&output).contains("line=2") && err(&output).contains("left_out=2"), "{}", err(&output));
}

#[test]
fn a_result_says_when_and_why() {
    let dir = site(
        "--! idle_after = \"10s\"\n\
         INSERT INTO out SELECT device, v FROM s WHERE v > 80;\n\
         INSERT INTO uplink SELECT window_end AS ts, count(*) AS n \
         FROM TUMBLE(s, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;",
    );
    let text =
        "ts,device,v\n2026-01-01T00:00:00Z,a,79\n2026-01-01T00:00:01Z,a,81\n2026-01-01T00:01:00Z,a,82\n";
    write(&dir, "in.csv", text);
    let output = tidegate(dir.path(), &["replay", "--input", "s=in.csv"]);
    let causes: Vec<(Value, Value, Value, Value)> = lines(out(&output))
        .iter()
        .map(|line| {
            (line["target"].clone(), line["time"].clone(), line["seq"].clone(), line["cause"].clone())
        })
        .collect();
    let cause = |target: &str, time: &str, seq: u64, cause: &str| {
        (json!(target), json!(time), json!(seq), json!(cause))
    };
    let time =
        causes.get(1).map(|(_, time, ..)| time.as_str().unwrap_or_default().to_owned()).unwrap_or_default();
    assert!(time.starts_with("2026-01-01T00:00:11"), "10 s after the last row: {time}");
    let expected = [
        cause("out", "2026-01-01T00:00:01Z", 1, "in.csv:3"),
        cause("uplink", &time, 2, "time"),
        cause("out", "2026-01-01T00:01:00Z", 3, "in.csv:4"),
        cause("uplink", "2026-01-01T00:01:00Z", 4, "end"),
    ];
    assert_eq!(causes, expected, "{}", err(&output));
}

#[test]
fn standard_input_is_a_recording_too() {
    let dir = site("INSERT INTO uplink SELECT ts, v FROM s;");
    for text in ["ts,device,v\n1000,a,1\n", "{\"ts\":1000,\"v\":1}\n"] {
        let mut replay = command(dir.path(), &["replay", "--input", "s=-"]);
        let mut replay =
            replay.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        replay.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = replay.wait_with_output().unwrap();
        assert_eq!(lines(out(&output)).len(), 1, "{text} {}", err(&output));
    }
    let output = tidegate(dir.path(), &["replay", "--input", "s=-", "--raw", "-"]);
    assert!(output.status.code() == Some(3) && err(&output).contains("only one"), "{}", err(&output));
}

#[test]
fn messages_are_decoded_as_a_box_does_it() {
    let config =
        CONFIG.replace("ts = \"time\"\n", "ts = { path = \"at\", unit = \"s\" }\nrows = \"readings\"\n");
    let dir = dir_with(&config);
    write(&dir, "rules/rule.sql", "INSERT INTO uplink SELECT ts, device, v FROM s;");
    let message = |tst: &str, topic: &str, payload: &str| {
        let message = json!({ "tst": tst, "topic": topic, "qos": 1, "retain": 0, "payloadlen": payload.len(), "payload": payload });
        format!("{message}\n")
    };
    let text = [
        message(
            "2026-01-01T00:00:05.000000Z+0000",
            "s/press",
            r#"{"site":"north","readings":[{"at":1,"v":79.5},{"at":2,"v":81}]}"#,
        ),
        message("2026-01-01T00:00:06.000000Z+0000", "other", "{}"),
        message("2026-01-01T00:00:06.500000Z+0000", "s/press", "{\"site\":"),
        message("2026-01-01T00:00:07.000000Z+0000", "s/pump", r#"{"readings":[{"at":3,"v":"high"}]}"#),
    ];
    write(&dir, "day.jsonl", &text.concat());
    let output = tidegate(dir.path(), &["replay", "--raw", "plant=day.jsonl"]);
    let rows: Vec<Value> = lines(out(&output)).iter().map(|line| line["row"].clone()).collect();
    let row = |ts: &str, device: &str, v: Option<f64>| json!({ "ts": ts, "device": device, "v": v });
    let expected = [
        row("1970-01-01T00:00:01Z", "press", Some(79.5)),
        row("1970-01-01T00:00:02Z", "press", Some(81.0)),
        row("1970-01-01T00:00:03Z", "pump", None),
    ];
    assert_eq!(rows, expected, "{}", err(&output));
    for part in ["topic=\"other\"", "no_stream=1", "left_out=1", "wrong_values=1", "rows=3"] {
        assert!(err(&output).contains(part), "{part}: {}", err(&output));
    }
    let output = tidegate(dir.path(), &["replay", "--raw", "plnat=day.jsonl"]);
    assert!(
        output.status.code() == Some(3) && err(&output).contains("did you mean `plant`?"),
        "{}",
        err(&output)
    );
}

#[test]
fn columns_of_messages_are_inferred_and_times_of_arrival_are_the_recordings() {
    let dir = dir_with(
        &CONFIG.replace("ts = \"time\"\nfields = { v = \"float64\", w = \"float64\", t = \"utf8\" }\n", ""),
    );
    write(&dir, "rules/rule.sql", "INSERT INTO uplink SELECT ts, device, b FROM s WHERE b > 1;");
    write(&dir, "day.txt", "1767225600.5 s/a {\"b\": 1}\n1767225601.25 s/a {\"b\": 2.5, \"c\": true}\n");
    let output = tidegate(dir.path(), &["replay", "--raw", "day.txt"]);
    let rows: Vec<Value> = lines(out(&output)).iter().map(|line| line["row"].clone()).collect();
    assert_eq!(
        rows,
        [json!({ "ts": "2026-01-01T00:00:01.250Z", "device": "a", "b": 2.5 })],
        "{}",
        err(&output)
    );
    // Without times only that stream is left out.
    let other = "[streams.timed]\nconnection = \"plant\"\ntopic = \"timed\"\nts = \"t\"\nfields = { v \
        = \"int64\" }\n";
    let config = std::fs::read_to_string(dir.path().join("tidegate.toml")).unwrap();
    write(&dir, "tidegate.toml", &format!("{config}\n{other}"));
    write(&dir, "rules/timed.sql", "INSERT INTO uplink SELECT ts, v FROM timed;");
    write(&dir, "day.txt", "s/a {\"b\": 2}\ntimed {\"t\": 1000, \"v\": 7}\ns/a {\"b\": 3}\n");
    let output = tidegate(dir.path(), &["replay", "--raw", "day.txt"]);
    let rows: Vec<Value> = lines(out(&output)).iter().map(|line| line["row"].clone()).collect();
    assert_eq!(rows, [json!({ "ts": "1970-01-01T00:00:01Z", "v": 7 })], "{}", err(&output));
    for part in ["stream=s", "mosquitto_sub -F %j", "no_time=2"] {
        assert!(err(&output).contains(part), "{part}: {}", err(&output));
    }
    assert_eq!(err(&output).matches("its messages are left out").count(), 1, "{}", err(&output));
    assert!(!Path::new(&dir.path().join("data")).exists());
}
