//! What a row costs the disk, by how the buffer is told to spare it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Extent;
use crate::broker::{Broker, free_port};
use crate::latency::sleep_until;
use crate::outbox::ROWS_A_MESSAGE;
use crate::peer::{Arrivals, Publisher, in_arrays, singly};
use crate::report::Figure;
use crate::subject::{IN, MARKERS, OUT, Setup, Site, UP};
use crate::throughput::{WINDOW, await_first_row};

const ALL_UP: &str = "INSERT INTO uplink SELECT n, device, temperature, pressure, ok FROM flood;\n";
/// 200 messages a second: a plant of some size.
const PACE: Duration = Duration::from_millis(5);
/// What a user would write, and as keys.
const SETTINGS: [(&str, &str); 5] = [
    ("the default", ""),
    ("commit_every 100ms", "buffer.commit_every = \"100ms\""),
    ("commit_every 1s", "buffer.commit_every = \"1s\""),
    ("durability normal", "buffer.durability = \"normal\""),
    ("durability normal, commit_every 1s", "buffer.durability = \"normal\"\nbuffer.commit_every = \"1s\""),
];

/// A steady trickle with the cloud there and away, and a flood.
pub fn wear(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (what, buffer) in SETTINGS {
        for (cloud_is_there, state) in [(true, "there"), (false, "away")] {
            crate::progress(&format!("wear: a trickle, cloud {state}, {what}"));
            let bytes = trickle(binary, extent.trickle, buffer, cloud_is_there)?;
            figures.push(Figure::new(
                format!("written for a row, 200 rows a second, cloud {state}, {what}"),
                bytes,
                "bytes",
            ));
        }
        crate::progress(&format!("wear: a flood, {what}"));
        figures.push(flood(binary, extent.wear_rows, what, buffer)?);
    }
    Ok(figures)
}

fn site(field: u16, cloud: u16, buffer: &'static str) -> anyhow::Result<Site> {
    let rules = vec![("load".to_owned(), format!("{MARKERS}{ALL_UP}"))];
    Site::new(Setup { field, cloud, qos: 1, rules, buffer, ..Setup::default() })
}

/// Bytes written for each of `rows` rows, one a message.
fn trickle(binary: &Path, rows: u64, buffer: &'static str, cloud_is_there: bool) -> anyhow::Result<f64> {
    let field = Broker::start(1_000)?;
    let cloud = Broker::start(1_000)?;
    let site = site(field.port, if cloud_is_there { cloud.port } else { free_port()? }, buffer)?;
    let subject = site.run(binary)?;
    await_first_row(field.port)?;
    let (port, topic) = if cloud_is_there { (cloud.port, UP) } else { (field.port, OUT) };
    let (arrivals, listener) = Arrivals::count(port, topic, 0, rows)?;
    let publisher = Publisher::start(field.port, IN, 1)?;
    let written = subject.written()?;
    let begin = Instant::now();
    for (number, (_, payload)) in (0_u32..).zip(singly(rows)) {
        sleep_until(begin + PACE * number);
        publisher.send(payload, false)?;
    }
    arrivals.finish()?;
    drop((listener, publisher));
    let written = subject.stop()?.written - written;
    Ok(written as f64 / rows as f64)
}

/// As fast as it goes, a hundred rows a message.
fn flood(binary: &Path, rows: u64, what: &str, buffer: &'static str) -> anyhow::Result<Figure> {
    let field = Broker::start(1_000)?;
    let site = site(field.port, free_port()?, buffer)?;
    let subject = site.run(binary)?;
    await_first_row(field.port)?;
    let (arrivals, listener) = Arrivals::count(field.port, OUT, 0, rows)?;
    let publisher = Publisher::start(field.port, IN, 1)?;
    let written = subject.written()?;
    let begin = publisher.flood(in_arrays(rows, ROWS_A_MESSAGE), WINDOW, &arrivals.news)?;
    let took = (arrivals.finish()?.at - begin).as_secs_f64();
    drop((listener, publisher));
    let written = subject.stop()?.written - written;
    let each = |bytes: u64| bytes as f64 / rows as f64;
    Ok(Figure::new(format!("written for a row, a flood, {what}"), each(written), "bytes")
        .against("size of the database", each(site.buffer_bytes()))
        .note(format!("{:.0} rows a second", rows as f64 / took)))
}
