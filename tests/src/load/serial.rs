//! A serial line: how many bytes a second a box takes from a port when they never stop, and what they cost.
//!
//! The port is a pseudo-terminal, which has no rate of its own: what is written to it is there when its
//! buffer has room. The device is in this process, and so is the bare reader, which only looks where lines
//! end. One line in [`MARKER_EVERY`] passes a rule, and comes out of another port: so the device sees how far
//! the box has got, and is never more than [`WINDOW`] ahead, for no port holds back who sends too much.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::report::Figure;
use crate::subject::{Site, cpu_of};
use crate::{Extent, PATIENCE, STALL};

/// Of a line: a number of seven digits, a weight, and the end.
const LINE: usize = 16;
const MARKER_EVERY: u64 = 500;
/// Lines that may be on their way: fewer than a line of the box holds for its rules.
const WINDOW: u64 = 5_000;
/// The number of a line that belongs to no flood.
const PROBE: u64 = 9_999_500;
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// What a line of 115 200 baud carries: ten bits a byte.
const USUAL: f64 = 11_520.0;

const RULE: &str = "INSERT INTO back SELECT n FROM scale WHERE n % 500 = 0;\n";

/// Lines as fast as a port takes them, the median of the rounds.
pub fn serial(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let (mut ours, mut bare, mut complaints) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=extent.rounds {
        crate::progress(&format!("serial, as fast as it goes ({round} of {})", extent.rounds));
        bare.push(bare_reader(extent.serial_lines)?);
        let (flood, complained) = a_box(binary, extent.serial_lines)?;
        ours.push(flood);
        complaints.extend(complained);
    }
    let (ours, bare) = (median(ours)?, median(bare)?);
    let lost = complaints.first().map(|complaint| format!("; LOST OR DELAYED: {complaint}"));
    let seen = format!(
        "{:.0} lines/s, {:.2} us CPU a line, bare {:.2}; a line of 115 200 baud without a pause takes {:.2} % \
        of a core{}",
        ours.rate() / LINE as f64,
        ours.line_us(),
        bare.line_us(),
        100.0 * USUAL * ours.second_of_a_byte(),
        lost.unwrap_or_default()
    );
    let rate = Figure::new("serial: lines of 16 bytes through a port", ours.rate() / 1e6, "MB/s");
    let cost = Figure::new("serial: processor time for a megabyte", 1e6 * ours.second_of_a_byte(), "s");
    Ok(vec![
        rate.against("bare reader", bare.rate() / 1e6).note(seen),
        cost.against("bare reader", 1e6 * bare.second_of_a_byte()),
    ])
}

/// Lines that have gone through, and what they took.
#[derive(Debug, Clone, Copy)]
struct Flood {
    lines: u64,
    took: Duration,
    cpu: Duration,
}

impl Flood {
    /// Bytes a second.
    fn rate(&self) -> f64 {
        self.bytes() / self.took.as_secs_f64()
    }

    fn bytes(&self) -> f64 {
        LINE as f64 * self.lines as f64
    }

    fn line_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.lines as f64
    }

    /// Processor time of a byte, in seconds.
    fn second_of_a_byte(&self) -> f64 {
        self.cpu.as_secs_f64() / self.bytes()
    }
}

fn median(mut floods: Vec<Flood>) -> anyhow::Result<Flood> {
    floods.sort_by(|one, other| one.rate().total_cmp(&other.rate()));
    floods.get(floods.len() / 2).copied().context("there was no round")
}

/// A port, and its far end in our hands.
#[derive(Debug)]
struct Port {
    far: File,
    path: PathBuf,
    /// as long as it is open, nobody hangs up
    near: File,
}

impl Port {
    fn open() -> anyhow::Result<Self> {
        let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("there is no pseudo-terminal")?;
        grantpt(&far)?;
        unlockpt(&far)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(ptsname(&far, Vec::new())?.into_bytes()));
        let near = at(&path)?;
        // Until somebody opens it, nothing is echoed.
        let mut settings = tcgetattr(&near)?;
        settings.make_raw();
        tcsetattr(&near, OptionalActions::Now, &settings)?;
        Ok(Self { far: far.into(), path, near })
    }
}

/// Opens a port without becoming its terminal.
fn at(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OpenptFlags::NOCTTY.bits().cast_signed());
    options.open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn line(n: u64) -> String {
    format!("{n:07},{:07.2}\n", (n % 10_000) as f64 / 4.0)
}

/// Sends lines until all of them have come out, and returns what that took.
fn flood(far: &mut File, lines: u64, passed: &Receiver<u64>) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let (mut sent, mut out) = (0, 0);
    while out < lines {
        if sent < lines && sent < out + WINDOW {
            let text: String = (sent + 1..=sent + MARKER_EVERY).map(line).collect();
            far.write_all(text.as_bytes()).context("the port takes no more")?;
            sent += MARKER_EVERY;
            out = passed.try_iter().filter(|n| *n <= lines).fold(out, u64::max);
            continue;
        }
        let next = passed.recv_timeout(STALL).map_err(|_| anyhow!("no line after {out} comes out"))?;
        // A line from before the flood tells nothing.
        out = out.max(if next <= lines { next } else { 0 });
    }
    Ok(begin.elapsed())
}

fn bare_reader(lines: u64) -> anyhow::Result<Flood> {
    let mut port = Port::open()?;
    let near = port.near.try_clone()?;
    let (tell, passed) = sync_channel(64);
    let reader = std::thread::spawn(move || -> anyhow::Result<Duration> {
        count_lines(near, lines, &tell)?;
        cpu_of(&std::fs::read_to_string("/proc/thread-self/stat")?)
    });
    let took = flood(&mut port.far, lines, &passed)?;
    let cpu = reader.join().map_err(|_| anyhow!("the bare reader panicked"))??;
    Ok(Flood { lines, took, cpu })
}

/// Reads so many lines, and tells of every marker.
fn count_lines(mut from: File, lines: u64, tell: &SyncSender<u64>) -> anyhow::Result<()> {
    let (mut buffer, mut seen) = (vec![0; 4_096], 0);
    while seen < lines {
        let count = from.read(&mut buffer)?;
        ensure!(count > 0, "the port was closed");
        let before = seen;
        seen += buffer.iter().take(count).filter(|byte| **byte == b'\n').count() as u64;
        if seen / MARKER_EVERY > before / MARKER_EVERY {
            tell.send(seen / MARKER_EVERY * MARKER_EVERY)?;
        }
    }
    Ok(())
}

fn a_box(binary: &Path, lines: u64) -> anyhow::Result<(Flood, Vec<String>)> {
    let (mut port, back) = (Port::open()?, Port::open()?);
    let site = Site::with_config(&config(&port.path, &back.path), &[("load".to_owned(), RULE.to_owned())])?;
    let (tell, passed) = sync_channel(64);
    let answers = BufReader::new(back.far.try_clone()?);
    // It ends with the port.
    std::thread::spawn(move || {
        let numbers = answers.lines().map_while(Result::ok).filter_map(|line| line.trim().parse().ok());
        for n in numbers {
            if tell.send(n).is_err() {
                return;
            }
        }
    });
    let subject = site.run(binary)?;
    await_probe(&mut port.far, &passed)?;
    let before = subject.cpu()?;
    let took = flood(&mut port.far, lines, &passed)?;
    let cpu = subject.cpu()?.saturating_sub(before);
    let complaints = subject.complaints();
    subject.stop()?;
    Ok((Flood { lines, took, cpu }, complaints))
}

/// Waits until a line comes through; the first ones may have been there before the box.
fn await_probe(far: &mut File, passed: &Receiver<u64>) -> anyhow::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        far.write_all(line(PROBE).as_bytes())?;
        if passed.recv_timeout(PROBE_EVERY).is_ok() {
            // Those behind it.
            while passed.recv_timeout(4 * PROBE_EVERY).is_ok() {}
            return Ok(());
        }
    }
    Err(anyhow!("no line comes through the box"))
}

fn config(port: &Path, back: &Path) -> String {
    let (port, back) = (port.display(), back.display());
    format!(
        r#"name = "load"

[connections.line]
kind = "serial"
device = "{port}"
frame = {{ end = "\n", max = "64B" }}

[connections.back]
kind = "serial"
device = "{back}"
frame = {{ end = "\n", max = "64B" }}

[streams.scale]
connection = "line"
format = "csv"
fields = {{ n = {{ type = "int64", path = "0" }}, weight = {{ type = "float64", path = "1" }} }}

[outputs.back]
connection = "back"
payload = "{{n}}\n"
contract = "none"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_one_size_and_a_bare_reader_gets_all_of_them() {
        assert_eq!([1, 77, PROBE].map(|n| line(n).len()), [LINE; 3]);
        let flood = bare_reader(20_000).unwrap();
        assert!(flood.rate() > 0.0);
    }
}
