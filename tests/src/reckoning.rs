//! An account of every message: what the cloud got, against what arithmetic says of the rows that [`crate::plant`] published.
//!
//! Delivery is at least once, so a message may come again under its own id. But an id stands for one content, each row comes under one id,
//! and each window under one id, with exactly the rows that belong to it. A row that the plant had to publish again is told from the first
//! by its attempt: each attempt is a row of its own, and the windows must hold those that came and no others.
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
        Some(Self { rows: field("rows")?, total: field("total")?, first: field("first")?, last: field("last")? })
    }

    fn of(rows: impl Iterator<Item = (i64, i64)>) -> Option<Self> {
        rows.map(|(n, times)| Self { rows: times, total: n * times, first: n, last: n }).reduce(|all, one| Self {
            rows: all.rows + one.rows,
            total: all.total + one.total,
            first: all.first.min(one.first),
            last: all.last.max(one.last),
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
            Entry::Occupied(_) => self.faults.add(Kind::Changed, format!("{id}, the second time: {}", message.text())),
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
                self.faults.add(Kind::DoubledRow, format!("{n} (attempt {attempt}) as {} and as {id}", entry.get()));
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
        let window = Window { rule: id.rule, begin_ms: begin.as_millisecond(), device: row["device"].as_str()?.to_owned() };
        let totals = Totals::read(row)?;
        match self.windows.get(&window) {
            None => {
                self.closed += i64::from(totals.last >= 0);
                self.windows.insert(window, (id, totals));
            }
            Some((first, known)) => {
                self.faults.add(Kind::DoubledWindow, format!("{window} as {first} ({known}) and as {id} ({totals})"));
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
        self.rows.contains_key(&(n, 1)) || usize::try_from(n).is_ok_and(|n| self.attempts.get(n).is_some_and(|attempts| *attempts > 0))
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

    /// Whether there is nothing left to wait for when rows up to `published` were published and all their windows have closed. It is
    /// cheap, and only counts: whether they are the right ones is for [`Self::balance`].
    #[must_use]
    pub fn is_complete(&self, published: i64) -> bool {
        let windows = |length: i64| published / length * DEVICES + (published % length).min(DEVICES);
        self.arrived >= published && self.closed >= Rule::ALL.into_iter().filter_map(Rule::window).map(windows).sum()
    }

    /// Compares what came with what had to come when rows up to `published` were published and all their windows have closed.
    #[must_use]
    pub fn balance(&self, published: i64) -> Balance {
        let mut faults = self.faults.clone();
        let came = |n: i64| usize::try_from(n).ok().and_then(|n| self.attempts.get(n)).map_or(0, |attempts| i64::from(*attempts));
        for n in (0..published).filter(|n| came(*n) == 0) {
            faults.add(Kind::MissingRow, n.to_string());
        }
        for ((n, _), id) in self.rows.iter().filter(|((n, _), _)| *n >= published) {
            faults.add(Kind::Strange, format!("row {n} as {id} was never published"));
        }
        for (window, numbers) in windows(published) {
            // A row that is missing as such must be in its window all the same.
            let Some(expected) = Totals::of(numbers.map(|n| (n, came(n).max(1)))) else { continue };
            match self.windows.get(&window) {
                None => faults.add(Kind::MissingWindow, format!("{window}: {expected}")),
                Some((id, totals)) if *totals != expected => {
                    faults.add(Kind::WrongWindow, format!("{window} as {id}: {totals}, not {expected}"));
                }
                Some(_) => {}
            }
        }
        // Marks have negative numbers, and windows of their own far behind all others.
        let strange = |window: &Window, totals: &Totals| window.begin_ms >= plant::time_ms(published) && totals.last >= 0;
        for (window, (id, totals)) in self.windows.iter().filter(|(window, (_, totals))| strange(window, totals)) {
            faults.add(Kind::Strange, format!("{window} as {id}: {totals}"));
        }
        Balance { published, messages: self.contents.len(), windows: self.windows.len(), repeats: self.repeats, faults }
    }
}

/// The windows that rows up to `published` have, and the rows of each.
fn windows(published: i64) -> impl Iterator<Item = (Window, impl Iterator<Item = i64>)> {
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
    /// Whether nothing is missing, doubled or wrong.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.faults.0.is_empty()
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, messages, windows, repeats, faults } = self;
        writeln!(f, "{published} rows were published; {messages} messages came, of which {windows} windows; {repeats} came again")?;
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
