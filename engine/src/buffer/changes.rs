//! What one transaction does to the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use tidegate_rules::DeliveryPolicy;

use super::decisions::Groups;
use super::journal::{NewEntry, NewSnapshot, Retention};
use super::room::{Room, RuleSizes};
use super::signed;
use super::uplinks::Uplinks;
use crate::decision::Decision;

/// Refused blocks are kept for a person to look at. This many bytes are plenty for that, and little on the
/// smallest disk.
const MAX_REFUSED: u64 = if cfg!(test) { 1 << 16 } else { 16 << 20 };

/// A block that is ready to be inserted.
pub(super) struct NewBlock {
    pub(super) rule: Arc<str>,
    pub(super) delivery: DeliveryPolicy,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) rows: u64,
    /// the sequence's time at which the newest of them was written
    pub(super) now_ns: i64,
    pub(super) data: Vec<u8>,
}

/// What one transaction does. Sets, because while the disk fails the same block may be confirmed again and
/// again.
#[derive(Default)]
pub(super) struct Changes {
    /// block and uplink
    pub(super) confirmed: BTreeSet<(u64, Arc<str>)>,
    /// block and uplink, with the reason; without an uplink a block that none can have
    pub(super) refused: BTreeMap<(u64, Option<Arc<str>>), String>,
    /// gap and uplink
    pub(super) confirmed_gaps: BTreeSet<(u64, Arc<str>)>,
    /// rows that may use the reserve: they do not wait for those in `rows`
    pub(super) alarms: Lane,
    /// all others
    pub(super) rows: Lane,
    /// rows that could not be made into blocks
    pub(super) gaps: Vec<NewGap>,
    pub(super) journal: Vec<NewEntry>,
    pub(super) snapshot: Option<NewSnapshot>,
    pub(super) decisions: Vec<Decision>,
}

/// New blocks that are stored together, or wait together for room.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) blocks: Vec<NewBlock>,
    /// by rule: the greatest row number in `blocks`
    pub(super) progress: BTreeMap<Arc<str>, u64>,
}

impl Lane {
    pub(super) fn add(&mut self, more: Self) {
        self.blocks.extend(more.blocks);
        for (rule, seq) in more.progress {
            let reached = self.progress.entry(rule).or_default();
            *reached = seq.max(*reached);
        }
    }
}

impl Changes {
    /// Whether there is nothing but new blocks, and a snapshot that must not be stored before them, if
    /// anything.
    pub(super) fn is_only_blocks(&self) -> bool {
        !self.has_deliveries() && self.journal.is_empty() && self.decisions.is_empty()
    }

    /// Whether something is to be noted that uplinks have taken, or will not get.
    pub(super) fn has_deliveries(&self) -> bool {
        !(self.confirmed.is_empty()
            && self.refused.is_empty()
            && self.confirmed_gaps.is_empty()
            && self.gaps.is_empty())
    }

    /// Whether `uplink` is about to be done with block `id`.
    pub(super) fn removes(&self, id: u64, uplink: &Arc<str>) -> bool {
        let of_uplink = (id, Some(Arc::clone(uplink)));
        self.confirmed.contains(&(id, Arc::clone(uplink)))
            || self.refused.contains_key(&of_uplink)
            || self.refused.contains_key(&(id, None))
    }
}

/// What a committed transaction did.
#[derive(Default)]
pub(super) struct Done {
    /// alarms did not fit and were left out
    pub(super) alarms_wait: bool,
    /// the other new blocks did not fit and were left out
    pub(super) rows_wait: bool,
    /// rows that were dropped for want of room
    pub(super) dropped_rows: u64,
    /// rows that were dropped because nobody had taken them in time
    pub(super) expired_rows: u64,
    /// rows that were stored
    pub(super) stored_rows: u64,
    /// rows of refused blocks that made room for newer ones
    pub(super) forgotten_rows: u64,
}

/// The one row of `meta` but for the reserved row numbers: so that nothing has to be counted when the
/// database is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// newest ids ever given
    pub(super) last_block: u64,
    pub(super) last_gap: u64,
    /// rows and bytes in `block`
    pub(super) waiting: u64,
    pub(super) bytes: u64,
    /// newest entry of the journal, and the bytes in it
    pub(super) last_entry: u64,
    pub(super) journal_bytes: u64,
    /// the sequence's time when it was last written
    pub(super) now_ns: i64,
    /// bytes of decisions
    pub(super) decision_bytes: u64,
}

impl Totals {
    pub(super) fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let Self { last_block, last_gap, waiting, bytes, last_entry, journal_bytes, decision_bytes, now_ns } =
            *self;
        let [block, gap, waiting, bytes, entry, journal, decisions] =
            [last_block, last_gap, waiting, bytes, last_entry, journal_bytes, decision_bytes].map(signed);
        let update = "UPDATE meta SET last_block = ?1, last_gap = ?2, waiting = ?3, bytes = ?4, last_entry \
            = ?5, journal_bytes = ?6, now_ns = ?7, decision_bytes = ?8";
        tx.prepare_cached(update)?
            .execute([block, gap, waiting, bytes, entry, journal, now_ns, decisions])
            .map(drop)
    }
}

/// Which rows of a rule are missing.
pub(super) struct NewGap {
    pub(super) rule: Arc<str>,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) rows: u64,
    pub(super) reason: &'static str,
}

/// A block that was deleted.
pub(super) struct Gone {
    pub(super) id: u64,
    rule: Arc<str>,
    first_seq: u64,
    last_seq: u64,
    rows: u64,
    size: u64,
}

impl Gone {
    /// From `RETURNING id, rule, first_seq, last_seq, rows, length(data)`.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            rule: row.get(1)?,
            first_seq: row.get(2)?,
            last_seq: row.get(3)?,
            rows: row.get(4)?,
            size: row.get(5)?,
        })
    }

    pub(super) fn gap(&self, reason: &'static str) -> NewGap {
        NewGap {
            rule: Arc::clone(&self.rule),
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            rows: self.rows,
            reason,
        }
    }
}

/// A transaction under way.
pub(super) struct Step<'a> {
    pub(super) tx: &'a Transaction<'a>,
    pub(super) totals: Totals,
    pub(super) uplinks: &'a Uplinks,
    pub(super) rule_sizes: RuleSizes,
    pub(super) groups: &'a mut Groups,
    /// gaps up to this id may have been sent, and must not change any more
    pub(super) gaps_fetched: u64,
    /// now, by the box's clock
    pub(super) wall_ns: i64,
    /// now, by the sequence's
    pub(super) now_ns: i64,
}

impl Step<'_> {
    pub(super) fn run(
        &mut self,
        changes: &Changes,
        room: Room,
        retention: Retention,
    ) -> rusqlite::Result<Done> {
        let mut done = Done { forgotten_rows: self.refuse(&changes.refused)?, ..Done::default() };
        for (id, uplink) in changes
            .confirmed
            .iter()
            .map(|(id, uplink)| (id, Some(uplink)))
            .chain(changes.refused.keys().map(of_uplink))
        {
            match uplink {
                Some(uplink) => self.confirm(*id, uplink)?,
                None => drop(self.delete("id = ?1", *id)?),
            }
        }
        changes.confirmed_gaps.iter().try_for_each(|(id, uplink)| self.confirm_gap(*id, uplink))?;
        changes.gaps.iter().try_for_each(|gap| self.gap(gap, ""))?;
        done.expired_rows = self.expire()?;
        done.alarms_wait = self.waits(&changes.alarms, room, &mut done)?;
        done.rows_wait = self.waits(&changes.rows, room, &mut done)?;
        if !done.alarms_wait
            && !done.rows_wait
            && let Some(snapshot) = &changes.snapshot
        {
            self.snapshot(snapshot)?;
        }
        changes.journal.iter().try_for_each(|entry| self.journal(entry))?;
        changes.decisions.iter().try_for_each(|decision| self.decision(decision))?;
        self.trim_decisions()?;
        if changes.snapshot.is_some() {
            self.forget_readings()?;
        }
        if changes.snapshot.is_some() || self.totals.journal_bytes > retention.max_bytes {
            self.trim(retention)?;
        }
        if changes.snapshot.is_some() {
            let named = self.named_by_snapshots()?;
            self.forget_unnamed_contents(&named)?;
        }
        self.totals.write(self.tx)?;
        Ok(done)
    }

    /// Stores the blocks of `lane` unless they have to wait. Returns whether they do.
    fn waits(&mut self, lane: &Lane, room: Room, done: &mut Done) -> rusqlite::Result<bool> {
        self.know_sizes(&lane.blocks)?;
        if room.must_wait(self.totals.bytes, &self.rule_sizes, &lane.blocks) {
            return Ok(true);
        }
        for block in &lane.blocks {
            let (stored, dropped) = self.store(block, room)?;
            done.stored_rows += if stored { block.rows } else { 0 };
            done.dropped_rows += dropped;
        }
        lane.progress.iter().try_for_each(|(rule, seq)| self.progress(rule, *seq))?;
        Ok(false)
    }

    /// Deletes one block. Returns it, and which uplinks miss it, as a gap notes that.
    pub(super) fn delete(&mut self, which: &str, id: u64) -> rusqlite::Result<Option<(Gone, String)>> {
        let delete = format!(
            "DELETE FROM block WHERE {which} RETURNING id, rule, first_seq, last_seq, rows, length(data)"
        );
        let Some(gone) = self.tx.prepare_cached(&delete)?.query_row([signed(id)], Gone::read).optional()?
        else {
            return Ok(None);
        };
        self.totals.waiting = self.totals.waiting.saturating_sub(gone.rows);
        self.totals.bytes = self.totals.bytes.saturating_sub(gone.size);
        self.rule_sizes.sub(&gone.rule, gone.size);
        let missed_by = self.forget_confirmed(gone.id, &gone.rule)?;
        Ok(Some((gone, missed_by)))
    }

    /// Deletes one block, and notes the gap. Returns how many rows it had; 0: there is no such block.
    pub(super) fn drop_block(&mut self, which: &str, id: u64, reason: &'static str) -> rusqlite::Result<u64> {
        let Some((gone, missed_by)) = self.delete(which, id)? else { return Ok(0) };
        self.gap(&gone.gap(reason), &missed_by)?;
        Ok(gone.rows)
    }

    pub(super) fn insert(&mut self, block: &NewBlock, room: Room) -> rusqlite::Result<()> {
        self.totals.last_block += 1;
        let insert =
            "INSERT INTO block (id, rule, first_seq, last_seq, rows, data, priority, now_ns, expires_ns)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let NewBlock { rule, delivery, first_seq, last_seq, rows, now_ns, data } = block;
        let (id, priority) = (signed(self.totals.last_block), delivery.priority.get());
        let values = params![
            id,
            &**rule,
            signed(*first_seq),
            signed(*last_seq),
            signed(*rows),
            data,
            priority,
            now_ns,
            room.expires_ns(block)
        ];
        self.tx.prepare_cached(insert)?.execute(values)?;
        self.rule_sizes.add(rule, data.len() as u64);
        self.totals.waiting += rows;
        self.totals.bytes += data.len() as u64;
        Ok(())
    }

    /// Copies blocks to `refused` and makes room there. Returns how many rows had to go for that.
    fn refuse(&mut self, refused: &BTreeMap<(u64, Option<Arc<str>>), String>) -> rusqlite::Result<u64> {
        if refused.is_empty() {
            return Ok(0);
        }
        for ((id, _), reason) in refused {
            let copy =
                "INSERT OR REPLACE INTO refused (id, rule, first_seq, last_seq, rows, reason, wall_ns, data)
                SELECT id, rule, first_seq, last_seq, rows, ?2, ?3, data FROM block WHERE id = ?1";
            self.tx.prepare(copy)?.execute(params![signed(*id), reason, self.wall_ns])?;
        }
        let mut size: u64 =
            self.tx.query_row("SELECT coalesce(sum(length(data)), 0) FROM refused", [], |row| row.get(0))?;
        let mut forgotten = 0;
        while size > MAX_REFUSED {
            let delete = "DELETE FROM refused WHERE id = (SELECT min(id) FROM refused) RETURNING id, rule, \
                first_seq, last_seq, rows, length(data)";
            let Some(gone) = self.tx.prepare(delete)?.query_row([], Gone::read).optional()? else { break };
            self.gap(&gone.gap("refused"), "")?;
            size = size.saturating_sub(gone.size);
            forgotten += gone.rows;
        }
        Ok(forgotten)
    }

    /// Notes a gap for the uplinks `missed_by` (a list with commas; empty: all that take the rule's rows):
    /// widens the newest one of the same rule, reason and uplinks, so that the table stays small however long
    /// an uplink is away.
    pub(super) fn gap(&mut self, gap: &NewGap, missed_by: &str) -> rusqlite::Result<()> {
        let NewGap { rule, first_seq, last_seq, rows, reason } = gap;
        let widen = "UPDATE gap SET first_seq = min(first_seq, ?4), last_seq = max(last_seq, ?5), rows = \
            rows + ?6, wall_ns = ?7
            WHERE id = (SELECT max(id) FROM gap WHERE id > ?1 AND rule = ?2 AND reason = ?3 AND uplinks = \
            ?8)";
        let (first_seq, last_seq, rows) = (signed(*first_seq), signed(*last_seq), signed(*rows));
        let values = params![
            signed(self.gaps_fetched),
            &**rule,
            reason,
            first_seq,
            last_seq,
            rows,
            self.wall_ns,
            missed_by
        ];
        if self.tx.prepare(widen)?.execute(values)? > 0 {
            return Ok(());
        }
        self.totals.last_gap += 1;
        let insert = "INSERT INTO gap (id, rule, reason, first_seq, last_seq, rows, wall_ns, uplinks) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![
            signed(self.totals.last_gap),
            &**rule,
            reason,
            first_seq,
            last_seq,
            rows,
            self.wall_ns,
            missed_by
        ];
        self.tx.prepare(insert)?.execute(values).map(drop)
    }
}

fn of_uplink((id, uplink): &(u64, Option<Arc<str>>)) -> (&u64, Option<&Arc<str>>) {
    (id, uplink.as_ref())
}
