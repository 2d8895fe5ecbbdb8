//! What it costs to decode frames with a DBC file of 300 messages, next to a loop that only copies the
//! frames, and next to cantools, in one run on one core.
//!
//! `cargo bench -p tidegate-connectors` measures, with `-- --quick` it only shows that it works. cantools is
//! what `tests/devices/prepare` makes; without it its line is missing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark ends where it fails"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use arrow::array::Float64Builder;
use tidegate_connectors::can::database::Database;
use tidegate_connectors::can::frame::{Frame, Payload};
use tidegate_connectors::can::id::Id;
use tidegate_connectors::can::signal::Value;

const MESSAGES: u32 = 300;

fn main() {
    // Cargo itself adds `--bench`.
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (frames, turns) = if quick { (30_000, 3) } else { (300_000, 11) };
    let text = database();
    let database = Database::read(&[("made_up.dbc".into(), text.clone().into_bytes())]).unwrap();
    assert!(database.problems().is_empty());
    let frames = random_frames(frames);
    let signals = database.messages().iter().map(|message| message.signals.len()).sum::<usize>();
    println!("{MESSAGES} messages with {signals} signals, {} frames in random order, one core", frames.len());
    println!();
    println!("| what | frames/s | in speed to cantools | target |");
    println!("| --- | --- | --- | --- |");
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..turns {
        times[0].push(seconds(|| copied(&frames)));
        times[1].push(seconds(|| decoded(&database, &frames)));
        times[2].push(seconds(|| in_columns(&database, &frames)));
    }
    let rates = times.map(|times| frames.len() as f64 / median(times));
    let cantools = cantools(&text, &database, &frames[..frames.len().min(100_000)]);
    let whats = ["copied only", "each signal decoded", "each signal decoded into an Arrow column"];
    for ((what, rate), target) in whats.into_iter().zip(rates).zip(["", "1 000 000, 50 x cantools", ""]) {
        let ratio = cantools.map_or_else(String::new, |cantools| format!("{:.0}", rate / cantools));
        println!("| {what} | {rate:.0} | {ratio} | {target} |");
    }
    if let Some(rate) = cantools {
        println!("| cantools, values without labels | {rate:.0} | 1 | |");
    }
}

/// Eight signals a message, as they are in the field: whole bytes, pieces of bytes, flags; both byte orders;
/// one message in ten is multiplexed.
fn database() -> String {
    let mut text = String::from("VERSION \"\"\n\nBU_: Unit\n\n");
    for number in 0..MESSAGES {
        writeln!(text, "BO_ {} Message{number}: 8 Unit", 3 * number).unwrap();
        let signals: &[&str] = if number % 10 == 0 {
            &[
                "Mode M : 0|2@1+ (1,0)",
                "Speed m0 : 8|16@1+ (0.125,0)",
                "Torque m0 : 24|16@1- (0.1,0)",
                "Current m1 : 8|16@1- (0.01,0)",
                "Voltage m1 : 24|16@1+ (0.1,0)",
                "Temperature m2 : 8|8@1+ (1,-40)",
                "Run : 40|1@1+ (1,0)",
                "Count : 48|16@1+ (1,0)",
            ]
        } else if number % 2 == 0 {
            &[
                "Speed : 0|16@1+ (0.125,0)",
                "Torque : 16|12@1- (0.1,0)",
                "Gear : 28|4@1+ (1,0)",
                "Temperature : 32|8@1+ (1,-40)",
                "Run : 40|1@1+ (1,0)",
                "Fault : 41|1@1+ (1,0)",
                "Load : 42|6@1+ (2,0)",
                "Count : 48|16@1+ (1,0)",
            ]
        } else {
            &[
                "Speed : 7|16@0+ (0.125,0)",
                "Torque : 23|12@0- (0.1,0)",
                "Gear : 27|4@0+ (1,0)",
                "Temperature : 39|8@0+ (1,-40)",
                "Run : 47|1@0+ (1,0)",
                "Fault : 46|1@0+ (1,0)",
                "Load : 45|6@0+ (2,0)",
                "Count : 55|16@0+ (1,0)",
            ]
        };
        for signal in signals {
            writeln!(text, " SG_ {signal} [0|0] \"\" Unit").unwrap();
        }
        text.push('\n');
    }
    text
}

/// By a generator of 64 bits (Steele and others, SplitMix64): the same in every run.
fn random_frames(count: usize) -> Vec<Frame> {
    let mut state = 42_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    let frame = |_| {
        let number = u32::try_from(next() % u64::from(MESSAGES)).unwrap();
        let mut data = next().to_le_bytes();
        if number % 10 == 0 {
            // cantools refuses values of a multiplexor that select nothing.
            data[0] = data[0] & !3 | (next() % 3) as u8;
        }
        Frame::Data { id: Id::standard(3 * number).unwrap(), data: Payload::new(&data).unwrap() }
    };
    (0..count).map(frame).collect()
}

fn copied(frames: &[Frame]) {
    for frame in frames {
        black_box(*black_box(frame));
    }
}

fn decoded(database: &Database, frames: &[Frame]) {
    for frame in frames {
        let Frame::Data { id, data } = frame else { continue };
        let message = database.by_id(*id).unwrap();
        let decoded = message.decode(data);
        for at in 0..message.signals.len() {
            let _ = black_box(decoded.value(at, false));
        }
    }
}

fn in_columns(database: &Database, frames: &[Frame]) {
    let places: std::collections::HashMap<Id, usize> =
        database.messages().iter().enumerate().map(|(at, message)| (message.id, at)).collect();
    let mut columns: Vec<Vec<Float64Builder>> = database
        .messages()
        .iter()
        .map(|message| message.signals.iter().map(|_| Float64Builder::new()).collect())
        .collect();
    for frame in frames {
        let Frame::Data { id, data } = frame else { continue };
        let place = places[id];
        let decoded = database.messages()[place].decode(data);
        for (at, column) in columns[place].iter_mut().enumerate() {
            column.append_option(match decoded.value(at, false) {
                Ok(Value::Float(value)) => Some(value),
                Ok(Value::Int(value)) => Some(value as f64),
                Ok(Value::Bool(value)) => Some(value.into()),
                Ok(Value::Text(_)) | Err(_) => None,
            });
        }
    }
    for column in columns.iter_mut().flatten() {
        black_box(column.finish());
    }
}

/// Frames a second; none: it is not there.
fn cantools(text: &str, database: &Database, frames: &[Frame]) -> Option<f64> {
    let python = Path::new(&std::env::var_os("HOME")?).join(".cache/tidegate/devices/cantools/bin/python");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made_up.dbc");
    std::fs::write(&file, text).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dbc/oracle.py");
    let mut command = Command::new(python);
    command.args([Path::new(script), Path::new("speed"), &file]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut input = String::new();
    for frame in frames {
        let Frame::Data { id, data } = frame else { continue };
        write!(input, "{} ", database.by_id(*id).unwrap().name).unwrap();
        data.iter().for_each(|byte| write!(input, "{byte:02x}").unwrap());
        input.push('\n');
    }
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

fn seconds(call: impl FnOnce()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
