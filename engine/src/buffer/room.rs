//! Who makes room for new rows.
//!
//! New rows need room twice: among the rows of their rule, if it has a `max_size`, and in the buffer, of
//! which `reserve` is only for priorities 8 and 9. If there is none, the rule's own `when_full` counts, or
//! else the buffer's:
//!
//! * `block`: they wait, and with them all that is committed together with them;
//! * `drop_oldest`: the oldest block goes;
//! * `drop_newest`: they are dropped themselves;
//! * `thin_out`: every second block goes, so that what is kept of a long outage has its shape at a lower
//!   resolution.
//!
//! Within the rule these are the rule's blocks. In the buffer blocks of the lowest priority go first,
//! whatever they say of themselves, and blocks of a higher priority than the new ones never go: then the new
//! ones are dropped. Where nothing waits, anything is taken: a block that is larger than the limit would have
//! no place at all.
//!
//! Rows that are older than their `ttl`, the rule's own or the buffer's, go even where there is room. Their
//! age is the sequence's time: on a box whose clock is set nothing grows old.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::OptionalExtension;
use tidegate_core::Span;
use tidegate_rules::{DeliveryPolicy, Priority, WhenFull};

use super::changes::{NewBlock, NewGap, Step};

/// Blocks that one transaction drops because they are too old: it stays small.
const EXPIRED_AT_ONCE: u32 = 256;

/// How much room there is, and what happens when there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) max_bytes: u64,
    /// what of that is for priorities 8 and 9 only
    pub(super) reserve: u64,
    pub(super) when_full: WhenFull,
    /// how long rows are worth sending whose rule does not say
    pub(super) ttl: Option<Span>,
}

impl Room {
    fn when_full(self, delivery: DeliveryPolicy) -> WhenFull {
        delivery.when_full.unwrap_or(self.when_full)
    }

    /// The sequence's time from which on a new block is not worth sending any more; 0: never.
    pub(super) fn expires_ns(self, block: &NewBlock) -> i64 {
        let ttl = block.delivery.ttl.or(self.ttl);
        ttl.map_or(0, |ttl| {
            block.now_ns.saturating_add(i64::try_from(ttl.0.as_nanos()).unwrap_or(i64::MAX)).max(1)
        })
    }

    fn limit(self, delivery: DeliveryPolicy) -> u64 {
        if delivery.priority.may_use_reserve() {
            self.max_bytes
        } else {
            self.max_bytes.saturating_sub(self.reserve)
        }
    }

    /// Whether `blocks`, which are stored together, have to wait when `bytes` are in the buffer.
    pub(super) fn must_wait(self, bytes: u64, sizes: &RuleSizes, blocks: &[NewBlock]) -> bool {
        let size = |blocks: &mut dyn Iterator<Item = &NewBlock>| blocks.map(NewBlock::size).sum::<u64>();
        let all = size(&mut blocks.iter());
        let waits = |block: &&NewBlock| {
            let of_rule = || size(&mut blocks.iter().filter(|other| other.rule == block.rule));
            let rule_is_full =
                block.delivery.max_size.is_some_and(|max| is_full(sizes.of(&block.rule), of_rule(), max.0));
            rule_is_full || is_full(bytes, all, self.limit(block.delivery))
        };
        blocks
            .iter()
            .filter(|block| self.when_full(block.delivery) == WhenFull::Block)
            .any(|block| waits(&block))
    }
}

/// Whether `size` more bytes are too many for a place that holds `held`.
fn is_full(held: u64, size: u64, max: u64) -> bool {
    size > 0 && held > 0 && held.saturating_add(size) > max
}

/// Packed bytes that wait, by rule: of those that have a limit, once it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleSizes(HashMap<Arc<str>, u64>);

impl RuleSizes {
    fn of(&self, rule: &str) -> u64 {
        self.0.get(rule).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, rule: &str, size: u64) {
        if let Some(held) = self.0.get_mut(rule) {
            *held += size;
        }
    }

    pub(super) fn sub(&mut self, rule: &str, size: u64) {
        if let Some(held) = self.0.get_mut(rule) {
            *held = held.saturating_sub(size);
        }
    }
}

/// The blocks of one priority, as a condition. The usual one is not in the index: there the others are left
/// out.
pub(super) fn of_priority(priority: Priority) -> String {
    if priority == Priority::default() {
        "id NOT IN (SELECT id FROM block WHERE priority <> 5)".to_owned()
    } else {
        format!("priority <> 5 AND priority = {}", priority.get())
    }
}

impl Step<'_> {
    /// Looks up how much waits of the rules of `blocks`, where that is not known and is going to matter.
    pub(super) fn know_sizes(&mut self, blocks: &[NewBlock]) -> rusqlite::Result<()> {
        for block in blocks.iter().filter(|block| block.delivery.max_size.is_some()) {
            if !self.rule_sizes.0.contains_key(&block.rule) {
                let sum = "SELECT coalesce(sum(length(data)), 0) FROM block WHERE rule = ?1";
                let held = self.tx.prepare_cached(sum)?.query_row([&*block.rule], |row| row.get(0))?;
                self.rule_sizes.0.insert(Arc::clone(&block.rule), held);
            }
        }
        Ok(())
    }

    /// Makes room for `block` and stores it, unless it is the one that has to go. Returns whether it was
    /// stored, and how many rows were dropped.
    pub(super) fn store(&mut self, block: &NewBlock, room: Room) -> rusqlite::Result<(bool, u64)> {
        let (size, delivery, when_full) = (block.size(), block.delivery, room.when_full(block.delivery));
        let mut dropped = 0;
        // What may not be dropped was let in as a whole.
        if when_full != WhenFull::Block {
            while delivery.max_size.is_some_and(|max| is_full(self.rule_sizes.of(&block.rule), size, max.0)) {
                if when_full == WhenFull::DropNewest {
                    return self.leave_out(block, dropped, "rule full");
                }
                match self.drop_of_rule(&block.rule, None, when_full, "rule full")? {
                    0 => break,
                    rows => dropped += rows,
                }
            }
            while is_full(self.totals.bytes, size, room.limit(delivery)) {
                let Some((rule, lowest)) = self.lowest_priority()? else { break };
                if lowest > delivery.priority
                    || (lowest == delivery.priority && when_full == WhenFull::DropNewest)
                {
                    return self.leave_out(block, dropped, "buffer full");
                }
                match self.drop_of_rule(&rule, Some(lowest), when_full, "buffer full")? {
                    0 => break,
                    rows => dropped += rows,
                }
            }
        }
        self.insert(block, room)?;
        Ok((true, dropped))
    }

    /// Drops blocks that are not worth sending any more, the oldest first, and not too many at a time.
    /// Returns how many rows.
    pub(super) fn expire(&mut self) -> rusqlite::Result<u64> {
        let select =
            "SELECT id FROM block WHERE expires_ns > 0 AND expires_ns <= ?1 ORDER BY expires_ns LIMIT ?2";
        let expired: Vec<u64> = {
            let mut select = self.tx.prepare_cached(select)?;
            select
                .query_map((self.now_ns, EXPIRED_AT_ONCE), |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?
        };
        expired.into_iter().try_fold(0, |rows, id| Ok(rows + self.drop_block("id = ?1", id, "expired")?))
    }

    fn leave_out(
        &mut self,
        block: &NewBlock,
        dropped: u64,
        reason: &'static str,
    ) -> rusqlite::Result<(bool, u64)> {
        let NewBlock { rule, first_seq, last_seq, rows, .. } = block;
        self.gap(
            &NewGap {
                rule: Arc::clone(rule),
                first_seq: *first_seq,
                last_seq: *last_seq,
                rows: *rows,
                reason,
            },
            "",
        )?;
        Ok((false, dropped + rows))
    }

    /// The rule of the block that goes first for want of room, and its priority.
    fn lowest_priority(&self) -> rusqlite::Result<Option<(String, Priority)>> {
        let first = |condition: &str| {
            let select = format!("SELECT rule, priority FROM block WHERE {condition} LIMIT 1");
            let found = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, Priority::try_from(row.get::<_, u8>(1)?).unwrap_or_default()))
            };
            self.tx.prepare_cached(&select)?.query_row([], found).optional()
        };
        if let Some(lower) = first("priority <> 5 AND priority < 5 ORDER BY priority, id")? {
            return Ok(Some(lower));
        }
        if let Some(usual) = first(&format!("{} ORDER BY id", of_priority(Priority::default())))? {
            return Ok(Some(usual));
        }
        first("priority <> 5 ORDER BY priority, id")
    }

    /// Drops blocks of `rule`, if given only those of one priority: the oldest, or every second one. At least
    /// one; returns how many rows.
    fn drop_of_rule(
        &mut self,
        rule: &str,
        priority: Option<Priority>,
        when_full: WhenFull,
        reason: &'static str,
    ) -> rusqlite::Result<u64> {
        let condition =
            priority.map_or_else(String::new, |priority| format!(" AND {}", of_priority(priority)));
        let ids = |order: &str| -> rusqlite::Result<Vec<u64>> {
            let select = format!("SELECT id FROM block WHERE rule = ?1{condition} ORDER BY {order}");
            self.tx.prepare_cached(&select)?.query_map([rule], |row| row.get(0))?.collect()
        };
        let oldest = || ids("id LIMIT 1");
        let going = match when_full {
            // The newest stays.
            WhenFull::ThinOut => ids("id DESC")?.into_iter().skip(1).step_by(2).collect(),
            _ => oldest()?,
        };
        let (going, reason) = match when_full {
            WhenFull::ThinOut if going.is_empty() => (oldest()?, reason),
            WhenFull::ThinOut => (going, "thinned out"),
            _ => (going, reason),
        };
        let mut dropped = 0;
        for id in going {
            dropped += self.drop_block("id = ?1", id, reason)?;
        }
        Ok(dropped)
    }
}

impl NewBlock {
    /// Packed bytes.
    pub(super) fn size(&self) -> u64 {
        self.data.len() as u64
    }
}
