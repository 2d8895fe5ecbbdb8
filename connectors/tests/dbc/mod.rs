//! DBC files against cantools, signal by signal: what a database has, what frames mean, and what is sent; and
//! the lines of logs and of serial adapters against python-can.
//! `tests/devices/prepare` makes its environment, with the files that it is tested with itself, and those of
//! cars that opendbc has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use tidegate_connectors::can::bits::ByteOrder;
use tidegate_connectors::can::database::Database;
use tidegate_connectors::can::frame::{Frame, Payload};
use tidegate_connectors::can::id::Id;
use tidegate_connectors::can::log::Line;
use tidegate_connectors::can::message::Message;
use tidegate_connectors::can::signal::{Absent, Content, Signal, Value};
use tidegate_connectors::can::slcan::{Decoder, Reply, write_frame};
use tidegate_core::Diagnostic;

use crate::rig::bytes;

fn home() -> PathBuf {
    Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/tidegate/devices/cantools")
}

/// What the oracle prints, a line each.
fn ask(arguments: &[&str]) -> Vec<serde_json::Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dbc/oracle.py");
    let output = Command::new(home().join("bin/python")).arg(script).args(arguments).output();
    let output = output.expect("run tests/devices/prepare");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[derive(Deserialize)]
struct File {
    file: PathBuf,
    refused: Option<String>,
    #[serde(default)]
    messages: Vec<DescribedMessage>,
}

#[derive(Deserialize)]
struct DescribedMessage {
    name: String,
    id: u32,
    extended: bool,
    length: usize,
    cycle: Option<f64>,
    signals: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    start: u16,
    length: u8,
    big: bool,
    signed: bool,
    float: bool,
    scale: String,
    offset: String,
    unit: String,
    labels: BTreeMap<String, String>,
}

#[test]
#[ignore = "needs tests/devices/prepare"]
fn files_of_others_have_what_cantools_finds_in_them() {
    let files = home().join("files");
    let mut compared = 0;
    for line in ask(&["files", files.to_str().unwrap()]) {
        let file: File = serde_json::from_value(line).unwrap();
        let name = file.file.display().to_string();
        let read = Database::read(&[(file.file.clone(), std::fs::read(&file.file).unwrap())]);
        let database = match (read, &file.refused) {
            (Ok(database), None) => database,
            // What cantools refuses is told as well, if only as a warning; but for names that begin with a
            // digit, and comments.
            (Ok(database), Some(refused)) => {
                let is_told = !database.problems().is_empty() || refused.contains("Invalid syntax");
                assert!(is_told, "{name}: cantools: {refused}");
                let has_place =
                    |problem: &Diagnostic| problem.place.is_some() || problem.message.contains("more");
                assert!(database.problems().iter().all(has_place), "{name}");
                continue;
            }
            (Err(errors), _) => {
                assert!(
                    errors.iter().all(|error| error.place.is_some() || error.message.contains("no messages"))
                );
                assert!(file.messages.is_empty(), "{name}: {errors:?}");
                continue;
            }
        };
        for described in &file.messages {
            let id = if described.extended { Id::extended(described.id) } else { Id::standard(described.id) };
            let Some(message) = database.by_id(id.unwrap()) else {
                let is_told =
                    database.problems().iter().any(|problem| problem.message.contains(&described.name));
                assert!(is_told, "{name}: {} {:?}", described.name, database.problems());
                continue;
            };
            compare(&name, described, message);
            compared += message.signals.len();
        }
    }
    assert!(compared > 1000, "only {compared} signals");
}

fn compare(file: &str, described: &DescribedMessage, message: &Message) {
    let place = format!("{file}: {}", described.name);
    assert_eq!((&*message.name, message.length), (described.name.as_str(), described.length), "{place}");
    let cycle = message.cycle.map(|cycle| cycle.as_secs_f64() * 1e3);
    assert_eq!(cycle, described.cycle.filter(|cycle| *cycle > 0.0), "{place}");
    assert_eq!(message.signals.len(), described.signals.len(), "{place}");
    for expected in &described.signals {
        let place = format!("{place}: {}", expected.name);
        let signal = &message.signals[message.signal(&expected.name).expect(&place)];
        let bits = (signal.bits.start(), signal.bits.width(), signal.bits.order() == ByteOrder::Big);
        assert_eq!(bits, (expected.start, expected.length, expected.big), "{place}");
        let is_float = matches!(signal.content, Content::Float32 | Content::Float64);
        assert_eq!(is_float, expected.float, "{place}");
        assert!(is_float || (signal.content == Content::Signed) == expected.signed, "{place}");
        // cantools takes all files for Windows-1252.
        assert!(*signal.unit == expected.unit || !signal.unit.is_ascii(), "{place}");
        let labels: BTreeMap<String, String> =
            signal.labels().iter().map(|(content, label)| (content.to_string(), label.to_owned())).collect();
        let is_ascii = labels.values().all(|label| label.is_ascii());
        assert!(labels == expected.labels || !is_ascii && labels.len() == expected.labels.len(), "{place}");
        // Zero and one tell offset and factor.
        let scaled = |content: f64| {
            expected.offset.parse::<f64>().unwrap() + content * expected.scale.parse::<f64>().unwrap()
        };
        let one = match signal.content {
            Content::Float32 => 1_f32.to_bits().into(),
            Content::Float64 => 1_f64.to_bits(),
            _ => 1,
        };
        let one_is = if signal.content == Content::Signed && signal.bits.width() == 1 { -1.0 } else { 1.0 };
        assert!(is_near(number(signal.value(0).unwrap()), scaled(0.0)), "{place}");
        assert!(is_near(number(signal.value(one).unwrap()), scaled(one_is)), "{place}");
    }
}

fn number(value: Value<'_>) -> f64 {
    match value {
        Value::Bool(on) => f64::from(u8::from(on)),
        Value::Int(number) => number as f64,
        Value::Float(number) => number,
        Value::Text(text) => panic!("{text}"),
    }
}

/// But for the last digits, where one multiplies by 0.1 and the other divides by 10.
fn is_near(one: f64, other: f64) -> bool {
    one == other || (one - other).abs() <= 1e-12 * one.abs().max(other.abs()).max(1.0)
}

#[derive(Deserialize)]
struct Case {
    message: String,
    payload: String,
    raw: BTreeMap<String, String>,
    scaled: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    sent: Option<String>,
}

#[test]
#[ignore = "needs tests/devices/prepare"]
fn random_frames_mean_what_cantools_makes_of_them() {
    let (mut values, mut sent, mut refused) = (0, 0, 0);
    for seed in ["1", "2", "3", "4", "5"] {
        let mut lines = ask(&["random", seed]).into_iter();
        let text = lines.next().unwrap()["text"].as_str().unwrap().to_owned();
        let database = Database::read(&[("random.dbc".into(), text.clone().into_bytes())]).unwrap();
        assert_eq!(database.problems(), [], "{text}");
        for line in lines {
            let place = format!("seed {seed}: {line}");
            let case: Case = serde_json::from_value(line).unwrap();
            let message = database.message(&case.message).unwrap();
            values += decode(message, &case, &place);
            match encode(message, &case, &place) {
                None => {}
                Some(true) => sent += 1,
                Some(false) => refused += 1,
            }
        }
    }
    assert!(
        values > 10_000 && sent > 1000 && refused > 1000,
        "{values} values, {sent} sent, {refused} refused"
    );
}

/// How many values were compared.
fn decode(message: &Message, case: &Case, place: &str) -> usize {
    let payload = bytes(&case.payload);
    let decoded = message.decode(&payload);
    let mut present = 0;
    for (at, signal) in message.signals.iter().enumerate() {
        let place = format!("{place}: {}", signal.name);
        let Some(scaled) = case.scaled.get(&*signal.name) else {
            assert_eq!(decoded.value(at, false), Err(Absent::Multiplexed), "{place}");
            continue;
        };
        present += 1;
        assert_eq!(content(signal, decoded.raw(at).unwrap()), case.raw[&*signal.name].parse(), "{place}");
        match decoded.value(at, false) {
            Ok(Value::Int(value)) => assert_eq!(value.to_string(), *scaled, "{place}"),
            Ok(value) => assert!(is_near(number(value), scaled.parse().unwrap()), "{place}: {value}"),
            Err(Absent::NotANumber) => assert_eq!(scaled, "nan", "{place}"),
            Err(Absent::Infinite) => assert!(["inf", "-inf"].contains(&scaled.as_str()), "{place}"),
            Err(absent) => {
                assert_eq!(absent, Absent::TooGreat, "{place}");
                assert!(scaled.parse::<u64>().unwrap() > i64::MAX as u64, "{place}");
            }
        }
        if let Some(label) = case.labels.get(&*signal.name) {
            assert_eq!(decoded.value(at, true), Ok(Value::Text(label)), "{place}");
        } else {
            assert!(!matches!(decoded.value(at, true), Ok(Value::Text(_))), "{place}");
        }
    }
    assert_eq!(present, case.scaled.len(), "{place}");
    present
}

/// The content as a number, whole or not.
#[derive(Debug, PartialEq)]
enum Number {
    Whole(i128),
    Float(u64),
}

impl std::str::FromStr for Number {
    type Err = std::num::ParseFloatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let float = || {
            text.parse().map(|number: f64| Self::Float(if number.is_nan() { 0 } else { number.to_bits() }))
        };
        text.parse().map(Self::Whole).or_else(|_| float())
    }
}

fn content(signal: &Signal, raw: u64) -> Result<Number, std::num::ParseFloatError> {
    let float = |number: f64| Number::Float(if number.is_nan() { 0 } else { number.to_bits() });
    let width = u32::from(signal.bits.width());
    Ok(match signal.content {
        Content::Unsigned => Number::Whole(raw.into()),
        Content::Signed if raw >> (width - 1) & 1 == 1 => Number::Whole(i128::from(raw) - (1 << width)),
        Content::Signed => Number::Whole(raw.into()),
        Content::Float32 => float(f32::from_bits(raw as u32).into()),
        Content::Float64 => float(f64::from_bits(raw)),
    })
}

/// Sends what was read. None: there is a value in it that cannot be sent; else whether it was taken.
fn encode(message: &Message, case: &Case, place: &str) -> Option<bool> {
    let payload = bytes(&case.payload);
    let decoded = message.decode(&payload);
    let mut given = Vec::new();
    for at in 0..message.signals.len() {
        match decoded.value(at, true) {
            Ok(value) => given.push((at, value)),
            Err(Absent::Multiplexed) => {}
            Err(_) => return None,
        }
    }
    let encoded = message.encode(&given);
    match &case.sent {
        Some(sent) => assert_eq!(encoded, Ok(bytes(sent)), "{place}"),
        None => assert!(encoded.is_err_and(|error| error.contains("the database allows")), "{place}"),
    }
    Some(case.sent.is_some())
}

#[derive(Deserialize)]
struct Written {
    id: u32,
    extended: bool,
    kind: String,
    length: u8,
    data: String,
    fast: bool,
    passive: bool,
    log: String,
    adapter: String,
}

impl Written {
    /// As far as the lines have it: a remote frame's length is not in the log of python-can, and the sender's
    /// state not in the line of an adapter.
    fn frame(&self, length: u8, passive: bool) -> Frame {
        let id = if self.extended { Id::extended(self.id) } else { Id::standard(self.id) }.unwrap();
        let data = Payload::new(&bytes(&self.data)).unwrap();
        match self.kind.as_str() {
            "remote" => Frame::Remote { id, length },
            "fd" => Frame::Fd { id, data, fast: self.fast, passive },
            _ => Frame::Data { id, data },
        }
    }
}

#[test]
#[ignore = "needs tests/devices/prepare"]
fn lines_of_logs_and_adapters_are_those_of_python_can() {
    for line in ask(&["lines", "1"]) {
        let place = line.to_string();
        let written: Written = serde_json::from_value(line).unwrap();
        let logged = Line::parse(&written.log).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(logged.frame, written.frame(0, written.passive), "{place}");
        let line = logged.to_string();
        assert!(written.log == format!("{line} R") || written.log == format!("{line} T"), "{place}: {line}");

        let frame = written.frame(written.length, false);
        let mut decoder = Decoder::default();
        let replies: Vec<Reply> = written.adapter.bytes().filter_map(|byte| decoder.push(byte)).collect();
        assert_eq!(replies, [Reply::Frame(frame)], "{place}");
        let mut line = String::new();
        assert!(write_frame(&frame, &mut line));
        assert_eq!(line, written.adapter, "{place}");
    }
}
