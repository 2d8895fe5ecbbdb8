//! `tidegate-load`: the whole box under load, from a real broker to a real broker or between devices, next to
//! bare clients of the same library in the same run on the same machine.
//!
//! * [`throughput`]: messages a second, QoS 0 and 1;
//! * [`latency`]: publish to output at a steady rate;
//! * [`footprint`]: memory, start-up, size of the binary;
//! * [`outbox`]: rows on disk, and a backlog that drains;
//! * [`wear`]: what a row costs the disk;
//! * [`recovery`]: a start after a crash, and what a snapshot of the rules' state costs;
//! * [`replay`]: a recording that is played to rules;
//! * [`modbus`]: devices that are polled, and a rule that writes to them;
//! * [`serial`]: lines of a device that never stop;
//! * [`can`]: from a frame to the frame that a rule answers, in a virtual machine.
//!
//! Nothing else should run on the machine. `docs/performance.md` says how to read the result.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what the program is for")]

mod broker;
mod can;
mod device;
mod footprint;
mod latency;
mod modbus;
mod outbox;
mod packing;
mod peer;
mod plant;
mod recovery;
mod replay;
mod report;
mod serial;
mod subject;
mod throughput;
mod wear;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Longest wait for a start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for the next sign of progress.
const STALL: Duration = Duration::from_secs(30);

/// Measures a box from end to end, next to bare clients on the same broker.
#[derive(Debug, Parser)]
#[command(name = "tidegate-load", version)]
struct Arguments {
    /// The binary to measure [default: built with `cargo build --release`]
    #[arg(long, value_name = "PATH")]
    tidegate: Option<PathBuf>,
    /// Measure only these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..")]
    only: Vec<Part>,
    /// Few messages: shows that everything works; the figures mean little
    #[arg(long)]
    quick: bool,
    /// Messages of a flood, a multiple of 1000 up to 8000000
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=8_000_000), value_name = "N")]
    messages: Option<u64>,
    /// How often each flood is repeated; the median counts
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=99), value_name = "N")]
    rounds: Option<u64>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Be the peer of a box on this CAN interface: for the virtual machine
    #[arg(long, hide = true, value_name = "INTERFACE")]
    can_peer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// messages a second, QoS 0
    Qos0,
    /// messages a second, QoS 1
    Qos1,
    /// publish to output at 1 000 messages a second
    Latency,
    /// memory and start-up time
    Footprint,
    /// size of the binary
    Size,
    /// rows on disk, and a backlog that drains
    Outbox,
    /// what a row costs the disk
    Wear,
    /// a start after a crash
    Recovery,
    /// what a snapshot of the rules' state costs
    Snapshot,
    /// a recording that is played to rules
    Replay,
    /// devices that are polled, and rules that write to them
    Modbus,
    /// lines of a device that never stop
    Serial,
    /// from a frame to the frame that a rule answers, in a virtual machine
    Can,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// messages of a flood; a multiple of [`plant::MARKER_EVERY`], so that the last is a marker
    pub messages: u64,
    /// how often each flood is repeated
    pub rounds: u64,
    /// messages at a steady pace
    pub paced: usize,
    /// rows into the outbox
    pub outbox_rows: u64,
    /// rows that wait for the uplink
    pub backlog_rows: u64,
    /// rows in the journal when the box is killed, and the windows of most state
    pub journaled_rows: [u64; 3],
    /// rows that trickle in, to see what is written
    pub trickle: u64,
    /// rows that flood in, to see the same
    pub wear_rows: u64,
    /// rows of a recording
    pub replayed_rows: u64,
    /// for how long devices are polled, each way
    pub polled: Duration,
    /// writes to devices that are timed
    pub writes: usize,
    /// lines of a serial device, a multiple of 500
    pub serial_lines: u64,
    /// frames that are answered
    pub frames: usize,
}

impl Extent {
    fn new(arguments: &Arguments) -> Self {
        let full = Self {
            messages: 1_000_000,
            rounds: 3,
            paced: 20_000,
            outbox_rows: 4_000_000,
            backlog_rows: 1_000_000,
            journaled_rows: [100_000, 1_000_000, 4_000_000],
            trickle: 1_000,
            wear_rows: 400_000,
            replayed_rows: 1_000_000,
            polled: Duration::from_secs(10),
            writes: 2_000,
            serial_lines: 2_000_000,
            frames: 5_000,
        };
        let quick = Self {
            messages: 30_000,
            rounds: 1,
            paced: 1_000,
            outbox_rows: 100_000,
            backlog_rows: 20_000,
            journaled_rows: [10_000, 20_000, 50_000],
            trickle: 1_000,
            wear_rows: 50_000,
            replayed_rows: 20_000,
            polled: Duration::from_secs(1),
            writes: 60,
            serial_lines: 50_000,
            frames: 200,
        };
        let mut extent = if arguments.quick { quick } else { full };
        extent.rounds = arguments.rounds.unwrap_or(extent.rounds);
        if let Some(messages) = arguments.messages {
            extent.messages = messages - messages % plant::MARKER_EVERY;
        }
        extent
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(interface) = &arguments.can_peer {
        return can::peer(interface, Extent::new(&arguments).frames);
    }
    let binary = subject::binary(arguments.tidegate.as_deref())?;
    let version = Command::new(&binary).arg("--version").output()?;
    let surroundings = report::surroundings(
        String::from_utf8_lossy(&version.stdout).trim(),
        &tidegate_peers::mosquitto::version(),
    );
    let extent = Extent::new(&arguments);
    let mut figures = Vec::new();
    for part in Part::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(part) {
            continue;
        }
        figures.extend(match part {
            Part::Qos0 => throughput::qos_0(&binary, &extent)?,
            Part::Qos1 => throughput::qos_1(&binary, &extent)?,
            Part::Latency => latency::latency(&binary, &extent)?,
            Part::Footprint => footprint::footprint(&binary, &extent)?,
            Part::Size => footprint::size(&binary)?,
            Part::Outbox => outbox::outbox(&binary, &extent)?,
            Part::Wear => wear::wear(&binary, &extent)?,
            Part::Snapshot => recovery::snapshot(&binary, &extent)?,
            Part::Recovery => recovery::recovery(&binary, &extent)?,
            Part::Replay => replay::replay(&binary, &extent)?,
            Part::Modbus => modbus::modbus(&binary, &extent)?,
            Part::Serial => serial::serial(&binary, &extent)?,
            Part::Can => can::can(&binary, &extent)?,
        });
    }
    let print = if arguments.json { report::json } else { report::table };
    println!("{}", print(&surroundings, &figures));
    Ok(())
}

/// Says what is being measured, beside the result.
fn progress(what: &str) {
    eprintln!("{what}");
}
