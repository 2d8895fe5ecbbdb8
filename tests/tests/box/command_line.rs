//! `tidegate check` and `tidegate replay`, and what they tell the shell.

use std::process::Output;

use serde_json::{Value, json};
use tidegate_tests::box_under_test::Site;

const CONFIG: &str = r#"
[connections.plant]
kind = "mqtt"
host = "localhost"

[streams.tank]
connection = "plant"
topic = "plant/{device}"
fields = { temperature = "float64" }

[outputs.pump]
connection = "plant"
topic = "pump"
"#;

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn check_counts_what_there_is() {
    let site = Site::new(CONFIG);
    site.rule("one", "INSERT INTO pump SELECT device FROM tank WHERE temperature > 80");
    site.rule("two", "INSERT INTO pump SELECT device FROM tank WHERE temperature < 70");
    let output = site.tidegate(&["check"]);
    let sum = out(&output).lines().next_back();
    assert_eq!(
        (output.status.code(), sum),
        (Some(0), Some("ok: 1 connection, 1 stream, 1 output, 2 rules; 1 warning"))
    );
    assert!(!site.path("data").exists(), "check leaves nothing behind");
}

#[test]
fn check_warns_of_what_is_probably_not_meant_and_exits_with_0() {
    let site = Site::new(&CONFIG.replace("topic = \"pump\"", "topic = \"pump/${device}\""));
    site.rule("never", "INSERT INTO pump SELECT device FROM tank WHERE temperature = NULL");
    let text = site.tidegate(&["check"]);
    assert_eq!(text.status.code(), Some(0));
    assert!(out(&text).contains("./rules/never.sql:1:62: warning: nothing is equal"), "{}", out(&text));
    assert!(
        out(&text).ends_with("ok: 1 connection, 1 stream, 1 output, 1 rule; 2 warnings\n"),
        "{}",
        out(&text)
    );
    let json = site.tidegate(&["check", "--format", "json"]);
    assert_eq!(json.status.code(), Some(0));
    let said: Vec<Value> = serde_json::from_str(out(&json)).unwrap();
    let files: Vec<_> = said.iter().map(|said| (&said["severity"], &said["file"])).collect();
    let warning = json!("warning");
    assert_eq!(files, [(&warning, &json!("tidegate.toml")), (&warning, &json!("./rules/never.sql"))]);
}

#[test]
fn check_reports_every_rule_that_is_wrong_and_exits_with_3() {
    let site = Site::new(CONFIG);
    site.rule("good", "INSERT INTO pump SELECT device FROM tank");
    site.rule("wrong", "INSERT INTO pump\nSELECT device FROM tank\nWHERE temprature > 80");
    site.rule("worse", "SELECT 1");
    let output = site.tidegate(&["check", "--format", "json"]);
    assert_eq!(output.status.code(), Some(3));
    let wrong: Vec<Value> = serde_json::from_str(out(&output)).unwrap();
    let places: Vec<_> =
        wrong.iter().map(|wrong| (&wrong["file"], &wrong["line"], &wrong["column"])).collect();
    assert_eq!(places.len(), 2, "{wrong:?}");
    let file = |name: &str| json!(format!("./rules/{name}.sql"));
    assert_eq!(places[0], (&file("worse"), &json!(1), &json!(1)));
    assert_eq!(places[1], (&file("wrong"), &json!(3), &json!(7)));
}

#[test]
fn check_of_rules_that_wait_for_data_says_so_and_passes() {
    let site = Site::new(&CONFIG.replace("fields = { temperature = \"float64\" }", ""));
    site.rule("rule", "INSERT INTO pump SELECT device, temperature FROM tank");
    let output = site.tidegate(&["check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        out(&output).contains("warning: the rule could not be checked: the columns of `tank` are not known"),
        "{output:?}"
    );
}

#[test]
fn a_missing_rules_directory_is_an_error_of_check_and_replay() {
    let site = Site::new(CONFIG);
    std::fs::remove_dir(site.path("rules")).unwrap();
    std::fs::write(site.path("in.jsonl"), "").unwrap();
    assert_eq!(site.tidegate(&["check"]).status.code(), Some(3));
    assert_eq!(site.tidegate(&["replay", "--input", "tank=in.jsonl"]).status.code(), Some(3));
}

#[test]
fn replay_writes_to_a_file_and_leaves_the_data_directory_alone() {
    let site = Site::new(CONFIG);
    site.rule("rule", "INSERT INTO pump SELECT device, temperature FROM tank WHERE temperature > 80");
    std::fs::write(site.path("in.jsonl"), "{\"ts\":1000,\"device\":\"a\",\"temperature\":81}\n").unwrap();
    let output = site.tidegate(&["replay", "--input", "tank=in.jsonl", "--output", "out.jsonl"]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), ""));
    let written = std::fs::read_to_string(site.path("out.jsonl")).unwrap();
    let cause = r#""time":"1970-01-01T00:00:01Z","seq":0,"cause":"in.jsonl:1""#;
    let row = r#""row":{"device":"a","temperature":81.0}"#;
    assert_eq!(written, format!("{{\"target\":\"pump\",\"rule\":\"rule\",{cause},{row}}}\n"));
    assert!(!site.path("data").exists());
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let site = Site::new(CONFIG);
    for args in [&["rnu"][..], &["replay"], &["replay", "--input", "tank"], &["check", "--format", "xml"]] {
        assert_eq!(site.tidegate(args).status.code(), Some(2), "{args:?}");
    }
}
