//! Memory, start-up time and size of the binary.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use anyhow::{Context, anyhow};

use crate::broker::Broker;
use crate::peer::{Arrivals, Listener, Publisher, singly};
use crate::plant::{PROBE, message};
use crate::report::{Figure, Goal};
use crate::subject::{IN, OUT, Setup, Site, Subject};
use crate::throughput::WINDOW;
use crate::{Extent, PATIENCE};

const MIB: f64 = 1024.0 * 1024.0;
const FEW: u64 = 10;
const MANY: u64 = 1_000;

/// Size of the binary.
pub fn size(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let bytes = std::fs::metadata(binary).with_context(|| format!("cannot read {}", binary.display()))?.len();
    Ok(vec![Figure::new("binary", bytes as f64 / 1e6, "MB").goal(Goal::AtMost(60.0))])
}

/// Memory and start-up with few and with many rules.
pub fn footprint(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let broker = Broker::start(20)?;
    // A message that the broker keeps reaches the box as soon as it has subscribed.
    let keeper = Publisher::start(broker.port, IN, 1)?;
    keeper.send(message(PROBE), true)?;
    let mut figures = Vec::new();
    let mut at_rest = Vec::new();
    for (rules, most_mib) in [(FEW, 30.0), (MANY, 50.0)] {
        crate::progress(&format!("memory and start-up with {rules} rules"));
        let site = Site::new(Setup {
            field: broker.port,
            cloud: broker.port,
            qos: 0,
            out_qos: 0,
            rules: thresholds(rules),
            ..Setup::default()
        })?;
        let (tell, came) = sync_channel(1);
        let listener = Listener::start(broker.port, OUT, 0, move |_| {
            // Only the first counts.
            let _ = tell.try_send(Instant::now());
        })?;
        let subject = site.run(binary)?;
        let first_row =
            came.recv_timeout(PATIENCE).map_err(|_| anyhow!("no row comes through {rules} rules"))?
                - subject.spawned;
        drop(listener);
        let resident = subject.resident()? as f64;
        at_rest.push(resident);
        let memory = Figure::new(format!("memory at rest, {rules} rules"), resident / MIB, "MiB")
            .goal(Goal::AtMost(most_mib));
        let start = Figure::new(
            format!("start with {rules} rules until the first row is out"),
            first_row.as_secs_f64(),
            "s",
        )
        .note(format!("{:.3} s until \"the box runs\"", subject.running.as_secs_f64()));
        let (anonymous, peak) = (subject.anonymous()? as f64 / MIB, subject.peak()? as f64 / MIB);
        figures.push(memory.note(format!(
            "{anonymous:.1} MiB without the binary's pages; peak {peak:.1} MiB while starting"
        )));
        figures.push(if rules == MANY { start.goal(Goal::AtMost(1.0)) } else { start });
        if rules == FEW {
            crate::progress("memory under load");
            figures.push(under_load(&broker, &subject, extent.messages)?);
        }
        subject.stop()?;
    }
    if let [few, many] = at_rest[..] {
        let each = (many - few) / (MANY - FEW) as f64 / 1024.0;
        figures.push(Figure::new("memory for one more rule", each, "KiB").goal(Goal::AtMost(8.0)));
    }
    Ok(figures)
}

fn under_load(broker: &Broker, subject: &Subject, count: u64) -> anyhow::Result<Figure> {
    let (arrivals, _listener) = Arrivals::count(broker.port, OUT, 0, count)?;
    let publisher = Publisher::start(broker.port, IN, 0)?;
    publisher.flood(singly(count), WINDOW, &arrivals.news)?;
    arrivals.finish()?;
    let what = format!("memory under load, {FEW} rules, QoS 0 flood of {count}");
    let figure = Figure::new(what, subject.peak()? as f64 / MIB, "MiB").goal(Goal::AtMost(80.0));
    let anonymous = subject.anonymous()? as f64 / MIB;
    Ok(figure.note(format!(
        "{anonymous:.1} MiB without the binary's pages after it{}",
        subject.complaints().join("; ")
    )))
}

/// Rules that differ in device and threshold; the first passes the markers.
fn thresholds(count: u64) -> Vec<(String, String)> {
    let rule = |at: u64| {
        let condition = if at == 0 {
            "temperature > 90".to_owned()
        } else {
            format!("device = 'press-{at}' AND temperature > {}.5", 100 + at)
        };
        (
            format!("threshold_{at:04}"),
            format!("INSERT INTO out SELECT n, device, temperature FROM flood WHERE {condition};\n"),
        )
    };
    (0..count).map(rule).collect()
}
