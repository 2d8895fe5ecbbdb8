//! The journal, and the snapshots that it goes on from; the clocks that it went by.

use arrow::array::Array;
use rusqlite::{OptionalExtension, Row};
use tidegate_core::TS;

use super::{Verifier, cell, is_json};
use crate::buffer::{block, content};

impl Verifier<'_> {
    /// Entries: each by itself, and its numbers against those before.
    pub(super) fn journal(&mut self) -> rusqlite::Result<()> {
        let now_ns = self.now_ns;
        let next = format!(
            "SELECT id, stream, first_seq, rows, wall_ns, marks, edit, data, {now_ns} AS now_ns FROM \
            journal WHERE id > ?1 ORDER BY id LIMIT 1"
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
                    return Err(format!(
                        "its first row number {first} is below {before}, where the entries before it end"
                    ));
                }
                Ok(())
            });
            self.note(|| format!("journal entry {id}"), checked);
        }
        Ok(())
    }

    /// Snapshots, and whether the journal goes on from each of them without a hole.
    pub(super) fn snapshots(&mut self) -> rusqlite::Result<()> {
        let _as_of_now = self.conn.unchecked_transaction()?;
        // Their ids, and the entries that they follow.
        let [mut oldest, mut newest] = [None::<(i64, i64)>; 2];
        let mut select =
            self.conn.prepare("SELECT id, entry, wall_ns, manifest FROM snapshot ORDER BY id")?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            let check = || {
                cell::<i64>(row, "wall_ns")?;
                is_json(&cell::<String>(row, "manifest")?)
                    .map_err(|error| format!("`manifest` is not JSON: {error}"))?;
                cell::<i64>(row, "entry")
            };
            let checked = check().and_then(|entry| {
                oldest.get_or_insert((id, entry));
                match newest.replace((id, entry)) {
                    Some((before, older)) if older > entry => Err(format!(
                        "it follows journal entry {entry}, but snapshot {before} before it \
                            follows entry {older}"
                    )),
                    _ => Ok(()),
                }
            });
            self.note(|| format!("snapshot {id}"), checked);
        }
        let (Some((oldest, first)), Some((newest, last))) = (oldest, newest) else { return Ok(()) };
        let end: i64 =
            self.conn.query_row("SELECT coalesce(max(id), 0) FROM journal", [], |row| row.get(0))?;
        if end < last {
            self.wrong(
                format!("snapshot {newest}"),
                format!("it follows journal entry {last}, but the journal ends with entry {end}"),
            );
        }
        let mut select = self.conn.prepare("SELECT id FROM journal WHERE id > ?1 ORDER BY id")?;
        let mut ids = select.query([first])?;
        let mut expected = first.saturating_add(1);
        while let Some(row) = ids.next()? {
            let id: i64 = row.get(0)?;
            if id > expected {
                let problem = match id - 1 {
                    last if last == expected => {
                        format!("entry {last} after snapshot {oldest} is missing: a restart needs it")
                    }
                    last => format!(
                        "entries {expected} to {last} after snapshot {oldest} are missing: a restart needs \
                        them"
                    ),
                };
                self.wrong("table journal".into(), problem);
            }
            expected = id.saturating_add(1);
        }
        Ok(())
    }

    /// Readings of the clocks, whose times never go back.
    pub(super) fn clocks(&mut self) -> rusqlite::Result<()> {
        let mut select = self.conn.prepare(
            "SELECT id, now_ns, boot, monotonic_ns, wall_ns, synchronised FROM clocks ORDER BY id",
        )?;
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
                if now < before {
                    Err(format!("its time {now} is before {before}, that of a reading before it"))
                } else {
                    Ok(())
                }
            });
            self.note(|| format!("reading {id} of the clocks"), checked);
        }
        Ok(())
    }

    /// What entries and snapshots name: each by itself, and whether all is there that a restart needs.
    pub(super) fn contents(&mut self) -> rusqlite::Result<()> {
        let _as_of_now = self.conn.unchecked_transaction()?;
        let mut next = self
            .conn
            .prepare("SELECT id, hash, entry, bytes FROM content WHERE id > ?1 ORDER BY id LIMIT 1")?;
        let mut after = i64::MIN;
        let read = |row: &Row<'_>| {
            let check = || {
                cell::<u64>(row, "entry")?;
                let (hash, bytes) = (cell::<String>(row, "hash")?, cell::<Vec<u8>>(row, "bytes")?);
                if content::is_named(&hash, &bytes) {
                    Ok(())
                } else {
                    Err(format!("its bytes are not those that {hash} names"))
                }
            };
            Ok((row.get::<_, i64>(0)?, check()))
        };
        while let Some((id, checked)) = next.query_row([after], read).optional()? {
            after = id;
            self.verdict.checked.contents += 1;
            self.tell("contents", self.verdict.checked.contents);
            self.note(|| format!("content {id}"), checked);
        }
        // Whatever looks like a SHA-256 there is one.
        let missing = "SELECT place, atom FROM (
                SELECT 'snapshot ' || id AS place, manifest AS said FROM snapshot
                UNION ALL SELECT 'journal entry ' || id, edit FROM journal
                WHERE edit <> '' AND id > (SELECT coalesce(min(entry), 0) FROM snapshot)
            ), json_tree(iif(json_valid(said), said, '{}')) AS value
            WHERE value.type = 'text' AND length(atom) = 64 AND atom NOT GLOB '*[^0-9a-f]*'
            AND atom NOT IN (SELECT hash FROM content)";
        let mut missing = self.conn.prepare(missing)?;
        let mut missing = missing.query([])?;
        while let Some(row) = missing.next()? {
            let hash: String = row.get(1)?;
            self.wrong(row.get(0)?, format!("it names content {hash}, which is missing: a restart needs it"));
        }
        Ok(())
    }

    pub(super) fn states(&mut self) -> rusqlite::Result<()> {
        let next = "SELECT id, snapshot, rule, fingerprint, watermark, data FROM state WHERE id > ?1 ORDER \
            BY id LIMIT 1";
        let mut next = self.conn.prepare(next)?;
        let mut after = i64::MIN;
        while let Some((id, found)) =
            next.query_row([after], |row| Ok((row.get::<_, i64>(0)?, state_of(row)))).optional()?
        {
            after = id;
            self.verdict.checked.states += 1;
            self.tell("states", self.verdict.checked.states);
            let checked = found.and_then(|(snapshot, rule)| self.has_snapshot(snapshot, id, &rule));
            self.note(|| format!("state {id}"), checked);
        }
        Ok(())
    }

    /// Whether there is this snapshot, unless it has gone together with the state `id`, since a box deletes
    /// old ones.
    fn has_snapshot(&self, snapshot: i64, id: i64, rule: &str) -> Result<(), String> {
        let lost = "SELECT count(*) FROM state WHERE id = ?1 AND snapshot NOT IN (SELECT id FROM snapshot)";
        match self
            .conn
            .prepare_cached(lost)
            .and_then(|mut lost| lost.query_row([id], |row| row.get::<_, u64>(0)))
        {
            Ok(0) => Ok(()),
            Ok(_) => Err(format!("it is of rule `{rule}` in snapshot {snapshot}, which is not there")),
            Err(error) => Err(format!("its snapshot cannot be read: {error}")),
        }
    }
}

/// Checks an entry of the journal. Returns its first number and the end of its numbers; none for a change of
/// the rules.
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
    let batch = block::decode_batch(&cell::<Vec<u8>>(row, "data")?)
        .map_err(|error| format!("does not decode: {error}"))?;
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
