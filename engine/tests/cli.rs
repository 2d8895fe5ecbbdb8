//! The command line from outside: exit codes, what is printed, and where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

const GOOD: &str = "name = \"box\"\n[connections.plant]\nkind = \"mqtt\"\nhost = \"localhost\"\n\
    [streams.tank]\nconnection = \"plant\"\ntopic = \"tank\"\n[outputs.pump]\nconnection = \"plant\"\ntopic = \"pump\"\n";
const WRONG: &str = "name = \"box\"\n[connections.plant]\nkind = \"mqtt\"\nhots = \"localhost\"\npassword = \"hunter2\"\n";

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
    assert_eq!((output.status.code(), out(&output), err(&output)), (Some(0), "ok: 1 connection, 1 stream, 1 output, 0 rules\n", ""));
    let output = tidegate(dir.path(), &["check", "--format", "json"]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), "[]\n"));
}

#[test]
fn a_wrong_configuration_is_shown_with_lines_and_carets_but_without_its_secret() {
    let dir = dir_with(WRONG);
    let output = tidegate(dir.path(), &["check", "--config", "tidegate.toml"]);
    assert_eq!(output.status.code(), Some(3));
    let expected = "\
tidegate.toml:2:14: the key `host` is missing in [connections.plant]
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
help: keep it in a file or in the environment: `password = { file = \"..\" }` or `password = { env = \"..\" }`; \
then change the secret, since this file may have been copied
";
    assert_eq!(out(&output), expected);
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
            "message": "unknown key `hots` in [connections.plant]", "help": "did you mean `host`?" })
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
    assert_eq!(out(&output), "none.toml: there is no such configuration file\nhelp: name the file with `--config FILE`\n");
    let output = tidegate(dir.path(), &["check", "--config", "."]);
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
    for word in ["run", "check", "demo", "replay", "schema", "completions", "  3  the configuration or a rule is wrong", "TIDEGATE_LOG"] {
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
        let output = command(dir.path(), args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
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
