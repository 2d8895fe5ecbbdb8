//! One output that is many actuators, each with claims and times of its own.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_tests::PATIENCE;
use tidegate_tests::client::Client;
use tidegate_tests::recording_device::RecordingDevice;
use tokio::sync::watch;

use super::stage::{Copies, Stage};

const LINES: (&str, &[&str]) = ("lines", &["line utf8", "speed float64"]);
const GUARD: (&str, &[&str]) = ("guard", &["line utf8", "closed bool"]);

fn output(terms: &str) -> String {
    let topic = "connection = \"plant\"\ntopic = \"fan/{line}/set\"";
    format!("[outputs.fan]\n{topic}\n[outputs.fan.contract]\nfailsafe = {{ speed = 0 }}\n{terms}\n")
}

/// Writes down what comes on `fan/+/set`, and shows it.
struct Fans {
    seen: watch::Receiver<Vec<(String, f64)>>,
    task: tokio::task::JoinHandle<()>,
}

impl Fans {
    async fn listen(stage: &Stage) -> Self {
        let client = Client::subscriber(&stage.plant, "fan/+/set").await;
        let (sender, seen) = watch::channel(Vec::new());
        let task = tokio::spawn(follow(client, Arc::clone(&stage.device), sender));
        Self { seen, task }
    }

    /// Waits until the last that came for a line was this.
    async fn hold(&mut self, line: &str, speed: f64) {
        let is_last = |seen: &Vec<(String, f64)>| {
            let last = seen.iter().rev().find(|(of, _)| of == line);
            last.is_some_and(|(_, value)| (value - speed).abs() < 1e-9)
        };
        let came = tokio::time::timeout(PATIENCE, self.seen.wait_for(is_last)).await.is_ok();
        assert!(came, "{line} {speed}: {:?}", self.seen.borrow());
    }

    fn of(&self, line: &str) -> Vec<f64> {
        self.seen.borrow().iter().filter(|(of, _)| of == line).map(|(_, speed)| *speed).collect()
    }
}

impl Drop for Fans {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut client: Client, device: Arc<RecordingDevice>, seen: watch::Sender<Vec<(String, f64)>>) {
    while let Some(message) = client.next_if_any().await {
        let event = json!({
            "what": "message", "connection": "plant", "topic": message.topic, "payload": message.text(),
        });
        device.note(event).await;
        let line = message.topic.split('/').nth(1).unwrap().to_owned();
        let speed = message.json()["speed"].as_f64().unwrap();
        seen.send_modify(|seen| seen.push((line, speed)));
    }
}

fn want(line: &str, speed: f64) -> Value {
    json!({ "line": line, "speed": speed })
}

async fn stage(terms: &str) -> (Stage, Fans) {
    let mut stage = Stage::new(&output(terms), &[LINES, GUARD]).await;
    stage.site.rule("fans", "INSERT INTO fan SELECT line, speed FROM lines");
    let rule = Copies { rule: "fans", output: "fan", stream: "lines", ..Copies::only(&["speed"]) };
    stage.note_rule(rule, "line: line").await;
    let fans = Fans::listen(&stage).await;
    stage.start().await;
    (stage, fans)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn the_claim_of_one_line_ends_and_that_of_another_lives() {
    let (mut stage, mut fans) = stage("expiry = \"2s\"").await;
    stage.row("lines", want("7", 50.0)).await;
    stage.row("lines", want("8", 20.0)).await;
    fans.hold("7", 50.0).await;
    fans.hold("8", 20.0).await;
    for _ in 0..8 {
        stage.pass(0.4).await;
        stage.row("lines", want("8", 20.0)).await;
    }
    fans.hold("7", 0.0).await;
    assert_eq!(fans.of("8"), [20.0]);
    fans.hold("8", 0.0).await;
    assert_eq!(fans.of("7"), [50.0, 0.0]);
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn the_interlock_of_a_line_looks_at_the_rows_of_that_line() {
    let (mut stage, mut fans) =
        stage("expiry = \"60s\"\ninterlock = { when = \"guard.closed\", max_age = \"never\" }").await;
    let guard = |line: &str, closed: bool| json!({ "line": line, "closed": closed });
    for line in ["7", "8"] {
        stage.row("guard", guard(line, true)).await;
        stage.row("lines", want(line, 30.0)).await;
        fans.hold(line, 30.0).await;
    }
    stage.row("guard", guard("7", false)).await;
    fans.hold("7", 0.0).await;
    stage.row("lines", want("7", 40.0)).await;
    stage.row("lines", want("8", 40.0)).await;
    fans.hold("8", 40.0).await;
    assert_eq!(fans.of("7").last(), Some(&0.0));
    stage.says(&["why", "fan", "--key", "line=7"], &["guard"]).await;
    stage.row("guard", guard("7", true)).await;
    fans.hold("7", 40.0).await;
    stage.judge(&["wanted"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn each_line_has_its_own_ramp_and_no_more_lines_than_is_said_are_taken() {
    let terms = r#"expiry = "60s"
max_instances = 2
slew = { speed = "40/s" }
slew_every = "250ms""#;
    let (mut stage, mut fans) = stage(terms).await;
    for (line, speed) in [("7", 50.0), ("8", 20.0), ("9", 30.0)] {
        stage.row("lines", want(line, speed)).await;
    }
    fans.hold("7", 50.0).await;
    fans.hold("8", 20.0).await;
    assert_eq!(fans.of("9"), [0.0; 0], "a third instance is refused");
    stage.judge(&["slew", "wanted"]).await;
}
