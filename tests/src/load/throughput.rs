//! Messages a second, as fast as nothing is lost, next to a bare subscriber (or echo) on the same broker in
//! the same run.
//!
//! The publisher keeps at most [`WINDOW`] rows under way, seen by what has come out at the far end. So
//! neither the broker's nor the box's queues overflow, and what is measured is what the slowest part can
//! sustain. Publisher, broker and subject share the processor.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{bail, ensure};

use crate::broker::{Broker, free_port};
use crate::peer::{Arrivals, Listener, Payloads, Publisher, echo, singly};
use crate::plant::{MARKER_EVERY, PROBE, message, number};
use crate::report::{Figure, Goal};
use crate::subject::{IN, MARKERS, OUT, Setup, Site, Subject};
use crate::{Extent, PATIENCE};

/// Rows under way: much more than lie between two markers, and less than the box holds before it drops QoS 0
/// messages.
pub const WINDOW: u64 = 20_000;
/// Pause between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

const ALL_OUT: &str = "INSERT INTO out SELECT n, device, temperature FROM flood;\n";
const ALL_UP: &str = "INSERT INTO uplink SELECT n, device, temperature, pressure, ok FROM flood;\n";
const MEANS_UP: &str = "INSERT INTO uplink SELECT window_start, device, avg(temperature) AS mean, \
    max(pressure) AS most FROM TUMBLE(flood, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, \
    window_end, device;\n";

/// Who takes the flood.
#[derive(Debug, Clone, Copy)]
enum Taker {
    Subscriber,
    /// publishes with this level
    Echo {
        out_qos: u8,
    },
    /// The box: its rules, what an arriving row stands for, and whether its uplink is there.
    Box {
        rules: &'static str,
        all_rows: bool,
        out_qos: u8,
        uplink: bool,
    },
}

struct Case {
    what: &'static str,
    taker: Taker,
    /// index of the case to compare with, and the ratio to reach
    against: Option<(usize, Option<f64>)>,
}

const QOS_0: &[Case] = &[
    Case { what: "bare subscriber", taker: Taker::Subscriber, against: None },
    Case { what: "bare echo", taker: Taker::Echo { out_qos: 0 }, against: None },
    Case { what: "bare echo, QoS 1 out", taker: Taker::Echo { out_qos: 1 }, against: None },
    Case {
        what: "filter rule -> output",
        taker: Taker::Box { rules: "", all_rows: false, out_qos: 0, uplink: true },
        against: Some((0, Some(0.8))),
    },
    Case {
        what: "filter rule -> output, 1 s averages of 20 devices -> outbox -> uplink",
        taker: Taker::Box { rules: MEANS_UP, all_rows: false, out_qos: 0, uplink: true },
        against: Some((0, None)),
    },
    Case {
        what: "every row -> output",
        taker: Taker::Box { rules: ALL_OUT, all_rows: true, out_qos: 0, uplink: true },
        against: Some((1, None)),
    },
    Case {
        what: "every row -> output, QoS 1 out",
        taker: Taker::Box { rules: ALL_OUT, all_rows: true, out_qos: 1, uplink: true },
        against: Some((2, None)),
    },
];

const QOS_1: &[Case] = &[
    Case { what: "bare subscriber", taker: Taker::Subscriber, against: None },
    Case {
        what: "filter rule -> output",
        taker: Taker::Box { rules: "", all_rows: false, out_qos: 0, uplink: false },
        against: Some((0, Some(0.7))),
    },
    Case {
        what: "every row -> outbox, acknowledged after commit",
        taker: Taker::Box { rules: ALL_UP, all_rows: false, out_qos: 0, uplink: false },
        against: Some((0, Some(0.7))),
    },
];

/// Sustained QoS 0.
pub fn qos_0(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    measure(binary, extent, QOS_0, 0, 20)
}

/// Sustained QoS 1, with mosquitto's default window of 20 messages and with 1 000.
pub fn qos_1(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let mut figures = measure(binary, extent, QOS_1, 1, 20)?;
    figures.extend(measure(binary, extent, QOS_1, 1, 1_000)?);
    Ok(figures)
}

/// What one flood showed.
struct Outcome {
    /// messages a second
    rate: f64,
    /// processor time of the taker for one message, microseconds
    cpu_us: Option<f64>,
    /// bytes
    peak: Option<u64>,
    /// of a box that journals: commits a second by its own count, and flushes of its disk a second by the
    /// kernel's
    commits: Option<(f64, f64)>,
    complaints: Vec<String>,
}

fn measure(
    binary: &Path,
    extent: &Extent,
    cases: &[Case],
    qos: u8,
    in_flight: u16,
) -> anyhow::Result<Vec<Figure>> {
    let broker = Broker::start(in_flight)?;
    let mut outcomes: Vec<Vec<Outcome>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=extent.rounds {
        for (case, outcomes) in cases.iter().zip(&mut outcomes) {
            crate::progress(&format!(
                "QoS {qos}, window {in_flight}: {} ({round} of {})",
                case.what, extent.rounds
            ));
            outcomes.push(flood(binary, &broker, case.taker, qos, extent.messages)?);
        }
    }
    let median = |outcomes: &[Outcome]| {
        let mut rates: Vec<f64> = outcomes.iter().map(|outcome| outcome.rate).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let window = if qos == 0 { String::new() } else { format!(", broker's window {in_flight}") };
    Ok(cases
        .iter()
        .zip(&outcomes)
        .map(|(case, own)| {
            let mut figure = Figure::new(format!("QoS {qos}{window}: {}", case.what), median(own), "msg/s")
                .note(notes(own));
            if let Some((reference, least)) = case.against
                && let (Some(other), Some(rates)) = (cases.get(reference), outcomes.get(reference))
            {
                figure = figure.against(other.what, median(rates));
                figure =
                    least.into_iter().fold(figure, |figure, least| figure.goal(Goal::RatioAtLeast(least)));
            }
            figure
        })
        .collect())
}

fn notes(outcomes: &[Outcome]) -> String {
    let mut notes = Vec::new();
    if let Some(cpu) = outcomes.iter().filter_map(|outcome| outcome.cpu_us).min_by(f64::total_cmp) {
        notes.push(format!("{cpu:.1} us CPU a message"));
    }
    if let Some(peak) = outcomes.iter().filter_map(|outcome| outcome.peak).max() {
        notes.push(format!("peak {} MiB", peak >> 20));
    }
    let mut commits: Vec<(f64, f64)> = outcomes.iter().filter_map(|outcome| outcome.commits).collect();
    commits.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    if let Some((commits, flushes)) = commits.get(commits.len() / 2) {
        notes.push(format!("{commits:.0} commits/s, {flushes:.0} flushes of the disk/s"));
    }
    if let Some(complaint) = outcomes.iter().find_map(|outcome| outcome.complaints.first()) {
        notes.push(format!("LOST OR DELAYED: {complaint}"));
    }
    notes.join("; ")
}

fn flood(binary: &Path, broker: &Broker, taker: Taker, qos: u8, count: u64) -> anyhow::Result<Outcome> {
    let port = broker.port;
    match taker {
        Taker::Subscriber => pour(port, IN, qos, singly(count), count, count, None),
        Taker::Echo { out_qos } => {
            let _echo = echo(port, (IN, qos), (OUT, out_qos))?;
            pour(port, OUT, qos, singly(count), count, count, None)
        }
        Taker::Box { rules, all_rows, out_qos, uplink } => {
            let cloud = if uplink { port } else { free_port()? };
            let rules = if all_rows { rules.to_owned() } else { format!("{MARKERS}{rules}") };
            let site = Site::new(Setup {
                field: port,
                cloud,
                qos,
                out_qos,
                rules: vec![("load".into(), rules)],
                ..Setup::default()
            })?;
            let subject = site.run(binary)?;
            await_first_row(port)?;
            let expected = if all_rows { count } else { count / MARKER_EVERY };
            let flushes = site.flushes();
            let mut outcome = pour(port, OUT, qos, singly(count), count, expected, Some(&subject))?;
            let flushes =
                site.flushes().zip(flushes).map_or(f64::NAN, |(after, before)| (after - before) as f64);
            let (commits, took_s) = (subject.stop()?.commits as f64, count as f64 / outcome.rate);
            outcome.commits = (qos > 0).then_some((commits / took_s, flushes / took_s));
            Ok(outcome)
        }
    }
}

/// Floods topic `IN`, and counts what comes on `topic` until the last row has come.
fn pour(
    port: u16,
    topic: &str,
    qos: u8,
    payloads: Payloads,
    count: u64,
    expected: u64,
    subject: Option<&Subject>,
) -> anyhow::Result<Outcome> {
    let (arrivals, listener) = Arrivals::count(port, topic, if topic == IN { qos } else { 0 }, count)?;
    let publisher = Publisher::start(port, IN, qos)?;
    let before = subject.map(Subject::cpu).transpose()?;
    let begin = publisher.flood(payloads, WINDOW, &arrivals.news)?;
    let last = arrivals.finish()?;
    drop(listener);
    ensure!(last.messages == expected, "{} of {expected} messages arrived", last.messages);
    let cpu = match (subject, before) {
        (Some(subject), Some(before)) => Some(subject.cpu()? - before),
        _ if topic == IN => Some(last.cpu),
        _ => None,
    };
    Ok(Outcome {
        rate: count as f64 / (last.at - begin).as_secs_f64(),
        cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count as f64),
        peak: subject.map(Subject::peak).transpose()?,
        commits: None,
        complaints: subject.map(Subject::complaints).unwrap_or_default(),
    })
}

/// Sends probes until one has come through the box.
pub fn await_first_row(port: u16) -> anyhow::Result<()> {
    let (tell, came) = sync_channel(1);
    let _listener = Listener::start(port, OUT, 0, move |payload| {
        if number(payload) == Some(PROBE) {
            // Further probes tell nothing new.
            let _ = tell.try_send(());
        }
    })?;
    let publisher = Publisher::start(port, IN, 0)?;
    for _ in 0..PATIENCE.as_millis() / PROBE_PAUSE.as_millis() {
        publisher.send(message(PROBE), false)?;
        if came.recv_timeout(PROBE_PAUSE).is_ok() {
            return Ok(());
        }
    }
    bail!("no row comes through the box")
}
