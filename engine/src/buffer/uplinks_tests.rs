//! Several uplinks on one outbox.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use tidegate_core::{ByteSize, Outcome};

use super::tests::{OnThread, acked, rows, settings, wait};
use super::*;
use tidegate_rules::WhenFull;

const ALL: Option<&[&str]> = None;

fn open_with(config: &config::Buffer, uplinks: &[(&str, Option<&[&str]>)]) -> (OnThread, Arc<OutboxStatus>) {
    let status: Arc<OutboxStatus> = Arc::default();
    loop {
        match OnThread::open_for(config, Uplinks::new(uplinks), Arc::clone(&status)) {
            Err(BufferError::InUse(_)) => std::thread::yield_now(),
            other => return (other.unwrap(), status),
        }
    }
}

fn open(dir: &tempfile::TempDir, uplinks: &[(&str, Option<&[&str]>)]) -> (OnThread, Arc<OutboxStatus>) {
    open_with(&settings(dir), uplinks)
}

fn store(buffer: &OnThread, rule: &str, first: u64, n: usize) {
    let (ack, told) = acked();
    buffer.append(vec![OutboxRows { rule: rule.into(), ..rows(first, n, ack) }]).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
}

/// Ids of what waits for `uplink`.
fn waiting(buffer: &OnThread, uplink: &str) -> Vec<u64> {
    wait(buffer.outbox(uplink).fetch(0, u64::MAX, 1000)).unwrap().iter().map(|block| block.id).collect()
}

fn confirm(buffer: &OnThread, uplink: &str, ids: &[u64]) {
    wait(buffer.outbox(uplink).confirm(ids.to_vec())).unwrap();
}

/// Rule and number of rows of the gaps that `uplink` has to be told of.
fn gaps(buffer: &OnThread, uplink: &str) -> Vec<(String, u64)> {
    wait(buffer.outbox(uplink).fetch_gaps(10))
        .unwrap()
        .iter()
        .map(|gap| (gap.rule.to_string(), gap.rows))
        .collect()
}

/// What `select` counts in the closed buffer of `dir`.
fn count(dir: &tempfile::TempDir, select: &str) -> u64 {
    rusqlite::Connection::open(dir.path().join("box.db"))
        .unwrap()
        .query_row(select, [], |row| row.get(0))
        .unwrap()
}

#[test]
fn a_block_stays_until_every_uplink_has_confirmed_it() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir, &[("a", ALL), ("b", ALL), ("c", ALL)]);
    store(&buffer, "r", 0, 5);
    store(&buffer, "r", 5, 5);
    confirm(&buffer, "a", &[1, 2]);
    confirm(&buffer, "b", &[1]);
    confirm(&buffer, "b", &[1]);
    assert_eq!(
        [waiting(&buffer, "a"), waiting(&buffer, "b"), waiting(&buffer, "c")],
        [vec![], vec![2], vec![1, 2]]
    );
    buffer.close();
    assert_eq!((count(&dir, "SELECT count(*) FROM confirmed"), status.waiting.get()), (3, 10));
    let (buffer, status) = open(&dir, &[("a", ALL), ("b", ALL), ("c", ALL)]);
    assert_eq!(
        [waiting(&buffer, "a"), waiting(&buffer, "b"), waiting(&buffer, "c")],
        [vec![], vec![2], vec![1, 2]]
    );
    confirm(&buffer, "c", &[1, 2]);
    confirm(&buffer, "b", &[2]);
    buffer.close();
    assert_eq!(
        (count(&dir, "SELECT count(*) FROM confirmed"), count(&dir, "SELECT count(*) FROM block")),
        (0, 0)
    );
    assert_eq!(status.waiting.get(), 0);
}

#[test]
fn an_uplink_with_rules_gets_what_they_write_and_holds_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir, &[("cloud", ALL), ("historian", Some(&["means", "alarms"]))]);
    store(&buffer, "means", 0, 1);
    store(&buffer, "raw", 1, 1);
    assert_eq!([waiting(&buffer, "cloud"), waiting(&buffer, "historian")], [vec![1, 2], vec![1]]);
    confirm(&buffer, "cloud", &[1, 2]);
    buffer.close();
    assert_eq!((count(&dir, "SELECT count(*) FROM block"), status.waiting.get()), (1, 1));
    assert_eq!(
        waiting(&open(&dir, &[("cloud", ALL), ("historian", Some(&["means", "alarms"]))]).0, "historian"),
        [1]
    );
}

#[test]
fn with_one_uplink_nothing_is_noted_beside_the_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir, &[("cloud", ALL)]);
    store(&buffer, "r", 0, 1);
    store(&buffer, "r", 1, 1);
    confirm(&buffer, "cloud", &[1]);
    buffer.close();
    assert_eq!(
        (count(&dir, "SELECT count(*) FROM confirmed"), count(&dir, "SELECT count(*) FROM block")),
        (0, 1)
    );
}

#[test]
fn an_uplink_that_is_gone_holds_nothing_and_a_new_one_gets_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir, &[("a", ALL), ("b", ALL)]);
    (0..3).for_each(|seq| store(&buffer, "r", seq, 1));
    confirm(&buffer, "a", &[1, 2]);
    confirm(&buffer, "b", &[1, 3]);
    buffer.close();
    // `a` has block 2, so nobody waits for it without `b`.
    let (buffer, status) = open(&dir, &[("a", ALL), ("c", ALL)]);
    assert_eq!([waiting(&buffer, "a"), waiting(&buffer, "c")], [vec![3], vec![2, 3]]);
    assert_eq!((status.waiting.get(), status.dropped.get()), (2, 0));
    buffer.close();
    let (buffer, status) = open(&dir, &[("a", ALL)]);
    assert_eq!(waiting(&buffer, "a"), [3]);
    buffer.close();
    assert_eq!((count(&dir, "SELECT count(*) FROM confirmed"), status.waiting.get()), (0, 1));
    // Without any uplink all stays: it may only be a mistake.
    open(&dir, &[]).0.close();
    assert_eq!(waiting(&open(&dir, &[("a", ALL)]).0, "a"), [3]);
}

#[test]
fn rows_that_no_uplink_takes_any_more_are_dropped_and_leave_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir, &[("a", ALL)]);
    store(&buffer, "means", 0, 3);
    store(&buffer, "raw", 3, 4);
    buffer.close();
    let (buffer, status) = open(&dir, &[("a", Some(&["means"])), ("b", Some(&["means"]))]);
    assert_eq!((waiting(&buffer, "a"), status.dropped.get(), status.waiting.get()), (vec![1], 4, 3));
    // Nobody would have taken them, so all are told.
    assert_eq!(
        (gaps(&buffer, "a"), gaps(&buffer, "b")),
        (vec![("raw".to_owned(), 4)], vec![("raw".to_owned(), 4)])
    );
}

#[test]
fn a_gap_is_told_to_those_who_miss_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Buffer { max_size: ByteSize(1), when_full: WhenFull::DropOldest, ..settings(&dir) };
    let uplinks: [(&str, Option<&[&str]>); 3] = [("a", ALL), ("b", ALL), ("other", Some(&["q"]))];
    let (buffer, status) = open_with(&config, &uplinks);
    store(&buffer, "r", 0, 5);
    store(&buffer, "r", 5, 7); // drops the five
    confirm(&buffer, "a", &[2]);
    store(&buffer, "r", 12, 1); // drops the seven, which `a` has
    let r = |rows| ("r".to_owned(), rows);
    assert_eq!(
        [gaps(&buffer, "a"), gaps(&buffer, "b"), gaps(&buffer, "other")],
        [vec![r(5)], vec![r(5), r(7)], vec![]]
    );
    assert_eq!(status.dropped.get(), 12);
    wait(buffer.outbox("a").confirm_gaps(vec![1])).unwrap();
    assert_eq!([gaps(&buffer, "a"), gaps(&buffer, "b")], [vec![], vec![r(5), r(7)]]);
    buffer.close();
    // `c` takes the place of `b`, and `a` knows already.
    let (buffer, _) = open_with(&config, &[("a", ALL), ("c", ALL)]);
    assert_eq!([gaps(&buffer, "a"), gaps(&buffer, "c")], [vec![], vec![r(5), r(7)]]);
    wait(buffer.outbox("c").confirm_gaps(vec![1, 2])).unwrap();
    buffer.close();
    assert_eq!(count(&dir, "SELECT count(*) FROM gap"), 0);
}

#[test]
fn what_one_uplink_refuses_goes_on_to_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir, &[("a", ALL), ("b", ALL)]);
    store(&buffer, "r", 0, 5);
    wait(buffer.outbox("a").refuse(1, "too large".into())).unwrap();
    assert_eq!([waiting(&buffer, "a"), waiting(&buffer, "b")], [vec![], vec![1]]);
    confirm(&buffer, "b", &[1]);
    buffer.close();
    assert_eq!(count(&dir, "SELECT count(*) FROM refused WHERE reason = 'a: too large'"), 1);
    assert_eq!((count(&dir, "SELECT count(*) FROM block"), status.waiting.get()), (0, 0));
}

#[test]
fn a_block_that_cannot_be_read_is_put_aside_for_all_uplinks() {
    let dir = tempfile::tempdir().unwrap();
    let uplinks: [(&str, Option<&[&str]>); 2] = [("a", ALL), ("b", ALL)];
    let (buffer, _) = open(&dir, &uplinks);
    store(&buffer, "r", 0, 5);
    store(&buffer, "r", 5, 5);
    buffer.close();
    rusqlite::Connection::open(dir.path().join("box.db"))
        .unwrap()
        .execute("UPDATE block SET data = x'00' WHERE id = 1", [])
        .unwrap();
    let (buffer, _) = open(&dir, &uplinks);
    assert_eq!([waiting(&buffer, "a"), waiting(&buffer, "b")], [vec![2], vec![2]]);
    buffer.close();
    assert_eq!(
        (count(&dir, "SELECT count(*) FROM refused"), count(&dir, "SELECT count(*) FROM block")),
        (1, 1)
    );
}

#[test]
fn a_damaged_file_does_not_make_an_uplink_forget_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let uplinks: [(&str, Option<&[&str]>); 2] = [("a", ALL), ("b", ALL)];
    let (buffer, _) = open(&dir, &uplinks);
    (0..40).for_each(|seq| store(&buffer, "r", seq * 100, 100));
    confirm(&buffer, "a", &(1..=40).collect::<Vec<_>>());
    buffer.close();
    let pages = count(&dir, "SELECT max(pageno) FROM dbstat WHERE name = 'block'");
    let file = std::fs::File::options().write(true).open(dir.path().join("box.db")).unwrap();
    file.write_all_at(&[0xA5; database::PAGE as usize], (pages - 1) * u64::from(database::PAGE)).unwrap();
    let (buffer, _) = open(&dir, &uplinks);
    let left = waiting(&buffer, "b");
    assert!(dir.path().join("box.db.corrupt-1").exists());
    assert!(!left.is_empty() && left.len() < 40, "{left:?}");
    assert_eq!(waiting(&buffer, "a"), Vec::<u64>::new());
    buffer.close();
    assert_eq!(count(&dir, "SELECT count(*) FROM confirmed"), left.len() as u64);
}

#[test]
fn a_buffer_of_the_layout_before_goes_on_with_its_rows_and_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Buffer { max_size: ByteSize(1), when_full: WhenFull::DropOldest, ..settings(&dir) };
    let (buffer, _) = open_with(&config, &[("uplink", ALL)]);
    store(&buffer, "r", 0, 5);
    store(&buffer, "r", 5, 7);
    buffer.close();
    let back = "DROP TABLE confirmed; DROP INDEX block_priority; ALTER TABLE block DROP COLUMN priority; \
        ALTER TABLE gap DROP COLUMN uplinks; ALTER TABLE meta DROP COLUMN uplinks; ALTER TABLE meta DROP \
        COLUMN now_ns; ALTER TABLE journal DROP COLUMN now_ns; DROP INDEX block_expires; ALTER TABLE block \
        DROP COLUMN now_ns; ALTER TABLE block DROP COLUMN expires_ns; DROP TABLE clocks; DROP \
        TABLE content; DROP TABLE decision; DROP TABLE decision_basis; DROP TABLE decision_group; ALTER \
        TABLE meta DROP COLUMN decision_bytes; PRAGMA user_version = 2";
    rusqlite::Connection::open(dir.path().join("box.db")).unwrap().execute_batch(back).unwrap();
    let (buffer, _) = open_with(&config, &[("a", ALL), ("b", ALL)]);
    for uplink in ["a", "b"] {
        assert_eq!((waiting(&buffer, uplink), gaps(&buffer, uplink)), (vec![2], vec![("r".to_owned(), 5)]));
    }
}

#[derive(Debug, Clone)]
enum Act {
    Append(&'static str, usize),
    /// by uplink, and position among what waits for it
    Confirm(usize, Vec<usize>),
    Refuse(usize, usize),
    /// which uplinks there are from now on, and what each takes
    Open(Vec<(usize, usize)>),
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const TAKES: [Option<&[&str]>; 4] = [ALL, Some(&["q"]), Some(&["r"]), Some(&["q", "r"])];

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (prop::sample::select(vec!["q", "r", "s"]), 1..4_usize).prop_map(|(rule, n)| Act::Append(rule, n)),
        4 => (0..3_usize, prop::collection::vec(0..5_usize, 0..4)).prop_map(|(uplink, picks)| Act::Confirm(uplink, picks)),
        1 => (0..3_usize, 0..5_usize).prop_map(|(uplink, pick)| Act::Refuse(uplink, pick)),
        2 => prop::collection::vec((0..3_usize, 0..4_usize), 1..4).prop_map(Act::Open),
    ]
}

/// What the buffer should hold: by block, its rule, its rows and who has confirmed it.
#[derive(Default)]
struct Model {
    uplinks: BTreeMap<&'static str, Option<&'static [&'static str]>>,
    blocks: BTreeMap<u64, (&'static str, u64, BTreeSet<&'static str>)>,
}

impl Model {
    fn takes(&self, uplink: &str, rule: &str) -> bool {
        self.uplinks.get(uplink).is_some_and(|rules| rules.is_none_or(|rules| rules.contains(&rule)))
    }

    fn waiting(&self, uplink: &str) -> Vec<u64> {
        let waits = |(rule, _, confirmed): &(&str, u64, BTreeSet<&str>)| {
            self.takes(uplink, rule) && !confirmed.contains(uplink)
        };
        self.blocks.iter().filter(|(_, block)| waits(block)).map(|(id, _)| *id).collect()
    }

    /// Deletes what nobody waits for. Returns how many rows of it nobody has.
    fn clean(&mut self) -> u64 {
        let mut unwanted = 0;
        let blocks = std::mem::take(&mut self.blocks);
        for (id, (rule, rows, confirmed)) in blocks {
            let takers: Vec<_> = self.uplinks.keys().filter(|uplink| self.takes(uplink, rule)).collect();
            if takers.iter().any(|taker| !confirmed.contains(**taker)) {
                self.blocks.insert(id, (rule, rows, confirmed));
            } else if takers.is_empty() && confirmed.is_empty() {
                unwanted += rows;
            }
        }
        unwanted
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_uplink_gets_what_it_takes_until_it_has_confirmed_it(acts in prop::collection::vec(act(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model { uplinks: [("a", ALL), ("b", ALL)].into(), ..Model::default() };
        let (mut buffer, mut status) = open(&dir, &[("a", ALL), ("b", ALL)]);
        let (mut next_seq, mut last_id) = (0, 0);
        for act in acts {
            match act {
                Act::Append(rule, n) => {
                    // The rule book lets no rule write that nobody takes.
                    if !model.uplinks.keys().any(|uplink| model.takes(uplink, rule)) {
                        continue;
                    }
                    store(&buffer, rule, next_seq, n);
                    (next_seq, last_id) = (next_seq + n as u64, last_id + 1);
                    model.blocks.insert(last_id, (rule, n as u64, BTreeSet::new()));
                }
                Act::Confirm(uplink, picks) => {
                    let waiting = model.waiting(NAMES[uplink]);
                    let ids: Vec<u64> = picks.iter().filter_map(|pick| waiting.get(*pick).copied()).collect();
                    confirm(&buffer, NAMES[uplink], &ids);
                    for id in ids {
                        model.blocks.get_mut(&id).unwrap().2.insert(NAMES[uplink]);
                    }
                    model.clean();
                }
                Act::Refuse(uplink, pick) => {
                    let Some(id) = model.waiting(NAMES[uplink]).get(pick).copied() else { continue };
                    wait(buffer.outbox(NAMES[uplink]).refuse(id, "no".into())).unwrap();
                    model.blocks.get_mut(&id).unwrap().2.insert(NAMES[uplink]);
                    model.clean();
                }
                Act::Open(uplinks) => {
                    buffer.close();
                    model.uplinks = uplinks.into_iter().map(|(uplink, takes)| (NAMES[uplink], TAKES[takes])).collect();
                    for (_, _, confirmed) in model.blocks.values_mut() {
                        confirmed.retain(|uplink| model.uplinks.contains_key(uplink));
                    }
                    let unwanted = model.clean();
                    let uplinks: Vec<_> = model.uplinks.iter().map(|(name, takes)| (*name, *takes)).collect();
                    (buffer, status) = open(&dir, &uplinks);
                    prop_assert_eq!(status.dropped.get(), unwanted);
                }
            }
            for uplink in NAMES {
                prop_assert_eq!(waiting(&buffer, uplink), model.waiting(uplink), "{}", uplink);
            }
        }
        buffer.close();
        prop_assert_eq!(status.waiting.get(), model.blocks.values().map(|(_, rows, _)| rows).sum::<u64>());
        let several = model.blocks.values().map(|(_, _, confirmed)| confirmed.len() as u64).sum::<u64>();
        prop_assert_eq!(count(&dir, "SELECT count(*) FROM confirmed"), several);
    }
}
