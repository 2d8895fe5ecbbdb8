//! Rows into the outbox, what they cost on disk, and how fast a backlog drains, next to a bare publisher on
//! the same broker.

use std::path::Path;
use std::time::Duration;

use crate::Extent;
use crate::broker::{Broker, free_port};
use crate::peer::{Arrivals, Payloads, Publisher, in_arrays, singly};
use crate::plant::{FIRST, message};
use crate::report::{Figure, Goal};
use crate::subject::{IN, MARKERS, OUT, Setup, Site, UP};
use crate::throughput::{WINDOW, await_first_row};

const ALL_UP: &str = "INSERT INTO uplink SELECT n, device, temperature, pressure, ok FROM flood;\n";
/// Rows in one message, so that the outbox and not the broker is what limits. Divides
/// [`crate::plant::MARKER_EVERY`].
pub const ROWS_A_MESSAGE: u64 = 100;

/// Filling and draining.
pub fn outbox(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    crate::progress("rows into the outbox");
    let (_, mut figures) = fill(binary, extent.outbox_rows, &Broker::start(20)?, free_port()?)?;
    for in_flight in [20, 1_000] {
        crate::progress(&format!("draining a backlog, broker's window {in_flight}"));
        figures.push(drain(binary, extent.backlog_rows, in_flight)?);
    }
    Ok(figures)
}

fn setup(field: &Broker, cloud: u16) -> Setup {
    let rules = vec![("load".to_owned(), format!("{MARKERS}{ALL_UP}"))];
    Setup { field: field.port, cloud, qos: 1, rules, ..Setup::default() }
}

/// Fills the outbox of a box whose uplink, on port `cloud`, is down, and stops it.
fn fill(binary: &Path, rows: u64, field: &Broker, cloud: u16) -> anyhow::Result<(Site, Vec<Figure>)> {
    let site = Site::new(setup(field, cloud))?;
    let subject = site.run(binary)?;
    await_first_row(field.port)?;
    let (arrivals, listener) = Arrivals::count(field.port, OUT, 0, rows)?;
    let publisher = Publisher::start(field.port, IN, 1)?;
    let (written, cpu) = (subject.written()?, subject.cpu()?);
    let begin = publisher.flood(in_arrays(rows, ROWS_A_MESSAGE), WINDOW, &arrivals.news)?;
    let took = (arrivals.finish()?.at - begin).as_secs_f64();
    let (cpu, peak) = (subject.cpu()? - cpu, subject.peak()?);
    drop((listener, publisher));
    let written = subject.stop()?.written - written;
    let stored = site.buffer_bytes();
    let each = |bytes: u64| bytes as f64 / rows as f64;
    let cpu_us = cpu.as_secs_f64() * 1e6 / rows as f64;
    let figures = vec![
        Figure::new(
            format!("rows into the outbox, {ROWS_A_MESSAGE} rows a message, QoS 1"),
            rows as f64 / took,
            "rows/s",
        )
        .note(format!("{cpu_us:.2} us CPU a row; peak {} MiB", peak >> 20)),
        Figure::new("written to disk for each row of the outbox", each(written), "bytes")
            .against("size of the database", each(stored))
            .goal(Goal::RatioAtMost(1.3)),
    ];
    Ok((site, figures))
}

/// Starts a box with a backlog of `rows` beside a broker that takes it.
fn drain(binary: &Path, rows: u64, in_flight: u16) -> anyhow::Result<Figure> {
    // The field gets quiet before; it is there only to fill the outbox.
    let field = Broker::start(1_000)?;
    let cloud = Broker::start(in_flight)?;
    let bare = {
        let (arrivals, _listener) = Arrivals::count(cloud.port, UP, 0, rows)?;
        let publisher = Publisher::start(cloud.port, UP, 1)?;
        publisher.flood(uplink_messages(rows), WINDOW, &arrivals.news)?;
        let last = arrivals.finish()?;
        rate(rows, last.at - last.first)
    };
    let (site, _) = fill(binary, rows, &field, free_port()?)?;
    site.configure(&setup(&field, cloud.port).config())?;
    let (arrivals, _listener) = Arrivals::count(cloud.port, UP, 0, rows)?;
    let subject = site.run(binary)?;
    let last = arrivals.finish()?;
    let cpu_us = subject.cpu()?.as_secs_f64() * 1e6 / rows as f64;
    anyhow::ensure!(last.messages == rows, "{} of {rows} rows of the backlog arrived", last.messages);
    subject.stop()?;
    let what = format!("backlog of {rows} rows drains, broker's window {in_flight}");
    let figure = Figure::new(what, rate(rows, last.at - last.first), "rows/s")
        .against("bare QoS 1 publisher", bare)
        .goal(Goal::RatioAtLeast(0.8));
    Ok(figure.note(format!("{cpu_us:.1} us CPU a row; {} repeated", last.repeated)))
}

fn rate(rows: u64, took: Duration) -> f64 {
    rows as f64 / took.as_secs_f64()
}

/// What the uplink sends for the rows of [`singly`].
fn uplink_messages(rows: u64) -> Payloads {
    Box::new(singly(rows).map(|(numbers, _)| {
        let n = numbers.start;
        let row = String::from_utf8_lossy(&message(n)).into_owned();
        (numbers, format!(r#"{{"id":"load/load/{}/0","rule":"load","row":{row}}}"#, n - FIRST).into_bytes())
    }))
}
