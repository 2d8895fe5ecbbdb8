//! Rows that wait, who has confirmed them, and what is known of rows that do not.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rusqlite::{OptionalExtension, Row};
use tidegate_rules::Priority;

use super::super::rows;
use super::{Verifier, cell, in_order};
use crate::buffer::block;
use crate::buffer::uplinks::Uplinks;

/// Identities of one rule that are remembered, when the file is so odd that they do not become fewer by
/// themselves.
const MOST_RECENT: usize = 1 << 20;

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
    /// Rows that wait: each block by itself, and their identities against those before and the rule's
    /// progress.
    pub(super) fn blocks(&mut self) -> rusqlite::Result<()> {
        let (has_journal, has_progress) = (self.has("journal"), self.has("progress"));
        let mut rules: BTreeMap<String, Written> = BTreeMap::new();
        let mut after = i64::MIN;
        // Layouts before the third have no priorities.
        let priority = if self.has("confirmed") { "priority" } else { "5 AS priority" };
        let next = format!(
            "SELECT id, rule, first_seq, last_seq, rows, data, {priority} FROM block WHERE id > ?1 ORDER BY \
            id LIMIT 1"
        );
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
                        return Err(format!(
                            "its row number {last_seq} is beyond the progress of rule `{rule}`, {reached}"
                        ));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        return Err(format!("the progress of rule `{rule}` cannot be read: {error}"));
                    }
                }
                let end_of_entry = |seq: u64| {
                    if has_journal { rows::entry_of(self.conn, seq).ok()?.map(|came| came.end) } else { None }
                };
                rules.entry(rule).or_default().add(&ids, end_of_entry)
            });
            self.note(|| format!("block {id}"), checked);
        }
        Ok(())
    }

    /// Up to which row number the rows of `rule` are in the outbox, or were; not noted for what layout 1
    /// wrote. It only rises, so it may be read later than a block.
    fn progress_of(&self, rule: &str) -> rusqlite::Result<Option<u64>> {
        self.conn
            .prepare_cached("SELECT seq FROM progress WHERE rule = ?1")?
            .query_row([rule], |row| row.get(0))
            .optional()
    }

    /// Who has confirmed what others wait for: uplinks that there are, blocks that there are, and never all
    /// uplinks that take a block.
    pub(super) fn confirmed(&mut self) -> rusqlite::Result<()> {
        let _as_of_now = self.conn.unchecked_transaction()?;
        let uplinks = Uplinks::noted(self.conn)?;
        // After damage nobody has noted them.
        let are_known = uplinks.names().next().is_some();
        let mut select = self.conn.prepare(
            "SELECT confirmed.block, uplink, rule FROM confirmed LEFT JOIN block ON id = confirmed.block \
            ORDER BY confirmed.block, uplink",
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
                    return Err(format!(
                        "block {block} is confirmed by uplink `{uplink}`, which is not there"
                    ));
                }
                if of_block.0.replace(block) != Some(block) {
                    of_block.1.clear();
                }
                of_block.1.insert(uplink);
                if uplinks.takers(&rule).all(|taker| of_block.1.contains(taker)) {
                    return Err(format!(
                        "block {block} is confirmed by all uplinks that take it, and still waits"
                    ));
                }
                Ok(())
            };
            let checked = check();
            self.note(|| "table confirmed".into(), checked);
        }
        Ok(())
    }

    /// Blocks that were put aside. Those that are here because they do not decode need not decode.
    pub(super) fn refused(&mut self) -> rusqlite::Result<()> {
        let next = "SELECT id, rule, first_seq, last_seq, rows, data, reason, wall_ns FROM refused WHERE id \
            > ?1 ORDER BY id LIMIT 1";
        let mut next = self.conn.prepare(next)?;
        let mut after = i64::MIN;
        let read = |row: &Row<'_>| {
            let reason =
                cell::<String>(row, "reason").and_then(|reason| cell::<i64>(row, "wall_ns").map(|_| reason));
            Ok((row.get::<_, i64>(0)?, block_of(row), reason))
        };
        while let Some((id, found, reason)) = next.query_row([after], read).optional()? {
            after = id;
            self.verdict.checked.blocks += 1;
            self.tell("refused blocks", self.verdict.checked.blocks);
            let checked =
                reason.and_then(
                    |reason| if reason.starts_with("damaged:") { Ok(()) } else { found?.ids().map(drop) },
                );
            self.note(|| format!("refused block {id}"), checked);
        }
        Ok(())
    }

    pub(super) fn gaps(&mut self) -> rusqlite::Result<()> {
        let mut select = self
            .conn
            .prepare("SELECT id, rule, reason, first_seq, last_seq, rows, wall_ns FROM gap ORDER BY id")?;
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
}

impl Block {
    /// The identities of its rows.
    fn ids(&self) -> Result<Vec<Id>, String> {
        in_order(self.first_seq, self.last_seq)?;
        let (rows, ordinals) =
            block::decode(&self.data).map_err(|error| format!("does not decode: {error}"))?;
        if rows.len() as u64 != self.rows || rows.is_empty() {
            return Err(format!("`rows` is {}, but it holds {}", self.rows, rows.len()));
        }
        let ids: Vec<Id> =
            ordinals.iter().enumerate().map(|(row, ordinal)| (rows.seqs.get(row), *ordinal)).collect();
        let (first, last) =
            ids.iter().fold((u64::MAX, 0), |(low, high), (seq, _)| (low.min(*seq), high.max(*seq)));
        if (first, last) != (self.first_seq, self.last_seq) {
            return Err(format!(
                "says row numbers {} to {}, but holds {first} to {last}",
                self.first_seq, self.last_seq
            ));
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
    /// Adds the rows of the next block. Row numbers rise from one entry of the sequence to the next; within
    /// one, each statement of the rule begins anew. No identity comes twice. `end_of_entry` knows where the
    /// entry of a row ends, as far as the journal does.
    fn add(&mut self, ids: &[Id], end_of_entry: impl Fn(u64) -> Option<u64>) -> Result<(), String> {
        if self.newest.is_none_or(|newest| ids.first().is_some_and(|first| *first > newest))
            || self.recent.len() > MOST_RECENT
        {
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
                return Err(format!(
                    "its row {} comes after row {}, which is of a later entry",
                    text(*id),
                    text(newest)
                ));
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

fn text((seq, ordinal): Id) -> String {
    format!("{seq}/{ordinal}")
}
