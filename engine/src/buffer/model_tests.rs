//! Random histories against a list of rows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_core::Outcome;

use super::tests::{OnThread, UPLINK, acked, rows, settings, wait};
use super::*;

#[derive(Debug, Clone)]
enum Act {
    Append(usize),
    /// by position among the waiting blocks
    Confirm(Vec<usize>),
    Refuse(usize),
    Close,
    Drop,
    /// after this many blocks, at most that many
    Fetch(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop_oneof![Just(0_usize), 1..5_usize, 8_000..20_000_usize].prop_map(Act::Append),
        2 => prop::collection::vec(0..6_usize, 0..4).prop_map(Act::Confirm),
        1 => (0..6_usize).prop_map(Act::Refuse),
        1 => Just(Act::Close),
        1 => Just(Act::Drop),
        3 => (0..6_usize, 0..6_usize).prop_map(|(skip, limit)| Act::Fetch(skip, limit)),
    ]
}

fn open(dir: &tempfile::TempDir) -> (OnThread, Arc<OutboxStatus>) {
    loop {
        let status: Arc<OutboxStatus> = Arc::default();
        match OnThread::open(&settings(dir), Arc::clone(&status)) {
            Err(BufferError::InUse(_)) => std::thread::yield_now(),
            other => return (other.unwrap(), status),
        }
    }
}

/// Sequence numbers by block.
fn contents(buffer: &Buffer, after: u64, limit: usize) -> Vec<(u64, Vec<u64>)> {
    let blocks = wait(buffer.outbox(UPLINK).fetch(after, u64::MAX, limit)).unwrap();
    blocks
        .iter()
        .map(|block| (block.id, (0..block.rows.len()).map(|row| block.rows.seqs.get(row)).collect()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_buffer_holds_what_was_appended_and_not_confirmed(acts in prop::collection::vec(act(), 1..24)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut buffer, mut status) = open(&dir);
        let mut model: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let (mut next_seq, mut last_id, mut numbers, mut committed) = (0, 0, buffer.sequence_start().1, 0);
        for act in acts {
            match act {
                Act::Append(n) => {
                    let (ack, told) = acked();
                    buffer.append(vec![rows(next_seq, n, ack)]).unwrap();
                    prop_assert_eq!(told.recv().unwrap(), Outcome::Done);
                    let new = contents(&buffer, last_id, 1000);
                    let seqs: Vec<u64> = new.iter().flat_map(|(_, seqs)| seqs.iter().copied()).collect();
                    prop_assert_eq!(seqs, (next_seq..next_seq + n as u64).collect::<Vec<_>>());
                    last_id = new.last().map_or(last_id, |(id, _)| *id);
                    model.extend(new);
                    next_seq += n as u64;
                    committed += n as u64;
                }
                Act::Confirm(picks) => {
                    let ids: Vec<u64> = picks.iter().filter_map(|pick| model.keys().nth(*pick).copied()).collect();
                    wait(buffer.outbox(UPLINK).confirm(ids.clone())).unwrap();
                    ids.iter().for_each(|id| drop(model.remove(id)));
                }
                Act::Refuse(pick) => {
                    let Some(id) = model.keys().nth(pick).copied() else { continue };
                    wait(buffer.outbox(UPLINK).refuse(id, "no".into())).unwrap();
                    model.remove(&id);
                }
                Act::Close | Act::Drop => {
                    if matches!(act, Act::Close) {
                        buffer.close();
                        let waiting = model.values().map(|seqs| seqs.len() as u64).sum();
                        prop_assert_eq!((status.waiting.get(), status.committed.get()), (waiting, committed));
                    }
                    drop(buffer);
                    (buffer, status) = open(&dir);
                    committed = 0;
                    prop_assert!(buffer.sequence_start().0 >= numbers);
                    numbers = buffer.sequence_start().1;
                    prop_assert_eq!(
                        status.waiting.get(),
                        model.values().map(|seqs| seqs.len() as u64).sum::<u64>(),
                    );
                }
                Act::Fetch(skip, limit) => {
                    let after = model.keys().nth(skip).copied().unwrap_or(0);
                    let expected: Vec<_> = model.range(after + 1..).take(limit).map(|(id, seqs)| (*id, seqs.clone())).collect();
                    prop_assert_eq!(contents(&buffer, after, limit), expected);
                }
            }
        }
        prop_assert_eq!(contents(&buffer, 0, 1000), model.into_iter().collect::<Vec<_>>());
        buffer.close();
    }
}
