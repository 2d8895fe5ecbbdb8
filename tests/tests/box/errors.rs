//! What people are told when something is wrong: each text is kept in `tests/golden/errors`.

use serde_json::json;
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::golden;
use tidegate_tests::mosquitto::Mosquitto;

const TANK: &str = r#"
[streams.tank]
connection = "plant"
topic = "plant/{device}"
fields = { temperature = "float64", ok = "bool", n = "int64" }

[outputs.pump]
connection = "plant"
topic = "pump/{device}"
"#;

fn compare(said: &str, name: &str) {
    if let Err(difference) = golden::compare(said, &golden::dir().join("errors").join(name)) {
        panic!("{difference}");
    }
}

/// Without what differs from run to run: the site's directory, the broker's port, and the time before each
/// log line.
fn normalised(text: &str, site: &Site, port: Option<u16>) -> String {
    let dir = site.path("").display().to_string();
    let mut said = String::new();
    for line in text.lines() {
        let is_time = |word: &&str| word.len() > 20 && word.ends_with('Z') && word.starts_with("20");
        let line = line
            .split_once(' ')
            .filter(|(word, _)| is_time(word))
            .map_or(line, |(_, rest)| rest.trim_start());
        let line = line.replace(dir.as_str(), "");
        said.push_str(&port.map_or_else(|| line.clone(), |port| line.replace(&port.to_string(), "PORT")));
        said.push('\n');
    }
    said
}

#[test]
fn wrong_configuration() {
    let site = Site::new(
        "data-dir = \"data\"\n[connections.plant]\nkind = \"mqtt\"\nhost = \"localhost\"\nkeep_alive \
        = \"30\"\nmax_packet = \"1 mile\"\n[streams.tank]\nconnection = \"plnt\"\ntopic = \"plant/#/x\"\n\
        fields = { temperature = \"float\" }\n[outputs.tank]\nconnection = \"plant\"\ntopic = \"a/+\"\nqos \
        = 2\n[uplink]\nconnection = \"cloud\"\n",
    );
    for command in ["check", "run"] {
        let output = site.tidegate(&[command, "--config", "tidegate.toml"]);
        assert_eq!(output.status.code(), Some(3), "{command}");
        // `check` was asked for a result; for `run` it is an error.
        let said = if command == "check" { output.stdout } else { output.stderr };
        compare(&normalised(std::str::from_utf8(&said).unwrap(), &site, None), "configuration.txt");
    }
}

#[test]
fn configuration_that_is_not_toml() {
    let site = Site::new("[connections.plant\nkind = \"mqtt\"\n");
    let output = site.tidegate(&["run", "--config", "tidegate.toml"]);
    assert_eq!(output.status.code(), Some(3));
    compare(&normalised(std::str::from_utf8(&output.stderr).unwrap(), &site, None), "not_toml.txt");
}

#[test]
fn no_configuration() {
    let site = Site::new("");
    let output = site.tidegate(&["run", "--config", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(3));
    compare(std::str::from_utf8(&output.stderr).unwrap(), "no_configuration.txt");
}

#[test]
fn wrong_rules() {
    let site = Site::new(&format!("[connections.plant]\nkind = \"mqtt\"\nhost = \"localhost\"\n{TANK}"));
    for (name, text) in [
        ("column", "INSERT INTO pump\nSELECT device, temprature FROM tank"),
        ("dice", "INSERT INTO pump SELECT device, random() AS at FROM tank"),
        ("endless", "INSERT INTO pump SELECT device, avg(temperature) AS mean FROM tank GROUP BY device"),
        ("option", "--! mode = \"of\"\n--! latness = \"1s\"\nINSERT INTO pump SELECT device FROM tank"),
        ("order", "INSERT INTO pump SELECT device FROM tank ORDER BY temperature"),
        ("output", "INSERT INTO pmp SELECT device FROM tank"),
        ("stream", "INSERT INTO pump SELECT device FROM tnk"),
        ("syntax", "INSERT INTO pump\nSELECT device FORM tank"),
        ("template", "INSERT INTO pump SELECT temperature FROM tank"),
        ("types", "INSERT INTO pump SELECT device FROM tank WHERE temperature"),
        ("uplink", "INSERT INTO uplink SELECT device FROM tank"),
    ] {
        site.rule(name, text);
    }
    let output = site.tidegate(&["check", "--config", "tidegate.toml"]);
    assert_eq!(output.status.code(), Some(3));
    compare(&normalised(std::str::from_utf8(&output.stdout).unwrap(), &site, None), "rules.txt");
}

#[test]
fn wrong_recordings() {
    let site = Site::new(&format!("[connections.plant]\nkind = \"mqtt\"\nhost = \"localhost\"\n{TANK}"));
    let mut said = String::new();
    for (stream, file, text) in [
        ("tnk", "good.jsonl", "{\"ts\":\"2026-03-01T00:00:00Z\"}\n"),
        ("tank", "not_json.jsonl", "\n\n{\"ts\": oops}\n"),
        ("tank", "no_time.jsonl", "{\"temperature\":80}\n"),
        ("tank", "local_time.jsonl", "{\"ts\":\"2026-03-01 00:00:00\"}\n"),
        ("tank", "ragged.csv", "ts,temperature\n2026-03-01T00:00:01Z,1,2\n"),
        ("tank", "semicolons.csv", "ts;temperature\n2026-03-01T00:00:00Z;1\n"),
        ("tank", "no_ts.csv", "time,temperature\n2026-03-01T00:00:00Z,1\n"),
    ] {
        std::fs::write(site.path(file), text).unwrap();
        let output =
            site.tidegate(&["replay", "--config", "tidegate.toml", "--input", &format!("{stream}={file}")]);
        assert_eq!(output.status.code(), Some(3), "{file}");
        said.push_str(&format!(
            "$ tidegate replay --input {stream}={file}\n{}\n",
            std::str::from_utf8(&output.stderr).unwrap()
        ));
    }
    let output = site.tidegate(&["replay", "--config", "tidegate.toml", "--input", "tank=nowhere.jsonl"]);
    assert_eq!(output.status.code(), Some(3));
    said.push_str(&format!(
        "$ tidegate replay --input tank=nowhere.jsonl\n{}",
        std::str::from_utf8(&output.stderr).unwrap()
    ));
    compare(&normalised(&said, &site, None), "recordings.txt");
}

struct Stage {
    broker: Mosquitto,
    site: Site,
    the_box: RunningBox,
    devices: Client,
}

async fn stage(version: &str, limits: &str) -> Stage {
    let broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{limits}{TANK}", connection("plant", &broker, version)));
    site.rule("rule", "INSERT INTO pump SELECT device, temperature FROM tank");
    let the_box = site.run();
    broker.subscribed("plant/+").await;
    let devices = Client::publisher(&broker).await;
    Stage { broker, site, the_box, devices }
}

impl Stage {
    /// Publishes rows until the version of the rule that writes `column` runs.
    async fn column_comes_out(&self, column: &str) {
        let mut pump = Client::subscriber(&self.broker, "pump/t1").await;
        loop {
            self.devices.publish("plant/t1", r#"{"temperature": 1, "n": 2}"#).await;
            if pump.next().await.json().get(column).is_some() {
                return;
            }
        }
    }

    /// Waits for the log line with `text`, and compares it; the box must run on.
    async fn says(&self, text: &str, golden: &str) {
        let line = self.the_box.log().wait(text).await;
        compare(&normalised(&line, &self.site, Some(self.broker.port())), golden);
        let mut pump = Client::subscriber(&self.broker, "pump/alive").await;
        self.devices.publish("plant/alive", r#"{"temperature": 1}"#).await;
        assert_eq!(pump.next().await.json(), json!({ "device": "alive", "temperature": 1.0 }));
    }
}

#[tokio::test]
async fn a_message_that_is_not_json() {
    let stage = stage("5", "").await;
    stage.devices.publish("plant/t1", r#"{"temperature": 80.5, "#).await;
    stage.says("malformed", "bad_json.txt").await;
}

#[tokio::test]
async fn a_message_of_another_shape() {
    let stage = stage("5", "").await;
    stage.devices.publish("plant/t1", "80.5").await;
    stage.says("malformed", "bad_shape.txt").await;
}

#[tokio::test]
async fn a_value_of_the_wrong_type() {
    let stage = stage("5", "").await;
    stage.devices.publish("plant/t1", r#"{"temperature": "warm", "ok": 1, "n": 1.5}"#).await;
    stage.says("do not fit", "wrong_type.txt").await;
}

/// With MQTT 5 the broker is told the limit and keeps larger messages back; with 3.1.1 the box has to refuse
/// them itself.
#[tokio::test]
async fn an_oversize_message() {
    let stage = stage("3.1.1", "max_packet = \"2KiB\"\n").await;
    stage.devices.publish("plant/t1", format!(r#"{{"temperature": 1, "padding": "{:0>3000}"}}"#, 1)).await;
    stage.says("ERROR", "oversize.txt").await;
}

#[tokio::test]
async fn an_oversize_row_for_an_output() {
    let stage = stage("5", "max_packet = \"2KiB\"\n").await;
    stage.site.rule(
        "rule",
        "INSERT INTO pump SELECT device, temperature, repeat('x', CAST(n AS INT)) AS padding FROM tank",
    );
    stage.column_comes_out("padding").await;
    stage.devices.publish("plant/t1", r#"{"temperature": 1, "n": 3000}"#).await;
    let line = stage.the_box.log().wait("rows could not be written").await;
    compare(&normalised(&line, &stage.site, Some(stage.broker.port())), "oversize_output.txt");
}

#[tokio::test]
async fn a_row_that_makes_no_topic() {
    let stage = stage("5", "").await;
    stage.site.rule("second", "INSERT INTO pump SELECT device || '/' AS device FROM tank WHERE n = 7");
    let log = stage.the_box.log();
    let mut pump = Client::subscriber(&stage.broker, "pump/t1").await;
    // Until the second rule is loaded, nothing is wrong.
    while log.find("rows could not be written").is_none() {
        stage.devices.publish("plant/t1", r#"{"temperature": 1, "n": 7}"#).await;
        pump.next().await;
    }
    stage.says("rows could not be written", "bad_topic.txt").await;
}

#[tokio::test]
async fn a_row_that_cannot_be_evaluated() {
    let stage = stage("5", "").await;
    stage.site.rule("rule", "INSERT INTO pump SELECT device, temperature, 100 / n AS share FROM tank");
    stage.column_comes_out("share").await;
    stage.devices.publish("plant/t1", r#"{"temperature": 1, "n": 0}"#).await;
    let line = stage.the_box.log().wait("could not be evaluated").await;
    compare(&normalised(&line, &stage.site, Some(stage.broker.port())), "bad_row.txt");
}

#[tokio::test]
async fn a_broker_that_is_away() {
    let mut broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{TANK}", connection("plant", &broker, "5")));
    broker.stop().await;
    let the_box = site.run();
    let line = the_box.log().wait("not connected").await;
    compare(&normalised(&line, &site, Some(broker.port())), "no_broker.txt");
}

#[tokio::test]
async fn a_broker_that_refuses() {
    for version in ["3.1.1", "5"] {
        let broker = Mosquitto::with_config("allow_anonymous false\n").await;
        let site = Site::new(&format!("{}{TANK}", connection("plant", &broker, version)));
        let the_box = site.run();
        let line = the_box.log().wait("ERROR").await;
        compare(
            &normalised(&line, &site, Some(broker.port())),
            &format!("refused_by_the_broker_{version}.txt"),
        );
    }
}

#[tokio::test]
async fn a_rules_directory_that_is_not_there() {
    let broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{TANK}", connection("plant", &broker, "5")));
    std::fs::remove_dir(site.path("rules")).unwrap();
    let the_box = site.run();
    let line = the_box.log().wait("ERROR").await;
    compare(&normalised(&line, &site, Some(broker.port())), "no_rules_directory.txt");
}

#[tokio::test]
async fn a_rule_that_breaks_while_the_box_runs() {
    let stage = stage("5", "").await;
    stage.site.rule("rule", "INSERT INTO pump\nSELECT device, temprature FROM tank");
    stage.says("ERROR", "rule_reload.txt").await;
}
