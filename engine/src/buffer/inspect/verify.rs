//! Is everything in a buffer as it has to be?
//!
//! What has to agree is read in one transaction; blocks, entries and states one by one, so that the box can go on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use arrow::array::Array;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use tidegate_core::TS;
use tidegate_rules::Priority;

use super::{Inspector, TABLES, TABLES_2, TABLES_3, TABLES_4, rows};
use crate::buffer::block;
use crate::buffer::uplinks::Uplinks;

/// Problems that are listed. Of a file with more of them, more are of no use.
const MOST: usize = 1000;
/// Time between two reports of progress.
const EVERY: Duration = Duration::from_secs(2);
/// Identities of one rule that are remembered, when the file is so odd that they do not become fewer by themselves.
const MOST_RECENT: usize = 1 << 20;
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
        let (layout, now_ns) = (self.layout, self.now_ns());
        let mut verifier = Verifier { conn: &self.conn, now_ns, verdict: Verdict::default(), clock: Clock::default(), progress };
        verifier.step("the file", Verifier::pages);
        let verdict = verifier.verdict;
        let _ = self.conn.progress_handler(0, None::<fn() -> bool>);

        let mut verifier = Verifier { conn: &self.conn, now_ns, verdict, clock: Clock::default(), progress };
        let of = |since: i64, tables: &'static [&'static str]| if layout >= since { tables } else { &[] };
        for table in TABLES.iter().chain(of(2, &TABLES_2)).chain(of(3, &TABLES_3)).chain(of(4, &TABLES_4)) {
            if !verifier.has(table) {
                verifier.wrong(format!("table {table}"), "is missing".into());
            }
        }
        let steps: [(&'static str, &[&str], Step<'_>); 9] = [
            ("table meta", &["meta", "block", "refused", "gap"], Verifier::meta),
            ("table block", &["block"], Verifier::blocks),
            ("table confirmed", &["confirmed", "block", "meta"], Verifier::confirmed),
            ("table refused", &["refused"], Verifier::refused),
            ("table gap", &["gap"], Verifier::gaps),
            ("table journal", &["journal"], Verifier::journal),
            ("table snapshot", &["snapshot", "journal"], Verifier::snapshots),
            ("table state", &["state", "snapshot"], Verifier::states),
            ("table clocks", &["clocks"], Verifier::clocks),
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

/// A row of `block` or `refused`.
struct Block {
    rule: String,
    first_seq: u64,
    last_seq: u64,
    rows: u64,
    data: Vec<u8>,
}

/// A row's number and ordinal: its identity within its rule.
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
        let said = |name: &str| conn.query_row(&format!("SELECT {name} FROM meta"), [], |row| row.get::<_, u64>(0));
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
            totals.push(("journal_bytes", journal, "bytes in journal entries"));
            newest.push(("last_entry", "coalesce(max(id), 0) FROM journal", "journal entry"));
            newest.push(("last_entry", "coalesce(max(entry), 0) FROM snapshot", "a snapshot after journal entry"));
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
            for (table, what) in [("block", "block"), ("journal", "journal entry"), ("clocks", "reading of the clocks")] {
                let later = format!("SELECT min(id) FROM {table} WHERE now_ns > ?1");
                let later = if self.has(table) { conn.query_row(&later, [now], |row| row.get::<_, Option<i64>>(0))? } else { None };
                if let Some(id) = later {
                    self.wrong("table meta".into(), format!("`now_ns` is {now}, but {what} {id} is from later"));
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
            let greatest = format!("SELECT max({number}) FROM {table} WHERE {of} AND typeof({number}) = 'integer'");
            let used = conn.query_row(&greatest, [], |row| row.get::<_, Option<u64>>(0))?;
            if let Some(used) = used.filter(|used| *used >= sequence) {
                let problem = format!("`sequence` says that row numbers below {sequence} are reserved, but table {table} uses {used}");
                self.wrong("table meta".into(), problem);
            }
        }
        Ok(())
    }

    /// Rows that wait: each block by itself, and their identities against those before and the rule's progress.
    fn blocks(&mut self) -> rusqlite::Result<()> {
        let (has_journal, has_progress) = (self.has("journal"), self.has("progress"));
        let mut rules: BTreeMap<String, Written> = BTreeMap::new();
        let mut after = i64::MIN;
        // Layouts before the third have no priorities.
        let priority = if self.has("confirmed") { "priority" } else { "5 AS priority" };
        let next = format!("SELECT id, rule, first_seq, last_seq, rows, data, {priority} FROM block WHERE id > ?1 ORDER BY id LIMIT 1");
        let mut next = self.conn.prepare(&next)?;
        let read = |row: &Row<'_>| {
            let priority = cell::<u8>(row, "priority").and_then(Priority::try_from);
            Ok((row.get::<_, i64>(0)?, priority.and_then(|_| block_of(row))))
        };
        while let Some((id, found)) = next.query_row([after], read).optional()? {
            after = id;
            self.verdict.checked.blocks += 1;
            self.tell("blocks", self.verdict.checked.blocks);
            let checked = found.and_then(|block| {
                let ids = block.ids()?;
                let Block { rule, last_seq, .. } = block;
                match if has_progress { self.progress_of(&rule) } else { Ok(None) } {
                    Ok(Some(reached)) if last_seq > reached => {
                        return Err(format!("its row number {last_seq} is beyond the progress of rule `{rule}`, {reached}"));
                    }
                    Ok(_) => {}
                    Err(error) => return Err(format!("the progress of rule `{rule}` cannot be read: {error}")),
                }
                let end_of_entry = |seq: u64| if has_journal { rows::entry_of(self.conn, seq).ok()?.map(|came| came.end) } else { None };
                rules.entry(rule).or_default().add(&ids, end_of_entry)
            });
            self.note(|| format!("block {id}"), checked);
        }
        Ok(())
    }

    /// Up to which row number the rows of `rule` are in the outbox, or were; not noted for what layout 1 wrote. It only rises, so it may be
    /// read later than a block.
    fn progress_of(&self, rule: &str) -> rusqlite::Result<Option<u64>> {
        self.conn.prepare_cached("SELECT seq FROM progress WHERE rule = ?1")?.query_row([rule], |row| row.get(0)).optional()
    }

    /// Who has confirmed what others wait for: uplinks that there are, blocks that there are, and never all uplinks that take a block.
    fn confirmed(&mut self) -> rusqlite::Result<()> {
        let _as_of_now = self.conn.unchecked_transaction()?;
        let uplinks = Uplinks::noted(self.conn)?;
        // After damage nobody has noted them.
        let are_known = uplinks.names().next().is_some();
        let mut select = self.conn.prepare(
            "SELECT confirmed.block, uplink, rule FROM confirmed LEFT JOIN block ON id = confirmed.block ORDER BY confirmed.block, uplink",
        )?;
        let mut found = select.query([])?;
        let mut of_block: (Option<i64>, BTreeSet<String>) = (None, BTreeSet::new());
        while let Some(row) = found.next()? {
            let mut check = || {
                let (block, uplink): (i64, String) = (cell(row, "block")?, cell(row, "uplink")?);
                let Some(rule) = cell::<Option<String>>(row, "rule")? else {
                    return Err(format!("uplink `{uplink}` has confirmed block {block}, which is not there"));
                };
                if !are_known {
                    return Ok(());
                }
                if !uplinks.names().any(|name| name == uplink) {
                    return Err(format!("block {block} is confirmed by uplink `{uplink}`, which is not there"));
                }
                if of_block.0.replace(block) != Some(block) {
                    of_block.1.clear();
                }
                of_block.1.insert(uplink);
                if uplinks.takers(&rule).all(|taker| of_block.1.contains(taker)) {
                    return Err(format!("block {block} is confirmed by all uplinks that take it, and still waits"));
                }
                Ok(())
            };
            let checked = check();
            self.note(|| "table confirmed".into(), checked);
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
            let checked = reason.and_then(|reason| if reason.starts_with("damaged:") { Ok(()) } else { found?.ids().map(drop) });
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
        let now_ns = self.now_ns;
        let next = format!(
            "SELECT id, stream, first_seq, rows, wall_ns, marks, edit, data, {now_ns} AS now_ns FROM journal WHERE id > ?1 ORDER BY id LIMIT 1"
        );
        let mut next = self.conn.prepare(&next)?;
        let (mut after, mut end, mut now) = (i64::MIN, 0, 0);
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, cell::<i64>(row, "now_ns"), numbers_of(row)));
        while let Some((id, time, found)) = next.query_row([after], read).optional()? {
            after = id;
            self.verdict.checked.entries += 1;
            self.tell("journal entries", self.verdict.checked.entries);
            let checked = found.and_then(|numbers| {
                // Entries of older layouts have none.
                let time = time?;
                let newest = now;
                now = now.max(time);
                if time != 0 && time < newest {
                    return Err(format!("its time {time} is before {newest}, that of an entry before it"));
                }
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

    /// Snapshots, and whether the journal goes on from each of them without a hole.
    fn snapshots(&mut self) -> rusqlite::Result<()> {
        let _as_of_now = self.conn.unchecked_transaction()?;
        // Their ids, and the entries that they follow.
        let [mut oldest, mut newest] = [None::<(i64, i64)>; 2];
        let mut select = self.conn.prepare("SELECT id, entry, wall_ns, manifest FROM snapshot ORDER BY id")?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            let check = || {
                cell::<i64>(row, "wall_ns")?;
                is_json(&cell::<String>(row, "manifest")?).map_err(|error| format!("`manifest` is not JSON: {error}"))?;
                cell::<i64>(row, "entry")
            };
            let checked = check().and_then(|entry| {
                oldest.get_or_insert((id, entry));
                match newest.replace((id, entry)) {
                    Some((before, older)) if older > entry => {
                        Err(format!("it follows journal entry {entry}, but snapshot {before} before it follows entry {older}"))
                    }
                    _ => Ok(()),
                }
            });
            self.note(|| format!("snapshot {id}"), checked);
        }
        let (Some((oldest, first)), Some((newest, last))) = (oldest, newest) else { return Ok(()) };
        let end: i64 = self.conn.query_row("SELECT coalesce(max(id), 0) FROM journal", [], |row| row.get(0))?;
        if end < last {
            self.wrong(format!("snapshot {newest}"), format!("it follows journal entry {last}, but the journal ends with entry {end}"));
        }
        let mut select = self.conn.prepare("SELECT id FROM journal WHERE id > ?1 ORDER BY id")?;
        let mut ids = select.query([first])?;
        let mut expected = first.saturating_add(1);
        while let Some(row) = ids.next()? {
            let id: i64 = row.get(0)?;
            if id > expected {
                let problem = match id - 1 {
                    last if last == expected => format!("entry {last} after snapshot {oldest} is missing: a restart needs it"),
                    last => format!("entries {expected} to {last} after snapshot {oldest} are missing: a restart needs them"),
                };
                self.wrong("table journal".into(), problem);
            }
            expected = id.saturating_add(1);
        }
        Ok(())
    }

    /// Readings of the clocks, whose times never go back.
    fn clocks(&mut self) -> rusqlite::Result<()> {
        let mut select = self.conn.prepare("SELECT id, now_ns, boot, monotonic_ns, wall_ns, synchronised FROM clocks ORDER BY id")?;
        let mut found = select.query([])?;
        let mut newest = i64::MIN;
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            let check = || {
                cell::<String>(row, "boot")?;
                for column in ["monotonic_ns", "wall_ns"] {
                    cell::<i64>(row, column)?;
                }
                cell::<bool>(row, "synchronised")?;
                cell::<i64>(row, "now_ns")
            };
            let checked = check().and_then(|now| {
                let before = newest;
                newest = newest.max(now);
                if now < before { Err(format!("its time {now} is before {before}, that of a reading before it")) } else { Ok(()) }
            });
            self.note(|| format!("reading {id} of the clocks"), checked);
        }
        Ok(())
    }

    fn states(&mut self) -> rusqlite::Result<()> {
        let next = "SELECT id, snapshot, rule, fingerprint, watermark, data FROM state WHERE id > ?1 ORDER BY id LIMIT 1";
        let mut next = self.conn.prepare(next)?;
        let mut after = i64::MIN;
        while let Some((id, found)) = next.query_row([after], |row| Ok((row.get::<_, i64>(0)?, state_of(row)))).optional()? {
            after = id;
            self.verdict.checked.states += 1;
            self.tell("states", self.verdict.checked.states);
            let checked = found.and_then(|(snapshot, rule)| self.has_snapshot(snapshot, id, &rule));
            self.note(|| format!("state {id}"), checked);
        }
        Ok(())
    }

    /// Whether there is this snapshot, unless it has gone together with the state `id`, since a box deletes old ones.
    fn has_snapshot(&self, snapshot: i64, id: i64, rule: &str) -> Result<(), String> {
        let lost = "SELECT count(*) FROM state WHERE id = ?1 AND snapshot NOT IN (SELECT id FROM snapshot)";
        match self.conn.prepare_cached(lost).and_then(|mut lost| lost.query_row([id], |row| row.get::<_, u64>(0))) {
            Ok(0) => Ok(()),
            Ok(_) => Err(format!("it is of rule `{rule}` in snapshot {snapshot}, which is not there")),
            Err(error) => Err(format!("its snapshot cannot be read: {error}")),
        }
    }
}

impl Block {
    /// The identities of its rows.
    fn ids(&self) -> Result<Vec<Id>, String> {
        in_order(self.first_seq, self.last_seq)?;
        let (rows, ordinals) = block::decode(&self.data).map_err(|error| format!("does not decode: {error}"))?;
        if rows.len() as u64 != self.rows || rows.is_empty() {
            return Err(format!("`rows` is {}, but it holds {}", self.rows, rows.len()));
        }
        let ids: Vec<Id> = ordinals.iter().enumerate().map(|(row, ordinal)| (rows.seqs.get(row), *ordinal)).collect();
        let (first, last) = ids.iter().fold((u64::MAX, 0), |(low, high), (seq, _)| (low.min(*seq), high.max(*seq)));
        if (first, last) != (self.first_seq, self.last_seq) {
            return Err(format!("says row numbers {} to {}, but holds {first} to {last}", self.first_seq, self.last_seq));
        }
        Ok(ids)
    }
}

/// What is known of a rule's rows in the blocks so far.
#[derive(Default)]
struct Written {
    newest: Option<Id>,
    /// of the blocks since one began behind all that was before
    recent: HashSet<Id>,
}

impl Written {
    /// Adds the rows of the next block. Row numbers rise from one entry of the sequence to the next; within one, each statement of the
    /// rule begins anew. No identity comes twice. `end_of_entry` knows where the entry of a row ends, as far as the journal does.
    fn add(&mut self, ids: &[Id], end_of_entry: impl Fn(u64) -> Option<u64>) -> Result<(), String> {
        if self.newest.is_none_or(|newest| ids.first().is_some_and(|first| *first > newest)) || self.recent.len() > MOST_RECENT {
            self.recent.clear();
        }
        let mut before = self.newest;
        for id in ids {
            if !self.recent.insert(*id) {
                return Err(format!("its row {} was there before", text(*id)));
            }
            let newest = *self.newest.get_or_insert(*id);
            let begins_anew = before.replace(*id).is_some_and(|before| *id < before);
            if begins_anew && end_of_entry(id.0).is_some_and(|end| end <= newest.0) {
                return Err(format!("its row {} comes after row {}, which is of a later entry", text(*id), text(newest)));
            }
            self.newest = Some(newest.max(*id));
        }
        Ok(())
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

/// Checks an entry of the journal. Returns its first number and the end of its numbers; none for a change of the rules.
fn numbers_of(row: &Row<'_>) -> Result<Option<(u64, u64)>, String> {
    cell::<i64>(row, "wall_ns")?;
    let (stream, edit): (String, String) = (cell(row, "stream")?, cell(row, "edit")?);
    let (first, said): (u64, u64) = (cell(row, "first_seq")?, cell(row, "rows")?);
    let is_tick = said == 0 && stream.is_empty() && edit.is_empty();
    if stream.is_empty() == edit.is_empty() && !is_tick {
        return Err("it is neither rows of a stream nor a tick nor a change of the rules".into());
    }
    if !edit.is_empty() {
        is_json(&edit).map_err(|error| format!("`edit` is not JSON: {error}"))?;
        return Ok(None);
    }
    if is_tick {
        return Ok(Some((first, first.saturating_add(1))));
    }
    let marks = cell::<Vec<u8>>(row, "marks")?.len();
    if !marks.is_multiple_of(8) {
        return Err(format!("`marks` has {marks} bytes, which are no whole numbers"));
    }
    let batch = block::decode_batch(&cell::<Vec<u8>>(row, "data")?).map_err(|error| format!("does not decode: {error}"))?;
    if batch.num_rows() as u64 != said || said == 0 {
        return Err(format!("`rows` is {said}, but it holds {}", batch.num_rows()));
    }
    if batch.column_by_name(TS).is_none_or(|ts| ts.null_count() > 0) {
        return Err("a row of it has no `ts`".into());
    }
    Ok(Some((first, first.saturating_add(said))))
}

/// Checks a part of a rule's state. Returns the snapshot and the rule that it is of.
fn state_of(row: &Row<'_>) -> Result<(i64, String), String> {
    let of = (cell(row, "snapshot")?, cell(row, "rule")?);
    cell::<String>(row, "fingerprint")?;
    cell::<i64>(row, "watermark")?;
    let data: Vec<u8> = cell(row, "data")?;
    if !data.is_empty() {
        block::decode_batch(&data).map_err(|error| format!("does not decode: {error}"))?;
    }
    Ok(of)
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
