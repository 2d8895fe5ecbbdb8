//! `tidegate can`: a bus for somebody who stands before the cabinet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, json};
use tidegate_core::Span;
use tidegate_core::clock::SystemClock;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::bus::{Event, Received, Sent};
use super::check::read_databases;
use super::config::{ConnectionConfig, LogConfig};
use super::database::Database;
use super::frame::Frame;
use super::id::{IdRange, J1939Id};
use super::interface::Interface;
use super::link::{Link, Wire};
use super::log::{Line, Written, parse_frame};
use super::message::{Format, Message};
use super::recording::Player;
use super::signal::Value as SignalValue;
use super::sink::message_frame;
use crate::commission::{CommandOutput, Known, LineArgs, Outcome, Print};
use crate::connection::ConnectionConfig as ConnectionKind;
use crate::rows::Value;
use crate::status::LineStatus;

/// Far more than an adapter takes until it is given up.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// What is wanted.
#[derive(Debug, Clone, Subcommand)]
pub enum CanCommand {
    /// Show the frames of a bus as they come, with their signals if a database is named
    #[command(after_help = "Examples:
  tidegate can dump can0
  tidegate can dump can0 --dbc drive.dbc --ids 0x100-0x1ff
  tidegate can dump /dev/ttyACM0 --bitrate 250000 --json
  tidegate can dump can0 > drive.log

Without a database the lines are those of candump -L, so that what is written to a file can be replayed.")]
    Dump(DumpArgs),
    /// Send one frame. It moves the machine at once, whatever rules say
    #[command(after_help = "Examples:
  tidegate can send can0 123#DEADBEEF
  tidegate can send can0 --dbc drive.dbc MotorCommand Target=1500 Enable=1
  tidegate can send drive MotorCommand Target=1500 Enable=1 --every 100ms --count 50")]
    Send(SendArgs),
    /// Send what candump has recorded, at its own pace or another
    #[command(after_help = "Examples:
  tidegate can replay drive.log vcan0
  tidegate can replay drive.log can0 --speed 10 --from can1")]
    Replay(ReplayArgs),
}

/// The bus that is used, and what it is read by.
#[derive(Debug, Clone, Args)]
pub struct BusArgs {
    /// the line
    #[command(flatten)]
    pub line: LineArgs,
    /// Of an adapter: bits a second on the bus
    #[arg(long, value_name = "RATE")]
    pub bitrate: Option<u32>,
    /// Of an adapter: do not wait for its answers, which some firmware (that of CANable) does not give
    #[arg(long)]
    pub no_answers: bool,
    /// A DBC file; may be given several times [default: those of the connection]
    #[arg(long, value_name = "FILE")]
    pub dbc: Vec<PathBuf>,
}

/// `tidegate can dump`
#[derive(Debug, Clone, Args)]
pub struct DumpArgs {
    /// the bus
    #[command(flatten)]
    pub bus: BusArgs,
    /// Only these, such as 0x100, 0x100-0x1ff or 0x18FEF100x; may be given several times
    #[arg(long, value_name = "IDS")]
    pub ids: Vec<IdRange>,
    /// End after so many
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
}

/// `tidegate can send`
#[derive(Debug, Clone, Args)]
pub struct SendArgs {
    /// the bus
    #[command(flatten)]
    pub bus: BusArgs,
    /// A frame as candump writes it, such as 123#DEADBEEF, or the name of a message
    pub what: String,
    /// With a message: its signals, such as Target=1500; those that are not named have their start value
    #[arg(value_name = "SIGNAL=VALUE", allow_hyphen_values = true)]
    pub signals: Vec<String>,
    /// Send it again and again
    #[arg(long, value_name = "TIME", requires = "count")]
    pub every: Option<Span>,
    /// With --every: how often
    #[arg(long, short = 'n', value_name = "N", requires = "every")]
    pub count: Option<u64>,
}

/// `tidegate can replay`
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// A file that candump has written
    #[arg(value_name = "LOG")]
    pub recording: PathBuf,
    /// the bus
    #[command(flatten)]
    pub bus: BusArgs,
    /// How many times as fast as it was recorded
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = parse_speed)]
    pub speed: f64,
    /// Only the frames that were recorded from this interface
    #[arg(long, value_name = "INTERFACE")]
    pub from: Option<String>,
}

impl CanCommand {
    /// Whether it names a connection of the configuration.
    #[must_use]
    pub fn needs_configuration(&self) -> bool {
        !self.bus().is_written_out()
    }

    /// The line that is used.
    #[must_use]
    pub fn line(&self) -> &LineArgs {
        &self.bus().line
    }

    fn bus(&self) -> &BusArgs {
        match self {
            Self::Dump(args) => &args.bus,
            Self::Send(args) => &args.bus,
            Self::Replay(args) => &args.bus,
        }
    }

    /// Does it. `known`: the configuration, if it names the bus.
    ///
    /// # Errors
    /// In words for the user.
    pub async fn run(self, known: &Known<'_>, print: Print<'_>) -> Result<Outcome, String> {
        let bus = Bus::find(self.bus(), known)?;
        // Messages that cannot be used would be missed otherwise.
        for problem in bus.database.problems() {
            let _ = print(CommandOutput::Progress(&problem.to_string()));
        }
        match self {
            Self::Dump(args) => bus.open().await?.dump(args, print).await,
            Self::Send(args) => {
                // What is wrong is said before the bus is touched.
                bus.may_send()?;
                let (frame, name) = outgoing(&args, &bus.database)?;
                bus.open().await?.send_again(&args, frame, name).await
            }
            Self::Replay(args) => {
                bus.may_send()?;
                let status = Arc::new(LineStatus::default());
                let log = args.log();
                let player = Player::open(&log, Arc::new(SystemClock), Arc::clone(&status))?;
                let begins = format!("replaying {} to {}", log.path.display(), bus.name);
                let mut session = bus.open().await?;
                let _ = print(CommandOutput::Progress(&begins));
                session.replay(player, &status).await
            }
        }
    }
}

impl ReplayArgs {
    fn log(&self) -> LogConfig {
        LogConfig {
            path: self.recording.clone(),
            speed: self.speed,
            repeat: false,
            interface: self.from.clone(),
        }
    }
}

impl BusArgs {
    /// Whether it is an interface of this machine, or a port.
    fn is_written_out(&self) -> bool {
        let name = &self.line.name;
        name.contains('/') || Interface::read(name).is_ok_and(|interface| interface.is_can)
    }

    fn settings(&self, known: &Known<'_>) -> Result<ConnectionConfig, String> {
        let name = self.line.name.as_str();
        if self.bitrate.is_some() && !name.contains('/') {
            return Err("--bitrate is for the serial port of an adapter; an interface has its own: ip link \
                        set can0 up type can bitrate 250000"
                .into());
        }
        let settings = match self.bitrate {
            _ if !self.is_written_out() => {
                let written = "name an interface that is there: ip link show type can lists them";
                return known.connection(name, "CAN", ConnectionKind::as_can, written).cloned();
            }
            _ if !name.contains('/') => json!({ "interface": name }),
            Some(bitrate) => {
                let answers = !self.no_answers;
                json!({ "slcan": { "device": name, "bitrate": bitrate, "answers": answers } })
            }
            None => {
                return Err("an adapter has to be told the bit rate of the bus: add --bitrate 250000".into());
            }
        };
        serde_json::from_value(settings).map_err(|error| format!("{name}: {error}"))
    }
}

/// A bus that is known, and not opened yet.
struct Bus {
    name: String,
    config: ConnectionConfig,
    database: Arc<Database>,
}

impl Bus {
    fn find(args: &BusArgs, known: &Known<'_>) -> Result<Self, String> {
        let config = args.settings(known)?;
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem.to_string());
        }
        let read = |paths: &[PathBuf]| {
            read_databases(paths)
                .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        };
        let database = match &config.database {
            _ if !args.dbc.is_empty() => Arc::new(read(&args.dbc)?),
            Some(database) => Arc::clone(database),
            None => Arc::new(read(&config.dbc)?),
        };
        Ok(Self { name: args.line.name.clone(), config, database })
    }

    fn may_send(&self) -> Result<(), String> {
        let why = self.config.refuses_outputs().map(|why| format!("{}: {why}", self.name));
        why.map_or(Ok(()), Err)
    }

    async fn open(self) -> Result<Session, String> {
        let Self { name, config, database } = self;
        // All of them, and what the controller says.
        let (filters, errors) = (vec![(0, 0)], true);
        let link = Link::new(&config, filters, errors, Arc::new(SystemClock), Arc::default());
        let wire = link.map_err(|problem| problem.to_string())?.open().await?;
        Ok(Session { name, wire, database, patience: config.send_timeout.0, frames: Vec::new() })
    }
}

/// A bus that is used by hand.
struct Session {
    name: String,
    wire: Wire,
    database: Arc<Database>,
    patience: Duration,
    frames: Vec<Received>,
}

impl Session {
    async fn dump(&mut self, args: DumpArgs, print: Print<'_>) -> Result<Outcome, String> {
        let mut left = args.count.unwrap_or(u64::MAX);
        let interface = self.name.rsplit('/').next().unwrap_or_default().to_owned();
        while left > 0 {
            match self.wire.wait(false, &mut self.frames).await? {
                Event::Off(reason) => drop(print(CommandOutput::Progress(&reason))),
                Event::On => drop(print(CommandOutput::Progress("the controller is on the bus again"))),
                Event::Played(_) => break,
                Event::Frames | Event::Room | Event::Left(_) | Event::Answered(_) => {}
            }
            for Received { frame, at } in self.frames.drain(..) {
                let is_wanted = |id| args.ids.is_empty() || args.ids.iter().any(|range| range.contains(id));
                if left == 0 || frame.id().is_some_and(|id| !is_wanted(id)) {
                    continue;
                }
                let line = Line { at, interface: &interface, frame };
                let text = if args.bus.line.json {
                    as_json(&line, &self.database).to_string()
                } else {
                    as_text(&line, &self.database)
                };
                left -= 1;
                if !print(CommandOutput::Line(&text)) {
                    return Ok(Outcome::default());
                }
            }
        }
        Ok(Outcome::default())
    }

    async fn send_again(
        &mut self,
        args: &SendArgs,
        frame: Frame,
        name: Option<String>,
    ) -> Result<Outcome, String> {
        let count = args.count.unwrap_or(1);
        let (every, start) = (args.every.map_or(Duration::ZERO, |every| every.0), Instant::now());
        for n in 0..count {
            sleep_until(start + every.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX))).await;
            self.send(&frame).await?;
        }
        let text = Written(&frame).to_string();
        Ok(Outcome {
            heads: vec!["frame", "message", "sent"],
            rows: vec![vec![text.clone(), name.clone().unwrap_or_default(), count.to_string()]],
            json: json!({ "frame": text, "message": name, "sent": count }),
            failed: false,
        })
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), String> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.wire.send(frame) {
                Sent::Aboard => return self.until(deadline, Event::Left(*frame)).await,
                Sent::Asked => break,
                Sent::Later => self.until(deadline, Event::Room).await?,
                Sent::Refused(why) | Sent::Lost(why) => return Err(why),
            }
        }
        // An adapter has a time of its own to answer.
        self.until(Instant::now() + LONGEST_ANSWER, Event::Answered(Ok(()))).await
    }

    async fn until(&mut self, deadline: Instant, wanted: Event) -> Result<(), String> {
        loop {
            let event = timeout_at(deadline, self.wire.wait(wanted == Event::Room, &mut self.frames)).await;
            self.frames.clear();
            match event {
                Ok(Ok(event)) if event == wanted => return Ok(()),
                Ok(Ok(Event::Off(reason) | Event::Answered(Err(reason))) | Err(reason)) => {
                    return Err(reason);
                }
                Ok(Ok(_)) => {}
                Err(_) => {
                    let may_follow = match wanted {
                        Event::Left(_) => "; the controller has it, and may send it when that is over",
                        _ => "",
                    };
                    return Err(format!(
                        "the frame was not sent within {}: no node acknowledges, or the bus is full{may_follow}",
                        Span(self.patience)
                    ));
                }
            }
        }
    }

    async fn replay(&mut self, mut player: Player, status: &LineStatus) -> Result<Outcome, String> {
        let (mut sent, mut frames) = (0_u64, Vec::new());
        while !matches!(player.wait(&mut frames).await?, Event::Played(_)) {
            for Received { frame, .. } in frames.drain(..) {
                // What a controller said of another bus is not for this one.
                if !matches!(frame, Frame::Error { .. }) {
                    self.send(&frame).await?;
                    sent += 1;
                }
            }
        }
        let unread = status.malformed.get();
        Ok(Outcome {
            heads: vec!["sent", "lines that could not be read"],
            rows: vec![vec![sent.to_string(), unread.to_string()]],
            json: json!({ "sent": sent, "malformed": unread }),
            failed: unread > 0,
        })
    }
}

/// What is to be sent, and the message that it is.
fn outgoing(args: &SendArgs, database: &Database) -> Result<(Frame, Option<String>), String> {
    if args.what.contains('#') {
        if let Some(signal) = args.signals.first() {
            return Err(format!("`{signal}`: a frame that is written out has no signals"));
        }
        return Ok((parse_frame(&args.what).map_err(|error| error.to_string())?, None));
    }
    let message = database.message(&args.what).map_err(|error| {
        format!("{error}. A frame is written as 123#DEADBEEF, and a message needs --dbc FILE")
    })?;
    let mut values = Vec::with_capacity(args.signals.len());
    for text in &args.signals {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("\"{text}\" is no signal: write one such as Target=1500"))?;
        let value = match value {
            "true" | "on" => Value::Bool(true),
            "false" | "off" => Value::Bool(false),
            _ => match (value.parse(), value.parse()) {
                (Ok(number), _) => Value::Int(number),
                // Beyond an int64 it stays as it was written, since a float64 would round it.
                (_, Ok(number)) if value.parse::<u64>().is_err() => Value::Float(number),
                _ => Value::Text(value.to_owned()),
            },
        };
        values.push((name, labelled(message, name, value)));
    }
    Ok((message_frame(message, &[], &values)?, Some(message.name.to_string())))
}

/// Words such as on and off may also be labels.
fn labelled(message: &Message, name: &str, value: Value) -> Value {
    let word = match value {
        Value::Bool(true) => "on",
        Value::Bool(false) => "off",
        _ => return value,
    };
    let signal = message.signal(name).ok().and_then(|place| message.signals.get(place));
    let is_label = signal.is_some_and(|signal| signal.labels().iter().any(|(_, label)| label == word));
    if is_label { Value::Text(word.to_owned()) } else { value }
}

/// The message of a frame, and its bytes.
fn message_of<'a>(frame: &'a Frame, database: &'a Database) -> Option<(&'a Message, &'a [u8])> {
    let (Frame::Data { id, data } | Frame::Fd { id, data, .. }) = frame else { return None };
    let by_group = || {
        let id = J1939Id::parse(*id)?;
        database.by_pgn(id.pgn, id.source)
    };
    let message = database.by_id(*id).or_else(by_group)?;
    // Of what J1939 sends in several frames there is no single one.
    let is_whole = message.format != Format::J1939 || message.length <= super::frame::MOST_CLASSIC;
    is_whole.then_some((message, &**data))
}

fn as_text(line: &Line<'_>, database: &Database) -> String {
    let mut text = line.to_string();
    if let Some((message, data)) = message_of(&line.frame, database) {
        let decoded = message.decode(data);
        let signals = message.signals.iter().enumerate().filter_map(|(place, signal)| {
            let value = match decoded.value(place, true).ok()? {
                SignalValue::Text(label) => label.to_owned(),
                value => value.to_string(),
            };
            let unit = if signal.unit.is_empty() { String::new() } else { format!(" {}", signal.unit) };
            Some(format!("{}={value}{unit}", signal.name))
        });
        text += &format!("  {}: {}", message.name, signals.collect::<Vec<_>>().join(", "));
    }
    text
}

fn as_json(line: &Line<'_>, database: &Database) -> serde_json::Value {
    let Line { at, interface, frame } = line;
    let mut object = Map::from_iter([
        ("ts".to_owned(), json!(at)),
        ("interface".to_owned(), json!(interface)),
        ("frame".to_owned(), json!(Written(frame).to_string())),
    ]);
    if let Some((message, data)) = message_of(frame, database) {
        let decoded = message.decode(data);
        let signals = message.signals.iter().enumerate().map(|(place, signal)| {
            let value = decoded.value(place, true).map_or(json!(null), |value| match value {
                SignalValue::Bool(value) => json!(value),
                SignalValue::Int(value) => json!(value),
                SignalValue::Float(value) => json!(value),
                SignalValue::Text(value) => json!(value),
            });
            (signal.name.to_string(), value)
        });
        object.insert("message".to_owned(), json!(&*message.name));
        object.insert("signals".to_owned(), signals.collect::<Map<_, _>>().into());
    }
    object.into()
}

fn parse_speed(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|speed| (1e-3..=1e6).contains(speed))
        .ok_or_else(|| "write 1 for the pace at which it was recorded, 10 for ten times that".to_owned())
}
