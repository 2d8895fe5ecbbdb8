//! What must be true in the end, whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::{Broker, Message};
use crate::cloud::Cloud;
use crate::echo;
use crate::press::Press;
use crate::programs;
use crate::record::Record;
use crate::rules;
use crate::valve::Valve;

/// Everything that is compared.
pub struct Reckoning<'a> {
    /// what was published
    pub broker: &'a Broker,
    /// what was polled
    pub press: &'a Press,
    /// what arrived
    pub cloud: &'a Cloud,
    /// what an output was told
    pub valve: &'a Valve,
    /// takes what is wrong
    pub record: &'a Record,
    /// nothing went wrong, so that order is kept
    pub in_order: bool,
    /// rows may be missing, but not without a record
    pub drops: bool,
    /// Streams went on while the disk refused: of rows that were acknowledged in that time a crash has taken
    /// some.
    pub lossy: bool,
    /// The disk refused: polled rows, which nobody sends again, went on meanwhile.
    pub refused: bool,
    /// how long all of it took, with the time that the machine was off
    pub longest: Duration,
    /// no rule had to do without the reference table
    pub always_a_table: bool,
}

impl Reckoning<'_> {
    /// Compares.
    pub fn check(&self) {
        let messages = self.broker.messages();
        self.valve(&messages);
        if self.broker.refused() > 0 {
            self.record.wrong(format!("rows were refused {} times while the box ran", self.broker.refused()));
        }
        self.polls();
        if self.lossy {
            return [rules::EACH, rules::SOME].iter().for_each(|rule| self.at_most_once(rule, &messages));
        }
        self.rows(rules::EACH, &messages, |_| true);
        self.rows(rules::SOME, &messages, |message| message.v >= rules::LEAST);
        for rule in [rules::ECHOES, rules::ECHOED, programs::PLUGIN_ECHOES, programs::SCRIPT_ECHOES] {
            self.rows(rule, &messages, |message| message.v >= rules::LEAST);
            // All that scripts know of time is what the clock shows.
            if rule != programs::SCRIPT_ECHOES {
                self.held(rule);
            }
        }
        self.windows(&[rules::WINDOWS], &messages, rules::WINDOW_S);
        self.windows(&[rules::COPIED_WINDOWS], &messages, rules::COPIED_WINDOW_S);
        self.windows(&rules::ROAMING, &messages, rules::WINDOW_S);
        self.at_most_once(rules::SPARE, &messages);
        let noise: Vec<Message> = (1..=self.broker.noise()).map(|n| Message::new(n, u64::MAX)).collect();
        self.at_most_once(rules::NOISE, &noise);
        self.memories(&messages);
        self.stamped(&messages);
        if !self.drops && self.cloud.dropped(None) > 0 {
            self.record.wrong(format!("{} rows were dropped", self.cloud.dropped(None)));
        }
    }

    /// Each message that passes has arrived as one row.
    fn rows(&self, rule: &str, messages: &[Message], passes: impl Fn(&Message) -> bool) {
        let found = self.numbers(rule);
        let expected: BTreeSet<i64> =
            messages.iter().filter(|message| passes(message)).map(|message| message.n).collect();
        let last = messages.len() as i64;
        self.nothing_twice(rule, &found);
        // The message that ends it all may overtake the backlog.
        let found: Vec<i64> = found.into_iter().filter(|n| *n <= last).collect();
        let arrived: BTreeSet<i64> = found.iter().copied().collect();
        let (missing, surplus): (Vec<_>, Vec<_>) =
            (expected.difference(&arrived).collect(), arrived.difference(&expected).collect());
        let silent = missing.len() as u64 > self.cloud.dropped(Some(rule));
        if silent || !surplus.is_empty() {
            self.record.wrong(format!("rule {rule}: missing {missing:?}, surplus {surplus:?}"));
        }
        if self.in_order && !found.is_sorted() {
            self.record.wrong(format!("rule {rule}: rows are out of order: {found:?}"));
        }
    }

    /// A row is there once, or not at all.
    fn at_most_once(&self, rule: &str, messages: &[Message]) {
        let found = self.numbers(rule);
        self.nothing_twice(rule, &found);
        let last = messages.len() as i64;
        if let Some(surplus) = found.iter().find(|n| **n < 1 || **n > last + 1) {
            self.record.wrong(format!("rule {rule}: nobody published {surplus}"));
        }
    }

    /// No row was held for less than it should be, nor for years because the clock jumped.
    fn held(&self, rule: &str) {
        for (id, row) in self.cloud.rows(rule) {
            let waited = row.get("waited").and_then(Value::as_i64).unwrap_or(-1);
            let (least, most) = (echo::DELAY_NS, i64::try_from(self.longest.as_nanos()).unwrap_or(i64::MAX));
            if !(least..=most).contains(&waited) {
                self.record.wrong(format!(
                    "{id}: it was held for {waited} ns; at least {least}, at most {most} are right"
                ));
            }
        }
    }

    fn nothing_twice(&self, rule: &str, found: &[i64]) {
        let mut seen = BTreeSet::new();
        let twice: Vec<&i64> = found.iter().filter(|n| !seen.insert(**n)).collect();
        if !twice.is_empty() {
            self.record.wrong(format!("rule {rule}: these have several ids: {twice:?}"));
        }
    }

    fn numbers(&self, rule: &str) -> Vec<i64> {
        self.cloud.rows(rule).iter().filter_map(|(_, row)| row.get("n").and_then(Value::as_i64)).collect()
    }

    /// Each window has arrived as one row, and counts what it should.
    fn windows(&self, names: &[&str], messages: &[Message], seconds: i64) {
        let mut expected: BTreeMap<(String, i64), Value> = BTreeMap::new();
        for Message { n, device, ts_ns, v } in messages {
            let start = ts_ns.div_euclid(seconds * 1_000_000_000) * seconds;
            let window = expected
                .entry(((*device).to_owned(), start))
                .or_insert_with(|| json!({ "rows": 0, "total": 0, "low": v, "high": v }));
            let at = |name: &str| window.get(name).and_then(Value::as_i64).unwrap_or(0);
            *window = json!({ "rows": at("rows") + 1, "total": at("total") + n, "low": at("low").min(*v), "high": at("high").max(*v) });
        }
        let found: Vec<(String, Value)> = names.iter().flat_map(|name| self.cloud.rows(name)).collect();
        for (id, row) in found {
            let device = row.get("device").and_then(Value::as_str).unwrap_or_default().to_owned();
            let beginning = row.get("beginning").and_then(Value::as_str).unwrap_or_default();
            let Some(start) = seconds_of(beginning) else {
                self.record.wrong(format!("{id}: the window begins at {beginning}"));
                continue;
            };
            let Some(window) = expected.remove(&(device, start)) else {
                self.record.wrong(format!("{id}: this window should not be, or is there twice: {row}"));
                continue;
            };
            let differs =
                ["rows", "total", "low", "high"].iter().any(|name| window.get(name) != row.get(name));
            if differs {
                self.record.wrong(format!("{id}: the window is {row}, and should be {window}"));
            }
        }
        let dropped: u64 = names.iter().map(|name| self.cloud.dropped(Some(name))).sum();
        if expected.len() as u64 > dropped {
            self.record.wrong(format!("windows of {names:?} are missing: {expected:?}"));
        }
    }

    /// What rules made that remember rows one by one: running counts, sessions, pairs and patterns.
    fn memories(&self, messages: &[Message]) {
        let mut devices: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
        for message in messages {
            devices.entry(message.device).or_default().push(message);
        }
        let (mut sessions, mut pairs, mut rises) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (device, rows) in &mut devices {
            rows.sort_by_key(|message| message.ts_ns);
            for session in rows.chunk_by(|a, b| b.ts_ns - a.ts_ns < rules::SILENCE_NS) {
                let numbers = || session.iter().map(|message| message.n);
                let (first, last) = (numbers().min().unwrap_or(0), numbers().max().unwrap_or(0));
                sessions.insert(format!(
                    "{device} {first} {last} {} {}",
                    session.len(),
                    numbers().sum::<i64>()
                ));
            }
            for (at, a) in rows.iter().enumerate() {
                let later = rows.iter().skip(at + 1).take_while(|b| b.ts_ns - a.ts_ns <= rules::PAIR_NS);
                let high = later.filter(|b| a.v >= rules::LEAST && b.v >= rules::LEAST && b.ts_ns > a.ts_ns);
                pairs.extend(high.map(|b| format!("{} {}", a.n, b.n)));
            }
            rises.extend(
                rows.iter()
                    .zip(rows.iter().skip(1))
                    .filter(|(a, b)| b.v > a.v)
                    .map(|(a, b)| format!("{} {}", a.n, b.n)),
            );
        }
        // Only what was silence while the box listened may end a session early.
        if self.broker.longest_silence() < rules::IDLE_AFTER {
            self.exactly(rules::SILENT, sessions.clone(), &["device", "first", "last", "rows", "total"]);
        }
        self.exactly(rules::SESSIONS, sessions, &["device", "first", "last", "rows", "total"]);
        self.exactly(rules::PAIRS, pairs, &["n", "m"]);
        self.exactly(rules::RISES, rises, &["n", "m"]);
        for rule in [rules::RUNNING, programs::SCRIPT_RUNNING, programs::PLUGIN_RUNNING] {
            self.running(rule, messages);
        }
    }

    /// Each row met one content of the table and came at one time, whether it was run once or again.
    fn stamped(&self, messages: &[Message]) {
        if self.always_a_table {
            self.rows(rules::STAMPED, messages, |_| true);
        } else {
            self.at_most_once(rules::STAMPED, messages);
        }
        let mut stamps: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (id, row) in self.cloud.rows(rules::STAMPED) {
            let number = |column: &str| row.get(column).and_then(Value::as_i64);
            match (number("n"), number("factor"), number("seen")) {
                (Some(n), Some(factor), Some(seen)) => drop(stamps.insert(n, (factor, seen))),
                _ => self.record.wrong(format!("{id}: not a row of this rule: {row}")),
            }
        }
        let mut counted = 0;
        for (id, row) in self.cloud.rows(rules::STAMPED_WINDOWS) {
            let start = row.get("beginning").and_then(Value::as_str).and_then(seconds_of).unwrap_or(i64::MIN);
            let within = |message: &&Message| {
                row.get("device").and_then(Value::as_str) == Some(message.device)
                    && message.ts_ns.div_euclid(rules::WINDOW_S * 1_000_000_000) * rules::WINDOW_S == start
            };
            let of_window: Vec<(i64, i64, i64)> = messages
                .iter()
                .filter(within)
                .filter_map(|message| {
                    stamps.get(&message.n).map(|(factor, seen)| (message.n, *factor, *seen))
                })
                .collect();
            counted += of_window.len();
            let total: i64 = of_window.iter().map(|(n, ..)| n).sum();
            let expected = json!({
                "total": total,
                "weighted": of_window.iter().map(|(n, factor, _)| n * factor).sum::<i64>(),
                "first": of_window.iter().map(|(_, _, seen)| seen).min(),
                "last": of_window.iter().map(|(_, _, seen)| seen).max(),
            });
            let differs =
                ["total", "weighted", "first", "last"].iter().any(|name| expected.get(name) != row.get(name));
            // Rows that a full buffer has dropped are missing here, and are not in the total.
            let all_came = row.get("total").and_then(Value::as_i64) == Some(total) || !self.drops;
            if differs && all_came {
                self.record
                    .wrong(format!("{id}: the window is {row}, and by its rows it should be {expected}"));
            }
        }
        if counted != stamps.len() && !self.drops {
            self.record
                .wrong(format!("of {} rows that met the table, {counted} were in windows", stamps.len()));
        }
    }

    /// These rows have arrived, once each, and no others, apart from those of the device that ends it all.
    fn exactly(&self, rule: &str, mut expected: BTreeSet<String>, columns: &[&str]) {
        let text = |row: &Value, column: &str| match row.get(column) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        };
        let last = self.broker.messages().len() as i64;
        for (id, row) in self.cloud.rows(rule) {
            let found = columns.iter().map(|column| text(&row, column)).collect::<Vec<_>>().join(" ");
            let of_the_end = ["n", "first"]
                .iter()
                .any(|column| row.get(column).and_then(Value::as_i64).is_some_and(|n| n > last));
            if !expected.remove(&found) && !of_the_end {
                self.record.wrong(format!("{id}: this row should not be, or is there twice: {row}"));
            }
        }
        if expected.len() as u64 > self.cloud.dropped(Some(rule)) {
            self.record.wrong(format!("rows of {rule} are missing: {expected:?}"));
        }
    }

    /// What was polled is what the device said to that request, in time, and nothing when it did not; and all
    /// that was kept has arrived.
    fn polls(&self) {
        let (polls, found) = (self.press.polls(), self.numbers(rules::POLLED));
        self.nothing_twice(rules::POLLED, &found);
        if self.in_order && !found.is_sorted() {
            self.record.wrong(format!("what was polled is out of order: {found:?}"));
        }
        for (id, row) in self.cloud.rows(rules::POLLED) {
            let Some(poll) = row.get("n").and_then(Value::as_i64).and_then(|n| polls.get(&n)) else {
                self.record.wrong(format!("{id}: nobody asked for this: {row}"));
                continue;
            };
            let fault = row.get("fault").is_some_and(Value::is_string);
            let quality = if poll.value.is_some() { "good" } else { "bad" };
            let is_right = row.get("device").and_then(Value::as_str) == Some(poll.device)
                && row.get("v").and_then(Value::as_i64) == poll.value
                && row.get("quality").and_then(Value::as_str) == Some(quality)
                && fault == poll.value.is_none();
            if !is_right {
                self.record.wrong(format!("{id}: the row is {row}, and the press said {poll:?}"));
            }
        }
        if self.refused {
            return;
        }
        let found: BTreeSet<i64> = found.into_iter().collect();
        let kept = self.press.kept();
        let missing: Vec<&i64> = kept.difference(&found).collect();
        if missing.len() as u64 > self.cloud.dropped(Some(rules::POLLED)) {
            self.record.wrong(format!("of what was polled and kept these are missing: {missing:?}"));
        }
        self.counted(rules::POLLED);
    }

    /// Every row of a device counted once, and knew the one before it.
    fn running(&self, rule: &str, messages: &[Message]) {
        let rows = self.counted(rule);
        let dropped = self.cloud.dropped(Some(rule));
        let count = messages.iter().filter(|message| message.device != "end").count() as u64;
        if rows + dropped < count || rows > count {
            self.record.wrong(format!(
                "{rule}: {rows} rows were counted of {count} messages, and {dropped} dropped"
            ));
        }
    }

    /// Of each device no number was given twice, and who has the next knew the one before. Returns how many
    /// rows there are.
    fn counted(&self, rule: &str) -> u64 {
        let mut devices: BTreeMap<String, BTreeMap<i64, (i64, Option<i64>)>> = BTreeMap::new();
        let mut rows = 0;
        for (id, row) in self.cloud.rows(rule) {
            let number = |column: &str| row.get(column).and_then(Value::as_i64);
            let device = row.get("device").and_then(Value::as_str).unwrap_or_default();
            let (Some(n), Some(seen)) = (number("n"), number("seen")) else {
                self.record.wrong(format!("{id}: not a row of this rule: {row}"));
                continue;
            };
            if device == "end" {
                continue;
            }
            rows += 1;
            if devices.entry(device.to_owned()).or_default().insert(seen, (n, number("before"))).is_some() {
                self.record.wrong(format!("{id}: two rows of {device} were number {seen}"));
            }
        }
        for (device, rows) in devices {
            for ((seen, (n, _)), (next, (_, before))) in rows.iter().zip(rows.iter().skip(1)) {
                if *next == seen + 1 && *before != Some(*n) {
                    self.record.wrong(format!(
                        "{rule}, {device}: row {next} takes {before:?} for the one before it, which was {n}"
                    ));
                }
            }
        }
        rows
    }

    /// A message moves the valve once at most each time that it was taken as new: not again when the journal
    /// is run again.
    fn valve(&self, messages: &[Message]) {
        let mut told: BTreeMap<i64, u32> = BTreeMap::new();
        for n in self.valve.told() {
            *told.entry(n).or_default() += 1;
        }
        for Message { n, v, .. } in messages {
            let times = told.remove(n).unwrap_or(0);
            let taken = self.broker.taken(n.unsigned_abs());
            if times > taken {
                self.record
                    .wrong(format!("message {n} was taken {taken} times and moved the valve {times} times"));
            }
            if times > 0 && *v < rules::VALVE {
                self.record.wrong(format!("message {n} moved the valve and should not have"));
            }
        }
        if !told.is_empty() {
            self.record.wrong(format!("the valve was told what nobody published: {told:?}"));
        }
    }
}

/// Seconds since 1970 of an RFC 3339 time.
fn seconds_of(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_second())
}
