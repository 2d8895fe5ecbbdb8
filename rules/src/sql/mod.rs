//! SQL text -> logical plan -> stages that run on Arrow batches.
//!
//! * [`options`]: what `--!` lines say beside the options of all rules.
//! * [`text`]: the file becomes statements, each with its target and its place in the file.
//! * [`names`], [`functions`], [`table_functions`] and [`as_of`]: what a name in a statement means: streams,
//!   tables, functions, windows (and [`windows`], their arithmetic).
//! * [`pattern`]: what `MATCH_RECOGNIZE` in FROM says; [`wall_clock`]: what `now()` does.
//! * [`warnings`]: what is taken, and probably not meant.
//! * [`lower`]: DataFusion plans a statement once, when the rule is loaded; the plan becomes a tree of
//!   [`operators`].
//! * [`operators`]: what filters, computes, aggregates and keeps state.
//! * [`statement`] and [`time`]: such a tree with its event time, on its way through the sequence.
//! * [`condition`]: what WHERE says, by itself, of the newest rows of streams.
//!
//! Nothing is planned while rows flow.

mod as_of;
mod complaint;
mod condition;
mod dialect;
mod elsewhere;
mod floats;
mod functions;
mod growth;
mod json;
mod lower;
mod mismatch;
mod names;
mod nesting;
mod operators;
mod options;
mod pattern;
mod spellings;
mod statement;
mod table_functions;
mod text;
mod time;
mod wall_clock;
mod warnings;
mod windows;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion_sql::planner::PlannerContext;
use tidegate_core::{Diagnostic, Rows};

use crate::capability::{Indexed, Keeping, Lookups, Shared, Sharing, Silences};
use crate::index::Prefilter;
use crate::options::OptionLines;
use crate::rule::{Emissions, Explanation, Flow, Listened, Rule, RuleError, SealedState, Step, When};
use crate::target::Target;
use crate::{Catalog, CompileError, Compiled, Options, Source, evaluation};
pub use condition::{Condition, ConditionColumn, ConditionError, NoVerdict};
pub(crate) use operators::SharedParts;
use options::SqlOptions;
use statement::Statement;
use wall_clock::WallClock;

/// A rule written in SQL: one tree of operators a statement.
#[derive(Debug)]
pub struct SqlRule {
    flows: Vec<Flow>,
    tables: Vec<(Arc<str>, SchemaRef)>,
    statements: Vec<Statement>,
    options: SqlOptions,
    clock: WallClock,
}

/// Compiles the SQL rule `file` against `catalog`.
///
/// # Errors
/// See [`crate::compile`].
pub(crate) fn compile(file: &str, source: &Source, catalog: &Catalog) -> Result<Compiled, CompileError> {
    let text = source.text(file).map_err(|wrong| CompileError::Wrong(vec![wrong]))?;
    let lines = OptionLines::find::<SqlOptions>(file, text);
    let (options, own) = lines.read().map_err(CompileError::Wrong)?;
    let compiled = || nesting::with_room(|| compile_with_room(file, text, &lines, &options, own, catalog));
    // The planner evaluates what is constant, with the same functions as rows are.
    let outcome = evaluation::unpanicked(compiled).unwrap_or_else(|panicked| {
        let why = format!("a constant of the rule has no value: {panicked}");
        Err(CompileError::Wrong(vec![Diagnostic::new(file, why)]))
    });
    let (rule, of_text) = outcome?;
    let mut warnings = options.warnings(&lines);
    warnings.extend(of_text);
    Ok(Compiled { options, rule: Box::new(rule), warnings })
}

/// With the rule comes what probably is not meant as it is written.
fn compile_with_room(
    file: &str,
    text: &str,
    lines: &OptionLines<'_>,
    common: &Options,
    options: SqlOptions,
    catalog: &Catalog,
) -> Result<(SqlRule, Vec<Diagnostic>), CompileError> {
    let statements = text::parse(file, text).map_err(CompileError::Wrong)?;
    let twice = warnings::of_outputs(file, &statements, common.mode, catalog);
    let names = names::Names::new(catalog);
    let (mut views, mut sizes) = (PlannerContext::new(), nesting::Sizes::default());
    let (mut lowered, mut wrong, mut warnings) = (Vec::new(), Vec::new(), twice);
    for statement in statements {
        let complaints = complaint::Complaints { file, text, start: statement.start };
        let outcome = match statement.body {
            text::Body::View { name, query } => sizes
                .check_view(&name, &query)
                .and_then(|()| lower::view(&name, *query, &names, &mut views))
                .inspect_err(|_| names.view_is_wrong(name)),
            text::Body::Insert { target, columns, query } => sizes
                .check(&query)
                .and_then(|()| lower::insert(&target, &columns, *query, &options, &names, &mut views))
                .map(|statement| lowered.push(statement)),
        };
        if let Err(error) = outcome {
            let diagnostic = complaints.diagnostic(&error);
            // What is wrong in a view is wrong in all that read it.
            if !names.take_wrong_view_asked() && !wrong.contains(&diagnostic) {
                wrong.push(diagnostic);
            }
        }
        warnings.extend(names.take_warnings().iter().map(|warning| complaints.diagnostic(warning).warning()));
    }
    let waiting = names.waiting();
    if !waiting.is_empty() {
        return Err(CompileError::Waiting(waiting));
    }
    if !wrong.is_empty() {
        return Err(CompileError::Wrong(wrong));
    }
    warnings.extend(warnings::of_options(lines, &options, names.has_windows()));
    let flows = lowered.iter().flat_map(|statement: &Statement| {
        let of =
            |input: &Arc<str>, target: &Target| Flow { input: Arc::clone(input), target: target.clone() };
        statement
            .inputs()
            .iter()
            .flat_map(move |input| statement.targets().map(move |target| of(input, target)))
    });
    let tables: BTreeMap<Arc<str>, SchemaRef> =
        lowered.iter().flat_map(|statement| statement.tables().iter().cloned()).collect();
    let rule = SqlRule {
        flows: flows.collect(),
        tables: tables.into_iter().collect(),
        statements: lowered,
        options,
        clock: names.clock,
    };
    Ok((rule, warnings))
}

impl Rule for SqlRule {
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
        self.clock.set(when.wall_ns);
        let mut readers = self.statements.iter_mut().filter(|statement| statement.reads(stream));
        readers.try_for_each(|statement| statement.on_batch(stream, rows, when, out))
    }

    fn on_tick(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.clock.set(when.wall_ns);
        self.statements.iter_mut().try_for_each(|statement| statement.on_tick(seq, when, out))
    }

    fn wakes_at(&self) -> Option<i64> {
        self.statements.iter().filter_map(Statement::wakes_at).min()
    }

    fn on_end(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.clock.set(when.wall_ns);
        self.statements.iter_mut().try_for_each(|statement| statement.on_end(seq, when, out))
    }

    fn explain(&self) -> Explanation {
        let mut steps = Vec::new();
        for statement in &self.statements {
            steps.push(Step {
                depth: 0,
                what: format!("INSERT INTO {}", statement.target()),
                entries: 0,
                bytes: 0,
                shared_with: Vec::new(),
            });
            operators::explain(statement.root(), 1, &mut steps);
        }
        let SqlOptions { lateness, idle_after, .. } = &self.options;
        Explanation { steps, time: vec![("lateness", Some(*lateness)), ("idle_after", *idle_after)] }
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        let mut sealed = Vec::new();
        self.statements.iter_mut().try_for_each(|statement| statement.seal(&mut sealed))?;
        Ok(sealed)
    }

    fn restore(&mut self, mut state: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        let mut misfits = Vec::new();
        for statement in &mut self.statements {
            statement.restore(&mut state, &mut misfits)?;
        }
        let left =
            state.into_iter().filter(|sealed| !time::EventTime::is_time(sealed) && sealed.batch.is_some());
        misfits.extend(
            left.map(|left| format!("the state of `{}` does not fit and is dropped", left.fingerprint)),
        );
        Ok(misfits)
    }

    fn indexed(&self) -> Option<&dyn Indexed> {
        Some(self)
    }

    fn keeping(&mut self) -> Option<&mut dyn Keeping> {
        Some(self)
    }

    fn lookups(&mut self) -> Option<&mut dyn Lookups> {
        Some(self)
    }

    fn silences(&mut self) -> Option<&mut dyn Silences> {
        Some(self)
    }

    fn sharing(&mut self) -> Option<&mut dyn Sharing> {
        Some(self)
    }
}

impl Indexed for SqlRule {
    fn prefilters(&self, stream: &str) -> Option<Arc<[Prefilter]>> {
        let mut prefilters = Vec::new();
        for statement in self.statements.iter().filter(|statement| statement.reads(stream)) {
            prefilters.extend_from_slice(statement.prefilters()?);
        }
        Some(prefilters.into())
    }

    fn minds_time(&self) -> bool {
        self.clock.is_read() || self.statements.iter().any(Statement::minds_time)
    }
}

/// See [`operators::Operator::shed`] for what forgetting leaves whole: rows that come later for a window that
/// is forgotten count as late.
impl Keeping for SqlRule {
    fn bytes(&self) -> usize {
        self.statements.iter().map(Statement::held_bytes).sum()
    }

    fn forget(&mut self) -> Result<usize, RuleError> {
        let mut largest_first: Vec<&mut Statement> = self.statements.iter_mut().collect();
        largest_first.sort_by_cached_key(|statement| std::cmp::Reverse(statement.held_bytes()));
        for statement in largest_first {
            let forgotten = statement.shed()?;
            if forgotten > 0 {
                return Ok(forgotten);
            }
        }
        Ok(0)
    }

    fn advice(&self) -> String {
        let largest = self.statements.iter().map(Statement::largest).max_by_key(|(_, kept)| kept.bytes);
        let (operator, kept) = largest.unwrap_or_default();
        let entries = kept.entries;
        format!("most of it is {entries} entries of `{operator}`; use shorter windows or fewer keys")
    }
}

impl Lookups for SqlRule {
    fn tables(&self) -> &[(Arc<str>, SchemaRef)] {
        &self.tables
    }

    fn on_table(&mut self, name: &str, rows: &RecordBatch, out: &mut Emissions) -> Result<(), RuleError> {
        let readers = self
            .statements
            .iter_mut()
            .filter(|statement| statement.tables().iter().any(|(table, _)| &**table == name));
        for statement in readers {
            statement.on_table(name, rows, out)?;
        }
        Ok(())
    }
}

impl Silences for SqlRule {
    fn awaited(&self) -> Vec<(Arc<str>, i64)> {
        self.statements.iter().flat_map(Statement::silences).collect()
    }

    fn listened(&mut self, streams: &[(Arc<str>, Listened)], now: i64) -> bool {
        let mut goes_on = false;
        // All of them have to be told.
        for statement in &mut self.statements {
            goes_on |= statement.listened(streams, now);
        }
        goes_on
    }
}

impl Sharing for SqlRule {
    fn share(&mut self, name: &Arc<str>, shared: &mut Shared) -> Result<(), RuleError> {
        self.statements.iter_mut().try_for_each(|statement| statement.share(name, &mut shared.sql))
    }

    fn move_away(&mut self, shared: &mut Shared) -> Result<(), RuleError> {
        self.statements.iter_mut().try_for_each(|statement| statement.move_away(&mut shared.sql))
    }

    fn snapshot(&mut self) -> Result<Vec<SealedState>, RuleError> {
        let mut copies = Vec::new();
        self.statements.iter_mut().try_for_each(|statement| statement.snapshot(&mut copies))?;
        Ok(copies)
    }
}
