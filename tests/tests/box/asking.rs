//! A running box is asked how it is, by the real binary.

use std::fs;
use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;

const TANK: &str = r#"
[streams.tank]
connection = "plant"
topic = "plant/{device}"
fields = { temperature = "float64" }

[outputs.pump]
connection = "plant"
topic = "pump"

[uplink]
connection = "cloud"
"#;

const RULE: &str = "INSERT INTO pump SELECT device, TRUE AS run FROM tank WHERE temperature > 80;
INSERT INTO uplink SELECT device, temperature FROM tank WHERE temperature > 80;";

struct Stage {
    _plant: Mosquitto,
    cloud: Mosquitto,
    site: Site,
    the_box: RunningBox,
    devices: Client,
}

async fn stage() -> Stage {
    let (plant, cloud) = (Mosquitto::start().await, Mosquitto::start().await);
    let site =
        Site::new(&format!("{}{}{TANK}", connection("plant", &plant, "5"), connection("cloud", &cloud, "5")));
    site.rule("cooling", RULE);
    site.rule("trial", &format!("--! mode = \"shadow\"\n{RULE}"));
    let the_box = site.run();
    plant.subscribed("plant/+").await;
    let devices = Client::publisher(&plant).await;
    Stage { _plant: plant, cloud, site, the_box, devices }
}

impl Stage {
    async fn publish(&self, payloads: &[&str]) {
        self.devices
            .publish_all(payloads.iter().map(|payload| ("plant/7".to_owned(), (*payload).to_owned())))
            .await;
    }

    /// The status as soon as `is_so`, with the exit code.
    async fn status(&self, is_so: impl Fn(&Value) -> bool) -> (Value, i32) {
        let asked = async {
            loop {
                let output = self.site.tidegate(&["status", "--json"]);
                if let Ok(report) = serde_json::from_slice::<Value>(&output.stdout)
                    && is_so(&report)
                {
                    return (report, output.status.code().unwrap());
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(tidegate_tests::PATIENCE, asked).await.expect("it is never so")
    }
}

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn status_tells_what_was_published_and_what_came_of_it() {
    let stage = stage().await;
    stage
        .publish(&[
            r#"{"temperature": 79}"#,
            r#"{"temperature": 81.5}"#,
            r#"{"temperature": 82.5}"#,
            "no json",
        ])
        .await;
    let is_done = |report: &Value| {
        let delivered =
            report["uplinks"][0]["delivered"] == json!(2) && report["buffer"]["waiting"] == json!(0);
        delivered && report["outputs"][0]["written"] == json!(2)
    };
    let (report, code) = stage.status(is_done).await;
    assert_eq!((code, &report["attention"]), (0, &json!([])), "{report:#}");
    assert_eq!((&report["box"]["name"], &report["box"]["state"]), (&json!("box"), &json!("runs")));
    let plant = &report["connections"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["name"] == json!("plant"))
        .unwrap();
    assert_eq!(
        (&plant["connected"], &plant["messages"], &plant["rows"]),
        (&json!(true), &json!(4), &json!(3))
    );
    assert_eq!((&plant["counts"]["malformed"], &plant["counts"]["reconnects"]), (&json!(1), &json!(0)));
    assert_eq!(plant["gauges"]["subscriptions"], json!(1));
    let tank = &report["streams"][0];
    assert_eq!(
        (&tank["name"], &tank["connection"], &tank["rows"]),
        (&json!("tank"), &json!("plant"), &json!(3))
    );
    let newest: Value = serde_json::from_str(tank["newest"]["text"].as_str().unwrap()).unwrap();
    assert_eq!((&newest["device"], &newest["temperature"]), (&json!("7"), &json!(82.5)));
    // One writes more zeros at the end than the other.
    let time = |text: &Value| text.as_str().unwrap().trim_end_matches('Z').trim_end_matches('0').to_owned();
    assert_eq!(time(&tank["watermark"]), time(&newest["ts"]), "time of arrival");
    let rules: Vec<_> = report["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| (&rule["name"], &rule["state"], &rule["rows"]))
        .collect();
    // The one in shadow says what it would have written.
    assert_eq!(
        rules,
        [(&json!("cooling"), &json!("runs"), &json!(4)), (&json!("trial"), &json!("shadow"), &json!(4))]
    );
    // As `sha256sum` has it.
    let file = stage.site.rule_path("cooling");
    let sum = std::process::Command::new("sha256sum").arg(&file).output().unwrap();
    let sum = String::from_utf8_lossy(&sum.stdout).split_whitespace().next().unwrap().to_owned();
    assert_eq!(report["rules"][0]["version"]["sha256"], json!(sum));
    assert_eq!(report["outputs"][0]["counts"], json!({"failed": 0, "dropped": 0, "superseded": 0}));

    let text = said(&stage.site.tidegate(&["status"]));
    assert!(!text.contains('\u{2026}'), "nothing is cut where there is no terminal: {text}");
    let log = stage.the_box.log().clone();
    assert_eq!(stage.the_box.stop().await.code(), Some(0));
    let last = log.text().lines().rfind(|line| line.contains("status rows_in")).unwrap().to_owned();
    for so in ["rows_in=3", "rows_out=2", "besides=\"malformed 1\"", "uplinks_down=\"\"", " down=\"\""] {
        assert!(last.contains(so), "no {so} in {last}");
    }
    assert!(!last.contains("disk_mib_a_day"), "a few seconds are no day: {last}");
}

#[tokio::test]
async fn what_needs_a_person_is_said_and_gives_exit_code_4() {
    let mut stage = stage().await;
    let (before, _) = stage.status(|report| report["attention"] == json!([])).await;
    stage.site.rule("cooling", "INSERT INTO pump SELECT device FROM tank WHERE temprature > 80");
    stage.cloud.stop().await;
    let all = |report: &Value| report["attention"].as_array().is_some_and(|all| all.len() == 3);
    let (report, code) = stage.status(all).await;
    assert_eq!(code, 4);
    let rule = &report["rules"][0];
    assert_eq!(
        (&rule["state"], &rule["version"]["sha256"]),
        (&json!("runs"), &before["rules"][0]["version"]["sha256"])
    );
    let refused = rule["refused"]["text"].as_str().unwrap();
    assert!(refused.contains("cooling.sql:1:48: ") && refused.contains("`temperature`"), "{refused}");
    let text = said(&stage.site.tidegate(&["status"]));
    for so in [
        "NEEDS YOU connection cloud",
        "NEEDS YOU rule cooling: ",
        "NEEDS YOU uplink uplink is down",
        "the version before runs on",
    ] {
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(so), "no {so} in {text}");
    }
    stage.site.rule("cooling", RULE);
    stage.cloud.restart().await;
    let (report, code) = stage.status(|report| report["attention"] == json!([])).await;
    assert_eq!((code, &report["rules"][0]["refused"]), (0, &Value::Null));
    drop(stage.the_box);
}

#[tokio::test]
async fn a_box_that_does_not_do_what_its_files_say_needs_a_person() {
    let stage = stage().await;
    let path = stage.site.path("tidegate.toml");
    let config = fs::read_to_string(&path).unwrap();
    let attention = async |so: &str| {
        let has = |report: &Value| report["attention"].to_string().contains(so);
        assert_eq!(stage.status(has).await.1, 4);
        stage.status(has).await.0["attention"].to_string()
    };
    let with_horn = format!("{config}[outputs.horn]\nconnection = \"plant\"\ntopic = \"horn\"\n");
    fs::write(&path, &with_horn).unwrap();
    let said_so = attention("has changed since the start").await;
    assert!(said_so.contains("outputs.horn (new)") && said_so.contains("restart the box"), "{said_so}");
    stage.site.rule("horn", "INSERT INTO horn SELECT TRUE AS on FROM tank");
    let refused = attention("rule horn: ").await;
    assert!(refused.contains("the rule is right for the configuration file as it is by now"), "{refused}");
    fs::write(&path, with_horn.replace("topic = \"horn\"", "tpoic = \"horn\"")).unwrap();
    let wrong = attention("would not start with this file").await;
    assert!(wrong.contains("did you mean `topic`?"), "{wrong}");
    fs::write(&path, config).unwrap();
    fs::remove_dir_all(stage.site.path("rules")).unwrap();
    let gone = attention("the rules directory cannot be read").await;
    assert!(gone.contains("the rules that are loaded keep running"), "{gone}");
}

#[tokio::test]
async fn rows_are_shown_as_they_pass() {
    let stage = stage().await;
    let mut tail = stage.site.tidegate_running(&["tail", "tank", "--count", "2", "--json"]);
    // It is not known when it listens: rows go on until it has seen enough.
    let ended = async {
        while tail.try_wait().unwrap().is_none() {
            stage.publish(&[r#"{"temperature": 79.5}"#]).await;
        }
    };
    tokio::time::timeout(tidegate_tests::PATIENCE, ended).await.expect("it sees no row");
    let output = tail.wait_with_output().await.unwrap();
    let rows: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["row"]["temperature"], &rows[0]["row"]["device"]), (&json!(79.5), &json!("7")));
    assert_eq!(rows[1]["seq"].as_u64(), rows[0]["seq"].as_u64().map(|seq| seq + 1));
    // An output: who wrote the row, because of which row, and what the far side answered.
    let mut tail = stage.site.tidegate_running(&["tail", "pump", "-n", "1", "--json"]);
    let ended = async {
        while tail.try_wait().unwrap().is_none() {
            stage.publish(&[r#"{"temperature": 81.5}"#]).await;
        }
    };
    tokio::time::timeout(tidegate_tests::PATIENCE, ended).await.expect("it sees no row");
    let output = tail.wait_with_output().await.unwrap();
    let row: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&row["rule"], &row["row"]["run"], &row["written"]),
        (&json!("cooling"), &json!(true), &json!(true))
    );
    assert!(row["seq"].as_u64() > rows[1]["seq"].as_u64());
    let unknown = stage.site.tidegate(&["tail", "tnak"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        said(&unknown).contains("there is no stream, rule or output `tnak`; did you mean `tank`?"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_changed_configuration_needs_a_restart_and_sighup_ends_no_box() {
    let stage = stage().await;
    let reload = || stage.site.tidegate(&["reload"]);
    stage.the_box.log().wait("the box runs").await;
    stage.status(|_| true).await;
    assert_eq!(reload().status.code(), Some(0), "{}", said(&reload()));
    let path = stage.site.path("tidegate.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("topic = \"pump\"", "topic = \"pumps\"")).unwrap();
    let changed = reload();
    assert_eq!(changed.status.code(), Some(4));
    assert!(
        said(&changed).contains("restart the box to use it (nothing was changed now)\n  outputs.pump\n"),
        "{changed:?}"
    );
    stage.the_box.hang_up().await;
    stage.the_box.log().wait("restart the box to use it asked_by=\"SIGHUP\"").await;
    fs::write(&path, config.replace("topic = \"pump\"", "tpoic = \"pump\"")).unwrap();
    let wrong = reload();
    assert_eq!(wrong.status.code(), Some(3));
    assert!(said(&wrong).contains("did you mean `topic`?"), "{wrong:?}");
    stage.status(|report| report["box"]["state"] == json!("runs")).await;
    fs::write(&path, config).unwrap();
    assert_eq!(stage.the_box.stop().await.code(), Some(0));
}

#[tokio::test]
async fn the_log_level_changes_while_the_box_runs() {
    let stage = stage().await;
    stage.status(|_| true).await;
    let set = stage.site.tidegate(&["log", "debug", "--for", "10min"]);
    assert_eq!(said(&set), "the box logs debug (for 10min, then info again)\n");
    // A rule that is looked at says so at this level only.
    stage.the_box.log().wait("the log level was changed").await;
    let typo = stage.site.tidegate(&["log", "debgu"]);
    assert!(said(&typo).contains("did you mean debug?") && typo.status.code() == Some(1), "{typo:?}");
    assert_eq!(said(&stage.site.tidegate(&["log"])), "the box logs info (as it was started with)\n");
}

#[test]
fn a_box_that_does_not_run_cannot_be_asked_and_it_is_said_why() {
    let site = Site::new("");
    for args in [&["status"][..], &["tail", "tank"], &["reload"], &["log", "debug"]] {
        let output = site.tidegate(args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = said(&output);
        assert!(
            text.contains("no box runs here: there is no ") && text.contains("data/tidegate.sock"),
            "{text}"
        );
    }
    assert_eq!(site.tidegate(&["top"]).status.code(), Some(1), "there is no terminal");
}

#[tokio::test]
async fn the_demo_can_be_asked_like_any_box() {
    let site = Site::new("");
    let mut demo = site.tidegate_running(&["demo", "--plain", "--dir", "demo"]);
    let asked = async {
        loop {
            let output = site.tidegate(&["status", "--json", "--config", "demo/tidegate.toml"]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let rows = |of: &str| {
                report[of].as_array().is_some_and(|all| all.iter().any(|one| one["rows"].as_u64() > Some(0)))
            };
            let moved = |output: &str| {
                let outputs = report["outputs"].as_array().into_iter().flatten();
                outputs.filter(|one| one["name"] == output).any(|one| one["written"].as_u64() > Some(0))
            };
            if rows("streams") && rows("rules") && moved("booster_pump") && moved("dosing_pump") {
                return report;
            }
            assert!(demo.try_wait().unwrap().is_none(), "the demo has ended: {output:?}");
            tokio::task::yield_now().await;
        }
    };
    let report = tokio::time::timeout(tidegate_tests::PATIENCE, asked).await.expect("the demo never answers");
    assert_eq!(report["box"]["name"], json!("demo-box"));
    let rules: Vec<_> =
        report["rules"].as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap()).collect();
    assert_eq!(
        rules,
        [
            "alarms",
            "booster",
            "cooling",
            "dosing",
            "flow_display",
            "level_trend",
            "levels",
            "outlet_gate",
            "statistics"
        ]
    );
    // Registers are what the map says: the main is filled up from 3.2 bar, and the hours go on from 1234.5.
    let streams = report["streams"].as_array().unwrap();
    let newest = |stream: &str| -> Value {
        let stream = streams.iter().find(|of| of["name"] == stream).unwrap();
        serde_json::from_str(stream["newest"]["text"].as_str().unwrap()).unwrap()
    };
    let is_between =
        |row: &Value, column: &str, low, high| (low..high).contains(&row[column].as_f64().unwrap());
    let booster = newest("booster");
    assert!(
        is_between(&booster, "pressure", 2.5, 5.7) && is_between(&booster, "hours", 1234.5, 1235.0),
        "{booster}"
    );
    // Signals are what the database says, and telegrams what the pattern says: half a barrel of 25 kg.
    let (drive, scale) = (newest("drive"), newest("scale"));
    assert!(is_between(&drive, "Temperature", 20.0, 60.0) && drive["State"].is_string(), "{drive}");
    assert!(is_between(&scale, "net", 8.0, 12.6) && scale["unit"] == "kg", "{scale}");
    demo.kill().await.unwrap();
}

#[tokio::test]
async fn the_service_manager_hears_when_it_runs_that_it_lives_and_when_it_stops() {
    let plant = Mosquitto::start().await;
    let site = Site::new(&format!(
        "{}{}",
        connection("plant", &plant, "5"),
        TANK.split_once("\n[uplink]").unwrap().0
    ));
    let socket = UnixDatagram::bind(site.path("notify")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let manager = tokio::net::UnixDatagram::from_std(socket).unwrap();
    let the_box = site
        .run_with(&[("NOTIFY_SOCKET", site.path("notify").to_str().unwrap()), ("WATCHDOG_USEC", "300000")]);
    let hear = async |what: &str| {
        let heard = async {
            let mut text = [0; 4_096];
            loop {
                let len = manager.recv(&mut text).await.unwrap();
                if String::from_utf8_lossy(&text[..len]).lines().any(|line| line == what) {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(tidegate_tests::PATIENCE, heard).await.is_ok(), "it never says {what}");
    };
    hear("READY=1").await;
    // Nothing happens in this box, and it lives.
    hear("WATCHDOG=1").await;
    hear("WATCHDOG=1").await;
    let stopping = tokio::spawn(the_box.stop());
    hear("STOPPING=1").await;
    assert_eq!(stopping.await.unwrap().code(), Some(0));
}
