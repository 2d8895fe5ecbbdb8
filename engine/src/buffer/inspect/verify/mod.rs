//! Is everything in a buffer as it has to be?
//!
//! What has to agree is read in one transaction; blocks, entries and states one by one, so that the box can
//! go on.

mod decisions;
mod outbox;
mod sequence;

use std::time::{Duration, Instant};

use rusqlite::types::FromSql;
use rusqlite::{Connection, Row};
use serde::Serialize;

use super::{Inspector, TABLES, TABLES_2, TABLES_3, TABLES_4, TABLES_5, TABLES_6};
use crate::buffer::{content, decisions::DECISION_BYTES};

/// Problems that are listed. Of a file with more of them, more are of no use.
const MOST: usize = 1000;
/// Time between two reports of progress.
const EVERY: Duration = Duration::from_secs(2);
/// Steps of SQLite between two looks at the clock.
const STEPS: i32 = 10_000;

/// Something that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// the table, block, entry or snapshot
    pub place: String,
    /// what is wrong with it
    pub problem: String,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// blocks, waiting and refused
    pub blocks: u64,
    /// gap records
    pub gaps: u64,
    /// journal entries
    pub entries: u64,
    /// parts of rules' state
    pub states: u64,
    /// sources of rules and contents of tables
    pub contents: u64,
    /// decisions about outputs
    pub decisions: u64,
}

/// The outcome of [`Inspector::verify`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// what is wrong
    pub problems: Vec<Problem>,
    /// whether there were too many problems to list them all
    pub more: bool,
    /// what was looked at
    pub checked: Checked,
}

/// Told now and then which step is under way, and how many things it has looked at.
pub type Progress = fn(step: &'static str, done: u64);

impl Inspector {
    /// Checks every invariant of the file. It is read once as a whole, and the bytes of its rows once more.
    pub fn verify(&mut self, progress: Progress) -> Verdict {
        let (mut clock, mut rounds) = (Clock::default(), 0_u64);
        let beat = move || {
            rounds += 1;
            if clock.is_due() {
                progress("steps in SQLite's structures", rounds * u64::from(STEPS.unsigned_abs()));
            }
            false
        };
        // Without it the check is silent, and as good.
        let _ = self.conn.progress_handler(STEPS, Some(beat));
        let (layout, now_ns) = (self.layout, self.now_ns());
        let mut verifier = Verifier {
            conn: &self.conn,
            now_ns,
            verdict: Verdict::default(),
            clock: Clock::default(),
            progress,
        };
        verifier.step("the file", Verifier::pages);
        let verdict = verifier.verdict;
        let _ = self.conn.progress_handler(0, None::<fn() -> bool>);

        let mut verifier = Verifier { conn: &self.conn, now_ns, verdict, clock: Clock::default(), progress };
        let later: [(i64, &[&str]); 5] =
            [(2, &TABLES_2), (3, &TABLES_3), (4, &TABLES_4), (5, &TABLES_5), (6, &TABLES_6)];
        let later = later.iter().filter(|(since, _)| layout >= *since).flat_map(|(_, tables)| *tables);
        for table in TABLES.iter().chain(later) {
            if !verifier.has(table) {
                verifier.wrong(format!("table {table}"), "is missing".into());
            }
        }
        let steps: [(&'static str, &[&str], Step<'_>); 13] = [
            ("table meta", &["meta", "block", "refused", "gap"], Verifier::meta),
            ("table block", &["block"], Verifier::blocks),
            ("table confirmed", &["confirmed", "block", "meta"], Verifier::confirmed),
            ("table refused", &["refused"], Verifier::refused),
            ("table gap", &["gap"], Verifier::gaps),
            ("table journal", &["journal"], Verifier::journal),
            ("table snapshot", &["snapshot", "journal"], Verifier::snapshots),
            ("table state", &["state", "snapshot"], Verifier::states),
            ("table clocks", &["clocks"], Verifier::clocks),
            ("table content", &["content", "journal", "snapshot"], Verifier::contents),
            ("table decision_group", &["decision_group"], Verifier::decision_groups),
            ("table decision_basis", &["decision_basis", "decision_group"], Verifier::decision_bases),
            ("table decision", &TABLES_6, Verifier::decisions),
        ];
        for (name, tables, step) in steps {
            if tables.iter().all(|table| verifier.has(table)) {
                verifier.step(name, step);
            }
        }
        verifier.verdict
    }
}

type Step<'a> = fn(&mut Verifier<'a>) -> rusqlite::Result<()>;

/// Says when it is time to report progress.
struct Clock {
    due: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { due: Instant::now() + EVERY }
    }
}

impl Clock {
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.due;
        if due {
            self.due = now + EVERY;
        }
        due
    }
}

struct Verifier<'a> {
    conn: &'a Connection,
    /// the column of the sequence's time
    now_ns: &'static str,
    verdict: Verdict,
    clock: Clock,
    progress: Progress,
}

impl Verifier<'_> {
    fn step(&mut self, name: &'static str, step: impl FnOnce(&mut Self) -> rusqlite::Result<()>) {
        if let Err(error) = step(self) {
            self.wrong(name.into(), format!("cannot be read to its end: {error}"));
        }
    }

    fn wrong(&mut self, place: String, problem: String) {
        if self.verdict.problems.len() < MOST {
            self.verdict.problems.push(Problem { place, problem });
        } else {
            self.verdict.more = true;
        }
    }

    fn note(&mut self, place: impl FnOnce() -> String, outcome: Result<(), String>) {
        if let Err(problem) = outcome {
            self.wrong(place(), problem);
        }
    }

    fn tell(&mut self, step: &'static str, done: u64) {
        if self.clock.is_due() {
            (self.progress)(step, done);
        }
    }

    fn has(&self, table: &str) -> bool {
        let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        self.conn.query_row(count, [table], |row| Ok(row.get::<_, u64>(0)? > 0)).unwrap_or(false)
    }

    /// SQLite's own structures.
    fn pages(&mut self) -> rusqlite::Result<()> {
        let mut check = self.conn.prepare(&format!("PRAGMA integrity_check({MOST})"))?;
        let mut found = check.query([])?;
        while let Some(row) = found.next()? {
            // One row may tell of several pages.
            for line in row.get::<_, String>(0)?.lines().filter(|line| *line != "ok") {
                self.wrong("the file".into(), line.trim_start_matches("*** ").to_owned());
            }
        }
        Ok(())
    }

    /// The one row of `meta` against the tables, as of one moment.
    fn meta(&mut self) -> rusqlite::Result<()> {
        let conn = self.conn;
        let _as_of_now = conn.unchecked_transaction()?;
        let rows: u64 = conn.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?;
        if rows != 1 {
            self.wrong("table meta".into(), format!("has {rows} rows instead of one"));
            return Ok(());
        }
        let said =
            |name: &str| conn.query_row(&format!("SELECT {name} FROM meta"), [], |row| row.get::<_, u64>(0));
        let found = |sum: &str| conn.query_row(&format!("SELECT {sum}"), [], |row| row.get::<_, u64>(0));
        let mut totals = vec![
            ("waiting", "coalesce(sum(rows), 0) FROM block", "rows that wait"),
            ("bytes", "coalesce(sum(length(data)), 0) FROM block", "bytes in blocks"),
        ];
        let mut newest = vec![
            ("last_block", "coalesce(max(id), 0) FROM block", "block"),
            ("last_block", "coalesce(max(id), 0) FROM refused", "refused block"),
            ("last_gap", "coalesce(max(id), 0) FROM gap", "gap"),
        ];
        if self.has("journal") && self.has("snapshot") {
            let journal = "coalesce(sum(length(data) + octet_length(edit) + length(marks)), 0) FROM journal";
            let journal = if self.has("content") { content::JOURNAL_BYTES } else { journal };
            totals.push(("journal_bytes", journal, "bytes in journal entries"));
            newest.push(("last_entry", "coalesce(max(id), 0) FROM journal", "journal entry"));
            newest.push((
                "last_entry",
                "coalesce(max(entry), 0) FROM snapshot",
                "a snapshot after journal entry",
            ));
        }
        if self.has("decision") && self.has("decision_basis") {
            totals.push(("decision_bytes", DECISION_BYTES, "bytes of decisions"));
        }
        for (name, sum, what) in totals {
            let (said, found) = (said(name)?, found(sum)?);
            if said != found {
                self.wrong("table meta".into(), format!("`{name}` is {said}, but there are {found} {what}"));
            }
        }
        for (name, greatest, what) in newest {
            let (said, found) = (said(name)?, found(greatest)?);
            if said < found {
                self.wrong("table meta".into(), format!("`{name}` is {said}, but there is {what} {found}"));
            }
        }
        if self.now_ns != "0" {
            let now = conn.query_row("SELECT now_ns FROM meta", [], |row| row.get::<_, i64>(0))?;
            for (table, what) in [
                ("block", "block"),
                ("journal", "journal entry"),
                ("clocks", "reading of the clocks"),
                ("decision", "decision"),
            ] {
                let later = format!("SELECT min(id) FROM {table} WHERE now_ns > ?1");
                let later = if self.has(table) {
                    conn.query_row(&later, [now], |row| row.get::<_, Option<i64>>(0))?
                } else {
                    None
                };
                if let Some(id) = later {
                    self.wrong(
                        "table meta".into(),
                        format!("`now_ns` is {now}, but {what} {id} is from later"),
                    );
                }
            }
        }
        let sequence = said("sequence")?;
        // The gap of a damaged file ends where the reserved numbers end.
        let uses = [
            ("block", "last_seq", "TRUE"),
            ("refused", "last_seq", "TRUE"),
            ("gap", "last_seq", "rule <> '*'"),
            ("journal", "first_seq + max(rows, 1) - 1", "edit = ''"),
            ("progress", "seq", "TRUE"),
        ];
        for (table, number, of) in uses {
            if !self.has(table) {
                continue;
            }
            let greatest =
                format!("SELECT max({number}) FROM {table} WHERE {of} AND typeof({number}) = 'integer'");
            let used = conn.query_row(&greatest, [], |row| row.get::<_, Option<u64>>(0))?;
            if let Some(used) = used.filter(|used| *used >= sequence) {
                let problem = format!(
                    "`sequence` says that row numbers below {sequence} are reserved, but table {table} uses \
                    {used}"
                );
                self.wrong("table meta".into(), problem);
            }
        }
        Ok(())
    }
}

fn in_order(first: u64, last: u64) -> Result<(), String> {
    if first <= last {
        Ok(())
    } else {
        Err(format!("its first row number {first} is above its last, {last}"))
    }
}

/// A value, or what is wrong with it.
fn cell<T: FromSql>(row: &Row<'_>, name: &str) -> Result<T, String> {
    use rusqlite::Error;
    row.get(name).map_err(|error| match error {
        Error::InvalidColumnType(_, _, found) => format!("`{name}` is of type {found}, which it cannot be"),
        Error::IntegralValueOutOfRange(_, value) => format!("`{name}` is {value}, which it cannot be"),
        other => format!("`{name}` cannot be read: {other}"),
    })
}

fn is_json(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop)
}
