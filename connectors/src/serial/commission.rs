//! `tidegate serial`: for somebody who stands before the device. Which ports are there, and what comes from
//! one.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use serde_json::json;
use tidegate_core::Span;
use tidegate_core::diagnostic::did_you_mean;
use tokio::time::{Instant, sleep_until};

use super::config::{ConnectionConfig, StreamConfig, usual_settings};
use super::escapes::unescape;
use super::framing::{FrameConfig, Framer, Skipped, Why};
use super::link::{Link, Usage};
use crate::codec::Encoder;
use crate::commission::{CommandOutput, Known, LineArgs, Outcome, Print};
use crate::connection::ConnectionConfig as ConnectionKind;
use crate::hex::{Hex, dump};
use crate::port::usb::{self, Found};
use crate::port::{Dial, Parity, PortConfig};
use crate::stream::StreamConfig as StreamKind;

/// How long a serial server may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What is wanted.
#[derive(Debug, Clone, Subcommand)]
pub enum SerialCommand {
    /// List the serial ports of this machine, with what their USB adapters say
    List(ListArgs),
    /// Show the frames that come from a port, until it is interrupted
    #[command(after_help = "Examples:
  tidegate serial monitor scale
  tidegate serial monitor scale --stream weight
  tidegate serial monitor /dev/ttyUSB0 --baud 9600 --end '\\r\\n'
  tidegate serial monitor rfc2217://192.168.10.30:4001 --gap 20ms --send 'P\\r\\n' --every 1s

A port takes one program at a time: stop the box, or leave the connection out of its configuration meanwhile.")]
    Monitor(Box<MonitorArgs>),
}

/// `tidegate serial list`
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `tidegate serial monitor`
#[derive(Debug, Clone, Args)]
pub struct MonitorArgs {
    /// the line
    #[command(flatten)]
    pub line: LineArgs,
    /// Show the rows of this stream of the configuration instead of frames
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Of a port: bits a second [default: 9600]
    #[arg(long, value_name = "RATE")]
    pub baud: Option<NonZeroU32>,
    /// Of a port [default: none]
    #[arg(long, value_enum)]
    pub parity: Option<Parity>,
    /// Of a port: 5 to 8 [default: 8]
    #[arg(long, value_name = "BITS")]
    pub data_bits: Option<u8>,
    /// Of a port: 1 or 2 [default: 1]
    #[arg(long, value_name = "BITS")]
    pub stop_bits: Option<u8>,
    /// Bytes that end a frame, such as '\r\n' or '\x03'
    #[arg(long, value_name = "BYTES", conflicts_with = "gap")]
    pub end: Option<String>,
    /// Silence that ends a frame [default: 20ms, if there is no --end]
    #[arg(long, value_name = "TIME")]
    pub gap: Option<Span>,
    /// Bytes to send, such as 'P\r\n': once, or with --every again and again
    #[arg(long, value_name = "BYTES")]
    pub send: Option<String>,
    /// How often --send is sent
    #[arg(long, value_name = "TIME", requires = "send")]
    pub every: Option<Span>,
    /// End after so many frames
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// End after so long
    #[arg(long, value_name = "TIME")]
    pub time: Option<Span>,
}

impl SerialCommand {
    /// Whether it names a connection or a stream of the configuration.
    #[must_use]
    pub fn needs_configuration(&self) -> bool {
        match self {
            Self::List(_) => false,
            Self::Monitor(args) => args.line.connection().is_some() || args.stream.is_some(),
        }
    }

    /// The line that is used, if there is one.
    #[must_use]
    pub fn line(&self) -> Option<&LineArgs> {
        match self {
            Self::List(_) => None,
            Self::Monitor(args) => Some(&args.line),
        }
    }

    /// Whether the outcome is printed as JSON.
    #[must_use]
    pub fn is_for_programs(&self) -> bool {
        match self {
            Self::List(args) => args.json,
            Self::Monitor(args) => args.line.json,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// In words for the user.
    pub async fn run(self, known: &Known<'_>, print: Print<'_>) -> Result<Outcome, String> {
        match self {
            Self::List(_) => Ok(list()),
            Self::Monitor(args) => monitor(*args, known, print).await,
        }
    }
}

fn list() -> Outcome {
    let ports = usb::list();
    let row = |Found { path, bus, usb, by_id }: &Found| {
        let ids = usb.as_ref().map(|usb| format!("{:04x}:{:04x}", usb.vendor, usb.product));
        let stable = by_id.as_ref().map(|path| path.display().to_string());
        vec![
            path.display().to_string(),
            bus.clone(),
            ids.unwrap_or_default(),
            usb.as_ref().and_then(|usb| usb.serial.clone()).unwrap_or_default(),
            usb.as_ref().map(|usb| usb.name.clone()).unwrap_or_default(),
            stable.unwrap_or_default(),
        ]
    };
    Outcome {
        heads: vec!["port", "bus", "vendor:product", "serial", "name", "stays the same"],
        rows: ports.iter().map(row).collect(),
        json: json!(ports),
        failed: false,
    }
}

impl MonitorArgs {
    /// The port, and where its frames begin and end.
    fn settings(&self, known: &Known<'_>) -> Result<(Dial, FrameConfig, bool), String> {
        let (mut port, mut frame, echo) = match self.line.connection() {
            Some(name) => {
                let written = "write the path of a port, rfc2217://HOST:PORT or tcp://HOST:PORT";
                let found = known.connection(name, "serial", ConnectionKind::as_serial, written)?;
                let ConnectionConfig { port, frame, echo, .. } = found.clone();
                (port, frame, echo)
            }
            None => {
                let gap = Some(Span(std::time::Duration::from_millis(20)));
                (PortConfig::at(&self.line.name), FrameConfig { gap, ..FrameConfig::default() }, false)
            }
        };
        port.baud = self.baud.or(port.baud);
        port.parity = self.parity.or(port.parity);
        port.data_bits = self.data_bits.or(port.data_bits);
        port.stop_bits = self.stop_bits.or(port.stop_bits);
        if let Some(gap) = self.gap {
            frame = FrameConfig { gap: Some(gap), ..FrameConfig::default() };
        }
        if let Some(end) = &self.end {
            let end = super::escapes::Bytes(unescape(end).map_err(|why| format!("--end: {why}"))?);
            frame = FrameConfig { end: Some(end), ..FrameConfig::default() };
        }
        let dial = Dial::new(&port, usual_settings(), PATIENCE).map_err(|problem| problem.to_string())?;
        Ok((dial, frame, echo))
    }
}

fn stream_of<'k>(name: &str, known: &Known<'k>) -> Result<&'k StreamConfig, String> {
    match known.streams.get(name) {
        Some(StreamKind::Serial(stream)) => Ok(stream),
        _ => {
            let names: Vec<&str> = known.streams.keys().copied().collect();
            let help = did_you_mean(name, &names).map_or_else(String::new, |help| format!("; {help}"));
            Err(format!("the configuration has no serial stream `{name}`{help}"))
        }
    }
}

/// What is shown of a frame.
struct Shown<'k> {
    stream: Option<(&'k StreamConfig, crate::codec::Decoder)>,
    for_programs: bool,
    begun: Instant,
}

impl Shown<'_> {
    /// The lines for a frame; none when it is of another stream.
    fn lines(&mut self, frame: &[u8]) -> Vec<String> {
        let at = self.begun.elapsed().as_secs_f64();
        let Some((config, decoder)) = &mut self.stream else {
            let line = if self.for_programs {
                json!({ "at_s": at, "hex": format!("{:x}", Hex(frame)), "text": String::from_utf8_lossy(frame) }).to_string()
            } else {
                format!("{at:10.3}  {}", dump(frame))
            };
            return vec![line];
        };
        if !config.fits(frame) {
            return Vec::new();
        }
        if let Err(error) = decoder.decode(frame, &[], 0) {
            return vec![format!("{at:10.3}  {error}: {}", dump(frame))];
        }
        let Some(rows) = decoder.finish() else { return Vec::new() };
        let places: Vec<usize> = (1..rows.num_columns()).collect();
        let Ok(rows) = rows.project(&places) else { return Vec::new() };
        let encoder = Encoder::new(rows.schema_ref());
        (0..rows.num_rows())
            .map(|row| {
                let mut text = Vec::new();
                encoder.encode_row(&rows, row, &mut text);
                let text = String::from_utf8_lossy(&text);
                if self.for_programs { text.into_owned() } else { format!("{at:10.3}  {text}") }
            })
            .collect()
    }
}

async fn monitor(args: MonitorArgs, known: &Known<'_>, print: Print<'_>) -> Result<Outcome, String> {
    let (dial, frame, echo) = args.settings(known)?;
    let stream = args.stream.as_deref().map(|name| stream_of(name, known)).transpose()?;
    let stream = stream.map(|config| Ok::<_, String>((config, config.decoder(Vec::new())?))).transpose()?;
    let asked = stream.as_ref().and_then(|(config, _)| config.poll.clone());
    let send = match &args.send {
        Some(text) => Some(unescape(text).map_err(|why| format!("--send: {why}"))?),
        None => asked.as_ref().map(|poll| poll.send.0.clone()),
    };
    let every = args.every.or(asked.filter(|_| args.send.is_none()).map(|poll| poll.every));
    let framer = Framer::new(&frame).map_err(|problem| problem.inside("frame").to_string())?;
    let settings = dial.settings();
    print(CommandOutput::Progress(&format!("{}: {settings}; ends with Ctrl-C", dial.place())));
    let usage = Usage { echo, pause: None, unasked: send.is_none() };
    let mut link = Link::new(dial.open().await?, dial.place().clone(), framer, settings.byte_time(), usage);
    let begun = Instant::now();
    let mut shown = Shown { stream, for_programs: args.line.json, begun };
    let end = args.time.map(|time| begun + time.0);
    // Not before it is known whether the device talks by itself.
    let mut next = send.as_ref().map(|_| link.pace.request(begun, None, PATIENCE));
    let mut frames = 0_u64;
    loop {
        while let Some(frame) = link.frames.pop_front() {
            frames += 1;
            let goes_on = shown.lines(&frame).iter().all(|line| print(CommandOutput::Line(line)));
            if !goes_on || args.count.is_some_and(|count| frames >= count) {
                return Ok(Outcome::default());
            }
        }
        if let Some(Skipped { count, sample, why }) = link.framer().take_skipped() {
            let why = why.map_or("", Why::as_str);
            print(CommandOutput::Progress(&format!(
                "{count} bytes are in no frame: {why}: {}",
                dump(&sample)
            )));
        }
        tokio::select! {
            biased;
            heard = link.listen() => heard?,
            () = until(next) => {
                link.send(send.as_deref().unwrap_or_default(), None).await?;
                next = every.map(|every| Instant::now() + every.0);
            }
            () = until(end) => {
                return if frames > 0 { Ok(Outcome::default()) } else { Err(frameless(&mut link, send.is_some())) };
            }
        }
    }
}

/// Why no frame has come, as far as it shows.
fn frameless(link: &mut Link, is_asked: bool) -> String {
    let place = link.place().clone();
    let framer = link.framer();
    if framer.tally().bytes == 0 {
        let sent = if is_asked { "what was sent was not answered" } else { "nothing was sent" };
        return format!(
            "{place}: no byte has come, and {sent}: is the device off, are RX and TX crossed, does it want \
             another baud rate, or to be asked first (--send)?"
        );
    }
    let seen = framer.unframed().map(|unframed| dump(unframed.newest())).unwrap_or_default();
    format!("{place}: bytes have come, and no frame: {}; the newest are {seen}", framer.probable_cause())
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
