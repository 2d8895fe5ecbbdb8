//! A script as a rule.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use rhai::{Caches, Dynamic, EvalAltResult, EvalContext, Expression, Scope};
use tidegate_core::Rows as Numbered;

use super::call::{Calls, TimerChange};
use super::engine::Brake;
use super::error::Failure;
use super::row::{Row, Rows, View};
use super::script::{Form, Handler, Handlers, Script};
use super::stack;
use super::state::{Life, State};
use super::write::Written;
use crate::capability::{Keeping, Starting};
use crate::evaluation;
use crate::fence::Fence;
use crate::rule::{Emissions, Explanation, Flow, Rule, RuleError, SealedState, Step, When};
use crate::timers::Timers;

/// After so many rows in a row that have reached a limit, it is the script, and it stops.
pub(super) const MOST_FAILURES: i64 = 10;
/// Levels of lists and maps that a state has without nesting: those of the functions that remember.
const FLAT_DEPTH: usize = 2;

/// A rule that is a script.
pub(super) struct RhaiRule {
    file: String,
    version: Arc<str>,
    flows: Vec<Flow>,
    inputs: Vec<Input>,
    script: Script,
    /// which functions its calls mean
    caches: Caches,
    /// whether it can nest lists or maps, or call functions of its own
    is_deep: bool,
    calls: Calls,
    brake: Brake,
    state: State,
    timers: Timers,
    life: Life,
    /// what the calls of an entry have written so far
    written: Vec<Written>,
}

/// A stream that it reads.
#[derive(Debug)]
pub(super) struct Input {
    pub name: Arc<str>,
    /// the same, as a script is told of it
    pub label: Dynamic,
    pub schema: SchemaRef,
}

/// What a rule is made of.
pub(super) struct Parts {
    pub file: String,
    pub version: Arc<str>,
    pub flows: Vec<Flow>,
    pub inputs: Vec<Input>,
    pub script: Script,
    pub is_deep: bool,
    pub calls: Calls,
    pub brake: Brake,
}

/// Why a call did not go well.
enum Trouble {
    /// it costs the row
    Row(Failure),
    /// it costs the rule
    Rule(RuleError),
}

impl RhaiRule {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { file, version, flows, inputs, script, is_deep, calls, brake } = parts;
        Self {
            file,
            version,
            flows,
            inputs,
            script,
            caches: Caches::new(),
            is_deep,
            calls,
            brake,
            state: State::new(),
            timers: Timers::default(),
            life: Life::default(),
            written: Vec::new(),
        }
    }

    /// Runs what one entry of the sequence asks for, with room on the stack, and writes what came of it.
    fn run(
        &mut self,
        out: &mut Emissions,
        entry: impl FnOnce(&mut Self, &mut Emissions) -> Result<(), RuleError>,
    ) -> Result<(), RuleError> {
        let is_deep = self.is_deep();
        let run = || {
            let outcome = entry(self, out);
            let written = std::mem::take(&mut self.written);
            let mut call = self.calls.lock();
            out.log.extend(call.take_log());
            // What went well before something did not has been written.
            let emitted = call.outlets.emit(written, out);
            drop(call);
            self.state.count();
            outcome.and(emitted)
        };
        let outcome = evaluation::unpanicked(|| if is_deep { stack::deep(run) } else { stack::flat(run) });
        outcome.unwrap_or_else(|panicked| Err(RuleError(format!("it cannot go on: {panicked}"))))
    }

    fn is_deep(&self) -> bool {
        self.is_deep || self.state.counted().depth > FLAT_DEPTH
    }

    fn batch(
        &mut self,
        input: usize,
        rows: &Numbered,
        when: When,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        let Some(Input { label, schema, .. }) = self.inputs.get(input) else { return Ok(()) };
        let (view, label) = (Arc::new(View::new(input, schema, rows)), label.clone());
        let first = view.seq(0);
        self.fire(first, when, out)?;
        if let Some(handler) = &self.script.handlers.on_row {
            let form = handler.form;
            for row in 0..view.len() {
                self.at(view.seq(row), view.ts(row), 1, out)?;
                let value = Dynamic::from(Row::new(&view, row));
                let outcome = match form {
                    Form::Long => self.call(|h| &h.on_row, [label.clone(), value], Some(&view), 1, when),
                    Form::Short => self.call(|h| &h.on_row, [value], Some(&view), 1, when),
                };
                self.settle(outcome, 1, || view.describe(row), out)?;
            }
        } else if let Some(handler) = &self.script.handlers.on_batch {
            let (form, len) = (handler.form, view.len());
            self.at(first, view.ts(0), len, out)?;
            let value = Dynamic::from(Rows { view: Arc::clone(&view) });
            let outcome = match form {
                Form::Long => self.call(|h| &h.on_batch, [label, value], Some(&view), len, when),
                Form::Short => self.call(|h| &h.on_batch, [value], Some(&view), len, when),
            };
            self.settle(outcome, len as u64, || format!("the first of {len}: {}", view.describe(0)), out)?;
        }
        Ok(())
    }

    /// Tells the script that this version starts.
    fn begin(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.calls.lock().wall_ns = when.wall_ns;
        self.life.started = self.version.to_string();
        self.at(seq, None, 1, out)?;
        match self.call(|handlers| &handlers.on_start, [], None, 1, when) {
            Ok(()) => Ok(()),
            Err(Trouble::Row(failure)) if failure.is_fence => Err(self.stopped(seq, out)),
            Err(Trouble::Rule(error)) => Err(error),
            Err(Trouble::Row(failure)) => Err(RuleError(format!("{}, in `on_start`", failure.text))),
        }
    }

    fn is_to_start(&self) -> bool {
        self.script.handlers.on_start.is_some() && self.life.started != *self.version
    }

    /// Calls the script for the timers that are due. Those that it sets meanwhile have to wait.
    fn fire(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.calls.lock().wall_ns = when.wall_ns;
        let due: Vec<Arc<str>> = std::iter::from_fn(|| self.timers.take(when.now)).collect();
        for tag in due {
            self.at(seq, None, 1, out)?;
            match self.call(|handlers| &handlers.on_timer, [Dynamic::from(tag.to_string())], None, 1, when) {
                Err(Trouble::Rule(error)) => return Err(error),
                Err(Trouble::Row(failure)) if failure.is_fence => return Err(self.stopped(seq, out)),
                Err(Trouble::Row(failure)) => self.fail(failure, 1, &format!("timer \"{tag}\""), out)?,
                Ok(()) => self.life.failures = 0,
            }
        }
        Ok(())
    }

    /// What is called next is about the row or tick `seq`, and `rows` rows.
    fn at(&mut self, seq: u64, ts: Option<i64>, rows: usize, out: &mut Emissions) -> Result<(), RuleError> {
        if self.brake.fence.is_raised() {
            return Err(self.stopped(seq, out));
        }
        self.brake.release(rows);
        let mut call = self.calls.lock();
        call.at(seq, ts);
        call.rows = rows.max(1);
        Ok(())
    }

    fn stopped(&self, seq: u64, out: &mut Emissions) -> RuleError {
        out.stopped_at = Some(seq);
        RuleError("it took too long and was stopped".to_owned())
    }

    /// Calls a function of the script for so many rows, those of `view`. What it does counts when it has gone
    /// well.
    fn call<const N: usize>(
        &mut self,
        handler: fn(&Handlers) -> &Option<Handler>,
        arguments: [Dynamic; N],
        view: Option<&Arc<View>>,
        rows: usize,
        when: When,
    ) -> Result<(), Trouble> {
        let Some(Handler { parameters, body, .. }) = handler(&self.script.handlers) else { return Ok(()) };
        let engine = &self.script.engine;
        let mut global = engine.new_global_runtime_state();
        global.lib.push(Arc::clone(self.script.ast.shared_lib()));
        let mut scope = Scope::new();
        for (name, value) in parameters.iter().zip(arguments) {
            scope.push_dynamic(name.as_str(), value);
        }
        let name = parameters.get(N).map_or("state", |name| name.as_str());
        scope.push_dynamic(name, self.state.take(rows));
        let mut context = EvalContext::new(engine, &mut global, &mut self.caches, &mut scope, None);
        let outcome = context.eval_expression_tree(&Expression::from(body));
        let is_map = self.state.put_back(scope.get_mut(name).map(std::mem::take).unwrap_or_default());
        drop(scope);
        let mut call = self.calls.lock();
        let (mut written, timers) = (std::mem::take(&mut call.written), std::mem::take(&mut call.timers));
        drop(call);
        if !is_map {
            let what = "the script has put something else in the place of its state; set its entries instead";
            return Err(Trouble::Rule(RuleError(format!("{}: {what}", self.file))));
        }
        // What it gave back may hold rows, and is gone then.
        let outcome = match outcome.map_err(|error| *error) {
            Ok(_) | Err(EvalAltResult::Return(..)) => Ok(()),
            Err(error) => Err(Trouble::Row(Failure::new(&self.file, Box::new(error)))),
        };
        let kept =
            if view.is_some_and(|view| Arc::strong_count(view) > 1) { self.keeps_a_row() } else { Ok(()) };
        outcome.and(kept)?;
        self.written.append(&mut written);
        for change in timers {
            match change {
                TimerChange::After(tag, ns) => self
                    .timers
                    .set(&tag, when.now.saturating_add(ns))
                    .map_err(|error| Trouble::Row(Failure::limit(format!("{}: {error}", self.file))))?,
                TimerChange::Cancel(tag) => self.timers.cancel(&tag),
            }
        }
        Ok(())
    }

    /// The state holds a row, which would hold its whole batch, and is no value: that goes.
    fn keeps_a_row(&mut self) -> Result<(), Trouble> {
        let (path, what) = self.state.purge().unwrap_or_else(|| ("state".to_owned(), "a row"));
        let advice = "keep its values, or `row.to_map()`";
        let text = format!("{}: `{path}` is {what}, which cannot be kept; {advice}", self.file);
        Err(Trouble::Row(Failure::row(text)))
    }

    /// Takes note of how a call for so many rows went.
    fn settle(
        &mut self,
        outcome: Result<(), Trouble>,
        rows: u64,
        described: impl FnOnce() -> String,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        match outcome {
            Ok(()) => self.life.failures = 0,
            Err(Trouble::Rule(error)) => return Err(error),
            Err(Trouble::Row(failure)) if failure.is_fence => {
                let seq = self.calls.lock().seq;
                return Err(self.stopped(seq, out));
            }
            Err(Trouble::Row(failure)) => self.fail(failure, rows, &format!("row: {}", described()), out)?,
        }
        Ok(())
    }

    /// A call did not go well, and costs `rows` rows, described by `what`.
    fn fail(
        &mut self,
        failure: Failure,
        rows: u64,
        what: &str,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        out.bad(format!("{}; {what}", failure.text));
        out.bad_rows += rows.saturating_sub(1);
        self.life.failures = if failure.is_limit { self.life.failures + 1 } else { 0 };
        if self.life.failures >= MOST_FAILURES {
            return Err(RuleError(format!("{}; that {MOST_FAILURES} times in a row", failure.text)));
        }
        Ok(())
    }
}

impl Rule for RhaiRule {
    fn flows(&self) -> &[Flow] {
        &self.flows
    }

    fn on_batch(
        &mut self,
        stream: &str,
        rows: &Numbered,
        when: When,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        let Some(input) = self.inputs.iter().position(|input| &*input.name == stream) else { return Ok(()) };
        if rows.is_empty() {
            return Ok(());
        }
        self.run(out, |rule, out| rule.batch(input, rows, when, out))
    }

    fn on_tick(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.run(out, |rule, out| rule.fire(seq, when, out))
    }

    fn wakes_at(&self) -> Option<i64> {
        self.timers.next()
    }

    /// A script does not wait for an end.
    fn on_end(&mut self, _seq: u64, _when: When, _out: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    fn explain(&self) -> Explanation {
        let names = |names: Vec<&str>| names.join(", ");
        let reads = names(self.inputs.iter().map(|input| &*input.name).collect());
        let call = self.calls.lock();
        let writes = names(call.outlets.names().collect());
        let counted = self.state.counted();
        let step = |depth, what: String, entries, bytes| Step {
            depth,
            what,
            entries,
            bytes,
            shared_with: Vec::new(),
        };
        let mut steps = vec![
            step(0, format!("Rhai: {reads} -> {writes}"), 0, 0),
            step(1, "state".to_owned(), counted.entries, counted.bytes),
        ];
        if self.script.handlers.on_timer.is_some() {
            let next = self.timers.len();
            steps.push(step(1, "timers".to_owned(), next, self.timers.bytes()));
        }
        Explanation { steps, time: Vec::new() }
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        let mut sealed = Vec::new();
        let state = &self.state;
        sealed.extend(if self.is_deep() { stack::deep(|| state.seal()) } else { state.seal() }?);
        sealed.extend(self.timers.seal()?);
        if self.life != Life::default() {
            sealed.push(self.life.seal()?);
        }
        Ok(sealed)
    }

    fn restore(&mut self, sealed: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        let mut misfits = Vec::new();
        for one in &sealed {
            let state = &mut self.state;
            if stack::deep(|| state.restore(one))? {
                continue;
            }
            if self.timers.restore(one)? {
                continue;
            }
            match Life::restore(one) {
                // Another version has failures of its own.
                Some(life) if life.started == *self.version || life.started.is_empty() => self.life = life,
                Some(_) => {}
                None => {
                    misfits.push(format!("the state of `{}` does not fit and is dropped", one.fingerprint))
                }
            }
        }
        if self.timers.len() > 0 && self.script.handlers.on_timer.is_none() {
            misfits.push(format!("{} timers are dropped: there is no `on_timer`", self.timers.len()));
            self.timers = Timers::default();
        }
        Ok(misfits)
    }

    fn fence(&self) -> Option<&Arc<Fence>> {
        Some(&self.brake.fence)
    }

    fn starting(&mut self) -> Option<&mut dyn Starting> {
        if self.is_to_start() { Some(self) } else { None }
    }

    fn keeping(&mut self) -> Option<&mut dyn Keeping> {
        Some(self)
    }
}

impl Starting for RhaiRule {
    fn start(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.run(out, |rule, out| rule.begin(seq, when, out))
    }
}

impl Keeping for RhaiRule {
    fn bytes(&self) -> usize {
        self.state.counted().bytes + self.timers.bytes()
    }

    /// Nobody but the script knows what is oldest in its state.
    fn forget(&mut self) -> Result<usize, RuleError> {
        Ok(0)
    }

    fn advice(&self) -> String {
        let largest = self.state.largest();
        let largest = largest.map_or_else(String::new, |name| format!("most of it is `state.{name}`; "));
        format!("{largest}remove what is not needed any more, as `state.remove(name)`")
    }
}

impl Drop for RhaiRule {
    fn drop(&mut self) {
        if self.is_deep() {
            let state = std::mem::replace(&mut self.state, State::new());
            stack::deep(move || drop(state));
        }
    }
}

impl fmt::Debug for RhaiRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RhaiRule")
            .field("file", &self.file)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
