//! What one commit takes from the queue, and how it is packed into blocks.
//!
//! Alarms, which are rows of priority 8 and 9, are committed apart from the rest, so that they find room when
//! the rest has to wait. They pass what waits, and so does the journal; but no row passes an older one of its
//! own rule.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidegate_core::Ack;
use tidegate_rules::DeliveryPolicy;
use tokio::time::Instant;

use super::changes::NewBlock;
use super::journal::{JournalEntry, JournalStep, Snapshot, SnapshotPart};
use super::{OutboxRows, block};

/// What one commit takes, so that memory and the write-ahead log stay small. A larger append makes a group of
/// its own.
const GROUP_ROWS: usize = 65_536;
const GROUP_BYTES: usize = 16 << 20;
/// What one block takes: enough to compress well, and little to read again for one row. A larger row makes a
/// block of its own.
const BLOCK_ROWS: usize = 8_192;
/// A row is seldom smaller.
const ROW_BYTES: usize = 128;
const BLOCK_BYTES: usize = 4 << 20;

/// What can be appended.
pub(super) enum Append {
    /// All that one entry of the sequence led to on one worker: it is committed together, or `progress` would
    /// be wrong.
    Outbox(Vec<OutboxRows>),
    Journal(JournalEntry),
    Snapshot(Snapshot),
    Part(SnapshotPart),
}

/// An append whose acks are refused unless it was committed, however it ends.
pub(super) struct Held {
    pub(super) append: Append,
    committed: bool,
}

impl Held {
    pub(super) fn new(append: Append) -> Self {
        Self { append, committed: false }
    }

    /// Rows for the outbox.
    pub(super) fn outbox(&self) -> &[OutboxRows] {
        if let Append::Outbox(rows) = &self.append { rows } else { &[] }
    }

    /// How many rows there are, and bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let of = |rows: &tidegate_core::Rows| (rows.len(), rows.batch.get_array_memory_size());
        match &self.append {
            Append::Outbox(rows) => {
                rows.iter().map(|rows| of(&rows.rows)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
            }
            Append::Journal(JournalEntry { step: JournalStep::Rows { rows, .. }, .. }) => of(rows),
            Append::Journal(JournalEntry {
                step: JournalStep::Edit { content: Some(content), .. }, ..
            }) => (0, content.bytes().len()),
            Append::Journal(_) | Append::Snapshot(_) | Append::Part(_) => (0, 0),
        }
    }

    /// What it takes of the queue: rows; of a step without any one, or as many as there could be in the bytes
    /// that come with it.
    pub(super) fn rows(&self) -> usize {
        match (&self.append, self.size()) {
            (Append::Journal(_), (0, bytes)) => 1 + bytes / ROW_BYTES,
            (_, (rows, _)) => rows,
        }
    }

    /// The disk refuses: messages that need not wait for it are acknowledged.
    pub(super) fn go_on(&mut self) {
        let let_go = |ack: &mut Ack| {
            if !ack.holds() {
                drop(std::mem::take(ack));
            }
        };
        match &mut self.append {
            Append::Outbox(rows) => rows.iter_mut().for_each(|rows| let_go(&mut rows.ack)),
            Append::Journal(JournalEntry { step: JournalStep::Rows { ack, .. }, .. }) => let_go(ack),
            Append::Journal(_) | Append::Snapshot(_) | Append::Part(_) => {}
        }
    }

    /// The rows are on disk, or dealt with in another way.
    pub(super) fn release(mut self) {
        self.committed = true;
    }

    pub(super) fn is_snapshot(&self) -> bool {
        matches!(self.append, Append::Snapshot(_) | Append::Part(_))
    }

    /// Whether it is a snapshot from which the journal goes on.
    fn mends(&self) -> bool {
        matches!(&self.append, Append::Snapshot(snapshot) if snapshot.mends)
    }

    /// Takes the alarms out, but for those of rules of which older rows wait.
    fn take_alarms(&mut self, waiting: &HashSet<Arc<str>>) -> Option<Self> {
        let Append::Outbox(rows) = &mut self.append else { return None };
        let passes =
            |rows: &mut OutboxRows| rows.delivery.priority.may_use_reserve() && !waiting.contains(&rows.rule);
        let alarms: Vec<_> = rows.extract_if(.., passes).collect();
        (!alarms.is_empty()).then(|| Self::new(Append::Outbox(alarms)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        match &self.append {
            Append::Outbox(rows) => rows.iter().for_each(|rows| rows.ack.refuse()),
            Append::Journal(JournalEntry { step: JournalStep::Rows { ack, .. }, .. }) => ack.refuse(),
            Append::Journal(_) | Append::Snapshot(_) | Append::Part(_) => {}
        }
    }
}

/// What was taken from the queue and is not packed yet, in order.
#[derive(Default)]
pub(super) struct Gathered {
    appends: Vec<Held>,
    rows: usize,
    bytes: usize,
    /// when the first came that was not looked at yet
    since: Option<Instant>,
    has_alarms: bool,
    /// A snapshot from which the journal goes on, and how many of its parts are missing: what lies behind it
    /// waits for them.
    mending: Option<(u64, usize)>,
}

impl Gathered {
    pub(super) fn push(&mut self, mut held: Held, now: Instant) {
        match &mut held.append {
            Append::Snapshot(snapshot) => {
                // The newer one says it all.
                snapshot.mends |= self.appends.iter().any(Held::mends);
                self.appends.retain(|held| !held.is_snapshot());
                self.mending =
                    (snapshot.mends && snapshot.parts > 0).then_some((snapshot.number, snapshot.parts));
            }
            Append::Part(part) => {
                if let Some((number, missing)) = &mut self.mending
                    && *number == part.number
                {
                    *missing -= 1;
                }
                self.mending.take_if(|(_, missing)| *missing == 0);
            }
            Append::Outbox(_) | Append::Journal(_) => {}
        }
        let (rows, bytes) = held.size();
        (self.rows, self.bytes) = (self.rows + rows, self.bytes + bytes);
        self.has_alarms |= held.outbox().iter().any(|rows| rows.delivery.priority.may_use_reserve());
        self.since.get_or_insert(now);
        self.appends.push(held);
    }

    /// Whether it is enough for one commit. The parts of a snapshot that is waited for come within a few
    /// entries.
    pub(super) fn is_full(&self) -> bool {
        !self.is_mending() && (self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES)
    }

    /// Whether nothing can be committed before more has come.
    pub(super) fn is_mending(&self) -> bool {
        self.mending.is_some()
    }

    /// No more will come. Takes out what must not be stored without the snapshot.
    pub(super) fn give_up_mending(&mut self) -> Vec<Held> {
        let at = self.mending.take().and_then(|_| self.appends.iter().position(Held::mends));
        at.map_or_else(Vec::new, |at| self.appends.split_off(at))
    }

    /// All of it.
    pub(super) fn appends(&mut self) -> impl Iterator<Item = &mut Held> {
        self.appends.iter_mut()
    }

    /// When it is to be committed, if rows are collected for `every`. Alarms are not kept waiting.
    pub(super) fn due(&self, every: Duration) -> Option<Instant> {
        let since = self.since.filter(|_| !self.is_mending())?;
        Some(if self.has_alarms || self.is_full() { since } else { since + every })
    }

    /// What was passed by others can be committed now.
    pub(super) fn make_due(&mut self, now: Instant) {
        if !self.appends.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Takes alarms, and apart from them the rest; while something is `waiting`, of the rest only the
    /// journal.
    pub(super) fn take(&mut self, waiting: &[Held]) -> (Vec<Held>, Vec<Held>) {
        let rules = |held: &Held| held.outbox().iter().map(|rows| Arc::clone(&rows.rule)).collect::<Vec<_>>();
        let mut waiting_rules: HashSet<Arc<str>> = waiting.iter().flat_map(rules).collect();
        let (mut alarms, mut rest) = (Vec::new(), Vec::new());
        let mut behind = false;
        for mut held in std::mem::take(self).appends {
            // A snapshot has to wait, and with it what must not be stored before it.
            behind |= !waiting.is_empty() && held.mends();
            if !behind {
                alarms.extend(held.take_alarms(&waiting_rules));
            }
            waiting_rules.extend(rules(&held));
            if !behind && (waiting.is_empty() || matches!(held.append, Append::Journal(_))) {
                rest.push(held);
            } else if !matches!(&held.append, Append::Outbox(rows) if rows.is_empty()) {
                let (rows, bytes) = held.size();
                (self.rows, self.bytes) = (self.rows + rows, self.bytes + bytes);
                self.appends.push(held);
            }
        }
        (alarms, rest)
    }
}

/// Rows that could not be packed.
pub(super) struct Unpackable {
    /// index of what they came with
    pub(super) index: usize,
    pub(super) rows: u64,
    pub(super) error: ArrowError,
}

/// A block that still takes rows.
struct Open {
    rule: Arc<str>,
    delivery: DeliveryPolicy,
    /// with the index of what each came with
    parts: Vec<(usize, RecordBatch)>,
    rows: usize,
    bytes: usize,
    /// of the newest part
    now_ns: i64,
}

impl Open {
    /// How many rows of `row_bytes` bytes still fit.
    fn room(&self, row_bytes: usize) -> usize {
        (BLOCK_ROWS.saturating_sub(self.rows)).min(BLOCK_BYTES.saturating_sub(self.bytes) / row_bytes)
    }
}

/// Packs rows into blocks, in order for each rule. What `encode` cannot pack comes back without harm to the
/// rest.
pub(super) fn pack<R: Borrow<OutboxRows>>(
    outbox: &[R],
    encode: impl Fn(&[RecordBatch]) -> Result<Vec<u8>, ArrowError>,
) -> (Vec<NewBlock>, Vec<Unpackable>) {
    let (mut blocks, mut bad) = (Vec::new(), Vec::new());
    let mut open: Vec<Open> = Vec::new();
    let mut newest: HashMap<&str, usize> = HashMap::new();
    for (index, OutboxRows { rule, rows, ordinals, delivery, now_ns, .. }) in
        outbox.iter().map(Borrow::borrow).enumerate()
    {
        let delivery = *delivery;
        let batch = match block::with_ids(rows, ordinals) {
            Ok(batch) => batch,
            Err(error) => {
                bad.push(Unpackable { index, rows: rows.len() as u64, error });
                continue;
            }
        };
        let row_bytes = (block::bytes(&batch) / batch.num_rows().max(1)).max(1);
        let mut offset = 0;
        while offset < batch.num_rows() {
            let left = batch.num_rows() - offset;
            let fits = |open: &Open| {
                open.room(row_bytes) > 0
                    && open.delivery == delivery
                    && open.parts.first().is_some_and(|(_, part)| part.schema_ref() == batch.schema_ref())
            };
            let at = match newest.get(&**rule) {
                Some(at) if open.get(*at).is_some_and(fits) => *at,
                _ => {
                    newest.insert(rule, open.len());
                    open.push(Open {
                        rule: Arc::clone(rule),
                        delivery,
                        parts: Vec::new(),
                        rows: 0,
                        bytes: 0,
                        now_ns: 0,
                    });
                    open.len() - 1
                }
            };
            let Some(into) = open.get_mut(at) else { break };
            let take = left.min(into.room(row_bytes)).max(1);
            into.parts.push((index, batch.slice(offset, take)));
            into.rows += take;
            into.bytes += take * row_bytes;
            into.now_ns = into.now_ns.max(*now_ns);
            offset += take;
        }
    }
    for Open { rule, delivery, parts, now_ns, .. } in open {
        let (owners, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let mut add = |parts: &[RecordBatch]| {
            let data = encode(parts)?;
            let (first_seq, last_seq) = block::seq_range(parts);
            let rows = parts.iter().map(|part| part.num_rows() as u64).sum();
            blocks.push(NewBlock {
                rule: Arc::clone(&rule),
                delivery,
                first_seq,
                last_seq,
                rows,
                now_ns,
                data,
            });
            Ok(())
        };
        if add(&parts).is_err() {
            // One of them is to blame.
            for (index, part) in owners.into_iter().zip(&parts) {
                if let Err(error) = add(std::slice::from_ref(part)) {
                    bad.push(Unpackable { index, rows: part.num_rows() as u64, error });
                }
            }
        }
    }
    (blocks, bad)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use arrow::array::StringArray;
    use tidegate_core::{Rows, Seqs};

    fn held(rule: &str, first: u64, texts: &[String]) -> OutboxRows {
        let batch =
            RecordBatch::try_from_iter([("v", Arc::new(StringArray::from_iter_values(texts)) as _)]).unwrap();
        let ordinals = vec![0; batch.num_rows()];
        OutboxRows {
            rule: rule.into(),
            rows: Rows { batch, seqs: Seqs::Run { first } },
            ordinals,
            delivery: DeliveryPolicy::default(),
            now_ns: 1,
            ack: Ack::none(),
        }
    }

    fn ranges(blocks: &[NewBlock]) -> Vec<(&str, u64, u64, u64)> {
        blocks.iter().map(|b| (&*b.rule, b.first_seq, b.last_seq, b.rows)).collect()
    }

    #[test]
    fn appends_of_one_rule_share_a_block_and_rules_do_not() {
        let one = ["x".to_owned()];
        let (blocks, bad) =
            pack(&[held("a", 1, &one), held("b", 2, &one), held("a", 3, &one)], block::encode);
        assert_eq!(ranges(&blocks), [("a", 1, 3, 2), ("b", 2, 2, 1)]);
        assert!(bad.is_empty());
    }

    #[test]
    fn blocks_are_bounded_by_rows_and_by_bytes_and_a_row_is_never_cut() {
        let (blocks, _) = pack(&[held("a", 0, &vec![String::new(); 10_000])], block::encode);
        assert_eq!(ranges(&blocks), [("a", 0, 8_191, 8_192), ("a", 8_192, 9_999, 1_808)]);
        let large = vec!["x".repeat(BLOCK_BYTES / 2 - 100); 5];
        let (blocks, _) = pack(&[held("a", 0, &large)], block::encode);
        assert_eq!(blocks.iter().map(|b| b.rows).collect::<Vec<_>>(), [2, 2, 1]);
        let (blocks, _) = pack(&[held("a", 0, &vec!["x".repeat(BLOCK_BYTES + 1); 2])], block::encode);
        assert_eq!(blocks.iter().map(|b| b.rows).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn rows_that_cannot_be_packed_leave_the_rest_of_their_rule_alone() {
        let encode = |parts: &[RecordBatch]| {
            let poisoned = |part: &RecordBatch| {
                part.column(0).to_data() == held("", 0, &["bad".into()]).rows.batch.column(0).to_data()
            };
            if parts.iter().any(poisoned) {
                Err(ArrowError::ParseError("no".into()))
            } else {
                block::encode(parts)
            }
        };
        let mut short = held("a", 9, &["x".into()]);
        short.ordinals.clear();
        let group = [
            held("a", 1, &["good".into()]),
            held("a", 2, &["bad".into()]),
            short,
            held("a", 3, &["good".into()]),
        ];
        let (blocks, bad) = pack(&group, encode);
        assert_eq!(ranges(&blocks), [("a", 1, 1, 1), ("a", 3, 3, 1)]);
        let mut bad: Vec<_> = bad.iter().map(|b| (b.index, b.rows)).collect();
        bad.sort_unstable();
        assert_eq!(bad, [(1, 1), (2, 1)]);
    }
}
