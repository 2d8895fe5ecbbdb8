//! How long a box takes to start after `kill -9`, with a long journal and with much state.

use std::path::Path;

use crate::Extent;
use crate::broker::{Broker, free_port};
use crate::outbox::ROWS_A_MESSAGE;
use crate::peer::{Arrivals, Publisher, in_arrays};
use crate::report::{Figure, Goal};
use crate::subject::{IN, MARKERS, OUT, Setup, Site};
use crate::throughput::{WINDOW, await_first_row};

/// Windows that stay open, by device and by row.
const WINDOWS: [(&str, &str); 2] = [
    ("windows of 20 devices", "GROUP BY window_start, window_end, device;\n"),
    ("a window a row", "GROUP BY window_start, window_end, n;\n"),
];

/// From the start of the process until it takes rows again.
pub fn recovery(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    WINDOWS.iter().map(|(what, group_by)| start_again(binary, extent.journaled_rows, what, group_by)).collect()
}

fn start_again(binary: &Path, rows: u64, what: &str, group_by: &str) -> anyhow::Result<Figure> {
    crate::progress(&format!("start after a crash, {what}"));
    let field = Broker::start(1_000)?;
    let windows =
        format!("INSERT INTO uplink SELECT avg(temperature) AS mean FROM TUMBLE(flood, DESCRIPTOR(ts), INTERVAL '1' DAY) {group_by}");
    let rules = vec![("load".to_owned(), format!("{MARKERS}{windows}"))];
    let site = Site::new(Setup { field: field.port, cloud: free_port()?, qos: 1, out_qos: 0, rules })?;
    let subject = site.run(binary)?;
    await_first_row(field.port)?;
    let (arrivals, _listener) = Arrivals::count(field.port, OUT, 0, rows)?;
    let publisher = Publisher::start(field.port, IN, 1)?;
    publisher.flood(in_arrays(rows, ROWS_A_MESSAGE), WINDOW, &arrivals.news)?;
    arrivals.finish()?;
    let quiet = subject.running;
    subject.kill()?;
    let size = site.buffer_bytes() >> 20;
    let subject = site.run(binary)?;
    let restored = subject.said("state is restored").unwrap_or_default();
    let run_again = restored.split(" rows=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("no").to_owned();
    let figure = Figure::new(format!("start after kill -9, {rows} journaled rows, {what}"), subject.running.as_secs_f64(), "s")
        .goal(Goal::AtMost(5.0))
        .note(format!("{run_again} rows run again; buffer {size} MiB; an empty start took {:.3} s", quiet.as_secs_f64()));
    subject.stop()?;
    Ok(figure)
}
