//! Rules and contracts, run on what is fed to them.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use tidegate_core::Rows;
use tidegate_rules::{Indexed, Target, When};

use super::causes::Causes;
use super::chunk::Chunk;
use super::plant::Plant;
use crate::outputs::contract::{Contracts, Made, Order};
use crate::rules::book::RuleBook;
use crate::rules::router::{self, Routed};
use crate::rules::worker::Worker;
use crate::sequence::change::Change;
use crate::sequencer::numbers::Numbers;
use crate::status::Status;
use crate::system::control::ControlEvent;
use crate::system::{control, writes};

/// Ticks between two rows of a recording; more would be made when its times jump by years.
const MOST_TICKS: u32 = 1_000_000;
/// Answers at one time: a rule that writes because it was answered would go on without end.
const MOST_ANSWERS: u32 = 1_000;

/// Runs rules on what is fed to it, and holds what they claim against the contracts of outputs.
///
/// A rule that minds when rows come gets them one by one, with the ticks that it wants before each. Calling a
/// rule costs microseconds however many rows it is handed, so all others get them together. Contracts mind.
pub(super) struct Run {
    one_by_one: Worker,
    together: Worker,
    plant: Plant,
    pub(super) numbers: Numbers,
    /// the sequence's time: the greatest time of a row so far
    now: i64,
    /// by how much the wall clock is before that
    ahead: i64,
    /// outputs with a contract, and streams that contracts look at
    touched: BTreeSet<Arc<str>>,
    /// whether contracts have been told that they start
    has_begun: bool,
}

/// What came of rows.
pub(super) struct Came<'a> {
    /// what rules wrote, and what they claimed of outputs with a contract, in the order of the sequence
    pub written: Vec<Routed>,
    /// what contracts made of that
    pub made: Made,
    pub causes: Causes<'a>,
}

/// One thing that came of rows.
#[derive(Clone, Copy)]
pub(super) enum Said<'a> {
    /// A row that a rule wrote.
    Row(&'a Routed, usize),
    /// What an output would have been sent.
    Sent(&'a Order),
}

impl Run {
    pub(super) fn new(status: &Arc<Status>, contracts: Contracts, plant: Plant) -> Self {
        let [one_by_one, together] = [(); 2].map(|()| Worker::new(Arc::clone(status)));
        let touched = if contracts.is_empty() { BTreeSet::new() } else { contracts.touches() };
        Self {
            one_by_one: one_by_one.governing(contracts).showing_claims(),
            together,
            plant,
            numbers: Numbers::from(0),
            now: i64::MIN,
            ahead: 0,
            touched,
            has_begun: false,
        }
    }

    /// Loads rules and tables. Rules that feed each other stay together.
    pub(super) fn load(&mut self, changes: Vec<Change>, book: &RuleBook) {
        let minds = |change: &Change| match change {
            Change::Load(load) => {
                let minds_time = load.rule.indexed().is_none_or(Indexed::minds_time);
                let touches = load.rule.flows().iter().any(|flow| match &flow.target {
                    Target::Output(name) | Target::Stream(name) => {
                        self.touched.contains(name) || self.is_fed_by_us(&flow.input)
                    }
                    Target::Uplink => self.is_fed_by_us(&flow.input),
                });
                (minds_time || touches).then(|| book.family(&load.version.name))
            }
            _ => None,
        };
        let one_by_one: BTreeSet<Arc<str>> = changes.iter().filter_map(minds).flatten().collect();
        // Neither has another worker to wait for.
        let take = |worker: &mut Worker, change| {
            let _ = worker.on_change(change).now_or_never();
        };
        for change in changes {
            match change {
                Change::Table(table, rows) => {
                    take(&mut self.one_by_one, Change::Table(Arc::clone(&table), rows.clone()));
                    take(&mut self.together, Change::Table(table, rows));
                }
                Change::Load(load) if !one_by_one.contains(&load.version.name) => {
                    take(&mut self.together, Change::Load(load))
                }
                other => take(&mut self.one_by_one, other),
            }
        }
    }

    /// Whether rows of `stream` come from here, between those of recordings.
    fn is_fed_by_us(&self, stream: &str) -> bool {
        !self.touched.is_empty() && (stream == writes::NAME || stream == control::NAME)
    }

    /// Feeds rows. It does not matter how the recording was cut.
    pub(super) fn feed<'a>(&mut self, chunk: &'a Chunk) -> Came<'a> {
        let mut came = Came::new(Causes::new(chunk));
        let mut row = 0;
        while let Some(left) = chunk.origins.get(row..).filter(|left| !left.is_empty()) {
            let first = left.first().map_or(self.now, |origin| origin.at);
            self.ahead = left.first().map_or(self.ahead, |origin| origin.wall_ns.saturating_sub(origin.at));
            if self.one_by_one.is_empty() {
                self.now = left.iter().map(|origin| origin.at).fold(self.now, i64::max);
            } else {
                self.begin(first, &mut came);
                self.pass_until(first, &mut came);
                self.now = self.now.max(first);
            }
            let count = left.iter().take_while(|origin| origin.at <= self.now).count();
            if self.is_fed_by_us(&chunk.stream) && *chunk.stream == *writes::NAME {
                (row..row + count).for_each(|row| self.recorded_answer(chunk, row, &mut came));
            } else {
                came.causes.rows(self.numbers.next(), row);
                let part = self.numbers.number(chunk.rows.slice(row, count));
                let written = self.one_by_one.on_batch(&chunk.stream, &part, self.when());
                self.take(written, &mut came);
            }
            row += count;
        }
        if !(self.is_fed_by_us(&chunk.stream) && *chunk.stream == *writes::NAME) {
            let rows = Rows { batch: chunk.rows.clone(), seqs: came.causes.numbers(row) };
            came.written.extend(self.together.on_batch(&chunk.stream, &rows, self.when()));
        }
        came.in_order()
    }

    /// Contracts start as on a box that starts.
    fn begin(&mut self, at: i64, came: &mut Came<'_>) {
        if std::mem::replace(&mut self.has_begun, true) || self.touched.is_empty() {
            return;
        }
        self.now = self.now.max(at);
        if let Some(row) = ControlEvent::start(false, &HashMap::new()).row(self.when().wall_ns) {
            self.enter(control::NAME, row, "start", came);
        }
    }

    /// Rows that no recording has.
    fn enter(
        &mut self,
        stream: &str,
        rows: arrow::array::RecordBatch,
        cause: &'static str,
        came: &mut Came<'_>,
    ) {
        came.causes.apart(self.numbers.next(), self.now, cause);
        let rows = self.numbers.number(rows);
        let written = self.one_by_one.on_batch(stream, &rows, self.when());
        self.take(written, came);
    }

    /// What became of a write on the box: it stands for the same write here, if there is one.
    fn recorded_answer(&mut self, chunk: &Chunk, row: usize, came: &mut Came<'_>) {
        if let Some(answer) = self.plant.recorded(&chunk.rows.slice(row, 1)) {
            came.causes.rows(self.numbers.next(), row);
            let answer = self.numbers.number(answer);
            let written = self.one_by_one.on_batch(writes::NAME, &answer, self.when());
            self.take(written, came);
        }
    }

    /// Takes note of what came of an entry.
    fn take(&mut self, written: Vec<Routed>, came: &mut Came<'_>) {
        came.written.extend(written);
        came.written.extend(self.one_by_one.take_claimed());
        let Made { orders, decisions } = self.one_by_one.take_made();
        self.plant.told(&orders);
        came.made.orders.extend(orders);
        came.made.decisions.extend(decisions);
    }

    /// What happens before a row that comes at `until`: devices answer, and rules and contracts that want to
    /// be called are.
    fn pass_until(&mut self, until: i64, came: &mut Came<'_>) {
        let (mut ticks, mut answers) = (0, 0);
        loop {
            // They answer before time goes on, wherever the recording was cut.
            let answer = self.plant.answers_at().map(|at| at.max(self.now));
            let answer = answer.filter(|at| *at < until && answers < MOST_ANSWERS);
            let tick = self.one_by_one.wakes_at().filter(|at| *at < until);
            match (answer, tick) {
                (Some(at), tick) if tick.is_none_or(|tick| at <= tick.max(self.now)) => {
                    answers = if at > self.now { 0 } else { answers + 1 };
                    self.now = at;
                    self.answer(came);
                }
                (_, Some(at)) => {
                    if ticks == MOST_TICKS {
                        tracing::warn!(
                            ticks,
                            "the times of the recording jump so far that rules miss ticks there"
                        );
                        break;
                    }
                    ticks += 1;
                    self.now = self.now.max(at);
                    let seq = self.numbers.tick();
                    came.causes.apart(seq, self.now, "time");
                    let written = self.one_by_one.on_tick(seq, self.when());
                    self.take(written, came);
                }
                _ => break,
            }
        }
    }

    fn answer(&mut self, came: &mut Came<'_>) {
        if let Some(answers) = self.plant.answers(self.now, self.when().wall_ns) {
            self.enter(writes::NAME, answers, "answer", came);
        }
    }

    /// Rows do not say what the wall clock showed, but for when they came: that is what it shows.
    fn when(&self) -> When {
        When { wall_ns: self.now.saturating_add(self.ahead), ..When::at(self.now) }
    }

    /// The recordings have ended: open windows close.
    pub(super) fn end(&mut self) -> Came<'static> {
        let mut came = Came::new(Causes::default());
        if self.plant.answers_at().is_some_and(|at| at <= self.now) {
            self.answer(&mut came);
        }
        let (seq, when) = (self.numbers.next(), self.when());
        came.causes.apart(seq, self.now, "end");
        let written = self.one_by_one.on_end(seq, when);
        self.take(written, &mut came);
        came.written.extend(self.together.on_end(seq, when));
        came
    }

    /// Has rules one by one that are at work already.
    #[cfg(test)]
    pub(super) fn put(&mut self, worker: Worker) {
        self.one_by_one = worker;
    }

    /// How many writes were answered as they were recorded, and for how many it was assumed that all went
    /// well.
    pub(super) fn answered(&self) -> (u64, u64) {
        (self.plant.as_recorded, self.plant.assumed)
    }
}

impl<'a> Came<'a> {
    fn new(causes: Causes<'a>) -> Self {
        Self { written: Vec::new(), made: Made::default(), causes }
    }

    fn in_order(self) -> Self {
        Self { written: router::in_order(self.written), ..self }
    }

    /// All of it, in the order of the sequence: what rules wrote, and then what outputs would have been sent.
    pub(super) fn all(&self) -> Vec<(u64, Said<'_>)> {
        let mut orders = self.made.orders.iter().peekable();
        let mut all = Vec::new();
        for routed in &self.written {
            for row in 0..routed.rows.len() {
                let seq = routed.rows.seqs.get(row);
                while let Some(order) = orders.next_if(|order| order.seq < seq) {
                    all.push((order.seq, Said::Sent(order)));
                }
                all.push((seq, Said::Row(routed, row)));
            }
        }
        all.extend(orders.map(|order| (order.seq, Said::Sent(order))));
        all
    }
}
