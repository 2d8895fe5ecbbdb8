//! SQL text -> logical plan -> stages that run on Arrow batches.
//!
//! * [`text`]: the file becomes statements, each with its target and its place in the file.
//! * [`names`]: what a name in a statement means: streams, functions, and the window table functions.
//! * [`lower`]: DataFusion plans a statement once, when the rule is loaded; the plan becomes a [`pipeline::Pipeline`].
//! * [`pipeline`]: filters and projections, evaluated on whole batches.
//! * [`window`]: windowed aggregates, kept as `GroupsAccumulator` panes.
//!
//! Nothing is planned while rows flow.

mod complaint;
mod lower;
mod names;
mod pipeline;
mod text;
mod window;

use std::sync::Arc;

use datafusion_sql::planner::PlannerContext;
use tidegate_core::Rows;

use crate::rule::{Emissions, Flow, Rule, RuleError, SealedState};
use crate::{Catalog, CompileError, Options};
use pipeline::Pipeline;

/// A rule written in SQL: one pipeline a statement.
#[derive(Debug)]
pub struct SqlRule {
    flows: Vec<Flow>,
    pipelines: Vec<Pipeline>,
}

/// Compiles the SQL rule `file` against `catalog`.
///
/// # Errors
/// See [`crate::compile`].
pub fn compile(file: &str, text: &str, options: &Options, catalog: &Catalog) -> Result<SqlRule, CompileError> {
    let statements = text::parse(file, text).map_err(|wrong| CompileError::Wrong(vec![wrong]))?;
    let names = names::Names::new(catalog);
    let mut views = PlannerContext::new();
    let (mut pipelines, mut wrong) = (Vec::new(), Vec::new());
    for statement in statements {
        let complaints = complaint::Complaints { file, text, start: statement.start };
        let outcome = match statement.body {
            text::Body::View { name, query } => lower::view(&name, *query, &names, &mut views),
            text::Body::Insert { target, columns, query } => {
                lower::insert(&target, &columns, *query, options, &names, &mut views).map(|pipeline| pipelines.push(pipeline))
            }
        };
        if let Err(error) = outcome {
            wrong.push(complaints.diagnostic(&error));
        }
    }
    let waiting = names.waiting();
    if !waiting.is_empty() {
        return Err(CompileError::Waiting(waiting));
    }
    if !wrong.is_empty() {
        return Err(CompileError::Wrong(wrong));
    }
    let flows = pipelines.iter().map(|p| Flow { input: Arc::clone(p.input()), target: p.target().clone() }).collect();
    Ok(SqlRule { flows, pipelines })
}

impl Rule for SqlRule {
    fn flows(&self) -> &[Flow] {
        &self.flows
    }

    fn on_batch(&mut self, stream: &str, rows: &Rows, _: i64, out: &mut Emissions) -> Result<(), RuleError> {
        for pipeline in self.pipelines.iter_mut().filter(|p| &**p.input() == stream) {
            pipeline.on_batch(rows, out)?;
        }
        Ok(())
    }

    fn on_tick(&mut self, _: u64, _: i64, _: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    fn wakes_at(&self) -> Option<i64> {
        None
    }

    fn on_end(&mut self, seq: u64, out: &mut Emissions) -> Result<(), RuleError> {
        self.pipelines.iter_mut().try_for_each(|pipeline| pipeline.on_end(seq, out))
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        self.pipelines.iter_mut().filter_map(|pipeline| pipeline.seal().transpose()).collect()
    }

    fn restore(&mut self, mut state: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        let mut misfits = Vec::new();
        for pipeline in &mut self.pipelines {
            pipeline.restore(&mut state, &mut misfits)?;
        }
        misfits.extend(state.into_iter().map(|left| format!("the open windows of `{}` do not fit and are dropped", left.fingerprint)));
        Ok(misfits)
    }
}
