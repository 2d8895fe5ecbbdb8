//! Rules that are stopped in the middle of a call, and at the same place when the sequence is run again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use tidegate_core::Seqs;
use tidegate_rules::{Explanation, Fence, Flow, Starting as Start};

use super::*;
use crate::rules::watchdog::Watchdog;
use crate::sequence::change::Load;
use crate::sequence::verdict::Verdict;
use std::time::Duration;

/// Hands on the rows that it reads, and does not come to an end with the value `hangs_at`.
struct Copier {
    flows: Vec<Flow>,
    fence: Arc<Fence>,
    hangs_at: i64,
    /// Whether it has something to do before it runs; if so, whether that comes to an end.
    starts: Option<bool>,
}

impl Copier {
    fn new(hangs_at: i64) -> Self {
        let flow = Flow { input: "tank".into(), target: Target::Uplink };
        Self { flows: vec![flow], fence: Arc::default(), hangs_at, starts: None }
    }
}

impl Rule for Copier {
    fn flows(&self) -> &[Flow] {
        &self.flows
    }

    fn on_batch(&mut self, _: &str, rows: &Rows, _: When, out: &mut Emissions) -> Result<(), RuleError> {
        let values = rows.batch.column(0).as_primitive::<Int64Type>().values();
        let hangs = values.iter().position(|value| *value == self.hangs_at);
        out.emit(&Target::Uplink, rows.slice(0, hangs.map_or(rows.len(), |row| row + 1)));
        let Some(row) = hangs else { return Ok(()) };
        while !self.fence.is_raised() {
            std::hint::spin_loop();
        }
        out.stopped_at = Some(rows.seqs.get(row));
        Err(RuleError("it took too long".into()))
    }

    fn on_tick(&mut self, _: u64, _: When, _: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    fn wakes_at(&self) -> Option<i64> {
        None
    }

    fn on_end(&mut self, _: u64, _: When, _: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    fn explain(&self) -> Explanation {
        Explanation::default()
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        Ok(Vec::new())
    }

    fn fence(&self) -> Option<&Arc<Fence>> {
        Some(&self.fence)
    }

    fn starting(&mut self) -> Option<&mut dyn Start> {
        if self.starts.is_some() { Some(self) } else { None }
    }
}

impl Start for Copier {
    fn start(&mut self, seq: u64, _: When, out: &mut Emissions) -> Result<(), RuleError> {
        if self.starts.take() == Some(true) {
            return Ok(());
        }
        while !self.fence.is_raised() {
            std::hint::spin_loop();
        }
        out.stopped_at = Some(seq);
        Err(RuleError("it took too long".into()))
    }
}

fn worker(hangs_at: i64) -> Worker {
    let mut worker = super::tests::running("bystander", super::tests::Echo::new("tank", Target::Uplink, 1));
    load(&mut worker, "0a", Copier::new(hangs_at));
    worker
}

fn load(worker: &mut Worker, hash: &str, rule: Copier) {
    let (rule, status) = (Box::new(rule), worker.status.rules.of("copier"));
    let version = Arc::new(RuleVersion { hash: hash.into(), ..(*RuleVersion::active("copier")).clone() });
    worker.load(Load { version, rule, inherits: "copier".into(), is_said: false, status, undecided: None });
}

/// The numbers of the rows that are written.
fn feed(worker: &mut Worker, first: u64, values: &[i64], seqs: Option<Vec<u64>>) -> Vec<u64> {
    let column = Arc::new(Int64Array::from(values.to_vec())) as _;
    let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let seqs = seqs.map_or(Seqs::Run { first }, Seqs::list);
    let written = worker.on_batch("tank", &Rows { batch, seqs }, When::at(0));
    written.iter().flat_map(|part| (0..part.rows.len()).map(|row| part.rows.seqs.get(row))).collect()
}

#[test]
fn what_takes_too_long_is_stopped_and_stops_at_the_same_row_again() {
    let dog = Watchdog::new(Duration::from_millis(20));
    let mut live = worker(7).watched(dog.watch());
    assert_eq!(feed(&mut live, 10, &[1, 2], None), [10, 11]);
    // Of row 13 nothing is done, though the rule has written it.
    assert_eq!(feed(&mut live, 12, &[3, 7, 4], None), [12]);
    assert_eq!(feed(&mut live, 15, &[5], None), [0; 0]);
    let verdict = Verdict {
        rule: "copier".into(),
        version: "0a".into(),
        at: 13,
        reason: "it took too long".into(),
        is_start: false,
    };
    assert_eq!(live.verdicts, [Edit::Stop(verdict.clone())]);
    assert!(live.rules.contains_key("bystander"));

    // The same rows, cut otherwise; this time nothing hangs.
    for cuts in [vec![6], vec![3, 3], vec![1; 6]] {
        let mut again = worker(-1);
        again.stops = [verdict.clone()].into();
        let (mut first, mut written) = (10, Vec::new());
        for cut in cuts {
            let values = &[1, 2, 3, 7, 4, 5][first as usize - 10..first as usize - 10 + cut];
            written.extend(feed(&mut again, first, values, None));
            first += cut as u64;
        }
        assert_eq!(written, [10, 11, 12]);
        assert_eq!(again.status.rules.of("copier").stopped.get().unwrap().1, "it took too long");
    }

    // Another version is not meant.
    let mut other = worker(-1);
    other.stops = [Verdict { version: "0b".into(), ..verdict }].into();
    assert_eq!(feed(&mut other, 12, &[3, 7], None), [12, 13]);
}

#[test]
fn rows_that_stem_from_one_row_go_together() {
    let dog = Watchdog::new(Duration::from_millis(20));
    let mut live = worker(7).watched(dog.watch());
    assert_eq!(feed(&mut live, 0, &[1, 2, 7], Some(vec![3, 4, 4])), [3]);
    assert!(matches!(&live.verdicts[..], [Edit::Stop(Verdict { at: 4, .. })]));
}

#[test]
fn a_version_that_takes_too_long_to_start_is_refused_and_so_it_is_again() {
    let dog = Watchdog::new(Duration::from_millis(20));
    let runs = |worker: &Worker| worker.rules["copier"].version.hash.to_string();
    let mut live = worker(-1).watched(dog.watch());
    load(&mut live, "0b", Copier { starts: Some(false), ..Copier::new(-1) });
    assert_eq!(feed(&mut live, 10, &[1, 2], None), [10, 11]);
    assert_eq!(runs(&live), "0a");
    let said = live.take_verdicts();
    let [Edit::Refuse { verdict, goes_on: Some(_) }] = &said[..] else { panic!("{said:?}") };
    assert_eq!((&*verdict.version, verdict.at, verdict.is_start), ("0b", 10, true));

    // This time it would start; and does, where nobody says that it did not.
    for (first, hash) in [(10, "0a"), (20, "0b")] {
        let mut again = worker(-1);
        again.stops = [verdict.clone()].into();
        load(&mut again, "0b", Copier { starts: Some(true), ..Copier::new(-1) });
        assert_eq!(feed(&mut again, first, &[1, 2], None), [first, first + 1]);
        assert_eq!((&*runs(&again), again.take_verdicts().len()), (hash, 0));
    }
}
