//! A plant that publishes numbered rows, and rules whose results arithmetic foretells: what
//! [`crate::reckoning`] is kept of.
//!
//! Row `n` is of the event time [`time_ms`]`(n)` and of the device [`device`]`(n)`. The rules take it three
//! ways to the cloud:
//!
//! * `rows`: as it is;
//! * `seconds`: in windows of a second;
//! * `relay`, `tally` and `fives`: by a derived stream into windows of a second, and by another into windows
//!   of five.

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, MissedTickBehavior, interval};

use crate::PATIENCE;
use crate::box_under_test::Site;
use crate::client::Client;

/// Streams and uplink of a box with connections `plant` and `cloud`.
pub const CONFIG: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/{device}"
ts = "time"
fields = { n = "int64", attempt = "int64" }

[streams.relayed]
fields = { device = "utf8", n = "int64" }

[streams.tallied]
fields = { device = "utf8", rows = "int64", total = "int64", first = "int64", last = "int64" }

[uplink]
connection = "cloud"
"#;

/// What the box subscribes to.
pub const FILTER: &str = "in/+";

/// The rules.
pub const RULES: [&str; 5] = ["rows", "seconds", "relay", "tally", "fives"];

/// How many devices take turns.
pub const DEVICES: i64 = 3;

/// Event time between two rows.
const STEP_MS: i64 = 10;
/// Rows of a second.
pub const PER_SECOND: i64 = 1_000 / STEP_MS;
/// 2026-03-01T00:00:00Z: a window of each size begins there.
const BEGIN_MS: i64 = 1_772_323_200_000;
/// Further than any window and any lateness.
const FAR_MS: i64 = 3_600_000;

/// Rows that are published without a look at how far the others are.
const CHUNK: i64 = 50;

/// Event time of row `n`, milliseconds since 1970.
#[must_use]
pub fn time_ms(n: i64) -> i64 {
    BEGIN_MS + n * STEP_MS
}

/// The device of row `n`.
#[must_use]
pub fn device(n: i64) -> String {
    format!("d{}", n.rem_euclid(DEVICES))
}

/// Version `version` of a rule's text. Versions differ in conditions that all rows meet and in what is
/// written beside the results, so that one can replace another and keeps its windows.
///
/// # Panics
/// When there is no such rule.
#[must_use]
pub fn text(rule: &str, version: u32, lateness: &str) -> String {
    let windows = |target: &str, columns: &str, from: &str, seconds: u32| {
        format!(
            "--! lateness = \"{lateness}\"\nINSERT INTO {target} SELECT {columns}\n\
             FROM TUMBLE({from}, DESCRIPTOR(ts), INTERVAL '{seconds}' SECOND)\n\
             GROUP BY window_start, window_end, device HAVING count(*) > -{version};\n"
        )
    };
    let totals = "count(*) AS rows, sum(n) AS total, min(n) AS first, max(n) AS last";
    match rule {
        "rows" => format!(
            "INSERT INTO uplink SELECT n, attempt, device, {version} AS version FROM numbers WHERE n > \
            -{version}000;\n"
        ),
        "seconds" => {
            windows("uplink", &format!("window_start, device, {totals}, {version} AS version"), "numbers", 1)
        }
        "relay" => {
            format!("INSERT INTO relayed SELECT ts, device, n FROM numbers WHERE n > -{version}000;\n")
        }
        "tally" => windows("tallied", &format!("window_start AS ts, device, {totals}"), "relayed", 1),
        "fives" => {
            let totals = "sum(rows) AS rows, sum(total) AS total, min(first) AS first, max(last) AS last";
            windows("uplink", &format!("window_start, device, {totals}, {version} AS version"), "tallied", 5)
        }
        _ => panic!("there is no rule {rule}"),
    }
}

/// The rules of a site, of which each can be given a new version.
#[derive(Debug)]
pub struct Rules {
    lateness: &'static str,
    version: u32,
}

impl Rules {
    /// Puts the first version of each in place.
    #[must_use]
    pub fn write(site: &Site, lateness: &'static str) -> Self {
        RULES.iter().for_each(|rule| site.rule(rule, &text(rule, 1, lateness)));
        Self { lateness, version: 1 }
    }

    /// Puts a new version of `rule` in place.
    pub fn renew(&mut self, site: &Site, rule: &str) {
        self.version += 1;
        site.rule(rule, &text(rule, self.version, self.lateness));
    }

    /// The newest version of any.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }
}

/// How fast rows are published.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// At most so many rows are under way to the cloud: what is under way lies in queues.
    pub ahead: i64,
    /// Rows a second; without it as fast as they arrive.
    pub rate: Option<u32>,
}

#[derive(Debug, Default)]
struct Progress {
    arrived: i64,
    enough: bool,
}

/// The plant while it publishes.
pub struct Plant {
    progress: watch::Sender<Progress>,
    publishing: JoinHandle<(Client, i64, u64)>,
}

impl Plant {
    /// Publishes rows from 0 on.
    #[must_use]
    pub fn start(devices: Client, pace: Pace) -> Self {
        let (progress, seen) = watch::channel(Progress::default());
        Self { progress, publishing: tokio::spawn(publish(devices, pace, seen)) }
    }

    /// So many rows have arrived.
    pub fn arrived(&self, rows: i64) {
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.arrived, rows) != rows);
    }

    /// Ends it.
    pub async fn stop(self) -> Published {
        self.progress.send_modify(|progress| progress.enough = true);
        let Ok(ended) = tokio::time::timeout(PATIENCE, self.publishing).await else {
            panic!("the plant does not stop")
        };
        let (devices, rows, again) = ended.unwrap();
        Published { devices, rows, again, marks: 0 }
    }
}

async fn publish(devices: Client, pace: Pace, mut seen: watch::Receiver<Progress>) -> (Client, i64, u64) {
    let mut clock = pace.rate.map(|rate| {
        let mut clock = interval(Duration::from_secs(CHUNK.unsigned_abs()) / rate);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        clock
    });
    let (mut n, mut again) = (0, 0);
    loop {
        if seen
            .wait_for(|progress| progress.enough || n < progress.arrived + pace.ahead)
            .await
            .unwrap()
            .enough
        {
            return (devices, n, again);
        }
        if let Some(clock) = &mut clock {
            clock.tick().await;
        }
        again += devices
            .publish_until_confirmed(n..n + CHUNK, |n, attempt| message(*n, attempt, time_ms(*n)))
            .await;
        n += CHUNK;
    }
}

fn message(n: i64, attempt: u32, time: i64) -> (String, String) {
    (format!("in/{}", device(n)), json!({ "time": time, "n": n, "attempt": attempt }).to_string())
}

/// What was published.
pub struct Published {
    devices: Client,
    /// rows 0 up to and without this one
    pub rows: i64,
    /// attempts beyond the first: the broker may have taken each of these rows more than once
    pub again: u64,
    marks: i64,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published")
            .field("rows", &self.rows)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

impl Published {
    /// Publishes a row that is far later than all others, so that windows close. Its number is returned: it
    /// is negative.
    pub async fn mark(&mut self) -> i64 {
        self.marks += 1;
        let (n, time) = (-self.marks, time_ms(self.rows) + self.marks * FAR_MS);
        self.devices.publish_until_confirmed([n], |n, attempt| message(*n, attempt, time)).await;
        n
    }
}
