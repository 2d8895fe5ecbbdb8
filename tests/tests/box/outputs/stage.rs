//! A box between a broker and a device that writes everything down.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_tests::PATIENCE;
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;
use tidegate_tests::recording_device::{RecordingDevice, Write};

/// What the oracle allows to a machine on which many tests share few cores, in seconds: until something has
/// come to the box (`hop`), until what was so is no longer seen (`latency`), what the wire takes off a length
/// of time (`slack`), and until what must happen has happened (`bound`).
const ALLOWANCE: [&str; 8] = ["--hop", "0.3", "--latency", "0.6", "--slack", "0.25", "--bound", "6"];

/// Each row has a number, `n`, and passes `seen` when rules have had it.
const SEEN: &str = "
[outputs.seen]
connection = \"plant\"
topic = \"seen\"
when_full = \"block\"
";

/// A line on which nothing is polled does not notice that the device has hung up.
const POLL: &str = "
[streams.poll]
connection = \"plc\"
every = \"100ms\"
fields = { any = { coil = 60 } }
";

/// The stream that `pump` follows.
pub const WANT: (&str, &[&str]) = ("want", &["run bool", "speed float64"]);
/// One that interlocks look at.
pub const TANK: (&str, &[&str]) = ("tank", &["level float64"]);

const COIL: &str = "run = { coil = 5 }";
const REGISTER: &str = "speed = { holding = 40, type = \"uint16\", scale = 0.1 }";

/// A pump with a coil and a register, and these terms.
pub fn pump(terms: &str) -> String {
    output(&format!("{COIL}, {REGISTER}"), terms)
}

/// A pump with no more than a coil.
pub fn switch(terms: &str) -> String {
    output(COIL, terms)
}

/// A drive with no more than a register.
pub fn drive(terms: &str) -> String {
    output(REGISTER, terms)
}

fn output(fields: &str, terms: &str) -> String {
    format!(
        "[outputs.pump]\nconnection = \"plc\"\nfields = {{ {fields} }}\n[outputs.pump.contract]\n{terms}\n"
    )
}

/// Where they are.
pub const RUN: &str = "coil 5";
pub const SPEED: &str = "holding 40";

/// A rule that copies columns of a stream to an output of which the oracle is told the same.
#[derive(Debug, Clone, Copy)]
pub struct Copies<'a> {
    pub rule: &'a str,
    pub output: &'a str,
    pub stream: &'a str,
    /// as the output has them, `speed`, or of a column of another name, `run: forwards`
    pub columns: &'a [&'a str],
    pub rank: u8,
    /// what else it reads
    pub reads: &'a [&'a str],
}

impl Default for Copies<'_> {
    fn default() -> Self {
        let (stream, columns) = ("want", &["run", "speed"]);
        Self { rule: "follow", output: "pump", stream, columns, rank: 8, reads: &[] }
    }
}

impl<'a> Copies<'a> {
    pub fn only(columns: &'a [&'a str]) -> Self {
        Self { columns, ..Self::default() }
    }

    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.columns.iter().map(|column| column.split_once(": ").unwrap_or((column, column)))
    }

    /// Its text.
    pub fn sql(&self) -> String {
        let rank = if self.rank == 8 { String::new() } else { format!("--! rank = {}\n", self.rank) };
        let columns: Vec<String> = self
            .pairs()
            .map(|(to, from)| if to == from { to.to_owned() } else { format!("{from} AS {to}") })
            .collect();
        let (output, stream) = (self.output, self.stream);
        format!("{rank}INSERT INTO {output} SELECT {} FROM {stream};\n", columns.join(", "))
    }
}

/// A site with everything that it is connected to.
pub struct Stage {
    pub plant: Mosquitto,
    pub device: Arc<RecordingDevice>,
    pub site: Site,
    feed: Client,
    seen: Client,
    streams: Vec<String>,
    rows: i64,
    the_box: Option<RunningBox>,
}

impl Stage {
    /// One with these outputs, and streams with their columns (`level float64`). It does not run yet.
    pub async fn new(outputs: &str, streams: &[(&str, &[&str])]) -> Self {
        Self::idle(&format!("{POLL}{outputs}"), streams).await
    }

    /// As [`Self::new`], with a line to the device that is used by writes only.
    pub async fn idle(outputs: &str, streams: &[(&str, &[&str])]) -> Self {
        let plant = Mosquitto::start().await;
        let device = Arc::new(RecordingDevice::start("plc", &["1", "2"]).await);
        let mut config = connection("plant", &plant, "5");
        config += &format!(
            "\n[connections.plc]\nkind = \"modbus\"\nhost = \"127.0.0.1\"\nport = {}\ntimeout = \
             \"400ms\"\nbackoff = {{ min = \"20ms\", max = \"100ms\" }}\n",
            device.port()
        );
        for (name, columns) in streams {
            let fields: Vec<String> =
                columns.iter().map(|column| column.replacen(' ', " = \"", 1) + "\"").collect();
            let ts = if columns.contains(&"ts") { "ts = \"time\"\n" } else { "" };
            let fields: Vec<&str> =
                fields.iter().map(String::as_str).filter(|field| *field != "ts\"").collect();
            config += &format!(
                "\n[streams.{name}]\nconnection = \"plant\"\ntopic = \"in/{name}\"\n{ts}fields = {{ n = \
                 \"int64\", {} }}\n",
                fields.join(", ")
            );
        }
        let site = Site::new(&format!("{config}{SEEN}{outputs}"));
        let seen: Vec<String> =
            streams.iter().map(|(name, _)| format!("INSERT INTO seen SELECT n FROM {name};\n")).collect();
        site.rule("seen", &seen.concat());
        let (feed, seen) = (Client::publisher(&plant).await, Client::subscriber(&plant, "seen").await);
        let streams = streams.iter().map(|(name, _)| format!("in/{name}")).collect();
        Self { plant, device, site, feed, seen, streams, rows: 0, the_box: None }
    }

    /// As [`Self::new`], with the rule that copies `want` to `pump`, and it runs.
    pub async fn running(outputs: &str, columns: &[&str], streams: &[(&str, &[&str])]) -> Self {
        let mut stage = Self::new(outputs, streams).await;
        stage.copies(Copies::only(columns)).await;
        stage.start().await;
        stage
    }

    /// Puts a rule into place, and tells the oracle.
    pub async fn copies(&self, rule: Copies<'_>) {
        self.site.rule(rule.rule, &rule.sql());
        self.note_rule(rule, "").await;
    }

    /// Tells the oracle of a rule that copies to the instance that `key` names: `line: line`.
    pub async fn note_rule(&self, rule: Copies<'_>, key: &str) {
        let object = |pairs: Vec<(&str, &str)>| -> Value {
            pairs.into_iter().map(|(to, from)| (to.to_owned(), json!(from))).collect()
        };
        let (columns, key) = (rule.pairs().collect(), key.split_once(": ").into_iter().collect());
        self.note(json!({
            "what": "rule", "name": rule.rule, "output": rule.output, "stream": rule.stream,
            "rank": rule.rank, "reads": rule.reads, "columns": object(columns), "key": object(key),
        }))
        .await;
    }

    /// Starts the box, and waits until it listens to all streams.
    pub async fn start(&mut self) {
        let t = self.device.time().await;
        let lines = self.plant.lines().count();
        self.the_box = Some(self.site.run());
        for topic in &self.streams {
            self.plant.subscribed_after(lines, topic).await;
        }
        self.note(json!({ "what": "start", "t": t })).await;
    }

    /// Kills it, as a power cut would.
    pub async fn kill(&mut self) {
        let t = self.device.time().await;
        self.the_box.take().unwrap().kill().await;
        self.note(json!({ "what": "kill", "t": t })).await;
    }

    /// Stops it in good order.
    pub async fn stop(&mut self) {
        let t = self.device.time().await;
        assert!(self.the_box.take().unwrap().stop().await.success());
        self.note(json!({ "what": "stop", "t": t })).await;
    }

    /// The box, while it runs.
    pub fn the_box(&self) -> &RunningBox {
        self.the_box.as_ref().unwrap()
    }

    /// Gives a row to a stream, and waits until rules have had it.
    pub async fn row(&mut self, stream: &str, row: Value) {
        let (t, row) = self.publish(stream, row, 0).await;
        self.passed(row["n"].as_i64().unwrap()).await;
        self.note(json!({ "what": "row", "t": t, "stream": stream, "row": row, "sure": true })).await;
    }

    /// Gives a row to a stream of which `ts` says that it is so many seconds old, and does not wait for it.
    /// Returns its number.
    pub async fn send_old(&mut self, stream: &str, row: Value, age_s: u64) -> i64 {
        let (t, row) = self.publish(stream, row, age_s).await;
        let event = json!({ "what": "row", "t": t, "stream": stream, "row": row, "age": age_s });
        self.note(event).await;
        self.rows
    }

    /// Returns when that began, and the row.
    async fn publish(&mut self, stream: &str, mut row: Value, age_s: u64) -> (u64, Value) {
        self.rows += 1;
        row["n"] = self.rows.into();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        row["time"] = json!(u64::try_from(now.as_millis()).unwrap() - age_s * 1_000);
        let t = self.device.time().await;
        self.feed.publish(&format!("in/{stream}"), row.to_string()).await;
        (t, row)
    }

    /// Gives many rows at once, so that they may share a batch. The oracle knows each of them.
    pub async fn burst(&mut self, stream: &str, rows: Vec<Value>) {
        let t = self.device.time().await;
        let first = self.rows;
        let numbered: Vec<Value> = rows
            .into_iter()
            .zip(first + 1..)
            .map(|(mut row, n)| {
                row["n"] = n.into();
                row
            })
            .collect();
        self.rows += i64::try_from(numbered.len()).unwrap();
        self.feed.publish(&format!("in/{stream}"), Value::Array(numbered.clone()).to_string()).await;
        self.passed(self.rows).await;
        for row in numbered {
            self.note(json!({ "what": "row", "t": t, "stream": stream, "row": row, "sure": true })).await;
        }
    }

    /// Waits until rules have had the row of that number.
    pub async fn passed(&mut self, n: i64) {
        self.seen.take_until(|message| message.json()["n"] == n).await;
    }

    /// Lets time pass: contracts are about it, and there is nothing else to wait for.
    pub async fn pass(&self, seconds: f64) {
        tokio::time::sleep(std::time::Duration::from_secs_f64(seconds)).await;
    }

    /// Writes an event into the record.
    pub async fn note(&self, event: Value) -> u64 {
        self.device.note(event).await
    }

    /// Waits until the last write to a place was this value and the device took it.
    pub async fn holds(&self, place: &str, value: u64) {
        self.device
            .wait_until(|writes| {
                let last = writes.iter().rev().find(|write| write.place == place);
                last.is_some_and(|write| write.value == value && write.did == "taken")
            })
            .await;
    }

    /// The values that were written to a place so far.
    pub fn written(&self, place: &str) -> Vec<u64> {
        self.writes_to(place).iter().map(|write| write.value).collect()
    }

    /// The requests to write a place so far.
    pub fn writes_to(&self, place: &str) -> Vec<Write> {
        self.device.writes().into_iter().filter(|write| write.place == place).collect()
    }

    /// Runs `tidegate` to its end, off the threads that the scene needs.
    pub async fn tidegate(&self, args: &[&str]) -> Output {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let directory = self.site.path("");
        let run = move || {
            let mut command = Command::new(tidegate_tests::box_under_test::binary());
            command.args(args).current_dir(directory).env_remove("TIDEGATE_LOG").output()
        };
        tokio::task::spawn_blocking(run).await.unwrap().unwrap()
    }

    /// What it says, which must go well.
    pub async fn said(&self, args: &[&str]) -> String {
        let output = self.tidegate(args).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Waits until it says all of these words: what was decided is told of a moment later, and until then
    /// there may be nothing to tell.
    pub async fn says(&self, args: &[&str], words: &[&str]) -> String {
        let asked = async {
            loop {
                let text = String::from_utf8_lossy(&self.tidegate(args).await.stdout).into_owned();
                if words.iter().all(|word| text.contains(word)) {
                    return text;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(text) => text,
            Err(_) => panic!("{args:?} does not say {words:?}: {}", self.said(args).await),
        }
    }

    /// What it says as JSON.
    pub async fn json(&self, args: &[&str]) -> Value {
        let text = self.said(&[args, &["--json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// Overrides one column, for so many seconds.
    pub async fn overrides(&self, output: &str, column: &str, value: Value, lease_s: f64) {
        let t = self.device.time().await;
        let lease = format!("{}ms", (lease_s * 1e3) as u64);
        let set = format!("{column}={value}");
        self.said(&["output", "override", output, &set, "--lease", &lease, "--reason", "a test"]).await;
        let values: Value = [(column.to_owned(), value)].into_iter().collect();
        self.note(
            json!({ "what": "override", "t": t, "output": output, "values": values, "lease": lease_s }),
        )
        .await;
    }

    /// `release` or `reset`.
    pub async fn person(&self, what: &str, output: &str) {
        let t = self.device.time().await;
        self.said(&["output", what, output]).await;
        self.note(json!({ "what": what, "t": t, "output": output })).await;
    }

    /// Takes a rule's file away, or puts another into its place, and waits until the box has seen it.
    pub async fn change_rule(&self, name: &str, text: Option<&str>) {
        let t = self.device.time().await;
        let before = self.the_box().log().count();
        match text {
            Some(text) => self.site.rule(name, text),
            None => std::fs::remove_file(self.site.rule_path(name)).unwrap(),
        }
        // Files are taken in one look, and this one is spoken of.
        self.site.rule("broken", "INSERT INTO");
        self.the_box().log().wait_after(before, "broken.sql").await;
        std::fs::remove_file(self.site.rule_path("broken")).unwrap();
        if text.is_none_or(|text| text.contains("mode = \"")) {
            self.note(json!({ "what": "gone", "t": t, "name": name })).await;
        }
    }

    /// Stops the box if it runs, and has the oracle judge all that has happened. What it has to say on these
    /// clauses must rest on something.
    pub async fn judge(mut self, clauses: &[&str]) {
        self.note(json!({ "what": "end" })).await;
        let record = self.device.record().join("\n");
        let log = self.the_box.as_ref().map(|the_box| the_box.log().clone());
        if self.the_box.is_some() {
            self.stop().await;
        }
        let log = log.map(|log| log.text()).unwrap_or_default();
        std::fs::write(self.site.path("record.jsonl"), &record).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/judge.py");
        let mut judge = Command::new("python3");
        judge.arg("-B").arg(program).args(["tidegate.toml", "record.jsonl", "--json"]).args(ALLOWANCE);
        let output = judge.current_dir(self.site.path("")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let verdict: Value = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{said}{}\n{record}", String::from_utf8_lossy(&output.stderr)));
        let faults = verdict["faults"].as_array().unwrap();
        let faults: Vec<String> = faults.iter().map(fault).collect();
        let faults = faults.join("\n");
        assert!(faults.is_empty(), "the record:\n{record}\nthe box's log:\n{log}\nfaults:\n{faults}");
        for clause in clauses {
            assert!(verdict["judged"][clause].as_u64() > Some(0), "nothing of {clause} in\n{record}");
        }
    }
}

fn fault(fault: &Value) -> String {
    let text = |name: &str| fault[name].as_str().unwrap().to_owned();
    format!(
        "{}: {} at {:.3} s: {}",
        text("clause"),
        text("place"),
        fault["t"].as_f64().unwrap(),
        text("text")
    )
}
