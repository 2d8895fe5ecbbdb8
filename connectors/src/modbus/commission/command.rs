//! `tidegate modbus`: the command line of somebody who stands before the cabinet.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tidegate_core::Span;
use tidegate_core::diagnostic::did_you_mean;

use super::{Found, Reading, Session, Written};
use crate::commission::{CommandOutput, Known, LineArgs, Outcome, Print};
use crate::connection::ConnectionConfig as ConnectionKind;
use crate::modbus::config::{
    ConnectionConfig, MOST_BITS, MOST_REGISTERS, OutputConfig, PointConfig, StreamConfig,
};
use crate::modbus::plan::Limits;
use crate::modbus::points::{Point, Spelling, nearest_point};
use crate::output::OutputConfig as OutputKind;
use crate::port::Parity;
use crate::stream::StreamConfig as StreamKind;

/// What is wanted.
#[derive(Debug, Clone, Subcommand)]
pub enum ModbusCommand {
    /// Look for units that answer, and ask them who they are
    #[command(after_help = "Examples:
  tidegate modbus scan plc
  tidegate modbus scan /dev/ttyUSB0 --baud 9600 --parity none --units 1-32
  tidegate modbus scan tcp://192.168.10.20 --json
  tidegate modbus scan rtu://192.168.10.30:4001

rtu:// is a serial server that hands bytes through.")]
    Scan(ScanArgs),
    /// Read registers, coils and inputs, or all fields of a stream
    #[command(after_help = "Examples:
  tidegate modbus read plc --stream tank
  tidegate modbus read tcp://192.168.10.20 --unit 3 holding=0 --count 10
  tidegate modbus read /dev/ttyUSB0 --baud 9600 at=30001,type=float32,order=CDAB coil=5

A point is written as in the configuration: holding, input, coil, discrete or at, then type, order, bit, \
        scale and so on.
Registers without a type are read as uint16. Exits with 1 when a value could not be read.")]
    Read(ReadArgs),
    /// Write one coil, register or bit. It moves the machine at once, whatever rules say
    #[command(after_help = "Examples:
  tidegate modbus write plc --output pump speed 45.5 --read-back
  tidegate modbus write tcp://192.168.10.20 --unit 3 coil=5 on
  tidegate modbus write /dev/ttyUSB0 --baud 9600 holding=40,type=uint16,scale=0.1 12.5")]
    Write(WriteArgs),
}

/// The line that is used, and how a serial port is set.
#[derive(Debug, Clone, Args)]
pub struct LineSettings {
    /// the line
    #[command(flatten)]
    pub line: LineArgs,
    /// Of a serial port: bits a second [default: 19200]
    #[arg(long, value_name = "RATE")]
    pub baud: Option<NonZeroU32>,
    /// Of a serial port [default: even]
    #[arg(long, value_enum)]
    pub parity: Option<Parity>,
    /// Of a serial port: 1 or 2 [default: 1 with parity, 2 without]
    #[arg(long, value_name = "BITS")]
    pub stop_bits: Option<u8>,
    /// How long a unit may take to answer [default: 300ms for a scan, else as configured, or 1s]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
}

/// `tidegate modbus scan`
#[derive(Debug, Clone, Args)]
pub struct ScanArgs {
    /// the line
    #[command(flatten)]
    pub settings: LineSettings,
    /// The unit ids to try: one, or a range
    #[arg(long, value_name = "FROM-TO", default_value = "1-247", value_parser = parse_units)]
    pub units: (u8, u8),
}

/// `tidegate modbus read`
#[derive(Debug, Clone, Args)]
pub struct ReadArgs {
    /// the line
    #[command(flatten)]
    pub settings: LineSettings,
    /// What to read, such as holding=0,type=int32 or coil=5
    #[arg(value_name = "POINT", required_unless_present = "stream")]
    pub points: Vec<String>,
    /// The unit id [default: 1, or those of the stream]
    #[arg(long, short)]
    pub unit: Option<u8>,
    /// All fields of this stream of the configuration
    #[arg(long, value_name = "STREAM", conflicts_with = "points")]
    pub stream: Option<String>,
    /// So many of each point, one behind the other
    #[arg(long, short = 'n', value_name = "N", default_value = "1", conflicts_with = "stream")]
    pub count: NonZeroU16,
}

/// `tidegate modbus write`
#[derive(Debug, Clone, Args)]
pub struct WriteArgs {
    /// the line
    #[command(flatten)]
    pub settings: LineSettings,
    /// What to write, such as coil=5 or holding=40,type=uint16; with --output the name of its field
    pub point: String,
    /// The value
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// The unit id [default: 1, or that of the output]
    #[arg(long, short)]
    pub unit: Option<u8>,
    /// Of which output of the configuration POINT is a field
    #[arg(long, value_name = "OUTPUT")]
    pub output: Option<String>,
    /// Read it again afterwards, and compare
    #[arg(long)]
    pub read_back: bool,
}

/// A reading, and whose it is.
#[derive(Debug, Serialize)]
struct OfUnit {
    unit: u8,
    device: Option<String>,
    #[serde(flatten)]
    reading: Reading,
}

impl ModbusCommand {
    /// Whether it names a connection, a stream or an output of the configuration.
    #[must_use]
    pub fn needs_configuration(&self) -> bool {
        let names_more = match self {
            Self::Scan(_) => false,
            Self::Read(args) => args.stream.is_some(),
            Self::Write(args) => args.output.is_some(),
        };
        names_more || self.line().connection().is_some()
    }

    /// The line that is used.
    #[must_use]
    pub fn line(&self) -> &LineArgs {
        match self {
            Self::Scan(args) => &args.settings.line,
            Self::Read(args) => &args.settings.line,
            Self::Write(args) => &args.settings.line,
        }
    }

    /// Does it. `known`: the configuration, if it names the line.
    ///
    /// # Errors
    /// In words for the user.
    pub async fn run(self, known: &Known<'_>, print: Print<'_>) -> Result<Outcome, String> {
        match self {
            Self::Scan(args) => scan(args, known, print).await,
            Self::Read(args) => read(args, known).await,
            Self::Write(args) => write(args, known).await,
        }
    }
}

impl LineSettings {
    async fn open(&self, known: &Known<'_>, least: Option<Duration>) -> Result<Session, String> {
        let mut config = self.settings(known)?;
        let timeout = self.timeout.or(least.map(Span));
        config.timeout = timeout.unwrap_or(config.timeout);
        Session::open(&config).await
    }

    fn settings(&self, known: &Known<'_>) -> Result<ConnectionConfig, String> {
        let line = self.line.name.as_str();
        let port_settings = self.baud.is_some() || self.parity.is_some() || self.stop_bits.is_some();
        if port_settings && !line.starts_with('/') {
            return Err(
                "--baud, --parity and --stop-bits are for a serial port that is written out, such as \
                        /dev/ttyUSB0"
                    .into(),
            );
        }
        let settings = if let Some(name) = self.line.connection() {
            let written = "write tcp://HOST, rtu://HOST:PORT or the path of a serial port";
            return known.connection(name, "Modbus", ConnectionKind::as_modbus, written).cloned();
        } else if let Some((scheme, rest)) = line.split_once("://") {
            let framing = match scheme {
                "tcp" => "tcp",
                "rtu" => "rtu",
                _ => return Err(format!("`{scheme}://` is not known here: write tcp:// or rtu://")),
            };
            match rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
                Some((host, port)) => json!({ "host": host, "port": port, "framing": framing }),
                None => json!({ "host": rest, "framing": framing }),
            }
        } else {
            let mut serial = Map::from_iter([("device".to_owned(), json!(line))]);
            serial.extend(self.baud.map(|baud| ("baud".to_owned(), json!(baud))));
            serial.extend(self.stop_bits.map(|bits| ("stop_bits".to_owned(), json!(bits))));
            json!({ "serial": serial })
        };
        let mut config: ConnectionConfig =
            serde_json::from_value(settings).map_err(|error| format!("{line}: {error}"))?;
        if let (Some(serial), Some(parity)) = (&mut config.serial, self.parity) {
            serial.parity = Some(parity);
        }
        Ok(config)
    }
}

async fn scan(args: ScanArgs, known: &Known<'_>, print: Print<'_>) -> Result<Outcome, String> {
    // A scan goes on without anybody who reads how.
    let mut say = |progress: &str| {
        let _ = print(CommandOutput::Progress(progress));
    };
    let mut session = args.settings.open(known, Some(Duration::from_millis(300))).await?;
    let (from, to) = args.units;
    say(&format!("asking units {from} to {to} on {}", args.settings.line.name));
    let found =
        session.scan(from..=to, |found| say(&format!("unit {}: {}", found.unit, found.answer))).await?;
    if found.is_empty() {
        say(
            "no unit has answered: check the rate, parity, wiring, and whether another master is on the line",
        );
    }
    let row = |Found { unit, answer, identification }: &Found| {
        let who: Vec<String> = identification.iter().map(|(what, name)| format!("{what} {name}")).collect();
        vec![unit.to_string(), answer.clone(), who.join(", ")]
    };
    Ok(Outcome {
        heads: vec!["unit", "answer", "identification"],
        rows: found.iter().map(row).collect(),
        json: json!(found),
        failed: found.is_empty(),
    })
}

async fn read(args: ReadArgs, known: &Known<'_>) -> Result<Outcome, String> {
    let ReadArgs { settings, points, unit, stream, count } = args;
    let (points, devices, limits) = match stream {
        Some(name) => {
            let stream = stream_of(&name, known)?;
            let points = stream.points().map_err(|problem| problem.to_string())?;
            let mut devices = stream.devices(&settings.line.name);
            if let Some(unit) = unit {
                devices.retain(|(_, of)| *of == unit);
            }
            if devices.is_empty() {
                return Err(format!("stream {name} has no such unit"));
            }
            (points, devices, stream.limits())
        }
        None => {
            let mut all = Vec::new();
            for text in &points {
                all.extend(run_of_points(text, count.get())?);
            }
            (all, vec![(None, unit.unwrap_or(1))], Limits::default())
        }
    };
    let mut session = settings.open(known, None).await?;
    let mut all = Vec::new();
    for (device, unit) in devices {
        let device = device.map(|name| name.to_string());
        for reading in session.read(unit, &points, limits).await? {
            all.push(OfUnit { unit, device: device.clone(), reading });
        }
    }
    let row = |OfUnit { unit, device, reading }: &OfUnit| {
        let Reading { name, place, value, raw, fault } = reading;
        let whose = device.clone().unwrap_or_else(|| unit.to_string());
        let value = match value {
            Value::Null => fault.clone().unwrap_or_else(|| "no value".into()),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        vec![whose, name.clone(), place.clone(), value, raw.clone().unwrap_or_default()]
    };
    Ok(Outcome {
        heads: vec!["unit", "field", "place", "value", "raw"],
        rows: all.iter().map(row).collect(),
        json: json!(all),
        failed: all.iter().any(|of| of.reading.fault.is_some()),
    })
}

async fn write(args: WriteArgs, known: &Known<'_>) -> Result<Outcome, String> {
    let WriteArgs { settings, point, value, unit, output, read_back } = args;
    let (point, unit) = match output {
        Some(name) => {
            let output = output_of(&name, known)?;
            let points = output.points().map_err(|problem| problem.to_string())?;
            let found = points.iter().find(|known| *known.name == *point).cloned();
            let Some(found) = found else {
                let help = nearest_point(&point, &points);
                return Err(format!("output {name} has no `{point}`; {help}"));
            };
            (found, unit.or(output.unit))
        }
        None => (parse_point(&point)?, unit),
    };
    let mut session = settings.open(known, None).await?;
    let written = session.write(unit.unwrap_or(1), &point, &value, read_back).await?;
    let Written { name, place, value, read_back } = &written;
    let checked = if *read_back { "yes" } else { "no" };
    Ok(Outcome {
        heads: vec!["field", "place", "value", "read back"],
        rows: vec![vec![name.clone(), place.clone(), value.to_string(), checked.to_owned()]],
        json: json!(written),
        failed: false,
    })
}

fn stream_of<'a>(name: &str, known: &Known<'a>) -> Result<&'a StreamConfig, String> {
    match known.streams.get(name) {
        Some(StreamKind::Modbus(stream)) => Ok(stream),
        Some(_) => Err(format!("stream {name} is not polled from a Modbus connection")),
        None => Err(missing("stream", name, known.streams.keys().copied())),
    }
}

fn output_of<'a>(name: &str, known: &Known<'a>) -> Result<&'a OutputConfig, String> {
    match known.outputs.get(name) {
        Some(OutputKind::Modbus(output)) => Ok(output),
        Some(_) => Err(format!("output {name} does not write to a Modbus connection")),
        None => Err(missing("output", name, known.outputs.keys().copied())),
    }
}

fn missing<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let help = did_you_mean(name, &known).unwrap_or_else(|| "name the file with --config FILE".to_owned());
    format!("the configuration has no {what} `{name}`; {help}")
}

/// A point as it is written on the command line, and those behind it.
fn run_of_points(text: &str, count: u16) -> Result<Vec<Point>, String> {
    let first = parse_point(text)?;
    let most = if first.table.is_bits() { MOST_BITS } else { MOST_REGISTERS };
    if first.count > most {
        return Err(format!("{first} takes {} registers, and one request reads {most}", first.count));
    }
    let behind = |n: u16| {
        let step = if first.mask() == u16::MAX || first.table.is_bits() { first.count } else { 0 };
        let address = u32::from(first.address) + u32::from(n) * u32::from(step);
        if n > 0 && step == 0 {
            return Err(format!("{text} is a part of one register: leave --count out"));
        }
        match u16::try_from(address) {
            Ok(address) if u32::from(address) + u32::from(first.count) <= 1 << 16 => {
                let mut point = first.clone();
                point.address = address;
                Ok(point)
            }
            _ => Err(format!("{count} of {text} end behind the last register, 65535")),
        }
    };
    (0..count).map(behind).collect()
}

/// `holding=0,type=float32`: the keys of the configuration, without its quotes.
fn parse_point(text: &str) -> Result<Point, String> {
    let mut keys = Map::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| {
            format!("\"{text}\" is no point: write one such as holding=0,type=int16, coil=5 or at=40031")
        })?;
        let value = match value.parse::<i64>() {
            // The number of a data sheet is a text, since its zeros count.
            _ if key == "at" => value.into(),
            Ok(number) => number.into(),
            Err(_) => {
                value.parse::<f64>().ok().filter(|n| n.is_finite()).map_or_else(|| value.into(), Value::from)
            }
        };
        if keys.insert(key.trim().to_owned(), value).is_some() {
            return Err(format!("{text}: `{}` stands twice", key.trim()));
        }
    }
    let wrong = |error: &dyn std::fmt::Display| format!("{text}: {error}");
    let mut config: PointConfig = serde_json::from_value(keys.into()).map_err(|error| wrong(&error))?;
    let is_register = config.coil.is_none() && config.discrete.is_none();
    let retried = |config: &PointConfig| Point::parse(text, config, Spelling::default());
    if is_register && config.value_type.is_none() && config.bit.is_none() && retried(&config).is_err() {
        config.value_type = Some(crate::modbus::config::ValueType::Uint16);
    }
    retried(&config).map_err(|problem| wrong(&problem.text()))
}

fn parse_units(text: &str) -> Result<(u8, u8), String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.trim().parse::<u8>(), to.trim().parse::<u8>()) {
        (Ok(from), Ok(to)) if from <= to => Ok((from, to)),
        _ => Err("write one unit id, or a range such as 1-32; ids are 0 to 255".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn points_are_written_with_the_keys_of_the_configuration() {
        let place = |text: &str| parse_point(text).unwrap().to_string();
        assert_eq!(place("holding=3"), "holding=3 (holding register 3)");
        assert_eq!(place("at=40031,type=int32"), "at=40031,type=int32 (holding register 30 to 31)");
        assert_eq!(place("at=00001"), "at=00001 (coil 0)");
        assert_eq!(place("holding=20,bit=3"), "holding=20,bit=3 (holding register 20, bit 3)");
        for (wrong, words) in [
            ("", "is no point"),
            ("holding", "is no point"),
            ("holding=1,typ=int16", "unknown field `typ`"),
            ("holding=70000", "invalid value: integer `70000`"),
            ("holding=1,coil=2", "holding=1,coil=2: "),
        ] {
            let why = parse_point(wrong).unwrap_err();
            assert!(why.contains(words), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_run_of_points_lies_one_behind_the_other() {
        let at = |text: &str, count| {
            run_of_points(text, count)
                .map(|points| points.iter().map(|point| point.address).collect::<Vec<_>>())
        };
        assert_eq!(at("holding=8,type=float32", 3).unwrap(), [8, 10, 12]);
        assert_eq!(at("coil=5", 2).unwrap(), [5, 6]);
        assert!(at("holding=65535", 2).unwrap_err().contains("last register"));
        assert!(at("holding=1,bit=2", 2).unwrap_err().contains("leave --count out"));
    }

    #[test]
    fn units_are_one_or_a_range() {
        assert_eq!(parse_units("7"), Ok((7, 7)));
        assert_eq!(parse_units("1-247"), Ok((1, 247)));
        assert!(parse_units("9-3").is_err() && parse_units("300").is_err() && parse_units("").is_err());
    }
}
