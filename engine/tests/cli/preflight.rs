//! What `run` refuses before it touches a machine, `check` refuses too, and both say that starting again does
//! not help (exit code 3).

use super::{command, dir_with, err, out, tidegate};

const PLANT: &str =
    "name = \"box\"\n[connections.plant]\nkind = \"mqtt\"\nhost = \"localhost\"\nusername = \"box\"\n";
const STREAM: &str = "[streams.tank]\nconnection = \"plant\"\ntopic = \"tank\"\n";
const WEB: &str = "name = \"box\"\n[uplink]\nurl = \"https://localhost/x\"\n";

#[test]
fn check_and_run_agree_on_what_keeps_a_box_from_starting() {
    for (config, place, parts) in [
        (
            format!("{PLANT}password = {{ file = \"nowhere\" }}\n{STREAM}"),
            "6:",
            &["the secret file ./nowhere", "put the secret there"][..],
        ),
        (
            format!("{PLANT}password = {{ env = \"TIDEGATE_TEST_ABSENT\" }}\n{STREAM}"),
            "6:",
            &["TIDEGATE_TEST_ABSENT", "set it"],
        ),
        (
            format!("{PLANT}tls = {{ ca = \"ca.txt\" }}\n{STREAM}"),
            "6:",
            &["connection `plant`", "ca.txt", "no PEM certificate in it"],
        ),
        (format!("{WEB}bearer = {{ file = \"nowhere\" }}\n"), "4:", &["the secret file ./nowhere"]),
        (
            format!("{WEB}headers = {{ x-key = {{ env = \"TIDEGATE_TEST_ABSENT\" }} }}\n"),
            "4:",
            &["TIDEGATE_TEST_ABSENT"],
        ),
        (format!("{WEB}tls = {{ ca = \"ca.txt\" }}\n"), "4:", &["uplink `uplink`", "ca.txt"]),
        (
            format!("data_dir = \"ca.txt/data\"\n{PLANT}{STREAM}"),
            "1:",
            &["cannot make the directory", "ca.txt is a file"],
        ),
        (
            format!("{PLANT}{STREAM}[buffer]\npath = \"newer.db\"\n"),
            "10:",
            &["has layout 99", "run the newer tidegate"],
        ),
    ] {
        let dir = dir_with(&config);
        std::fs::write(dir.path().join("ca.txt"), "not a certificate\n").unwrap();
        rusqlite::Connection::open(dir.path().join("newer.db"))
            .unwrap()
            .execute_batch("PRAGMA user_version = 99")
            .unwrap();
        let check = tidegate(dir.path(), &["check"]);
        let run = tidegate(dir.path(), &["run"]);
        assert_eq!(
            (check.status.code(), run.status.code()),
            (Some(3), Some(3)),
            "{config}{}{}",
            out(&check),
            err(&run)
        );
        assert_eq!(out(&check), err(&run), "{config}");
        assert!(out(&check).starts_with(&format!("tidegate.toml:{place}")), "{}", out(&check));
        assert!(parts.iter().all(|part| out(&check).contains(part)), "{}", out(&check));
    }
}

#[test]
fn a_secret_that_is_there_only_while_a_service_runs_is_not_held_against_the_configuration() {
    let secret = "/run/credentials/tidegate-test-absent.service/plant";
    let dir = dir_with(&format!("{PLANT}password = {{ file = \"{secret}\" }}\n{STREAM}"));
    let check = tidegate(dir.path(), &["check"]);
    assert!(
        check.status.success() && out(&check).contains("only `tidegate run` can tell"),
        "{}",
        out(&check)
    );
    let run = command(dir.path(), &["run"]).output().unwrap();
    assert_eq!(run.status.code(), Some(3), "{}", err(&run));
}

#[test]
fn settings_that_other_programs_write_otherwise_say_how_they_are_written_here() {
    for (line, help) in [
        ("tls = true", "write `tls = {}`"),
        ("tls = false", "leave `tls` out"),
        ("port = \"1883\"", "write it without quotes: `port = 1883`"),
        ("client_id = 7", "write it in quotes: `client_id = \"7\"`"),
    ] {
        let dir = dir_with(&format!("{PLANT}{line}\n{STREAM}"));
        let check = tidegate(dir.path(), &["check"]);
        assert!(check.status.code() == Some(3) && out(&check).contains(help), "{line}: {}", out(&check));
    }
    for (host, help) in [
        ("mqtt://127.0.0.1:28831", "write `host = \"127.0.0.1\"` and `port = 28831`"),
        ("mqtts://me:pass@broker.example/x", "write `host = \"broker.example\"`, and `tls = {}`"),
    ] {
        let dir = dir_with(&PLANT.replace("localhost", host));
        let check = tidegate(dir.path(), &["check"]);
        assert!(check.status.code() == Some(3) && out(&check).contains(help), "{host}: {}", out(&check));
    }
}
