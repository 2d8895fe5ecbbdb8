//! A plugin as a rule.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidegate_core::{Rows, Seqs};

use super::columns::{ColumnIn, Shown};
use super::host::{Call, MOST_LINES, lock};
use super::instance::{Failure, Instance, Plugin, shortened};
use super::kept::Kept;
use super::targets::Write;
use crate::capability::{Keeping, Starting};
use crate::fence::Fence;
use crate::rule::{
    Emissions, Explanation, Flow, LogLevel, LogLine, Rule, RuleError, SealedState, Step, When,
};

/// Rows and timers that may fail one after the other. One that never works says so within a few of them.
const MOST_FAILURES: u32 = 8;
/// Bytes that all calls for one batch may write together.
const MOST_WRITTEN: usize = 256 << 20;

/// A rule that is a plugin.
pub(super) struct WasmRule {
    pub flows: Vec<Flow>,
    /// of component and manifest: who has failed, and started
    pub version: Arc<str>,
    pub plugin: Plugin,
    /// the streams, as they are in batches, in the order of the plugin's
    pub shown: Vec<Shown>,
    pub kept: Arc<Mutex<Kept>>,
    /// `None`: it has to be started again
    pub instance: Option<Instance>,
    /// Rows that it can take at a time: more were too many for its limits.
    pub most_rows: usize,
    /// It has taken over what another version had kept, and has not seen its configuration with that.
    pub is_to_start: bool,
}

/// What came of the calls for one batch or tick.
#[derive(Default)]
struct Pass {
    writes: Vec<Write>,
    /// about how many bytes those are
    written: usize,
    log: Vec<LogLine>,
    unsaid: u64,
}

/// Why the rule cannot go on.
enum Stop {
    /// This is the number of the row or tick at which it was, and it need not be at the same one again.
    At(u64, String),
    /// It would be so again.
    Surely(String),
}

impl WasmRule {
    /// Runs `call` in an instance, and keeps what it did.
    fn attempt(
        &mut self,
        call: impl FnOnce(&Plugin, &mut Instance) -> Result<Call, Failure>,
        pass: &mut Pass,
    ) -> Result<(), Failure> {
        // One that has failed does not come back.
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.plugin.start(&self.kept)?,
        };
        let done = call(&self.plugin, &mut instance)?;
        self.instance = Some(instance);
        let mut kept = lock(&self.kept);
        kept.apply(done.changes).map_err(|error| Failure::Again(error.0))?;
        kept.failures = 0;
        pass.written += done.writes.iter().map(Write::bytes).sum::<usize>();
        pass.writes.extend(done.writes);
        pass.log.extend(done.log);
        pass.unsaid += done.unsaid;
        Ok(())
    }

    /// Has the timers fire that are due.
    fn fire(&mut self, seq: u64, now: i64, pass: &mut Pass, out: &mut Emissions) -> Result<(), Stop> {
        loop {
            let Some(tag) = lock(&self.kept).timers.take(now) else { return Ok(()) };
            let call = Call::new(now, Seqs::One { seq }, 1);
            match self.attempt(|plugin, instance| plugin.on_timer(instance, &tag, call), pass) {
                Ok(()) => {}
                Err(Failure::Once(why)) => return Err(Stop::At(seq, why)),
                Err(Failure::Again(why) | Failure::Limit(_, why)) => {
                    self.failed(format!("{why} (timer `{}`)", shortened(&tag)), out)?;
                }
            }
        }
    }

    /// Hands all rows over: together if it can, and in ever smaller parts where that fails, so that only those
    /// rows are left out that fail alone. What it may take is the same for one row and for many, so it makes
    /// no difference to what comes out.
    fn take(
        &mut self,
        input: usize,
        rows: &Rows,
        now: i64,
        pass: &mut Pass,
        out: &mut Emissions,
    ) -> Result<(), Stop> {
        let (bad_before, mut too_many) = (out.bad_rows, None);
        let mut waiting = VecDeque::new();
        waiting.push_back(0..rows.len());
        while let Some(part) = waiting.pop_front() {
            if part.is_empty() {
                continue;
            }
            if part.len() > self.most_rows.max(1) {
                halve(part, &mut waiting);
                continue;
            }
            match self.take_part(input, rows, part.clone(), now, pass) {
                Ok(()) => {}
                Err(Failure::Once(why)) => return Err(Stop::At(rows.seqs.get(part.start), why)),
                Err(Failure::Again(_) | Failure::Limit(..)) if part.len() > 1 => {
                    too_many = Some(part.len());
                    halve(part, &mut waiting);
                }
                Err(Failure::Again(why) | Failure::Limit(_, why)) => {
                    self.failed(format!("{why} ({})", words(&rows.batch, part.start)), out)?;
                }
            }
            if pass.written > MOST_WRITTEN {
                let most = MOST_WRITTEN >> 20;
                return Err(Stop::Surely(format!("it wrote more than {most} MiB because of one batch")));
            }
        }
        // They were good one by one, and will be too many the next time.
        if let Some(rows) = too_many.filter(|_| out.bad_rows == bad_before) {
            self.most_rows = rows / 2;
        }
        Ok(())
    }

    fn take_part(
        &mut self,
        input: usize,
        rows: &Rows,
        part: Range<usize>,
        now: i64,
        pass: &mut Pass,
    ) -> Result<(), Failure> {
        let rows = rows.slice(part.start, part.len());
        let held = match self.shown.get(input).map(|shown| shown.hold(rows.batch.columns())) {
            Some(Ok(held)) => held,
            Some(Err(error)) => return Err(Failure::Again(error.to_string())),
            None => return Ok(()),
        };
        let columns: Vec<ColumnIn<'_>> = held.iter().map(|held| held.column()).collect();
        let (input, count) = (input as u32, u32::try_from(part.len()).unwrap_or(u32::MAX));
        let call = Call::new(now, rows.seqs.clone(), count);
        self.attempt(|plugin, instance| plugin.on_batch(instance, input, &columns, call), pass)
    }

    /// A row or a timer came to nothing.
    fn failed(&mut self, why: String, out: &mut Emissions) -> Result<(), Stop> {
        let mut kept = lock(&self.kept);
        kept.failures += 1;
        let failures = kept.failures;
        out.bad(why.clone());
        if failures >= MOST_FAILURES {
            return Err(Stop::Surely(format!(
                "{failures} rows failed one after the other, the last one: {why}"
            )));
        }
        Ok(())
    }

    /// Writes what is to be written, whether it goes on or not.
    fn finish(
        &self,
        pass: Pass,
        stop: Result<(), Stop>,
        first: u64,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        let Pass { writes, log, mut unsaid, .. } = pass;
        let room = MOST_LINES.saturating_sub(out.log.len());
        unsaid += log.len().saturating_sub(room) as u64;
        out.log.extend(log.into_iter().take(room));
        if unsaid > 0 {
            let text = format!("{unsaid} more lines were dropped: a call may log {MOST_LINES}");
            out.log.push(LogLine { level: LogLevel::Warn, text });
        }
        let stop = stop.err();
        // Of the row at which it was stopped, nothing is left: what timers wrote before it had its number.
        if !matches!(stop, Some(Stop::At(at, _)) if at == first) {
            let emitted = self.plugin.targets.emit(&writes, out);
            emitted.map_err(|error| RuleError(format!("what it wrote cannot be put together: {error}")))?;
        }
        match stop {
            None => Ok(()),
            Some(Stop::Surely(why)) => Err(RuleError(why)),
            Some(Stop::At(at, why)) => {
                self.plugin.fence.raise();
                out.stopped_at = Some(at);
                Err(RuleError(why))
            }
        }
    }
}

/// Puts both halves in front.
fn halve(part: Range<usize>, waiting: &mut VecDeque<Range<usize>>) {
    let middle = part.start + part.len() / 2;
    waiting.push_front(middle..part.end);
    waiting.push_front(part.start..middle);
}

/// A row, as far as it fits into a line.
fn words(batch: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let mut words = String::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let mut value = column.slice(row, 1);
        if matches!(value.data_type(), DataType::Timestamp(..)) {
            // The offset stands for itself, while names of zones have to be looked up.
            let utc = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
            value = cast(&value, &utc).unwrap_or(value);
        }
        let Ok(formatter) = ArrayFormatter::try_new(&value, &options) else { continue };
        let comma = if words.is_empty() { "" } else { ", " };
        words.push_str(&format!("{comma}{} = {}", field.name(), formatter.value(0)));
        if words.len() > 300 {
            break;
        }
    }
    shortened(&words)
}

impl Rule for WasmRule {
    fn flows(&self) -> &[Flow] {
        &self.flows
    }

    fn on_batch(
        &mut self,
        stream: &str,
        rows: &Rows,
        when: When,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        let Some(input) = self.plugin.inputs.iter().position(|table| table.name == stream) else {
            return Ok(());
        };
        if rows.is_empty() {
            return Ok(());
        }
        let (mut pass, first) = (Pass::default(), rows.seqs.get(0));
        let fired = self.fire(first, when.now, &mut pass, out);
        let stop = fired.and_then(|()| self.take(input, rows, when.now, &mut pass, out));
        self.finish(pass, stop, first, out)
    }

    fn on_tick(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        let mut pass = Pass::default();
        let stop = self.fire(seq, when.now, &mut pass, out);
        self.finish(pass, stop, seq, out)
    }

    fn wakes_at(&self) -> Option<i64> {
        lock(&self.kept).timers.next()
    }

    fn on_end(&mut self, _: u64, _: When, _: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    fn explain(&self) -> Explanation {
        let names = |names: Vec<&str>| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let reads = self.plugin.inputs.iter().map(|table| table.name.as_str()).collect();
        let writes = self.plugin.targets.iter().map(|target| target.name()).collect();
        let kept = lock(&self.kept);
        let step =
            |depth, what, entries, bytes| Step { depth, what, entries, bytes, shared_with: Vec::new() };
        let (timers, bytes) = (kept.timers.len(), kept.timers.bytes());
        let plugin = format!("plugin: reads {}, writes {}", names(reads), names(writes));
        Explanation {
            steps: vec![
                step(0, plugin, 0, 0),
                step(1, "state".to_owned(), kept.len(), kept.bytes() - bytes),
                step(1, "timers".to_owned(), timers, bytes),
            ],
            time: Vec::new(),
        }
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        lock(&self.kept).seal(&self.version)
    }

    fn restore(&mut self, state: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        let mut kept = lock(&self.kept);
        *kept = Kept::default();
        // It may have looked at its state when it started.
        self.instance = None;
        self.is_to_start = Kept::is_of_another(&state, &self.version);
        kept.restore(state, &self.version)
    }

    fn fence(&self) -> Option<&Arc<Fence>> {
        Some(&self.plugin.fence)
    }

    fn starting(&mut self) -> Option<&mut dyn Starting> {
        if self.is_to_start { Some(self) } else { None }
    }

    fn keeping(&mut self) -> Option<&mut dyn Keeping> {
        Some(self)
    }
}

impl Starting for WasmRule {
    fn start(&mut self, seq: u64, _: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.is_to_start = false;
        let failure = match self.plugin.start(&self.kept) {
            Ok(instance) => {
                self.instance = Some(instance);
                return Ok(());
            }
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Once(_)) {
            self.plugin.fence.raise();
            out.stopped_at = Some(seq);
        }
        let why = failure.why();
        Err(RuleError(format!("it fails with what the version before has kept: {why}")))
    }
}

impl Keeping for WasmRule {
    fn bytes(&self) -> usize {
        lock(&self.kept).bytes()
    }

    fn forget(&mut self) -> Result<usize, RuleError> {
        // What it can do without, only the plugin knows.
        Ok(0)
    }

    fn advice(&self) -> String {
        let kept = lock(&self.kept);
        format!(
            "it has {} entries and {} timers; have the plugin remove what it does not need",
            kept.len(),
            kept.timers.len()
        )
    }
}
