//! Time from publish to the output's publish, at a steady rate, next to a bare echo client at the same rate
//! in the same run.
//!
//! Both ends are in this process and read one monotonic clock. What is measured contains the publisher's
//! client, two passes through the broker and the listener's client, for both alike.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::broker::Broker;
use crate::peer::{Listener, Publisher, echo};
use crate::plant::{FIRST, message, number};
use crate::report::{Figure, Goal};
use crate::subject::{IN, OUT, Setup, Site};
use crate::throughput::await_first_row;
use crate::{Extent, STALL};

const RULE: &str = "INSERT INTO out SELECT n, device, temperature FROM flood WHERE temperature > 0;\n";
const PACE: Duration = Duration::from_millis(1);
/// Messages at the start that are not counted.
const WARM_UP: usize = 1_000;

/// All that a contract can ask of an output that takes each row, and that lets every row of this load pass.
const CONTRACT: &str = concat!(
    r#", contract = { expiry = "10s", max_input_age = "5s", "#,
    r#"failsafe = { n = 0, device = "none", temperature = 0.0 }, range = { temperature = [-1000, 1000] }, "#,
    r#"interlock = { when = "flood.pressure > -1000000 AND flood.n >= 0", max_age = "5s" }, "#,
    r#"slew = { temperature = "1000000/s" } }"#
);

/// Percentiles of the box and of the echo, with an output of QoS 0 and of QoS 1, and what a contract adds.
pub fn latency(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for out_qos in [0, 1] {
        figures.extend(percentiles(binary, extent.paced, out_qos)?);
    }
    figures.extend(with_contract(binary, extent)?);
    Ok(figures)
}

/// The same box with a contract on its output and without, in turns, so that the machine's mood is in both.
fn with_contract(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let (mut free, mut bound) = (Vec::new(), Vec::new());
    for round in 1..=extent.rounds {
        for (output, took) in [("", &mut free), (CONTRACT, &mut bound)] {
            let what = if output.is_empty() { "without" } else { "with" };
            crate::progress(&format!("latency {what} a contract ({round} of {})", extent.rounds));
            let broker = Broker::start(20)?;
            took.extend(of_box(binary, broker.port, extent.paced, Setup { output, ..Setup::default() })?.0);
        }
    }
    free.sort_by(f64::total_cmp);
    bound.sort_by(f64::total_cmp);
    let figure = |name: &str, part: f64| {
        let what = format!("the same (QoS 0) with a full contract, {name}");
        let (bound, free) = (percentile(&bound, part), percentile(&free, part));
        let added = format!("{:+.0} us", 1e3 * (bound - free));
        Figure::new(what, bound, "ms").against("without", free).note(added)
    };
    Ok(vec![figure("p50", 0.5), figure("p99", 0.99)])
}

/// The times of a box that is set up like this, and what it complained of.
fn of_box(binary: &Path, port: u16, count: usize, setup: Setup) -> anyhow::Result<(Vec<f64>, Vec<String>)> {
    let rules = vec![("load".into(), RULE.into())];
    let site = Site::new(Setup { field: port, cloud: port, rules, ..setup })?;
    let subject = site.run(binary)?;
    await_first_row(port)?;
    let ours = paced(port, count)?;
    let complaints = subject.complaints();
    subject.stop()?;
    Ok((ours, complaints))
}

fn percentiles(binary: &Path, count: usize, out_qos: u8) -> anyhow::Result<Vec<Figure>> {
    let broker = Broker::start(20)?;
    let port = broker.port;
    crate::progress(&format!("latency, QoS {out_qos} out: bare echo"));
    let bare = {
        let _echo = echo(port, (IN, 0), (OUT, out_qos))?;
        paced(port, count)?
    };
    crate::progress(&format!("latency, QoS {out_qos} out: filter rule -> output"));
    let (ours, complaints) = of_box(binary, port, count, Setup { out_qos, ..Setup::default() })?;
    let figure = |name: &str, part: f64| {
        let what = format!("publish -> rule -> output (QoS {out_qos}) at 1 000 msg/s, {name}");
        Figure::new(what, percentile(&ours, part), "ms").against("bare echo", percentile(&bare, part))
    };
    Ok(vec![
        figure("p50", 0.5),
        figure("p99", 0.99).goal(Goal::AtMost(1.0)).goal(Goal::RatioAtMost(1.5)),
        figure("p99.9", 0.999),
        figure("slowest", 1.0).note(complaints.join("; ")),
    ])
}

/// Sends `count` messages, one each [`PACE`], and returns the sorted times in milliseconds that they took to
/// come out.
fn paced(port: u16, count: usize) -> anyhow::Result<Vec<f64>> {
    let begin = Instant::now();
    let now = move || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let total = WARM_UP + count;
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..total).map(|_| AtomicU64::new(0)).collect());
    let (tell, all) = sync_channel(1);
    let departures = Arc::clone(&sent);
    let mut took = Vec::with_capacity(total);
    let _listener = Listener::start(port, OUT, 0, move |payload| {
        let at = now();
        let index =
            number(payload).and_then(|n| n.checked_sub(FIRST)).and_then(|index| usize::try_from(index).ok());
        let Some((index, departure)) = index.and_then(|index| Some((index, departures.get(index)?))) else {
            return;
        };
        if index >= WARM_UP {
            took.push((at - departure.load(Ordering::Acquire)) as f64 / 1e6);
        }
        if index + 1 == total {
            // The receiver waits for exactly this.
            drop(tell.try_send(std::mem::take(&mut took)));
        }
    })?;
    let publisher = Publisher::start(port, IN, 0)?;
    let start = Instant::now();
    for (number, departure) in (0_u32..).zip(sent.iter()) {
        sleep_until(start + PACE * number);
        let payload = message(FIRST + u64::from(number));
        departure.store(now(), Ordering::Release);
        publisher.send(payload, false)?;
    }
    let mut took =
        all.recv_timeout(STALL).map_err(|_| anyhow!("the last of {total} messages does not come out"))?;
    anyhow::ensure!(took.len() == count, "{} of {count} messages were lost", count - took.len());
    took.sort_by(f64::total_cmp);
    Ok(took)
}

#[allow(clippy::disallowed_methods, reason = "the pace is the time itself; nothing else is waited for")]
pub fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// The time within which this part of all came out.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().context("no message").unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let sorted: Vec<f64> = (1..=1_000).map(f64::from).collect();
        assert_eq!(
            [0.5, 0.99, 0.999, 1.0].map(|part| percentile(&sorted, part)),
            [500.0, 990.0, 999.0, 1_000.0]
        );
    }
}
