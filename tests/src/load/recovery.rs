//! How long a box takes to start after `kill -9`, with a long journal and with much state; and how long
//! storing that state holds it up.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use crate::broker::{Broker, free_port};
use crate::latency::sleep_until;
use crate::outbox::ROWS_A_MESSAGE;
use crate::peer::{Arrivals, Listener, Publisher, in_arrays};
use crate::plant::{PROBE, message, number};
use crate::report::{Figure, Goal};
use crate::subject::{IN, MARKERS, OUT, Setup, Site};
use crate::throughput::{WINDOW, await_first_row};
use crate::{Extent, STALL};

/// Windows that stay open, by device and by row.
const BY_DEVICE: (&str, &str) = ("windows of 20 devices", "GROUP BY window_start, window_end, device;\n");
const BY_ROW: (&str, &str) = ("a window a row", "GROUP BY window_start, window_end, n;\n");
/// Millions of windows are more than a rule may keep without being asked.
const MUCH_STATE: &str = "--! max_state = \"4GiB\"\n";
/// Pause between two probes, and for how long they are sent.
const PROBE_EVERY: Duration = Duration::from_millis(2);
const PROBES: u32 = 6_000;

/// From the start of the process until it takes rows again.
pub fn recovery(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let [few, many, most] = extent.journaled_rows;
    let cases = [(few, BY_DEVICE), (many, BY_DEVICE), (few, BY_ROW), (many, BY_ROW), (most, BY_ROW)];
    cases.iter().map(|(rows, (what, group_by))| start_again(binary, *rows, what, group_by)).collect()
}

/// How long outputs stand still while the state of many windows is stored.
pub fn snapshot(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let [_, many, most] = extent.journaled_rows;
    let without = longest_silence(binary, 0)?;
    [many, most]
        .iter()
        .map(|windows| {
            let (silence, resident) = longest_silence(binary, *windows)?;
            let what = format!("longest silence of an output while {windows} windows are stored every 5 s");
            Ok(Figure::new(what, silence, "ms")
                .against("without windows", without.0)
                .note(format!("resident {} MiB", resident >> 20)))
        })
        .collect()
}

/// The longest time between two outputs of a row that comes every two milliseconds, in milliseconds, and the
/// box's memory.
fn longest_silence(binary: &Path, windows: u64) -> anyhow::Result<(f64, u64)> {
    crate::progress(&format!("snapshots of {windows} windows"));
    let field = Broker::start(1_000)?;
    let rules = vec![(
        "load".to_owned(),
        format!("{MUCH_STATE}{MARKERS}{}", if windows > 0 { open_windows(BY_ROW.1) } else { String::new() }),
    )];
    let buffer = "buffer.snapshot_every = \"5s\"";
    let site =
        Site::new(Setup { field: field.port, cloud: free_port()?, rules, buffer, ..Setup::default() })?;
    let subject = site.run(binary)?;
    await_first_row(field.port)?;
    if windows > 0 {
        let (arrivals, _listener) = Arrivals::count(field.port, OUT, 0, windows)?;
        let publisher = Publisher::start(field.port, IN, 0)?;
        publisher.flood(in_arrays(windows, ROWS_A_MESSAGE), WINDOW, &arrivals.news)?;
        arrivals.finish()?;
    }
    let (tell, all) = sync_channel(1);
    let mut seen: Vec<Instant> = Vec::new();
    let _listener = Listener::start(field.port, OUT, 0, move |payload| {
        if number(payload) == Some(PROBE) {
            seen.push(Instant::now());
            if seen.len() == PROBES as usize {
                // The receiver waits for exactly this.
                drop(tell.try_send(std::mem::take(&mut seen)));
            }
        }
    })?;
    let publisher = Publisher::start(field.port, IN, 0)?;
    let begin = Instant::now();
    for probe in 0..PROBES {
        sleep_until(begin + PROBE_EVERY * probe);
        publisher.send(message(PROBE), false)?;
    }
    let seen = all.recv_timeout(STALL).map_err(|_| anyhow::anyhow!("the last probe does not come out"))?;
    let silences = seen.iter().zip(seen.iter().skip(1)).map(|(one, next)| (*next - *one).as_secs_f64() * 1e3);
    let (silence, resident) = (silences.fold(0.0, f64::max), subject.resident()?);
    subject.stop()?;
    Ok((silence, resident))
}

fn open_windows(group_by: &str) -> String {
    format!(
        "INSERT INTO uplink SELECT avg(temperature) AS mean FROM TUMBLE(flood, DESCRIPTOR(ts), INTERVAL '1' \
        DAY) {group_by}"
    )
}

fn start_again(binary: &Path, rows: u64, what: &str, group_by: &str) -> anyhow::Result<Figure> {
    crate::progress(&format!("start after a crash, {what}"));
    let field = Broker::start(1_000)?;
    let rules = vec![("load".to_owned(), format!("{MUCH_STATE}{MARKERS}{}", open_windows(group_by)))];
    let site =
        Site::new(Setup { field: field.port, cloud: free_port()?, qos: 1, rules, ..Setup::default() })?;
    let subject = site.run(binary)?;
    await_first_row(field.port)?;
    let (arrivals, _listener) = Arrivals::count(field.port, OUT, 0, rows)?;
    let publisher = Publisher::start(field.port, IN, 1)?;
    publisher.flood(in_arrays(rows, ROWS_A_MESSAGE), WINDOW, &arrivals.news)?;
    arrivals.finish()?;
    let (quiet, resident) = (subject.running, subject.resident()?);
    subject.kill()?;
    let size = site.buffer_bytes() >> 20;
    let subject = site.run(binary)?;
    let restored = subject.said("state is restored").unwrap_or_default();
    let run_again =
        restored.split(" rows=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("no").to_owned();
    let figure = Figure::new(
        format!("start after kill -9, {rows} journaled rows, {what}"),
        subject.running.as_secs_f64(),
        "s",
    )
    .goal(Goal::AtMost(5.0))
    .note(format!(
        "{run_again} rows run again; buffer {size} MiB; {} MiB of memory before; an empty start took {:.3} s",
        resident >> 20,
        quiet.as_secs_f64()
    ));
    subject.stop()?;
    Ok(figure)
}
