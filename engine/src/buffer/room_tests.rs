//! Full buffers and full rules: who makes room, and that nothing goes without a word.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidegate_core::{ByteSize, Outcome, Seqs};
use tidegate_rules::{Priority, WhenFull};

use super::tests::{OnThread, UPLINK, acked, rows, settings, wait};
use super::*;

/// About 4 KiB, since the values are as good as random.
const ROWS: usize = 400;

struct Stage {
    dir: tempfile::TempDir,
    buffer: OnThread,
    status: Arc<OutboxStatus>,
    next_seq: u64,
    /// by rule: the numbers of all rows that were appended
    appended: BTreeMap<&'static str, BTreeSet<u64>>,
}

/// A block as the file has it.
#[derive(Debug, Clone)]
struct Found {
    id: u64,
    rule: String,
    bytes: u64,
    priority: u8,
    seqs: std::ops::RangeInclusive<u64>,
}

fn delivery(priority: u8, max_size: Option<u64>, when_full: Option<WhenFull>) -> DeliveryPolicy {
    DeliveryPolicy {
        priority: priority.try_into().unwrap(),
        max_size: max_size.map(ByteSize),
        when_full,
        ttl: None,
    }
}

impl Stage {
    fn new(max_size: u64, reserve: u64, when_full: WhenFull) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (max_size, reserve) = (ByteSize(max_size), ByteSize(reserve));
        let status: Arc<OutboxStatus> = Arc::default();
        let buffer = OnThread::open(
            &config::Buffer { max_size, reserve, when_full, ..settings(&dir) },
            Arc::clone(&status),
        )
        .unwrap();
        Self { dir, buffer, status, next_seq: 0, appended: BTreeMap::new() }
    }

    /// Appends one block of `n` rows, and waits until it is dealt with.
    fn store_rows(&mut self, rule: &'static str, delivery: DeliveryPolicy, n: usize) {
        let (ack, told) = acked();
        self.buffer
            .append(vec![OutboxRows { rule: rule.into(), delivery, ..rows(self.next_seq, n, ack) }])
            .unwrap();
        assert_eq!(told.recv().unwrap(), Outcome::Done);
        let end = self.next_seq + n as u64;
        self.appended.entry(rule).or_default().extend(self.next_seq..end);
        self.next_seq = end;
    }

    fn store(&mut self, rule: &'static str, delivery: DeliveryPolicy) {
        self.store_rows(rule, delivery, ROWS);
    }

    fn found(&self) -> Vec<Found> {
        let raw = rusqlite::Connection::open(self.dir.path().join("box.db")).unwrap();
        let mut select = raw
            .prepare("SELECT id, rule, length(data), priority, first_seq, last_seq FROM block ORDER BY id")
            .unwrap();
        let found = select.query_map([], |row| {
            let seqs = row.get(4)?..=row.get(5)?;
            Ok(Found { id: row.get(0)?, rule: row.get(1)?, bytes: row.get(2)?, priority: row.get(3)?, seqs })
        });
        found.unwrap().map(Result::unwrap).collect()
    }

    /// The rules of what waits, in order, each with how many blocks were appended before it.
    fn kept(&self) -> Vec<(String, u64)> {
        self.found().into_iter().map(|found| (found.rule, found.seqs.start() / ROWS as u64)).collect()
    }

    /// Rule, reason and number of rows.
    fn gaps(&self) -> Vec<(String, String, u64)> {
        let gaps = wait(self.buffer.outbox(UPLINK).fetch_gaps(1000)).unwrap();
        gaps.into_iter().map(|gap| (gap.rule.to_string(), gap.reason, gap.rows)).collect()
    }

    /// Every row waits or is in a gap of its rule, and the gaps count exactly those that do not wait.
    fn nothing_is_missing(&self) -> Result<(), TestCaseError> {
        let found = self.found();
        let gaps = wait(self.buffer.outbox(UPLINK).fetch_gaps(1000)).unwrap();
        let mut all = 0;
        for (rule, appended) in &self.appended {
            let waits = |seq: &u64| found.iter().any(|block| block.rule == *rule && block.seqs.contains(seq));
            let lost: Vec<u64> = appended.iter().filter(|seq| !waits(seq)).copied().collect();
            let of_rule: Vec<&Gap> = gaps.iter().filter(|gap| &*gap.rule == *rule).collect();
            prop_assert_eq!(of_rule.iter().map(|gap| gap.rows).sum::<u64>(), lost.len() as u64, "{}", rule);
            let told = |seq: &u64| of_rule.iter().any(|gap| (gap.first_seq..=gap.last_seq).contains(seq));
            prop_assert!(lost.iter().all(told), "{rule}: {lost:?}");
            all += lost.len() as u64;
        }
        prop_assert_eq!(self.status.dropped.get(), all);
        Ok(())
    }
}

#[test]
fn rows_of_lower_priority_make_room_first_and_those_of_higher_priority_never_do() {
    let mut stage = Stage::new(18_000, 0, WhenFull::DropOldest);
    stage.store("usual", delivery(5, None, None));
    stage.store("low", delivery(2, None, None));
    stage.store("high", delivery(9, None, None));
    stage.store("usual", delivery(5, None, None));
    let of = |rule: &str, block| (rule.to_owned(), block);
    assert_eq!(stage.kept(), [of("usual", 0), of("low", 1), of("high", 2), of("usual", 3)]);
    stage.store("usual", delivery(5, None, None));
    assert_eq!(stage.kept(), [of("usual", 0), of("high", 2), of("usual", 3), of("usual", 4)]);
    // All that is left is worth more than this.
    stage.store("low", delivery(2, None, None));
    assert_eq!(stage.kept(), [of("usual", 0), of("high", 2), of("usual", 3), of("usual", 4)]);
    (0..3).for_each(|_| stage.store("high", delivery(9, None, None)));
    assert_eq!(stage.kept(), [of("high", 2), of("high", 6), of("high", 7), of("high", 8)]);
    stage.store("high", delivery(9, None, None));
    assert_eq!(stage.kept(), [of("high", 6), of("high", 7), of("high", 8), of("high", 9)]);
    let full = |rule: &str, blocks: u64| (rule.to_owned(), "buffer full".to_owned(), blocks * ROWS as u64);
    assert_eq!(stage.gaps(), [full("low", 2), full("usual", 3), full("high", 1)]);
    stage.nothing_is_missing().unwrap();
}

#[test]
fn new_rows_are_dropped_themselves_where_that_is_configured() {
    let mut stage = Stage::new(9_000, 0, WhenFull::DropNewest);
    (0..4).for_each(|_| stage.store("r", delivery(5, None, None)));
    stage.store("alarm", delivery(6, None, None));
    let kept: Vec<_> = stage.kept().into_iter().map(|(rule, block)| format!("{rule} {block}")).collect();
    assert_eq!(kept, ["r 1", "alarm 4"]);
    assert_eq!(stage.status.committed.get(), 3 * ROWS as u64);
    stage.nothing_is_missing().unwrap();
}

#[test]
fn thinning_out_keeps_every_second_block_and_the_newest() {
    let mut stage = Stage::new(35_000, 0, WhenFull::ThinOut);
    (0..8).for_each(|_| stage.store("r", delivery(5, None, None)));
    assert_eq!(stage.kept().len(), 8);
    stage.store("r", delivery(5, None, None));
    assert_eq!(stage.kept().iter().map(|(_, block)| *block).collect::<Vec<_>>(), [1, 3, 5, 7, 8]);
    assert_eq!(stage.gaps(), [("r".to_owned(), "thinned out".to_owned(), 4 * ROWS as u64)]);
    stage.nothing_is_missing().unwrap();
}

#[test]
fn a_rules_own_limit_holds_only_its_own_rows_and_its_own_policy() {
    let mut stage = Stage::new(1 << 20, 0, WhenFull::Block);
    let small = delivery(5, Some(9_000), Some(WhenFull::DropOldest));
    for _ in 0..3 {
        stage.store("other", delivery(1, None, None));
        stage.store("small", small);
    }
    let kept: Vec<_> = stage.kept().into_iter().map(|(rule, block)| format!("{rule} {block}")).collect();
    assert_eq!(kept, ["other 0", "other 2", "small 3", "other 4", "small 5"]);
    assert_eq!(stage.gaps(), [("small".to_owned(), "rule full".to_owned(), ROWS as u64)]);
    // What is delivered makes room.
    wait(stage.buffer.outbox(UPLINK).confirm(vec![4])).unwrap();
    stage.store("small", small);
    assert_eq!(stage.kept().iter().filter(|(rule, _)| rule == "small").count(), 2);
}

#[test]
fn a_rule_that_blocks_waits_for_its_own_limit() {
    let mut stage = Stage::new(1 << 20, 0, WhenFull::DropOldest);
    let small = delivery(5, Some(5_000), Some(WhenFull::Block));
    stage.store("small", small);
    let (ack, told) = acked();
    stage
        .buffer
        .append(vec![OutboxRows { rule: "small".into(), delivery: small, ..rows(10_000, ROWS, ack) }])
        .unwrap();
    assert_eq!(stage.kept().len(), 1);
    assert!(told.try_recv().is_err());
    wait(stage.buffer.outbox(UPLINK).confirm(vec![1])).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
    assert_eq!(stage.found().iter().map(|found| found.id).collect::<Vec<_>>(), [2]);
}

#[test]
fn the_reserve_is_only_for_alarms() {
    let mut stage = Stage::new(18_000, 9_000, WhenFull::DropOldest);
    (0..4).for_each(|_| stage.store("usual", delivery(7, None, None)));
    assert_eq!(stage.kept().len(), 2);
    (0..2).for_each(|_| stage.store("alarm", delivery(8, None, None)));
    assert_eq!(stage.kept().iter().filter(|(rule, _)| rule == "alarm").count(), 2);
    assert_eq!(stage.kept().len(), 4);
    stage.nothing_is_missing().unwrap();
}

/// Queues a block of rows without waiting for it.
fn queue(stage: &mut Stage, rule: &str, delivery: DeliveryPolicy) -> std::sync::mpsc::Receiver<Outcome> {
    let (ack, told) = acked();
    stage
        .buffer
        .append(vec![OutboxRows { rule: rule.into(), delivery, ..rows(stage.next_seq, ROWS, ack) }])
        .unwrap();
    stage.next_seq += ROWS as u64;
    told
}

#[test]
fn alarms_and_the_journal_do_not_wait_behind_rows_for_which_there_is_no_room() {
    let mut stage = Stage::new(18_000, 9_000, WhenFull::Block);
    (0..2).for_each(|_| stage.store("usual", delivery(5, None, None)));
    let waiting: Vec<_> = (0..3).map(|_| queue(&mut stage, "usual", delivery(7, None, None))).collect();
    stage.store("alarm", delivery(8, None, None));
    stage.store("fire", delivery(9, None, None));
    let (ack, journaled) = acked();
    let batch = rows(0, 1, Ack::none()).rows.batch;
    let step = JournalStep::Rows {
        stream: "s".into(),
        rows: Rows { batch, seqs: Seqs::Run { first: 0 } },
        marks: Vec::new(),
        ack,
    };
    stage.buffer.journal(JournalEntry { id: 1, now_ns: 1, wall_ns: 1, step }).unwrap();
    assert_eq!(journaled.recv().unwrap(), Outcome::Done);
    assert!(waiting.iter().all(|told| told.try_recv().is_err()));
    // Both limits are reached: now alarms wait too.
    let alarm = queue(&mut stage, "alarm", delivery(8, None, None));
    assert_eq!(
        stage.kept().into_iter().map(|(rule, _)| rule).collect::<Vec<_>>(),
        ["usual", "usual", "alarm", "fire"]
    );
    wait(stage.buffer.outbox(UPLINK).confirm(vec![3])).unwrap();
    assert_eq!(alarm.recv().unwrap(), Outcome::Done);
    assert!(waiting.iter().all(|told| told.try_recv().is_err()));
    wait(stage.buffer.outbox(UPLINK).confirm(vec![1, 2, 4, 5])).unwrap();
    assert!(waiting.iter().take(1).all(|told| told.recv().unwrap() == Outcome::Done));
    let more = wait(stage.buffer.outbox(UPLINK).fetch(5, u64::MAX, 10)).unwrap();
    wait(stage.buffer.outbox(UPLINK).confirm(more.iter().map(|block| block.id).collect())).unwrap();
    assert!(waiting.iter().skip(1).all(|told| told.recv().unwrap() == Outcome::Done));
    assert_eq!(stage.status.dropped.get(), 0);
}

#[test]
fn no_row_passes_an_older_one_of_its_own_rule() {
    let mut stage = Stage::new(18_000, 9_000, WhenFull::Block);
    (0..2).for_each(|_| stage.store("usual", delivery(5, None, None)));
    let older = queue(&mut stage, "r", delivery(5, None, None));
    // Its new version is worth more.
    let newer = queue(&mut stage, "r", delivery(9, None, None));
    stage.store("alarm", delivery(9, None, None));
    assert!(older.try_recv().is_err() && newer.try_recv().is_err());
    wait(stage.buffer.outbox(UPLINK).confirm(vec![1, 2, 3])).unwrap();
    assert_eq!((older.recv().unwrap(), newer.recv().unwrap()), (Outcome::Done, Outcome::Done));
    let seqs: Vec<u64> = stage.found().iter().map(|found| *found.seqs.start()).collect();
    assert!(seqs.is_sorted() && seqs.len() == 2, "{seqs:?}");
}

#[test]
fn a_backlog_is_fetched_by_priority() {
    let mut stage = Stage::new(1 << 20, 0, WhenFull::Block);
    for priority in [5, 9, 2, 5, 9] {
        stage.store("r", delivery(priority, None, None));
    }
    let fetch = |priority| {
        let blocks = wait(stage.buffer.outbox(UPLINK).fetch_of(Some(priority), 0, u64::MAX, 10)).unwrap();
        blocks.into_iter().map(|block| block.id).collect::<Vec<_>>()
    };
    assert_eq!(Priority::ALL.map(fetch).concat(), [2, 5, 1, 4, 3]);
}

const RULES: [&str; 4] = ["a", "b", "c", "d"];

fn policy() -> impl Strategy<Value = WhenFull> {
    prop::sample::select(vec![WhenFull::DropOldest, WhenFull::DropNewest, WhenFull::ThinOut])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Without `block`, which waits for ever when nothing is delivered.
    #[test]
    fn limits_and_priorities_hold_and_nothing_goes_without_a_gap(
        max_blocks in 1..8_u64,
        reserve_blocks in 0..3_u64,
        when_full in policy(),
        policies in prop::collection::vec((0..=9_u8, prop::option::of(1..4_u64), prop::option::of(policy())), 4),
        acts in prop::collection::vec((0..4_usize, 1..2 * ROWS, any::<bool>()), 1..40),
    ) {
        let block = 4_400;
        let (max, reserve) = ((max_blocks + reserve_blocks) * block, reserve_blocks * block);
        let mut stage = Stage::new(max, reserve, when_full);
        let policies: Vec<DeliveryPolicy> =
            policies.into_iter().map(|(priority, blocks, own)| delivery(priority, blocks.map(|blocks| blocks * block), own)).collect();
        for (rule, n, confirm) in acts {
            let before = stage.found();
            stage.store_rows(RULES[rule], policies[rule], n);
            let after = stage.found();
            // A block that is alone may be larger than any limit.
            let sum = |blocks: &[&Found]| blocks.iter().map(|found| found.bytes).sum::<u64>();
            let all: Vec<&Found> = after.iter().collect();
            prop_assert!(all.len() <= 1 || sum(&all) <= max);
            let usual: Vec<&Found> = all.iter().copied().filter(|found| found.priority < 8).collect();
            prop_assert!(usual.len() <= 1 || sum(&usual) <= max - reserve, "the reserve was used");
            for (rule, delivery) in RULES.iter().zip(&policies) {
                let of_rule: Vec<&Found> = all.iter().copied().filter(|found| found.rule == **rule).collect();
                prop_assert!(
                    of_rule.len() <= 1 || delivery.max_size.is_none_or(|limit| sum(&of_rule) <= limit.0),
                    "{} is too large",
                    rule,
                );
            }
            // Whoever had to go for others was of the least priority that there was, and not above the
            // newcomer.
            let newcomer = policies[rule].priority.get();
            let gone: Vec<&Found> = before.iter().filter(|found| !after.iter().any(|left| left.id == found.id)).collect();
            for found in gone.iter().filter(|found| found.rule != RULES[rule]) {
                prop_assert!(found.priority <= newcomer);
                prop_assert!(after.iter().all(|left| left.priority >= found.priority), "{found:?} went, and \
                    lower ones stayed");
            }
            if confirm && let Some(oldest) = after.first() {
                wait(stage.buffer.outbox(UPLINK).confirm(vec![oldest.id])).unwrap();
                let last = stage.appended.get_mut(RULES.iter().find(|rule| **rule == oldest.rule).unwrap()).unwrap();
                last.retain(|seq| !oldest.seqs.contains(seq));
                // It is gone when the next commit has been made.
                while stage.found().iter().any(|found| found.id == oldest.id) {
                    wait(stage.buffer.outbox(UPLINK).fetch(0, 0, 1)).unwrap();
                }
            }
            stage.nothing_is_missing()?;
        }
    }
}
