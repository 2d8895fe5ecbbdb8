//! Ticks, driven in place with rules that are written for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::sequence::change::Load;
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::FutureExt;
use tidegate_core::Seqs;
use tidegate_rules::{Explanation, Flow, When};
use tokio::sync::oneshot;

fn batch(values: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(values.to_vec())) as _)]).unwrap()
}

/// Writes what it has read, so much later.
pub(crate) struct Echo {
    flows: Vec<Flow>,
    delay: i64,
    /// by the time when it is to be written
    waiting: BTreeSet<(i64, i64)>,
    /// wants its ticks at this time, whatever happens
    stubborn: Option<i64>,
}

impl Echo {
    pub(crate) fn new(input: &str, target: Target, delay: i64) -> Self {
        Self {
            flows: vec![Flow { input: input.into(), target }],
            delay,
            waiting: BTreeSet::new(),
            stubborn: None,
        }
    }
}

impl Rule for Echo {
    fn flows(&self) -> &[Flow] {
        &self.flows
    }

    fn on_batch(&mut self, _: &str, rows: &Rows, when: When, _: &mut Emissions) -> Result<(), RuleError> {
        let values = rows.batch.column_by_name("x").unwrap().as_primitive::<Int64Type>().values();
        self.waiting.extend(values.iter().map(|value| (when.now + self.delay, *value)));
        Ok(())
    }

    fn on_tick(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        let later = self.waiting.split_off(&(when.now + 1, i64::MIN));
        let due: Vec<i64> =
            std::mem::replace(&mut self.waiting, later).into_iter().map(|(_, value)| value).collect();
        if due.contains(&13) {
            return Err(RuleError("thirteen".into()));
        }
        out.emit(&self.flows[0].target, Rows { batch: batch(&due), seqs: Seqs::One { seq } });
        Ok(())
    }

    fn wakes_at(&self) -> Option<i64> {
        self.stubborn.or(self.waiting.first().map(|(at, _)| *at))
    }

    fn on_end(&mut self, _: u64, _: When, _: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    fn explain(&self) -> Explanation {
        Explanation::default()
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        let waiting = std::mem::take(&mut self.waiting)
            .into_iter()
            .flat_map(|(at, value)| [at, value])
            .collect::<Vec<_>>();
        Ok(vec![SealedState { fingerprint: "echo".into(), watermark: 0, batch: Some(batch(&waiting)) }])
    }

    fn restore(&mut self, state: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        let waiting = state[0].batch.clone().unwrap();
        let waiting = waiting.column(0).as_primitive::<Int64Type>().values();
        self.waiting.extend(waiting.chunks(2).map(|pair| (pair[0], pair[1])));
        Ok(Vec::new())
    }
}

/// A worker that runs `rule` under its name.
pub(crate) fn running(name: &str, rule: Echo) -> Worker {
    Stage::new(vec![(name, rule)]).0
}

struct Stage(Worker);

impl Stage {
    fn new(rules: Vec<(&str, Echo)>) -> Self {
        let mut stage = Self(Worker::new(Arc::default()));
        rules.into_iter().for_each(|(name, rule)| stage.load(name, rule));
        stage
    }

    fn load(&mut self, name: &str, rule: Echo) {
        let (rule, status) = (Box::new(rule), self.0.status.rules.of(name));
        let version = RuleVersion::active(name);
        let load = Load { version, rule, inherits: Arc::from(name), is_said: false, status, undecided: None };
        self.change(Change::Load(load));
    }

    fn change(&mut self, change: Change) {
        self.0.on_change(change).now_or_never().expect("nobody has to be waited for");
    }

    fn feed(&mut self, value: i64, now: i64) {
        let rows = Rows { batch: batch(&[value]), seqs: Seqs::Run { first: 0 } };
        assert!(self.0.on_batch("tank", &rows, When::at(now)).is_empty());
    }

    /// Rule, target, number and value of each row.
    fn tick(&mut self, seq: u64, now: i64) -> Vec<(String, String, u64, i64)> {
        let mut found = Vec::new();
        for Routed { version, target, rows, .. } in self.0.on_tick(seq, When::at(now)) {
            let values = rows.batch.column(0).as_primitive::<Int64Type>().values();
            found.extend(
                values
                    .iter()
                    .map(|value| (version.name.to_string(), target.to_string(), rows.seqs.get(0), *value)),
            );
        }
        found
    }
}

fn row(rule: &str, target: &str, seq: u64, value: i64) -> (String, String, u64, i64) {
    (rule.into(), target.into(), seq, value)
}

#[test]
fn a_tick_calls_the_rules_whose_time_it_is_and_no_others() {
    let mut stage = Stage::new(vec![
        ("soon", Echo::new("tank", Target::Uplink, 5)),
        ("late", Echo::new("tank", Target::Uplink, 50)),
    ]);
    assert_eq!(stage.0.wakes_at(), None);
    stage.feed(1, 100);
    stage.feed(2, 101);
    assert_eq!(stage.0.wakes_at(), Some(105));
    assert_eq!(stage.tick(7, 105), [row("soon", "uplink", 7, 1)]);
    assert_eq!(stage.0.wakes_at(), Some(106));
    assert_eq!(
        stage.tick(8, 200),
        [row("late", "uplink", 8, 1), row("late", "uplink", 8, 2), row("soon", "uplink", 8, 2)]
    );
    assert_eq!(stage.0.wakes_at(), None);
    assert!(stage.tick(9, 300).is_empty());
}

#[test]
fn what_a_tick_writes_to_a_derived_stream_reaches_its_readers_within_it() {
    let derived = Target::Stream("derived".into());
    let mut stage = Stage::new(vec![
        ("a", Echo::new("derived", Target::Uplink, 0)),
        ("z", Echo::new("tank", derived, 5)),
    ]);
    stage.feed(1, 100);
    // The reader wants to be called at once, since it has a row now.
    assert_eq!(stage.tick(7, 110), [row("z", "derived", 7, 1)]);
    assert_eq!(stage.0.wakes_at(), Some(110));
    assert_eq!(stage.tick(8, 110), [row("a", "uplink", 8, 1)]);
    assert_eq!(stage.0.wakes_at(), None);
}

#[test]
fn what_is_run_again_after_a_crash_is_not_counted_again() {
    let mut stage = Stage::new(vec![("r", Echo::new("tank", Target::Uplink, 5))]);
    for (again, counted) in [(true, 0), (false, 1)] {
        stage.0.again = again;
        stage.feed(1, 0);
        assert_eq!(stage.tick(0, 5).len(), 1);
        assert_eq!(stage.0.status.rules.of("r").rows.get(), counted);
    }
}

#[test]
fn a_rule_that_does_not_move_its_time_is_not_called_without_end() {
    let stubborn = Echo { stubborn: Some(50), ..Echo::new("tank", Target::Uplink, 5) };
    let mut stage = Stage::new(vec![("good", Echo::new("tank", Target::Uplink, 5)), ("stubborn", stubborn)]);
    assert_eq!(stage.0.wakes_at(), Some(50));
    stage.tick(1, 60);
    assert_eq!(stage.0.wakes_at(), None);
    stage.feed(1, 100);
    assert_eq!(stage.0.wakes_at(), Some(105), "the others are not held up");
    // When the sequence is run again, nobody knows that it had its tick: it is called whenever there is one.
    assert_eq!(stage.tick(2, 105), [row("good", "uplink", 2, 1), row("stubborn", "uplink", 2, 1)]);
    assert_eq!(stage.0.wakes_at(), None);
    let moved = Echo { stubborn: Some(55), ..Echo::new("tank", Target::Uplink, 5) };
    stage.load("stubborn", moved);
    assert_eq!(stage.0.wakes_at(), Some(55), "another time is answered");
}

#[test]
fn timers_go_with_the_state_of_a_rule() {
    let mut stage = Stage::new(vec![("r", Echo::new("tank", Target::Uplink, 5))]);
    stage.feed(1, 100);
    stage.load("r", Echo::new("tank", Target::Uplink, 500));
    assert_eq!(stage.0.wakes_at(), Some(105));
    let states = stage.0.snapshot();
    assert_eq!(stage.0.wakes_at(), Some(105));
    let mut other = Stage::new(vec![("r", Echo::new("tank", Target::Uplink, 5))]);
    other.0.restore(&"r".into(), states[0].1.clone());
    assert_eq!(other.0.wakes_at(), Some(105));
    // To another worker.
    let (give, take) = oneshot::channel();
    stage.change(Change::Give("r".into(), give));
    assert_eq!(stage.0.wakes_at(), None);
    let mut third = Stage::new(Vec::new());
    third.change(Change::Take("r".into(), take));
    assert_eq!(third.tick(3, 105), [row("r", "uplink", 3, 1)]);
    other.change(Change::Remove("r".into()));
    assert_eq!(other.0.wakes_at(), None);
}

#[test]
fn what_a_rule_kept_that_was_stopped_goes_to_the_version_that_mends_it() {
    let mut stage = Stage::new(vec![("a", Echo::new("tank", Target::Uplink, 5))]);
    stage.feed(13, 100);
    stage.feed(7, 120);
    assert!(stage.tick(1, 105).is_empty());
    assert!(stage.0.is_empty(), "it has its thirteen");
    // Also over a restart of the box, which begins with a snapshot.
    let [(name, kept)] = stage.0.snapshot().try_into().unwrap();
    assert_eq!((&*name, kept.len()), ("a", 1));
    stage.load("a", Echo::new("tank", Target::Uplink, 5));
    assert_eq!(stage.tick(2, 125), [row("a", "uplink", 2, 7)]);
    // It may have to live with others meanwhile.
    stage.feed(13, 120);
    stage.feed(8, 122);
    stage.tick(3, 125);
    let (give, take) = oneshot::channel();
    stage.change(Change::Give("a".into(), give));
    assert!(stage.0.snapshot().is_empty());
    stage = Stage::new(Vec::new());
    stage.change(Change::Take("a".into(), take));
    assert_eq!(stage.0.snapshot().len(), 1);
    stage.load("a", Echo::new("tank", Target::Uplink, 5));
    assert_eq!(stage.tick(4, 127), [row("a", "uplink", 4, 8)]);
    // Another rule of that name does not begin with it.
    stage.feed(13, 130);
    stage.tick(3, 135);
    stage.change(Change::Remove("a".into()));
    stage.load("a", Echo::new("tank", Target::Uplink, 5));
    assert_eq!(stage.0.wakes_at(), None);
}

#[test]
fn a_rule_that_fails_in_a_tick_is_stopped_and_nothing_else_is() {
    let mut stage = Stage::new(vec![
        ("bad", Echo::new("tank", Target::Uplink, 5)),
        ("good", Echo::new("tank", Target::Uplink, 6)),
    ]);
    stage.feed(13, 100);
    assert_eq!(stage.0.wakes_at(), Some(105));
    assert!(stage.tick(1, 105).is_empty());
    assert_eq!(stage.0.wakes_at(), Some(106));
    stage.feed(1, 106);
    assert!(stage.tick(2, 106).is_empty(), "it has its thirteen now");
    assert_eq!(stage.0.wakes_at(), None);
}
