//! Decisions about outputs stay as long as they should, and can be read as they were made.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_precision_loss)]

use std::collections::BTreeMap;

use super::inspect::Inspector;
use super::tests::{OnThread, acked, rows, settings};
use super::*;
use crate::config::{Value, Values};
use crate::decision::{Claimed, Clause, Input, Origin, Outcome, Step, Verdict};

const S: i64 = 1_000_000_000;
/// 2026-03-01T12:00:00Z
const NOON: i64 = 1_772_366_400 * S;

fn open(dir: &tempfile::TempDir) -> (OnThread, Arc<OutboxStatus>) {
    let status: Arc<OutboxStatus> = Arc::default();
    (OnThread::open(&settings(dir), Arc::clone(&status)).unwrap(), status)
}

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("box.db")
}

fn raw(dir: &tempfile::TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(file(dir)).unwrap()
}

/// A decision as a pump's contract makes them: what is measured, and what follows from it.
pub(super) fn decision(output: &str, number: u64, verdict: Verdict) -> Decision {
    let at_ns = NOON + number as i64 * (S + 137_219);
    let (seq, level) = (42_949_673 + number * 7, 8.0 + (number * 37 % 100) as f64 / 10.0);
    let version: Arc<str> = "6f1ed002ab5595859014ebf0951522d9f1a2b1e4c8f7e3d2b5a697887766554a".into();
    let by = Origin::Rule { rule: "cooling".into(), version: Arc::clone(&version), seq, ordinal: 0 };
    let row = format!("{{\"ts\":\"{}\",\"level\":{level},\"quality\":\"good\"}}", rfc3339(at_ns));
    let values: Values =
        [("run".into(), Value::Bool(number.is_multiple_of(2))), ("speed".into(), Value::Float(level * 4.0))]
            .into();
    let is_answer = matches!(verdict, Verdict::Answered { .. });
    let claim = Claimed {
        rule: "cooling".into(),
        version,
        rank: 8,
        since_ns: NOON,
        until_ns: Some(at_ns + 30 * S),
        values: values.clone(),
    };
    let step = Step {
        column: "speed".into(),
        clause: Clause::Slew,
        before: Value::Float(level * 4.0),
        after: Some(Value::Float(level * 3.0)),
        because: "by 5 a second".into(),
    };
    let kept = |is: bool| if is { 0 } else { 1 };
    Decision {
        output: output.into(),
        instance: "".into(),
        number,
        times: 1,
        seq,
        at_ns,
        wall_ns: at_ns + 1_234,
        inputs: [Input { stream: "tank".into(), seq, row }].into_iter().take(kept(is_answer)).collect(),
        claims: [claim].into_iter().take(kept(is_answer)).collect(),
        overridden: None,
        steps: [step].into_iter().take(kept(is_answer)).collect(),
        before: if is_answer { Values::new() } else { values.clone() },
        values,
        verdict,
        by,
    }
}

fn rfc3339(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| String::new(), |time| time.to_string())
}

/// Sent and answered in turns.
fn busy(output: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<Decision> {
    let verdict = |number: u64| match number % 2 {
        0 => Verdict::Sent { write: number / 2 },
        _ => Verdict::Answered { write: number / 2, outcome: Outcome::Acknowledged, reason: None },
    };
    numbers.map(|number| decision(output, number, verdict(number))).collect()
}

fn refused(output: &str, number: u64) -> Decision {
    let reason = "the newest row of `tank` is 7.2 s old, and 5 s are allowed".into();
    decision(output, number, Verdict::Refused { reason })
}

/// Returns when what was decided is on disk, together with row `seq`.
fn commit(buffer: &OnThread, seq: u64) {
    let (ack, told) = acked();
    buffer.append(vec![rows(seq, 1, ack)]).unwrap();
    assert_eq!(told.recv().unwrap(), tidegate_core::Outcome::Done);
}

/// What can be read of `output`, newest first.
fn read(dir: &tempfile::TempDir, output: &str) -> Vec<Decision> {
    let kinds = VerdictKind::WORDS.map(|(_, kind)| kind);
    let inspector = Inspector::open(&file(dir)).unwrap();
    let mut decisions = inspector.decisions(output, &kinds, None, None).unwrap();
    let mut found = Vec::new();
    while let Some(decision) = decisions.read().unwrap() {
        found.push(decision);
    }
    assert_eq!(decisions.unreadable(), 0);
    found
}

fn problems(dir: &tempfile::TempDir) -> Vec<String> {
    let verdict = Inspector::open(&file(dir)).unwrap().verify(|_, _| {});
    verdict.problems.into_iter().map(|problem| format!("{}: {}", problem.place, problem.problem)).collect()
}

#[test]
fn decisions_are_read_as_they_were_made_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir);
    let mut made = busy("pump", 1..=150);
    made.push(refused("pump", 151));
    let other = busy("valve", 1..=10);
    buffer.decisions(made[..100].to_vec());
    buffer.decisions(other.clone());
    buffer.close();
    let (buffer, _) = open(&dir);
    assert_eq!(*buffer.recovered().decisions, [("pump".into(), 100), ("valve".into(), 10)].into());
    buffer.decisions(made[100..].to_vec());
    buffer.close();
    made.reverse();
    assert_eq!(read(&dir, "pump"), made);
    assert_eq!(read(&dir, "valve"), other.into_iter().rev().collect::<Vec<_>>());
    assert!(read(&dir, "fan").is_empty());
    assert_eq!(Inspector::open(&file(&dir)).unwrap().decided_outputs().unwrap(), ["pump", "valve"]);
    assert_eq!(problems(&dir), [""; 0]);
    assert_eq!(status.decisions_dropped.get(), 0);
}

#[test]
fn one_that_is_made_again_takes_the_place_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    buffer.decisions(busy("pump", 1..=80));
    buffer.decisions(vec![refused("pump", 81)]);
    buffer.close();
    // The journal is run again, and once it comes out otherwise.
    let (buffer, _) = open(&dir);
    buffer.decisions(busy("pump", 40..=79));
    let again = Decision { times: 1_000, ..refused("pump", 81) };
    let other = refused("pump", 80);
    buffer.decisions(vec![other.clone(), again.clone()]);
    // And at once again.
    buffer.decisions(vec![again.clone()]);
    buffer.close();
    let found = read(&dir, "pump");
    assert_eq!(found.len(), 81);
    assert_eq!(found[..2], [again, other]);
    assert_eq!(found[2..].iter().rev().cloned().collect::<Vec<_>>(), busy("pump", 1..=79));
    assert_eq!(problems(&dir), [""; 0]);
}

#[test]
fn a_busy_output_does_not_push_out_a_rare_refusal_nor_another_output() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir);
    let rare: Vec<Decision> = (1..=12).map(|number| refused("pump", number)).collect();
    buffer.decisions(rare.clone());
    buffer.decisions(busy("valve", 1..=20));
    commit(&buffer, 0);
    for hundred in 0..60 {
        buffer.decisions(busy("pump", 13 + hundred * 100..=112 + hundred * 100));
        commit(&buffer, 1 + hundred);
        assert!(status.decision_bytes.get() < 80 << 10, "{}", status.decision_bytes.get());
    }
    buffer.close();
    let found = read(&dir, "pump");
    let (refusals, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|decision| matches!(decision.verdict, Verdict::Refused { .. }));
    // Of twelve, ten have to stay; the ring is not so full that more would have to go for it.
    assert!(refusals.len() >= 10, "{}", refusals.len());
    assert_eq!(refusals[..10], rare.iter().rev().take(10).cloned().collect::<Vec<_>>());
    assert!((100..1_000).contains(&others.len()), "{}", others.len());
    assert_eq!(others[0].number, 6_012);
    assert!(others[..100].windows(2).all(|pair| pair[0].number == pair[1].number + 1));
    assert_eq!(read(&dir, "valve").len(), 20);
    assert_eq!(problems(&dir), [""; 0]);
    // What is not needed any more has gone.
    let bases: u64 =
        raw(&dir).query_row("SELECT count(*) FROM decision_basis", [], |row| row.get(0)).unwrap();
    assert!(bases < 40, "{bases}");
}

#[test]
fn whoever_decides_waits_for_nobody_and_is_told_what_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let status: Arc<OutboxStatus> = Arc::default();
    let clock = Arc::new(tidegate_core::clock::SystemClock);
    let disk = Arc::new(crate::disk::SystemDisk);
    // The writer does not run.
    let opened = Buffer::open(&settings(&dir), super::tests::one(), clock, disk, Arc::clone(&status));
    let (buffer, writer) = opened.unwrap();
    buffer.decisions(busy("pump", 1..=300));
    assert_eq!(status.decisions_dropped.get(), 100);
    // One that is known takes no more room.
    buffer.decisions(busy("pump", 1..=200));
    assert_eq!(status.decisions_dropped.get(), 100);
    drop(writer);
    assert_eq!(status.decisions_dropped.get(), 300);
    assert_eq!(
        status.counts().iter().find(|(what, _)| *what == "dropped_decisions"),
        Some(&("dropped_decisions", 300))
    );
}

#[test]
fn a_decision_of_a_moment_is_found_among_many() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    buffer.decisions(busy("pump", 1..=100));
    buffer.close();
    let inspector = Inspector::open(&file(&dir)).unwrap();
    let made = busy("pump", 1..=100);
    let kinds = [VerdictKind::Sent];
    for (at, number) in
        [(made[50].at_ns, 50), (made[51].at_ns - 1, 50), (made[51].at_ns, 52), (i64::MAX, 100)]
    {
        let found = inspector.decisions("pump", &kinds, None, Some(at)).unwrap().read().unwrap().unwrap();
        assert_eq!(found.number, number);
    }
    assert!(
        inspector.decisions("pump", &kinds, None, Some(made[0].at_ns)).unwrap().read().unwrap().is_none()
    );
    let sent = &made[49];
    assert_eq!(sent.verdict, Verdict::Sent { write: 25 });
    let answers = inspector.answers(sent).unwrap();
    assert_eq!(answers.iter().map(|answer| answer.decision.number).collect::<Vec<_>>(), [51]);
    assert!(inspector.answers(&made[99]).unwrap().is_empty());
}

#[test]
fn an_instance_has_its_own_decisions_and_what_is_of_none() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    let of = |instance: &str, number: u64| Decision {
        instance: instance.into(),
        ..decision("valve", number, Verdict::Sent { write: number })
    };
    let lines = |number: u64| if number.is_multiple_of(3) { "line=3" } else { "line=7" };
    buffer.decisions((1..=90).map(|number| of(lines(number), number)).collect());
    buffer.decisions(vec![refused("valve", 91), decision("valve", 92, Verdict::Sent { write: 92 })]);
    buffer.close();
    let inspector = Inspector::open(&file(&dir)).unwrap();
    let kinds = [VerdictKind::Sent, VerdictKind::Refused];
    let mut decisions = inspector.decisions("valve", &kinds, Some("line=3"), None).unwrap();
    let mut numbers = Vec::new();
    while let Some(decision) = decisions.read().unwrap() {
        numbers.push(decision.number);
    }
    assert_eq!(numbers, std::iter::once(91).chain((1..=30).rev().map(|n| n * 3)).collect::<Vec<_>>());
    let none = inspector.decisions("valve", &[VerdictKind::Sent], Some("line=9"), None).unwrap().read();
    assert!(none.unwrap().is_none());
}

#[test]
fn a_buffer_of_the_layout_before_takes_decisions() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).0.close();
    let before = "DROP TABLE decision; DROP TABLE decision_basis; DROP TABLE decision_group; ALTER TABLE \
        meta DROP COLUMN decision_bytes; PRAGMA user_version = 5";
    raw(&dir).execute_batch(before).unwrap();
    assert!(read(&dir, "pump").is_empty());
    let stats = Inspector::open(&file(&dir)).unwrap().stats().unwrap();
    assert_eq!((stats.layout, stats.decisions), (5, None));
    assert_eq!(problems(&dir), [""; 0]);
    let (buffer, _) = open(&dir);
    buffer.decisions(busy("pump", 1..=3));
    buffer.close();
    assert_eq!(read(&dir, "pump").len(), 3);
    let stats = Inspector::open(&file(&dir)).unwrap().stats().unwrap();
    let decided = stats.decisions.unwrap();
    let verdicts: BTreeMap<String, u64> = [("sent".to_owned(), 1), ("answered".to_owned(), 2)].into();
    assert_eq!((decided.len(), &*decided[0].output, &decided[0].verdicts), (1, "pump", &verdicts));
    let bytes: u64 = raw(&dir).query_row("SELECT decision_bytes FROM meta", [], |row| row.get(0)).unwrap();
    assert_eq!(decided[0].bytes, bytes);
}

#[test]
fn damage_costs_the_decisions_in_it_and_what_cannot_be_read_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    buffer.decisions(busy("pump", 1..=100));
    buffer.decisions(busy("valve", 1..=100));
    buffer.close();
    // A basis and a decision, and a table without which the box would not start.
    raw(&dir)
        .execute_batch(
            "UPDATE decision_basis SET data = 5 WHERE id = (SELECT min(id) FROM decision_basis);
            UPDATE decision SET now_ns = 'x' WHERE id = (SELECT max(id) FROM decision); DROP TABLE gap",
        )
        .unwrap();
    let (buffer, _) = open(&dir);
    assert!(dir.path().join("box.db.corrupt-1").exists());
    // What is decided from now on is kept, whatever was lost.
    buffer.decisions(busy("pump", 101..=110));
    buffer.close();
    let (pump, valve) = (read(&dir, "pump"), read(&dir, "valve"));
    // Half of them, of one kind, had that basis.
    assert_eq!((pump.len(), valve.len()), (60, 99));
    assert_eq!(problems(&dir), [""; 0]);
}

#[test]
fn verify_names_decisions_that_are_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    buffer.decisions(busy("pump", 1..=4));
    buffer.close();
    raw(&dir)
        .execute_batch(
            "UPDATE decision SET data = substr(data, 1, 20) WHERE id & 255 = 1;
            UPDATE decision SET now_ns = 5 WHERE id & 255 = 2;
            UPDATE decision SET id = id + 2 WHERE id & 255 = 4;
            INSERT INTO decision (id, now_ns, instance, data) VALUES (99 << 40, 1, '', x'00')",
        )
        .unwrap();
    let found = problems(&dir).join("\n");
    for expected in [
        "table meta: `decision_bytes` is ",
        ": cannot be read: ",
        ": `now_ns` or `instance` is not what it says",
        ": is sent 4 about `pump`, but stands as sent 6 about `pump`",
        "decision 108851651149824: ",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn a_decision_takes_little_room() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    let mut number = 0;
    // A pump that is told something every two seconds, as a box commits it: a few at a time.
    for _ in 0..100 {
        buffer.decisions(busy("pump", number + 1..=number + 4));
        number += 4;
        commit(&buffer, number);
    }
    buffer.close();
    let bytes: u64 = raw(&dir).query_row("SELECT decision_bytes FROM meta", [], |row| row.get(0)).unwrap();
    let each = bytes / number;
    println!("{each} bytes a decision");
    assert!((40..150).contains(&each), "{each}");
}

mod any_order {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_kept_in_whatever_order_can_be_read(
            commits in vec(vec((0..2_usize, 1..60_u64, 0..4_u64), 1..30), 1..6)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let outputs = ["pump", "valve"];
            let mut newest: BTreeMap<(usize, u64), Decision> = BTreeMap::new();
            for commit in commits {
                let (buffer, _) = open(&dir);
                for (output, number, kind) in commit {
                    let verdict = match kind {
                        0 => Verdict::Sent { write: number },
                        1 => Verdict::Held { until_ns: None },
                        2 => Verdict::Refused { reason: "it is too old".into() },
                        _ => Verdict::Answered { write: number, outcome: Outcome::Unknown, reason: None },
                    };
                    let decision = decision(outputs[output], number, verdict);
                    newest.insert((output, number), decision.clone());
                    buffer.decisions(vec![decision]);
                }
                buffer.close();
            }
            for (at, output) in outputs.into_iter().enumerate() {
                let of_output = newest.iter().rev().filter(|((of, _), _)| *of == at);
                let expected: Vec<Decision> = of_output.map(|(_, made)| made.clone()).collect();
                prop_assert_eq!(read(&dir, output), expected);
            }
            prop_assert_eq!(problems(&dir), [""; 0]);
        }
    }
}
