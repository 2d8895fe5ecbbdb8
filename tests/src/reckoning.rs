//! An account of every message: what the cloud got, against what arithmetic says of the rows that
//! [`crate::plant`] published.
//!
//! Delivery is at least once, so a message may come again under its own id. But an id stands for one content,
//! each row comes under one id, and each window under one id, with exactly the rows that belong to it. A row
//! that the plant had to publish again is told from the first by its attempt: each attempt is a row of its
//! own, and the windows must hold those that came and no others.
//!
//! It is kept in memory: some 100 bytes a row.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};

use serde_json::Value;

use crate::client::Message;
use crate::plant::{self, DEVICES, PER_SECOND};

/// Faults of one kind that are written out.
const WRITTEN_OUT: usize = 10;
/// Further than any test counts.
const MOST_ROWS: i64 = 1 << 30;

/// A rule whose rows come to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Rule {
    Rows,
    Seconds,
    Fives,
}

impl Rule {
    const ALL: [Self; 3] = [Self::Rows, Self::Seconds, Self::Fives];

    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Seconds => "seconds",
            Self::Fives => "fives",
        }
    }

    /// Length of its windows, in rows; `None` when it has none.
    fn window(self) -> Option<i64> {
        match self {
            Self::Rows => None,
            Self::Seconds => Some(PER_SECOND),
            Self::Fives => Some(5 * PER_SECOND),
        }
    }
}

/// `BOX/RULE/SEQ/ORDINAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    seq: u64,
    ordinal: u32,
    rule: Rule,
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').skip(1);
        let (rule, seq, ordinal) = (parts.next()?, parts.next()?, parts.next()?);
        let rule = Rule::ALL.into_iter().find(|known| known.name() == rule)?;
        let id = Self { seq: seq.parse().ok()?, ordinal: ordinal.parse().ok()?, rule };
        parts.next().is_none().then_some(id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.rule.name(), self.seq, self.ordinal)
    }
}

/// A row of the plant: its number, and which attempt to publish it was taken.
type Row = (i64, u32);

/// A window: by its rule, its begin in milliseconds since 1970, and its device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Window {
    rule: Rule,
    begin_ms: i64,
    device: String,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = (self.begin_ms - plant::time_ms(0)).div_euclid(1_000);
        write!(f, "{} of {} from second {begin} on", self.rule.name(), self.device)
    }
}

/// What is said of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Totals {
    rows: i64,
    total: i64,
    first: i64,
    last: i64,
}

impl Totals {
    fn read(row: &Value) -> Option<Self> {
        let field = |name: &str| row[name].as_i64();
        Some(Self {
            rows: field("rows")?,
            total: field("total")?,
            first: field("first")?,
            last: field("last")?,
        })
    }

    fn sum(rows: impl Iterator<Item = (i64, i64)>) -> Option<Self> {
        rows.map(|(n, times)| Self { rows: times, total: n * times, first: n, last: n }).reduce(|all, one| {
            Self {
                rows: all.rows + one.rows,
                total: all.total + one.total,
                first: all.first.min(one.first),
                last: all.last.max(one.last),
            }
        })
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows from {} to {} with the sum {}", self.rows, self.first, self.last, self.total)
    }
}

/// The account.
#[derive(Debug, Default)]
pub struct Reckoning {
    /// a digest of the message that came under an id
    contents: HashMap<Id, u64>,
    rows: HashMap<Row, Id>,
    /// how often the box has taken row `n` beside, where that is not never
    beside: HashMap<i64, i64>,
    /// how many attempts of row `n` have come
    attempts: Vec<u32>,
    /// rows of which at least one attempt has come
    arrived: i64,
    windows: BTreeMap<Window, (Id, Totals)>,
    /// how many of them are not those of marks
    closed: i64,
    /// messages that came again under their own id
    repeats: u64,
    versions: BTreeSet<i64>,
    faults: Faults,
}

impl Reckoning {
    /// Enters a message of the uplink.
    pub fn take(&mut self, message: &Message) {
        let json = message.json();
        let id = json["id"].as_str().and_then(Id::parse);
        let Some(id) = id.filter(|id| json.get("gap").is_none() && json["rule"] == id.rule.name()) else {
            return self.faults.add(Kind::Strange, message.text().to_owned());
        };
        let mut digest = DefaultHasher::new();
        (&message.topic, &message.payload).hash(&mut digest);
        let digest = digest.finish();
        match self.contents.entry(id) {
            Entry::Vacant(entry) => drop(entry.insert(digest)),
            Entry::Occupied(entry) if *entry.get() == digest => {
                self.repeats += 1;
                return;
            }
            Entry::Occupied(_) => {
                self.faults.add(Kind::Changed, format!("{id}, the second time: {}", message.text()))
            }
        }
        let row = &json["row"];
        let entered = if id.rule == Rule::Rows { self.row(id, row) } else { self.window(id, row) };
        if entered.is_none() {
            self.faults.add(Kind::Strange, message.text().to_owned());
        }
    }

    fn row(&mut self, id: Id, row: &Value) -> Option<()> {
        let n = row["n"].as_i64().filter(|n| *n < MOST_ROWS)?;
        let attempt = u32::try_from(row["attempt"].as_i64()?).ok()?;
        if row["device"] != plant::device(n) {
            return None;
        }
        self.versions.insert(row["version"].as_i64()?);
        match self.rows.entry((n, attempt)) {
            Entry::Vacant(entry) => drop(entry.insert(id)),
            Entry::Occupied(entry) => {
                *self.beside.entry(n).or_default() += 1;
                self.faults
                    .add(Kind::DoubledRow, format!("{n} (attempt {attempt}) as {} and as {id}", entry.get()));
                return Some(());
            }
        }
        if let Ok(n) = usize::try_from(n) {
            self.attempts.resize(self.attempts.len().max(n + 1), 0);
            self.arrived += i64::from(self.attempts[n] == 0);
            self.attempts[n] += 1;
        }
        Some(())
    }

    fn window(&mut self, id: Id, row: &Value) -> Option<()> {
        let begin: jiff::Timestamp = row["window_start"].as_str()?.parse().ok()?;
        let window = Window {
            rule: id.rule,
            begin_ms: begin.as_millisecond(),
            device: row["device"].as_str()?.to_owned(),
        };
        let totals = Totals::read(row)?;
        match self.windows.get(&window) {
            None => {
                self.closed += i64::from(totals.last >= 0);
                self.windows.insert(window, (id, totals));
            }
            Some((first, known)) => {
                self.faults.add(
                    Kind::DoubledWindow,
                    format!("{window} as {first} ({known}) and as {id} ({totals})"),
                );
            }
        }
        Some(())
    }

    /// How many rows have come, whatever their attempt.
    #[must_use]
    pub fn arrived(&self) -> i64 {
        self.arrived
    }

    /// Whether the row with this number has come; marks have negative ones.
    #[must_use]
    pub fn has(&self, n: i64) -> bool {
        self.rows.contains_key(&(n, 1))
            || usize::try_from(n).is_ok_and(|n| self.attempts.get(n).is_some_and(|attempts| *attempts > 0))
    }

    /// The versions of rule `rows` whose rows have come.
    #[must_use]
    pub fn versions(&self) -> &BTreeSet<i64> {
        &self.versions
    }

    /// How many messages came under an id of their own.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.contents.len()
    }

    /// Whether there is nothing left to wait for when rows up to `published` were published and all their
    /// windows have closed. It is cheap, and only counts: whether they are the right ones is for
    /// [`Self::balance`].
    #[must_use]
    pub fn is_complete(&self, published: i64) -> bool {
        let windows = |length: i64| published / length * DEVICES + (published % length).min(DEVICES);
        self.arrived >= published
            && self.closed >= Rule::ALL.into_iter().filter_map(Rule::window).map(windows).sum()
    }

    /// Compares what came with what had to come when rows up to `published` were published and all their
    /// windows have closed.
    #[must_use]
    pub fn balance(&self, published: i64) -> Balance {
        let mut faults = self.faults.clone();
        let came = |n: i64| {
            usize::try_from(n)
                .ok()
                .and_then(|n| self.attempts.get(n))
                .map_or(0, |attempts| i64::from(*attempts))
        };
        for n in (0..published).filter(|n| came(*n) == 0) {
            faults.add(Kind::MissingRow, n.to_string());
        }
        for ((n, _), id) in self.rows.iter().filter(|((n, _), _)| *n >= published) {
            faults.add(Kind::Strange, format!("row {n} as {id} was never published"));
        }
        for (window, numbers) in windows(published) {
            // A row that is missing as such must be in its window all the same.
            let Some(expected) = Totals::sum(numbers.clone().map(|n| (n, came(n).max(1)))) else { continue };
            match self.windows.get(&window) {
                None => faults.add(Kind::MissingWindow, format!("{window}: {expected}")),
                Some((id, totals)) if *totals != expected => {
                    let beside: i64 = numbers.filter_map(|n| self.beside.get(&n)).sum();
                    let swollen = (expected.rows + 1..=expected.rows + beside).contains(&totals.rows);
                    let kind = if swollen { Kind::SwollenWindow } else { Kind::WrongWindow };
                    faults.add(kind, format!("{window} as {id}: {totals}, not {expected}"));
                }
                Some(_) => {}
            }
        }
        // Marks have negative numbers, and windows of their own far behind all others.
        let strange = |window: &Window, totals: &Totals| {
            window.begin_ms >= plant::time_ms(published) && totals.last >= 0
        };
        for (window, (id, totals)) in
            self.windows.iter().filter(|(window, (_, totals))| strange(window, totals))
        {
            faults.add(Kind::Strange, format!("{window} as {id}: {totals}"));
        }
        Balance {
            published,
            messages: self.contents.len(),
            windows: self.windows.len(),
            repeats: self.repeats,
            faults,
        }
    }
}

/// The windows that rows up to `published` have, and the rows of each.
fn windows(published: i64) -> impl Iterator<Item = (Window, impl Iterator<Item = i64> + Clone)> {
    let with_windows = Rule::ALL.into_iter().filter_map(|rule| Some((rule, rule.window()?)));
    with_windows.flat_map(move |(rule, length)| {
        (0..published).step_by(usize::try_from(length).unwrap()).flat_map(move |begin| {
            let end = published.min(begin + length);
            (begin..end.min(begin + DEVICES)).map(move |first| {
                let window = Window { rule, begin_ms: plant::time_ms(begin), device: plant::device(first) };
                (window, (first..end).step_by(usize::try_from(DEVICES).unwrap()))
            })
        })
    })
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    MissingRow,
    DoubledRow,
    MissingWindow,
    DoubledWindow,
    SwollenWindow,
    WrongWindow,
    Changed,
    Strange,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingRow => "rows that did not come",
            Self::DoubledRow => "rows that came under two ids",
            Self::MissingWindow => "windows that did not come",
            Self::DoubledWindow => "windows that came under two ids",
            Self::SwollenWindow => "windows that hold rows twice which also came under two ids",
            Self::WrongWindow => "windows with other rows than their own",
            Self::Changed => "ids that stand for two things",
            Self::Strange => "messages that nobody expected",
        })
    }
}

/// How many faults there are of each kind, and the first few of them.
#[derive(Debug, Clone, Default)]
struct Faults(BTreeMap<Kind, (u64, Vec<String>)>);

impl Faults {
    fn add(&mut self, kind: Kind, what: String) {
        let (count, written) = self.0.entry(kind).or_default();
        *count += 1;
        if written.len() < WRITTEN_OUT {
            written.push(what);
        }
    }
}

/// The account, drawn up.
#[derive(Debug)]
pub struct Balance {
    published: i64,
    messages: usize,
    windows: usize,
    repeats: u64,
    faults: Faults,
}

impl Balance {
    /// How many messages came.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// How many came again under their own id.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Whether nothing is missing, doubled or wrong.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.faults.0.is_empty()
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, messages, windows, repeats, faults } = self;
        writeln!(
            f,
            "{published} rows were published; {messages} messages came, of which {windows} windows; \
            {repeats} came again"
        )?;
        for (kind, (count, written)) in &faults.0 {
            writeln!(f, "{count} {kind}:")?;
            written.iter().try_for_each(|what| writeln!(f, "  {what}"))?;
            if *count > written.len() as u64 {
                writeln!(f, "  and {} more", count - written.len() as u64)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Seven windows of a second and one of five for each device, and last windows that are not full.
    const ROWS: i64 = 7 * PER_SECOND + 2;
    const WINDOWS: usize = 7 * 3 + 2 + 3 + 3;
    /// A test that does something to each row does it to one in so many.
    const SAMPLE: usize = 37;

    fn message(rule: &str, seq: i64, ordinal: i64, row: &Value) -> Message {
        let payload =
            json!({ "id": format!("box/{rule}/{seq}/{ordinal}"), "rule": rule, "row": row }).to_string();
        Message { topic: format!("tidegate/box/{rule}"), payload: payload.into(), retained: false }
    }

    fn row(n: i64, attempt: u32, seq: i64) -> Message {
        message(
            "rows",
            seq,
            0,
            &json!({ "n": n, "attempt": attempt, "device": plant::device(n), "version": 1 }),
        )
    }

    fn window(window: &Window, totals: &Totals, seq: i64) -> Message {
        let begin = jiff::Timestamp::from_millisecond(window.begin_ms).unwrap().to_string();
        let Totals { rows, total, first, last } = totals;
        let row = json!({ "window_start": begin, "device": window.device, "rows": rows, "total": total, "first": first, "last": last });
        message(window.rule.name(), seq, first.rem_euclid(DEVICES), &row)
    }

    /// What a box sends that loses and doubles nothing.
    fn right() -> Vec<Message> {
        let windows = windows(ROWS).map(|(of, numbers)| {
            let totals = Totals::sum(numbers.map(|n| (n, 1))).unwrap();
            // The rows of windows that close together have one number, and ordinals of their own.
            window(&of, &totals, totals.last - totals.last % DEVICES + 1_000_000)
        });
        (0..ROWS).map(|n| row(n, 1, n)).chain(windows).collect()
    }

    fn account(messages: &[Message]) -> Reckoning {
        let mut account = Reckoning::default();
        messages.iter().for_each(|message| account.take(message));
        account
    }

    /// The kinds of faults, and how many there are of each.
    fn faults(messages: &[Message]) -> Vec<(Kind, u64)> {
        account(messages).balance(ROWS).faults.0.into_iter().map(|(kind, (count, _))| (kind, count)).collect()
    }

    fn at(messages: &[Message], id: &str) -> usize {
        messages.iter().position(|message| message.json()["id"] == id).unwrap()
    }

    fn is_window(message: &Message) -> bool {
        message.json()["row"]["total"].is_i64()
    }

    #[test]
    fn what_is_right_balances_and_may_come_again_under_its_own_ids() {
        let messages = right();
        assert_eq!(messages.len(), 702 + WINDOWS);
        assert_eq!(faults(&messages), []);
        assert!(account(&messages).is_complete(ROWS));
        let balance = account(&[messages.clone(), messages].concat()).balance(ROWS);
        assert!(balance.is_even() && balance.repeats == 702 + WINDOWS as u64, "{balance}");
    }

    #[test]
    fn whatever_is_missing_is_found() {
        let messages = right();
        for missing in (0..messages.len()).filter(|place| place % SAMPLE == 0 || is_window(&messages[*place]))
        {
            let mut rest = messages.clone();
            let kind = if is_window(&rest.remove(missing)) { Kind::MissingWindow } else { Kind::MissingRow };
            assert_eq!(faults(&rest), [(kind, 1)]);
            assert!(!account(&rest).is_complete(ROWS));
        }
    }

    #[test]
    fn whatever_comes_under_a_second_id_is_found() {
        let messages = right();
        for (_, doubled) in
            messages.iter().enumerate().filter(|(place, message)| place % SAMPLE == 0 || is_window(message))
        {
            let mut json = doubled.json();
            json["id"] = json!(format!("{}7", json["id"].as_str().unwrap()));
            let again = Message { payload: json.to_string().into(), ..doubled.clone() };
            let kind = if is_window(doubled) { Kind::DoubledWindow } else { Kind::DoubledRow };
            assert_eq!(faults(&[messages.as_slice(), &[again]].concat()), [(kind, 1)], "{json}");
        }
    }

    #[test]
    fn a_window_with_one_row_more_or_less_or_another_is_found() {
        let messages = right();
        for place in (0..messages.len()).filter(|place| is_window(&messages[*place])) {
            for field in ["rows", "total", "first", "last"] {
                for by in [-1, 1] {
                    let mut json = messages[place].json();
                    json["row"][field] = json!(json["row"][field].as_i64().unwrap() + by);
                    let mut wrong = messages.clone();
                    wrong[place].payload = json.to_string().into();
                    assert_eq!(faults(&wrong), [(Kind::WrongWindow, 1)]);
                }
            }
        }
    }

    #[test]
    fn an_id_with_two_contents_a_gap_and_messages_of_nobody_are_found() {
        let messages = right();
        let with = |message: Message| faults(&[messages.as_slice(), &[message]].concat());
        let mut other = messages[at(&messages, "box/rows/17/0")].clone();
        other.payload = other.text().replace("\"n\":17", "\"n\":20").into();
        assert_eq!(with(other), [(Kind::DoubledRow, 1), (Kind::Changed, 1)]);
        let gap = r#"{"id":"box/gap/1","rule":"rows","gap":{"first_seq":3,"last_seq":4,"rows":2,"reason":"full","wall_ns":0}}"#;
        assert_eq!(with(Message { payload: gap.into(), ..messages[0].clone() }), [(Kind::Strange, 1)]);
        assert_eq!(with(row(ROWS, 1, 9_999)), [(Kind::Strange, 1)]);
        let nowhere = Window { rule: Rule::Seconds, begin_ms: plant::time_ms(ROWS), device: "d0".to_owned() };
        assert_eq!(
            with(window(&nowhere, &Totals { rows: 1, total: 3, first: 3, last: 3 }, 9_999)),
            [(Kind::Strange, 1)]
        );
    }

    #[test]
    fn a_second_attempt_is_a_row_of_its_own_and_belongs_into_the_window() {
        let mut messages = right();
        messages.push(row(17, 2, 9_999));
        let windows_of_row_17 = 2;
        assert_eq!(faults(&messages), [(Kind::WrongWindow, windows_of_row_17)]);
        for message in &mut messages {
            let mut json = message.json();
            let row = &mut json["row"];
            if row["device"] == plant::device(17)
                && row["first"].as_i64().is_some_and(|first| first < DEVICES)
            {
                row["rows"] = json!(row["rows"].as_i64().unwrap() + 1);
                row["total"] = json!(row["total"].as_i64().unwrap() + 17);
                message.payload = json.to_string().into();
            }
        }
        assert_eq!(faults(&messages), []);
    }

    #[test]
    fn a_window_that_holds_a_doubled_row_twice_is_told_from_one_that_is_wrong_by_itself() {
        let mut messages = right();
        let place = at(&messages, "box/seconds/1000099/0");
        let mut json = messages[place].json();
        let row_99 = &mut json["row"];
        row_99["rows"] = json!(row_99["rows"].as_i64().unwrap() + 1);
        row_99["total"] = json!(row_99["total"].as_i64().unwrap() + 99);
        messages[place].payload = json.to_string().into();
        assert_eq!(faults(&messages), [(Kind::WrongWindow, 1)]);
        messages.push(row(99, 1, 9_999));
        assert_eq!(faults(&messages), [(Kind::DoubledRow, 1), (Kind::SwollenWindow, 1)]);
    }

    #[test]
    fn marks_close_windows_and_are_no_rows() {
        let mut messages = right();
        let mark =
            Window { rule: Rule::Fives, begin_ms: plant::time_ms(100 * ROWS), device: plant::device(-1) };
        messages.extend([
            row(-1, 1, 9_998),
            window(&mark, &Totals { rows: 1, total: -1, first: -1, last: -1 }, 9_999),
        ]);
        assert_eq!(faults(&messages), []);
        assert!(account(&messages).has(-1));
        let report = account(&messages[1..]).balance(ROWS).to_string();
        assert!(report.ends_with("1 rows that did not come:\n  0\n"), "{report}");
    }
}
