//! A Modbus device by pymodbus that writes down each request to write, with its time, and misbehaves as it is
//! told. Its clock is that of the whole record: what others do is noted by it, too.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;

use crate::devices;
use crate::lines::Lines;

/// A running device. It ends when it is dropped.
#[derive(Debug)]
pub struct RecordingDevice {
    port: u16,
    lines: Lines,
    orders: Mutex<ChildStdin>,
    given: AtomicU64,
    _child: Child,
}

/// A request to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// when it came, in nanoseconds of the monotonic clock
    pub t: u64,
    /// whom it was for
    pub unit: u64,
    /// `coil 5`, `holding 40`
    pub place: String,
    /// of the first point; a coil that is on is 1
    pub value: u64,
    /// `taken`, `refused`, `ignored`, `silent` or `lost`
    pub did: String,
}

impl RecordingDevice {
    /// Starts one on a free port, with these units, that calls the line to it `connection`.
    pub async fn start(connection: &str, units: &[&str]) -> Self {
        let mut command = Command::new(devices::home().join("pymodbus/bin/python"));
        let (out, writer) = std::io::pipe().unwrap();
        command.args(["-c", include_str!("recording_device.py"), connection]).args(units);
        command.stdin(Stdio::piped()).stdout(writer).kill_on_drop(true);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("pymodbus does not start ({error}): run tests/devices/prepare"));
        drop(command);
        let lines = Lines::default();
        lines.follow(out);
        let told: Value = serde_json::from_str(&lines.wait("\"port\"").await).unwrap();
        let port = u16::try_from(told["port"].as_u64().unwrap()).unwrap();
        let orders = Mutex::new(child.stdin.take().unwrap());
        Self { port, lines, orders, given: AtomicU64::new(0), _child: child }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Has it do what `recording_device.py` beside this file describes, and waits until it has. Returns the
    /// time.
    pub async fn tell(&self, mut order: Value) -> u64 {
        let id = self.given.fetch_add(1, Ordering::Relaxed);
        order["id"] = id.into();
        self.orders.lock().await.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let told = self.lines.wait(&format!("\"id\": {id}}}")).await;
        parsed(&told)["t"].as_u64().unwrap()
    }

    /// The time on its clock.
    pub async fn time(&self) -> u64 {
        self.tell(json!({ "do": "tell_the_time" })).await
    }

    /// Writes an event into the record that began at its `t`, if it has one, and has ended by now.
    pub async fn note(&self, event: Value) -> u64 {
        self.tell(json!({ "do": "note", "event": event })).await
    }

    /// From now on it does `how` with each write to `place` (`coil 5`), or to any if that is empty.
    pub async fn misbehave(&self, how: &str, place: &str) {
        self.tell(misbehaviour(how, place)).await;
    }

    /// It does `how` with the next `times` writes to `place`.
    pub async fn misbehave_times(&self, how: &str, place: &str, times: u32) {
        let mut order = misbehaviour(how, place);
        order["times"] = times.into();
        self.tell(order).await;
    }

    /// It does as a device should.
    pub async fn behave(&self) {
        self.tell(json!({ "do": "behave" })).await;
    }

    /// Somebody else writes.
    pub async fn panel(&self, place: &str, value: u16) {
        let (table, address) = split(place);
        let (unit, values) = (1, [value]);
        let order =
            json!({ "do": "panel", "unit": unit, "table": table, "address": address, "values": values });
        self.tell(order).await;
    }

    /// The record: an object a line.
    #[must_use]
    pub fn record(&self) -> Vec<String> {
        let of_the_record =
            |line: &String| !line.contains("\"what\": \"told\"") && !line.contains("\"port\"");
        self.lines.all().into_iter().filter(of_the_record).collect()
    }

    /// What it has been asked to write so far.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        writes(&self.lines.all())
    }

    /// Waits until `enough` has been written, and returns it.
    pub async fn wait_until(&self, enough: impl Fn(&[Write]) -> bool) -> Vec<Write> {
        writes(&self.lines.wait_until(|lines| enough(&writes(lines))).await)
    }

    /// Waits for a line of the record with this in it, behind the first `after` of all that it has printed.
    pub async fn seen_after(&self, after: usize, text: &str) {
        self.lines.wait_after(after, text).await;
    }

    /// How much it has printed.
    #[must_use]
    pub fn printed(&self) -> usize {
        self.lines.count()
    }
}

fn misbehaviour(how: &str, place: &str) -> Value {
    let mut order = json!({ "do": "misbehave", "how": how });
    if !place.is_empty() {
        let (table, address) = split(place);
        order["table"] = table.into();
        order["address"] = address.into();
    }
    order
}

fn split(place: &str) -> (&str, u16) {
    let (table, address) = place.split_once(' ').unwrap();
    (table, address.parse().unwrap())
}

fn writes(lines: &[String]) -> Vec<Write> {
    let of_line = |line: &String| line.contains("\"what\": \"write\"").then(|| write(&parsed(line)));
    lines.iter().filter_map(of_line).collect()
}

fn write(event: &Value) -> Write {
    Write {
        t: event["t"].as_u64().unwrap(),
        unit: event["unit"].as_u64().unwrap(),
        place: format!("{} {}", event["table"].as_str().unwrap(), event["address"]),
        value: event["values"][0].as_u64().unwrap(),
        did: event["did"].as_str().unwrap().to_owned(),
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}
