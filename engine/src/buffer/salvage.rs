//! What is done about a damaged database: what can be read moves to a new one, and the old file is kept for a
//! person to look at.
//!
//! The new file is made as `PATH.new` and takes the old one's place only when it is complete, so a crash on
//! the way loses nothing.

use std::path::{Path, PathBuf};

use rusqlite::types::{Type, Value};
use rusqlite::{Connection, Transaction};

use super::changes::{NewGap, Step, Totals};
use super::database::{beside, layout, read_meta};
use super::decisions::{self, Groups};
use super::room::RuleSizes;
use super::uplinks::Uplinks;
use super::{BufferError, content};
use crate::disk::Disk;

/// Damaged files that are kept. A disk that keeps failing must not fill up with them.
const KEPT: u32 = 8;
/// Ids that are tried one by one inside a damaged region, before the steps grow.
const PROBES: u32 = 4096;

const BLOCK: &[(&str, Type)] = &[
    ("id", Type::Integer),
    ("rule", Type::Text),
    ("first_seq", Type::Integer),
    ("last_seq", Type::Integer),
    ("rows", Type::Integer),
    ("data", Type::Blob),
    ("priority", Type::Integer),
    ("now_ns", Type::Integer),
    ("expires_ns", Type::Integer),
];
const REFUSED: &[(&str, Type)] = &[
    ("id", Type::Integer),
    ("rule", Type::Text),
    ("first_seq", Type::Integer),
    ("last_seq", Type::Integer),
    ("rows", Type::Integer),
    ("data", Type::Blob),
    ("reason", Type::Text),
    ("wall_ns", Type::Integer),
];
const GAP: &[(&str, Type)] = &[
    ("id", Type::Integer),
    ("rule", Type::Text),
    ("first_seq", Type::Integer),
    ("last_seq", Type::Integer),
    ("rows", Type::Integer),
    ("reason", Type::Text),
    ("wall_ns", Type::Integer),
    ("uplinks", Type::Text),
];
const JOURNAL: &[(&str, Type)] = &[
    ("id", Type::Integer),
    ("stream", Type::Text),
    ("first_seq", Type::Integer),
    ("rows", Type::Integer),
    ("wall_ns", Type::Integer),
    ("marks", Type::Blob),
    ("edit", Type::Text),
    ("data", Type::Blob),
    ("now_ns", Type::Integer),
];
const SNAPSHOT: &[(&str, Type)] =
    &[("id", Type::Integer), ("entry", Type::Integer), ("wall_ns", Type::Integer), ("manifest", Type::Text)];
const STATE: &[(&str, Type)] = &[
    ("id", Type::Integer),
    ("snapshot", Type::Integer),
    ("rule", Type::Text),
    ("fingerprint", Type::Text),
    ("watermark", Type::Integer),
    ("data", Type::Blob),
];
const PROGRESS: &[(&str, Type)] = &[("id", Type::Integer), ("rule", Type::Text), ("seq", Type::Integer)];
const CLOCKS: &[(&str, Type)] = &[
    ("id", Type::Integer),
    ("now_ns", Type::Integer),
    ("boot", Type::Text),
    ("monotonic_ns", Type::Integer),
    ("wall_ns", Type::Integer),
    ("synchronised", Type::Integer),
];
const CONTENT: &[(&str, Type)] =
    &[("id", Type::Integer), ("hash", Type::Text), ("entry", Type::Integer), ("bytes", Type::Blob)];
const DECISION_GROUP: &[(&str, Type)] =
    &[("id", Type::Integer), ("output", Type::Text), ("kind", Type::Text)];
const DECISION_BASIS: &[(&str, Type)] = &[("id", Type::Integer), ("data", Type::Blob)];
const DECISION: &[(&str, Type)] =
    &[("id", Type::Integer), ("now_ns", Type::Integer), ("instance", Type::Text), ("data", Type::Blob)];
/// Ids of tables whose end nobody has noted.
const ANY: u64 = u64::MAX >> 1;

/// Replaces the database at `path`, which `old` has open, by one with everything that can still be read.
/// `known` is what the caller knows of its content. Returns how many rows are certainly lost.
pub(super) fn salvage(
    disk: &dyn Disk,
    path: &Path,
    old: Connection,
    known: Option<Totals>,
    wall_ns: i64,
    cause: &BufferError,
) -> Result<u64, BufferError> {
    let sql = |error| BufferError::Sql { path: path.to_owned(), error };
    let fresh = beside(path, ".new");
    remove(disk, &fresh);
    let (before, sequence) =
        read_meta(&old).map_or((known, 0), |(totals, sequence)| (known.or(Some(totals)), sequence));
    let (saved, skipped) = copy_all(disk, &old, &fresh, known, before, sequence, wall_ns)
        .map_err(sql)
        .inspect_err(|_| remove(disk, &fresh))?;
    let lost = before.map_or(0, |before| before.waiting.saturating_sub(saved.waiting));
    // Closing may fail on a damaged file, and frees the handle all the same.
    drop(old);
    let exchange = || {
        let aside = move_aside(disk, path)?;
        disk.rename(&fresh, path)?;
        sync_names(disk, path).map(|()| aside)
    };
    let aside = exchange().map_err(|error| BufferError::Io { path: path.to_owned(), error })?;
    let (path, moved_to, rows_saved) = (path.display(), aside.display(), saved.waiting);
    tracing::error!(%path, %moved_to, %cause, rows_saved, rows_lost = lost, skipped,
        "the buffer was damaged; what can be read was moved to a new one. Check the disk; keep the old file \
        if rows are missing");
    Ok(lost)
}

/// `known` bounds the ids; `before` is that, or what the damaged file says of itself.
fn copy_all(
    disk: &dyn Disk,
    old: &Connection,
    fresh: &Path,
    known: Option<Totals>,
    before: Option<Totals>,
    sequence: u64,
    wall_ns: i64,
) -> rusqlite::Result<(Totals, u64)> {
    let mut new = disk.database(fresh)?;
    layout(&mut new)?;
    let tx = new.transaction()?;
    tx.execute("UPDATE meta SET sequence = ?1", [super::signed(sequence)])?;
    let ends =
        known.unwrap_or(Totals { last_block: ANY, last_gap: ANY, last_entry: ANY, ..Totals::default() });
    let (last_block, skipped) = copy(old, &tx, "block", columns_of(old, "block", BLOCK), ends.last_block)?;
    let (last_gap, _) = copy(old, &tx, "gap", columns_of(old, "gap", GAP), ends.last_gap)?;
    copy(old, &tx, "refused", REFUSED, ends.last_block)?;
    copy_confirmed(old, &tx)?;
    let (last_entry, entries_skipped) =
        copy(old, &tx, "journal", columns_of(old, "journal", JOURNAL), ends.last_entry)?;
    let (_, states_skipped) = copy(old, &tx, "state", STATE, ANY)?;
    // A snapshot without all of its state would be a false start.
    if states_skipped == 0 {
        copy(old, &tx, "snapshot", SNAPSHOT, ANY)?;
    }
    // What is missing here is written again, with the same ids.
    copy(old, &tx, "progress", PROGRESS, ANY)?;
    copy(old, &tx, "clocks", CLOCKS, ANY)?;
    copy(old, &tx, "content", CONTENT, ANY)?;
    content::remove_damaged(&tx)?;
    let decisions_skipped = copy_decisions(old, &tx)?;
    let skipped = skipped + entries_skipped + states_skipped + decisions_skipped;
    let sums = "SELECT coalesce(sum(rows), 0), coalesce(sum(length(data)), 0) FROM block";
    let (waiting, bytes) = tx.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let journal_bytes = tx.query_row(&format!("SELECT {}", content::JOURNAL_BYTES), [], |row| row.get(0))?;
    let decision_bytes =
        tx.query_row(&format!("SELECT {}", decisions::DECISION_BYTES), [], |row| row.get(0))?;
    let newest = "SELECT max(coalesce((SELECT max(now_ns) FROM journal), 0), coalesce((SELECT max(now_ns) \
        FROM block), 0), coalesce((SELECT max(now_ns) FROM decision), 0))";
    let newest: i64 = tx.query_row(newest, [], |row| row.get(0))?;
    let ids = before.unwrap_or_default();
    let totals = Totals {
        last_block: ids.last_block.max(last_block),
        last_gap: ids.last_gap.max(last_gap),
        last_entry: ids.last_entry.max(last_entry),
        waiting,
        bytes,
        journal_bytes,
        decision_bytes,
        now_ns: ids.now_ns.max(newest),
    };
    // Who takes a gap of all rules does not have to be known.
    let (uplinks, rule_sizes, mut groups) = (Uplinks::default(), RuleSizes::default(), Groups::default());
    let mut step = Step {
        tx: &tx,
        totals,
        uplinks: &uplinks,
        rule_sizes,
        groups: &mut groups,
        gaps_fetched: u64::MAX,
        wall_ns,
        now_ns: totals.now_ns,
    };
    let lost = before.map(|before| before.waiting.saturating_sub(waiting));
    // Without the old totals nobody can say that nothing is missing.
    if lost != Some(0) {
        step.gap(
            &NewGap {
                rule: "*".into(),
                first_seq: 0,
                last_seq: sequence,
                rows: lost.unwrap_or(0),
                reason: "buffer damaged",
            },
            "",
        )?;
    }
    step.totals.write(&tx)?;
    let totals = step.totals;
    tx.commit()?;
    new.close().map_err(|(_, error)| error)?;
    Ok((totals, skipped))
}

/// Copies decisions. Returns how many could not be read, and what others needed.
fn copy_decisions(old: &Connection, tx: &Transaction<'_>) -> rusqlite::Result<u64> {
    // An older layout has none.
    if old.prepare("SELECT id FROM decision_group").is_err() {
        return Ok(0);
    }
    let (_, groups) = copy(old, tx, "decision_group", DECISION_GROUP, ANY)?;
    let (_, bases) = copy(old, tx, "decision_basis", DECISION_BASIS, ANY)?;
    let (_, skipped) = copy(old, tx, "decision", DECISION, ANY)?;
    if groups > 0 {
        // Nobody knows of which output they are.
        let is_lost = "id >> 40 NOT IN (SELECT id FROM decision_group)";
        tx.execute(&format!("DELETE FROM decision WHERE {is_lost}"), [])?;
        tx.execute(&format!("DELETE FROM decision_basis WHERE {is_lost}"), [])?;
    }
    if bases > 0 {
        decisions::remove_unreadable(tx)?;
    }
    Ok(groups + bases + skipped)
}

/// Those of `columns` that the damaged file has: in an older layout the last ones are missing.
fn columns_of<'c>(
    old: &Connection,
    table: &str,
    mut columns: &'c [(&'c str, Type)],
) -> &'c [(&'c str, Type)] {
    let is_missing = |column: &str| old.prepare(&format!("SELECT {column} FROM {table}")).is_err();
    while let Some((_, older)) =
        columns.split_last().filter(|((newest, _), older)| !older.is_empty() && is_missing(newest))
    {
        columns = older;
    }
    columns
}

/// Copies who has confirmed what, up to the first damage: what is missing is sent once more.
fn copy_confirmed(old: &Connection, new: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut insert =
        new.prepare("INSERT INTO confirmed (uplink, block) SELECT ?1, id FROM block WHERE id = ?2")?;
    let Ok(mut select) = old.prepare("SELECT uplink, block FROM confirmed") else { return Ok(()) };
    let found = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    found.map_while(Result::ok).try_for_each(|confirmed| insert.execute(confirmed).map(drop))
}

/// A row, the end, or what is damaged: a row whose id is known, or something before that.
enum Found {
    Row(i64, Vec<Value>),
    End,
    BadRow(i64),
    Bad,
}

fn find(old: &Connection, select: &str, bound: i64, columns: &[(&str, Type)]) -> Found {
    let read = || -> rusqlite::Result<Option<Vec<Value>>> {
        let mut statement = old.prepare(select)?;
        let mut rows = statement.query([bound])?;
        rows.next()?.map(|row| (0..columns.len()).map(|at| row.get(at)).collect()).transpose()
    };
    match read() {
        Err(_) => Found::Bad,
        Ok(None) => Found::End,
        Ok(Some(values)) => match values.first() {
            Some(Value::Integer(id))
                if values.iter().zip(columns).all(|(value, (_, kind))| value.data_type() == *kind) =>
            {
                Found::Row(*id, values)
            }
            Some(Value::Integer(id)) => Found::BadRow(*id),
            _ => Found::Bad,
        },
    }
}

/// Copies the rows with ids up to `end`: from the first to the damage, from the last back to the damage, then
/// what is between. Returns the greatest id found, and how many reads failed.
fn copy(
    old: &Connection,
    new: &Transaction<'_>,
    table: &str,
    columns: &[(&str, Type)],
    end: u64,
) -> rusqlite::Result<(u64, u64)> {
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let marks = vec!["?"; columns.len()].join(", ");
    let mut insert = new.prepare(&format!("INSERT INTO {table} ({names}) VALUES ({marks})"))?;
    let up = format!("SELECT {names} FROM {table} WHERE id > ?1 ORDER BY id LIMIT 1");
    let down = format!("SELECT {names} FROM {table} WHERE id < ?1 ORDER BY id DESC LIMIT 1");
    let (mut low, mut high) = (0, super::signed(end).saturating_add(1));
    let (mut last, mut skipped) = (0, 0);
    let mut keep = |id: i64, values: Vec<Value>| {
        last = last.max(id);
        insert.execute(rusqlite::params_from_iter(values))
    };
    loop {
        match find(old, &up, low, columns) {
            Found::Row(id, _) | Found::BadRow(id) if id >= high => break,
            Found::Row(id, values) => {
                keep(id, values)?;
                low = id;
            }
            Found::BadRow(id) => {
                skipped += 1;
                low = id;
            }
            Found::End => {
                high = low;
                break;
            }
            Found::Bad => break,
        }
    }
    while high > low {
        match find(old, &down, high, columns) {
            Found::Row(id, _) | Found::BadRow(id) if id <= low => high = low,
            Found::Row(id, values) => {
                keep(id, values)?;
                high = id;
            }
            Found::BadRow(id) => {
                skipped += 1;
                high = id;
            }
            Found::End => high = low,
            Found::Bad => break,
        }
    }
    let (mut failures, mut step) = (0, 1_i64);
    while low < high {
        match find(old, &up, low, columns) {
            Found::Row(id, _) | Found::BadRow(id) if id >= high => break,
            Found::Row(id, values) => {
                keep(id, values)?;
                (low, failures, step) = (id, 0, 1);
            }
            Found::BadRow(id) => {
                skipped += 1;
                low = id;
            }
            Found::End => break,
            Found::Bad => {
                skipped += 1;
                failures += 1;
                step = if failures > PROBES { step.saturating_mul(2) } else { 1 };
                low = low.saturating_add(step);
            }
        }
    }
    Ok((u64::try_from(last).unwrap_or(0), skipped))
}

/// Finishes what a crash interrupted: `PATH.new` is complete when `PATH` is gone, and useless when it is not.
pub(super) fn recover(disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
    let fresh = beside(path, ".new");
    if disk.exists(&fresh) && !disk.exists(path) {
        // The old log is not the new database's.
        remove(disk, path);
        return disk.rename(&fresh, path);
    }
    remove(disk, &fresh);
    Ok(())
}

fn remove(disk: &dyn Disk, database: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // Mostly there is none; one that stays makes the next step fail, with its reason.
        let _ = disk.remove(&beside(database, suffix));
    }
}

/// Renames the database to the first free `PATH.corrupt-N`; the last one is used again.
fn move_aside(disk: &dyn Disk, path: &Path) -> std::io::Result<PathBuf> {
    let name = |number| beside(path, &format!(".corrupt-{number}"));
    let aside = (1..KEPT).map(name).find(|aside| !disk.exists(aside)).unwrap_or_else(|| name(KEPT));
    remove(disk, &aside);
    // The database goes first: without it, a restart takes the new one; with it but without its log, rows
    // would be missing.
    for suffix in ["", "-wal", "-shm"] {
        let from = beside(path, suffix);
        if disk.exists(&from) {
            disk.rename(&from, &beside(&aside, suffix))?;
        }
    }
    Ok(aside)
}

/// Makes the new names last through a power cut.
fn sync_names(disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(dir)
}
