//! Kills a writing process at random moments: what it was told is on disk must be there, once.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::inspect::Inspector;
use super::tests::{OnThread, UPLINK, rows, seqs, settings, wait};
use super::*;
use tidegate_core::Outcome;
use tidegate_rules::WhenFull;

const DIR: &str = "TIDEGATE_TEST_CRASH_DIR";
const CHILD: &str = "buffer::crash_tests::the_child_appends_until_it_is_killed";
const ROUNDS: u64 = 20;

#[test]
fn the_child_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let queue = std::num::NonZeroUsize::MIN.saturating_add(7);
    let settings = config::Buffer {
        queue,
        when_full: WhenFull::Block,
        ..config::Buffer::at(PathBuf::from(dir).join("box.db"))
    };
    let buffer = OnThread::open(&settings, Arc::default()).unwrap();
    let (mut seq, end) = buffer.sequence_start();
    for n in (1..=97).cycle() {
        let (first, last) = (seq, seq + n - 1);
        assert!(last < end);
        // A pipe takes such a line whole or not at all.
        let report = move |outcome| {
            if outcome == Outcome::Done {
                drop(std::io::stdout().write_all(format!("acknowledged {first} {last}\n").as_bytes()));
            }
        };
        buffer.append(vec![rows(first, usize::try_from(n).unwrap(), Ack::new(report))]).unwrap();
        seq += n;
    }
}

#[test]
fn rows_acknowledged_before_a_crash_are_there_after_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut expected: HashSet<u64> = HashSet::new();
    let (mut numbers, mut total) = (0, 0);
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The first lines of a child are those of the test harness: some are killed before they have opened
        // the buffer.
        let lines = usize::try_from(random >> 58).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said: Vec<String> = output.by_ref().take(lines).map(Result::unwrap).collect();
        child.kill().unwrap();
        said.extend(output.map_while(Result::ok));
        assert!(!child.wait().unwrap().success());
        for line in &said {
            // The harness writes to the same line that it began.
            let Some((_, range)) = line.split_once("acknowledged ") else { continue };
            let (first, last) = range.split_once(' ').unwrap();
            expected.extend(first.parse::<u64>().unwrap()..=last.parse().unwrap());
        }
        match Inspector::open(&settings(&dir).path) {
            Ok(mut inspector) => assert_eq!(inspector.verify(|_, _| {}).problems, [], "round {round}"),
            Err(error) => assert!(matches!(error, BufferError::Absent(_)), "round {round}: {error}"),
        }
        let status: Arc<OutboxStatus> = Arc::default();
        let buffer = OnThread::open(&settings(&dir), Arc::clone(&status)).unwrap();
        assert!(buffer.sequence_start().0 >= numbers);
        numbers = buffer.sequence_start().1;
        let found = seqs(&buffer);
        let unique: HashSet<u64> = found.iter().copied().collect();
        assert_eq!((unique.len(), status.waiting.get()), (found.len(), found.len() as u64), "round {round}");
        let missing: Vec<_> = expected.difference(&unique).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?}");
        total += expected.len();
        // Some go, so that children also write into free pages.
        let blocks = wait(buffer.outbox(UPLINK).fetch(0, u64::MAX, 1000)).unwrap();
        let gone: Vec<_> = blocks.iter().filter(|block| block.id % 3 != round % 3).collect();
        let delivered: HashSet<u64> =
            gone.iter().flat_map(|block| (0..block.rows.len()).map(|row| block.rows.seqs.get(row))).collect();
        expected.retain(|seq| !delivered.contains(seq));
        wait(buffer.outbox(UPLINK).confirm(gone.iter().map(|block| block.id).collect())).unwrap();
        buffer.close();
    }
    assert!(total > 0);
}
