//! Is everything in a buffer as it has to be?
//!
//! What has to agree is read in one transaction; blocks, entries and states one by one, so that the box can go on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::Array;
use rusqlite::types::{FromSql, Value};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde::Serialize;
use tidegate_core::TS;

use super::{Inspector, TABLES, TABLES_2};
use crate::buffer::block;
use crate::buffer::database::read_meta;

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
        let mut verifier = Verifier { conn: &self.conn, verdict: Verdict::default(), clock: Clock::default(), progress };
        verifier.step("the file", Verifier::pages);
        let verdict = verifier.verdict;
        let _ = self.conn.progress_handler(0, None::<fn() -> bool>);

        let mut verifier = Verifier { conn: &self.conn, verdict, clock: Clock::default(), progress };
        let later = if self.layout >= 2 { &TABLES_2[..] } else { &[] };
        for table in TABLES.iter().chain(later) {
            if !verifier.has(table) {
                verifier.wrong(format!("table {table}"), "is missing".into());
            }
        }
        let steps: [(&'static str, &[&str], Step<'_>); 7] = [
            ("table meta", &["meta", "block", "refused", "gap"], Verifier::meta),
            ("table block", &["block"], Verifier::blocks),
            ("table refused", &["refused"], Verifier::refused),
            ("table gap", &["gap"], Verifier::gaps),
            ("table journal", &["journal"], Verifier::journal),
            ("table snapshot", &["snapshot", "journal"], Verifier::snapshots),
            ("table state", &["state", "snapshot"], Verifier::states),
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
    verdict: Verdict,
    clock: Clock,
    progress: Progress,
}

/// A row of `block` or `refused`.
struct Block {
    rule: String,
    first_seq: u64,
    last_seq: u64,
    rows: u64,
    data: Vec<u8>,
}

/// A row's identity within its rule.
type Id = (u64, u32);

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
        let (totals, sequence) = read_meta(conn)?;
        let sums = "SELECT coalesce(max(id), 0), coalesce(sum(rows), 0), coalesce(sum(length(data)), 0) FROM block";
        let (last_block, waiting, bytes): (u64, u64, u64) = conn.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut says = |name: &str, said: u64, is_wrong: bool, found: String| {
            if is_wrong {
                self.wrong("table meta".into(), format!("`{name}` is {said}, but {found}"));
            }
        };
        says("waiting", totals.waiting, totals.waiting != waiting, format!("{waiting} rows wait"));
        says("bytes", totals.bytes, totals.bytes != bytes, format!("blocks hold {bytes} bytes"));
        says("last_block", totals.last_block, totals.last_block < last_block, format!("there is block {last_block}"));
        let newest = |table: &str| -> rusqlite::Result<u64> {
            conn.query_row(&format!("SELECT coalesce(max(id), 0) FROM {table}"), [], |row| row.get(0))
        };
        let refused = newest("refused")?;
        says("last_block", totals.last_block, totals.last_block < refused, format!("there is refused block {refused}"));
        let gap = newest("gap")?;
        says("last_gap", totals.last_gap, totals.last_gap < gap, format!("there is gap {gap}"));
        // The gap of a damaged file ends where the reserved numbers end.
        let uses = [
            ("block", "last_seq", "TRUE"),
            ("refused", "last_seq", "TRUE"),
            ("gap", "last_seq", "rule <> '*'"),
            ("journal", "first_seq + rows - 1", "stream IS NOT NULL AND rows > 0"),
            ("progress", "seq", "TRUE"),
        ];
        for (table, number, of) in uses {
            if !self.has(table) {
                continue;
            }
            let greatest = format!("SELECT max({number}) FROM {table} WHERE {of} AND typeof({number}) = 'integer'");
            let used = conn.query_row(&greatest, [], |row| row.get::<_, Option<u64>>(0))?;
            if let Some(used) = used.filter(|used| *used >= sequence) {
                let problem = format!("`sequence` says that row numbers below {sequence} are reserved, but table {table} uses {used}");
                self.wrong("table meta".into(), problem);
            }
        }
        Ok(())
    }

    /// Rows that wait: each block by itself, and their identities against those before and against the rule's progress.
    fn blocks(&mut self) -> rusqlite::Result<()> {
        let has_progress = self.has("progress");
        let mut newest: BTreeMap<String, Id> = BTreeMap::new();
        let mut after = i64::MIN;
        let next = "SELECT id, rule, first_seq, last_seq, rows, data FROM block WHERE id > ?1 ORDER BY id LIMIT 1";
        let (mut next, mut progress) = (self.conn.prepare(next)?, None);
        if has_progress {
            progress = Some(self.conn.prepare("SELECT seq FROM progress WHERE rule = ?1")?);
        }
        while let Some((id, found)) = next.query_row([after], |row| Ok((row.get::<_, i64>(0)?, block_of(row)))).optional()? {
            after = id;
            self.verdict.checked.blocks += 1;
            self.tell("blocks", self.verdict.checked.blocks);
            // Progress only rises, so it may be read later than the block.
            let reached = match (&found, &mut progress) {
                (Ok(block), Some(progress)) => progress.query_row([&block.rule], |row| row.get::<_, u64>(0)).optional(),
                _ => Ok(None),
            };
            let checked = found.and_then(|block| {
                let first_and_last = block.check()?;
                let before = newest.insert(block.rule.clone(), first_and_last.1);
                if let Some(before) = before.filter(|before| *before >= first_and_last.0) {
                    let (first, rule) = (text(first_and_last.0), &block.rule);
                    return Err(format!("its first row {first} does not come after row {} of the same rule `{rule}`", text(before)));
                }
                match reached {
                    Ok(Some(reached)) if block.last_seq > reached => {
                        Err(format!("its row number {} is beyond the progress of rule `{}`, {reached}", block.last_seq, block.rule))
                    }
                    Ok(_) => Ok(()),
                    Err(error) => Err(format!("the progress of rule `{}` cannot be read: {error}", block.rule)),
                }
            });
            self.note(|| format!("block {id}"), checked);
        }
        Ok(())
    }

    /// Blocks that were put aside. Those that are here because they do not decode need not decode.
    fn refused(&mut self) -> rusqlite::Result<()> {
        let next = "SELECT id, rule, first_seq, last_seq, rows, data, reason, wall_ns FROM refused WHERE id > ?1 ORDER BY id LIMIT 1";
        let mut next = self.conn.prepare(next)?;
        let mut after = i64::MIN;
        let read = |row: &Row<'_>| {
            let reason = cell::<String>(row, "reason").and_then(|reason| cell::<i64>(row, "wall_ns").map(|_| reason));
            Ok((row.get::<_, i64>(0)?, block_of(row), reason))
        };
        while let Some((id, found, reason)) = next.query_row([after], read).optional()? {
            after = id;
            self.verdict.checked.blocks += 1;
            self.tell("refused blocks", self.verdict.checked.blocks);
            let checked = reason.and_then(|reason| if reason.starts_with("damaged:") { Ok(()) } else { found?.check().map(drop) });
            self.note(|| format!("refused block {id}"), checked);
        }
        Ok(())
    }

    fn gaps(&mut self) -> rusqlite::Result<()> {
        let mut select = self.conn.prepare("SELECT id, rule, reason, first_seq, last_seq, rows, wall_ns FROM gap ORDER BY id")?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            self.verdict.checked.gaps += 1;
            let id: i64 = row.get(0)?;
            let check = || {
                cell::<String>(row, "rule")?;
                cell::<String>(row, "reason")?;
                cell::<u64>(row, "rows")?;
                cell::<i64>(row, "wall_ns")?;
                in_order(cell(row, "first_seq")?, cell(row, "last_seq")?)
            };
            self.note(|| format!("gap {id}"), check());
        }
        Ok(())
    }

    /// Entries: each by itself, and its numbers against those before.
    fn journal(&mut self) -> rusqlite::Result<()> {
        let next = "SELECT id, stream, first_seq, rows, wall_ns, marks, edit, data FROM journal WHERE id > ?1 ORDER BY id LIMIT 1";
        let mut next = self.conn.prepare(next)?;
        let (mut after, mut end) = (i64::MIN, 0);
        while let Some((id, found)) = next.query_row([after], |row| Ok((row.get::<_, i64>(0)?, entry_end(row)))).optional()? {
            after = id;
            self.verdict.checked.entries += 1;
            self.tell("journal entries", self.verdict.checked.entries);
            let checked = found.and_then(|numbers| {
                let Some((first, next)) = numbers else { return Ok(()) };
                let before = std::mem::replace(&mut end, next);
                if first < before {
                    return Err(format!("its first row number {first} is below {before}, where the entries before it end"));
                }
                Ok(())
            });
            self.note(|| format!("journal entry {id}"), checked);
        }
        Ok(())
    }

    /// Snapshots, and whether the journal goes on from the newest one without a hole.
    fn snapshots(&mut self) -> rusqlite::Result<()> {
        let _as_of_now = self.conn.unchecked_transaction()?;
        let mut newest: Option<(i64, i64)> = None;
        let mut select = self.conn.prepare("SELECT id, entry, wall_ns, manifest FROM snapshot ORDER BY id")?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            let check = || {
                cell::<i64>(row, "wall_ns")?;
                is_json(&cell::<String>(row, "manifest")?).map_err(|error| format!("`manifest` is not JSON: {error}"))?;
                cell::<i64>(row, "entry")
            };
            let checked = check().and_then(|entry| match newest.replace((id, entry)) {
                Some((before, older)) if older > entry => {
                    Err(format!("it follows journal entry {entry}, but snapshot {before} before it follows entry {older}"))
                }
                _ => Ok(()),
            });
            self.note(|| format!("snapshot {id}"), checked);
        }
        let Some((snapshot, entry)) = newest else { return Ok(()) };
        let last: Option<i64> = self.conn.query_row("SELECT max(id) FROM journal", [], |row| row.get(0))?;
        if last.is_some_and(|last| last < entry) {
            let last = last.unwrap_or(0);
            self.wrong(format!("snapshot {snapshot}"), format!("it follows journal entry {entry}, but the journal ends with entry {last}"));
        }
        let mut select = self.conn.prepare("SELECT id FROM journal WHERE id > ?1 ORDER BY id")?;
        let mut ids = select.query([entry])?;
        let mut expected = entry.saturating_add(1);
        while let Some(row) = ids.next()? {
            let id: i64 = row.get(0)?;
            if id != expected {
                let missing = if id - 1 == expected { format!("{expected}") } else { format!("{expected} to {}", id - 1) };
                self.wrong(format!("snapshot {snapshot}"), format!("journal entry {missing}, which has to follow it, is missing"));
            }
            expected = id.saturating_add(1);
        }
        Ok(())
    }

    fn states(&mut self) -> rusqlite::Result<()> {
        let next = "SELECT snapshot, rule, position, fingerprint, watermark, data FROM state
            WHERE (snapshot, rule, position) > (?1, ?2, ?3) ORDER BY snapshot, rule, position LIMIT 1";
        let mut next = self.conn.prepare(next)?;
        let mut snapshot = self.conn.prepare("SELECT count(*) FROM snapshot WHERE id = ?1")?;
        let mut after = [Value::Integer(i64::MIN), Value::Integer(i64::MIN), Value::Integer(i64::MIN)];
        loop {
            let read = |row: &Row<'_>| Ok(([row.get(0)?, row.get(1)?, row.get(2)?], state_of(row)));
            let Some((key, found)) = next.query_row(params_from_iter(&after), read).optional()? else { break };
            self.verdict.checked.states += 1;
            self.tell("states", self.verdict.checked.states);
            let [id, rule, position] = &key;
            let known: u64 = snapshot.query_row([id], |row| row.get(0))?;
            let checked = found.and_then(|()| if known > 0 { Ok(()) } else { Err("there is no such snapshot".to_owned()) });
            self.note(|| format!("state {} of rule `{}` in snapshot {}", shown(position), shown(rule), shown(id)), checked);
            after = key;
        }
        Ok(())
    }
}

impl Block {
    /// Decodes it. Returns the identities of its first and its last row.
    fn check(&self) -> Result<(Id, Id), String> {
        in_order(self.first_seq, self.last_seq)?;
        let (rows, ordinals) = block::decode(&self.data).map_err(|error| format!("does not decode: {error}"))?;
        if rows.len() as u64 != self.rows || rows.is_empty() {
            return Err(format!("`rows` is {}, but it holds {}", self.rows, rows.len()));
        }
        let mut ids = ordinals.iter().enumerate().map(|(row, ordinal)| (rows.seqs.get(row), *ordinal));
        let first = ids.next().unwrap_or_default();
        let mut last = first;
        for id in ids {
            if id <= last {
                return Err(format!("its row {} comes after row {}", text(id), text(last)));
            }
            last = id;
        }
        if (first.0, last.0) != (self.first_seq, self.last_seq) {
            let (said, found) = ((self.first_seq, self.last_seq), (first.0, last.0));
            return Err(format!("says row numbers {} to {}, but holds {} to {}", said.0, said.1, found.0, found.1));
        }
        Ok((first, last))
    }
}

fn block_of(row: &Row<'_>) -> Result<Block, String> {
    Ok(Block {
        rule: cell(row, "rule")?,
        first_seq: cell(row, "first_seq")?,
        last_seq: cell(row, "last_seq")?,
        rows: cell(row, "rows")?,
        data: cell(row, "data")?,
    })
}

/// Checks an entry of the journal. Returns its first row number and the end of its row numbers; none for a change of the rules.
fn entry_end(row: &Row<'_>) -> Result<Option<(u64, u64)>, String> {
    cell::<i64>(row, "wall_ns")?;
    if cell::<Option<String>>(row, "stream")?.is_none() {
        let edit: Option<String> = cell(row, "edit")?;
        let edit = edit.ok_or("it has neither rows of a stream nor a change of the rules")?;
        is_json(&edit).map_err(|error| format!("`edit` is not JSON: {error}"))?;
        return Ok(None);
    }
    let (first, said): (u64, u64) = (cell(row, "first_seq")?, cell(row, "rows")?);
    let marks: Option<Vec<u8>> = cell(row, "marks")?;
    let marks = marks.map_or(0, |marks| marks.len());
    if !marks.is_multiple_of(8) {
        return Err(format!("`marks` has {marks} bytes, which are no whole numbers"));
    }
    let batch = block::decode_plain(&cell::<Vec<u8>>(row, "data")?).map_err(|error| format!("does not decode: {error}"))?;
    if batch.num_rows() as u64 != said || said == 0 {
        return Err(format!("`rows` is {said}, but it holds {}", batch.num_rows()));
    }
    if batch.column_by_name(TS).is_none_or(|ts| ts.null_count() > 0) {
        return Err("a row of it has no `ts`".into());
    }
    Ok(Some((first, first.saturating_add(said))))
}

fn state_of(row: &Row<'_>) -> Result<(), String> {
    cell::<i64>(row, "snapshot")?;
    cell::<String>(row, "rule")?;
    cell::<u64>(row, "position")?;
    cell::<Option<String>>(row, "fingerprint")?;
    cell::<Option<i64>>(row, "watermark")?;
    let Some(data) = cell::<Option<Vec<u8>>>(row, "data")? else { return Ok(()) };
    block::decode_plain(&data).map(drop).map_err(|error| format!("does not decode: {error}"))
}

fn in_order(first: u64, last: u64) -> Result<(), String> {
    if first <= last { Ok(()) } else { Err(format!("its first row number {first} is above its last, {last}")) }
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

fn text((seq, ordinal): Id) -> String {
    format!("{seq}/{ordinal}")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => format!("{:?}", other.data_type()),
    }
}
