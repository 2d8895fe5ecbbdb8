//! A condition over the newest rows of streams: what interlocks are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::and_kleene;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::{Column, DataFusionError, Result, SchemaError, plan_datafusion_err, plan_err};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr as AstExpr, Function, Ident, Query, Value, ValueWithSpan, Visit, Visitor,
};
use tidegate_core::Diagnostic;
use tidegate_core::diagnostic::{did_you_mean, nearest};

use super::complaint::{self, Complaints};
use super::lower::condition::{Looked, Planned};
use super::names::{self, Names};
use super::spellings::of_column;
use super::text::normal;
use super::words::{failure, identifier};
use super::{elsewhere, lower, nesting, text, wall_clock};
use crate::{Catalog, evaluation, expression};

/// A condition over the newest rows of streams, such as `tank.level > 10 AND NOT press.guard_open`. It means
/// what it would mean in WHERE of a rule that has these rows side by side, and says unknown as well.
#[derive(Debug, Clone)]
pub struct Condition {
    columns: Vec<ConditionColumn>,
    schema: SchemaRef,
    /// what of it has a value for every row
    safe: Option<Arc<dyn PhysicalExpr>>,
    /// the rest, which is looked at where that is not false
    rest: Arc<dyn PhysicalExpr>,
}

/// A column that a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConditionColumn {
    /// The stream.
    pub stream: Arc<str>,
    /// What the column is called there.
    pub column: Arc<str>,
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It names streams whose columns are not known yet; it can be compiled when their first data has come.
    #[error("the columns of {} are not known yet", .0.join(", "))]
    Waiting(Vec<String>),
    /// It is wrong.
    #[error("{message}{}", help.as_ref().map(|help| format!("; {help}")).unwrap_or_default())]
    Wrong {
        /// The byte of the text at which it is.
        offset: usize,
        /// What is wrong, in lower case, without a full stop.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },
}

/// A row for which a condition cannot be evaluated: a division by zero, a text that is no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the condition has no value: {why}")]
pub struct NoVerdict {
    /// The first row for which that is so. Others have their verdicts when they are asked for without it.
    pub row: usize,
    /// Why, for people.
    pub why: String,
}

impl Condition {
    /// Compiles `text`, in which the columns of `streams` may be named as `stream.column`. A stream whose
    /// columns are not known yet has none.
    ///
    /// # Errors
    /// When it is wrong, with the first place that is, or when the columns of a stream must be known first.
    pub fn compile(
        text: &str,
        streams: &BTreeMap<String, Option<SchemaRef>>,
    ) -> Result<Self, ConditionError> {
        // The planner evaluates what is constant, with the same functions as rows are.
        let compiled = || nesting::with_room(|| compile_with_room(text, streams));
        evaluation::unpanicked(compiled).unwrap_or_else(|panicked| {
            let message = format!("a constant of the condition has no value: {panicked}");
            Err(ConditionError::Wrong { offset: 0, message, help: None })
        })
    }

    /// The columns that it looks at, in the order of [`Self::schema`]: those of one stream together.
    #[must_use]
    pub fn columns(&self) -> &[ConditionColumn] {
        &self.columns
    }

    /// Each stream that it looks at, with its columns.
    pub fn streams(&self) -> impl Iterator<Item = (&Arc<str>, &[ConditionColumn])> {
        let streams = self.columns.chunk_by(|one, next| one.stream == next.stream);
        streams.filter_map(|columns| Some((&columns.first()?.stream, columns)))
    }

    /// What [`Self::evaluate`] takes: a field for each of [`Self::columns`], called `stream.column`. Any of
    /// them may be null.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// One verdict a row: true, false, or null, which is unknown. The verdict of a row does not depend on the
    /// other rows.
    ///
    /// # Errors
    /// When there is a row for which it cannot be evaluated, or when the columns are not those of
    /// [`Self::schema`].
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<BooleanArray, NoVerdict> {
        let taken = self.schema.fields().iter().map(|field| field.data_type());
        if !rows.columns().iter().map(|column| column.data_type()).eq(taken) {
            return Err(NoVerdict { row: 0, why: "the rows have other columns than it looks at".to_owned() });
        }
        if let Ok(verdicts) = self.of_all(rows) {
            return Ok(verdicts);
        }
        let of_one = |row| self.of_one(&rows.slice(row, 1)).map_err(|error| (row, error));
        (0..rows.num_rows())
            .map(of_one)
            .collect::<Result<_, _>>()
            .map_err(|(row, error)| NoVerdict { row, why: failure(&error) })
    }

    fn of_all(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let rest = verdicts(&self.rest, rows)?;
        match &self.safe {
            Some(safe) => Ok(and_kleene(&verdicts(safe, rows)?, &rest)?),
            None => Ok(rest),
        }
    }

    /// The rest is looked at only where it makes a difference, as in WHERE.
    fn of_one(&self, row: &RecordBatch) -> Result<Option<bool>> {
        let first = |verdicts: BooleanArray| verdicts.iter().next().flatten();
        let safe = match &self.safe {
            Some(safe) => first(verdicts(safe, row)?),
            None => Some(true),
        };
        match (safe, verdicts(&self.rest, row).map(first)) {
            (Some(false), _) | (None, Ok(Some(false))) => Ok(Some(false)),
            (None, _) => Ok(None),
            (Some(true), rest) => rest,
        }
    }
}

fn verdicts(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray> {
    let value = expression::evaluate(expr, rows)?;
    match value.as_boolean_opt() {
        Some(verdicts) => Ok(verdicts.clone()),
        None => plan_err!("a condition is neither true nor false but {}", value.data_type()),
    }
}

fn compile_with_room(
    text: &str,
    streams: &BTreeMap<String, Option<SchemaRef>>,
) -> Result<Condition, ConditionError> {
    // The caller knows which file the text is from.
    let complaints = Complaints { file: "", text, start: None };
    let wrong = |error: &DataFusionError| told(text, complaints.diagnostic(error));
    if text.trim().is_empty() {
        return Err(wrong(&plan_datafusion_err!(
            "the condition is empty; write one such as `tank.level > 10`"
        )));
    }
    let written = match text::condition("", text) {
        Ok(written) => written,
        Err(all) => {
            let mut first =
                all.into_iter().next().unwrap_or_else(|| Diagnostic::new("", "this is no condition"));
            // A rule would be told to become several.
            if first.message.contains("nested") {
                first.message = first.message.split("; ").next().unwrap_or_default().to_owned();
                first.help = Some(format!("compute a part of it {IN_A_RULE}, and name that here"));
            }
            return Err(told(text, first));
        }
    };
    let mut reading =
        Reading { streams, named: BTreeSet::new(), waiting: BTreeSet::new(), taken: Vec::new() };
    if let ControlFlow::Break(error) = written.visit(&mut reading) {
        return Err(wrong(&error));
    }
    let Reading { named, waiting, .. } = reading;
    if named.is_empty() {
        let why = plan_datafusion_err!(
            "the condition looks at no stream, so that it is always the same; name columns as \
            `stream.column`"
        );
        return Err(wrong(&why));
    }
    if !waiting.is_empty() {
        return Err(ConditionError::Waiting(waiting.into_iter().collect()));
    }
    let known = |stream: &String| streams.get(stream)?.as_ref().map(|schema| lower::nullable(schema));
    let catalog = Catalog {
        inputs: named.iter().map(|stream| (stream.clone(), known(stream))).collect(),
        ..Catalog::default()
    };
    let names = Names::new(&catalog);
    let planned = lower::condition::condition(written, &named, &names).map_err(|error| wrong(&error))?;
    // Nobody would read a warning: what is probably not meant is to be written otherwise.
    if let Some(warning) = names.take_warnings().first() {
        return Err(wrong(warning));
    }
    Ok(Condition::from(planned))
}

/// The same for those who know the text, and not its lines.
fn told(text: &str, said: Diagnostic) -> ConditionError {
    let offset = said.place.map_or(0, |place| complaint::offset_of(text, place));
    ConditionError::Wrong { offset, message: said.message, help: said.help }
}

impl From<Planned> for Condition {
    fn from(planned: Planned) -> Self {
        let Planned { columns, safe, rest } = planned;
        let field = |Looked { stream, column, data_type }: &Looked| {
            Field::new(format!("{stream}.{column}"), data_type.clone(), true)
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let column = |Looked { stream, column, .. }: Looked| ConditionColumn {
            stream: stream.into(),
            column: column.into(),
        };
        Self { columns: columns.into_iter().map(column).collect(), schema, safe, rest }
    }
}

/// Reads which streams are named, and refuses what a condition cannot have.
struct Reading<'a> {
    streams: &'a BTreeMap<String, Option<SchemaRef>>,
    named: BTreeSet<String>,
    /// those of them whose columns are not known yet
    waiting: BTreeSet<String>,
    /// identifiers that are part of a name which has been read
    taken: Vec<*const AstExpr>,
}

impl Visitor for Reading<'_> {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<DataFusionError> {
        let why = plan_datafusion_err!(
            "a condition looks at the newest rows of streams, and has no subqueries; look it up {IN_A_RULE}, \
            and name that"
        );
        ControlFlow::Break(complaint::in_clause("( SELECT|( WITH|( VALUES|( FROM|EXISTS", why))
    }

    fn pre_visit_expr(&mut self, expr: &AstExpr) -> ControlFlow<DataFusionError> {
        match self.read(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Reading<'_> {
    fn read(&mut self, expr: &AstExpr) -> Result<()> {
        match expr {
            AstExpr::Identifier(_) if self.taken.contains(&std::ptr::from_ref(expr)) => return Ok(()),
            AstExpr::Identifier(name) => return Err(complaint::at(expr, self.unqualified(name))),
            AstExpr::CompoundIdentifier(parts) => {
                if let [stream, column, ..] = parts.as_slice() {
                    self.name(stream, column)?;
                }
            }
            // `tank.axes[1]`
            AstExpr::CompoundFieldAccess { root, access_chain } => {
                if let (AstExpr::Identifier(stream), Some(AccessExpr::Dot(next))) =
                    (&**root, access_chain.first())
                    && let AstExpr::Identifier(column) = next
                {
                    self.name(stream, column)?;
                    let parts = access_chain.iter().map_while(|access| match access {
                        AccessExpr::Dot(part @ AstExpr::Identifier(_)) => Some(part),
                        _ => None,
                    });
                    self.taken.extend(std::iter::once(&**root).chain(parts).map(std::ptr::from_ref));
                }
            }
            AstExpr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => {
                let why =
                    plan_datafusion_err!("a condition has no parameters such as `{name}`; write the value");
                return Err(complaint::at(expr, why));
            }
            AstExpr::Function(call) => refuse_call(call)?,
            _ => {}
        }
        elsewhere::refused(expr).map_or(Ok(()), Err)
    }

    fn name(&mut self, stream: &Ident, column: &Ident) -> Result<()> {
        let (name, wanted) = (normal(stream), normal(column));
        match self.streams.get(&name) {
            None => return Err(at(stream, self.no_stream(&name))),
            Some(None) => {
                self.waiting.insert(name.clone());
            }
            Some(Some(schema)) if schema.column_with_name(&wanted).is_none() => {
                let valid_fields =
                    schema.fields().iter().map(|field| Column::new(Some(name.as_str()), field.name()));
                let missing = SchemaError::FieldNotFound {
                    valid_fields: valid_fields.collect(),
                    field: Box::new(Column::new(Some(name.as_str()), wanted)),
                };
                let error = DataFusionError::SchemaError(Box::new(missing), Box::new(None));
                return Err(at(column, error));
            }
            Some(Some(_)) => {}
        }
        self.named.insert(name);
        Ok(())
    }

    /// What is called `stream.column` where the stream has such a column, for each of them.
    fn qualified(&self, column: &str) -> Vec<String> {
        let has = |schema: &Option<SchemaRef>| {
            schema.as_ref().is_some_and(|schema| schema.column_with_name(column).is_some())
        };
        let such = self.streams.iter().filter(|(_, schema)| has(schema));
        such.map(|(stream, _)| format!("{}.{}", identifier(stream), identifier(column))).collect()
    }

    fn no_stream(&self, name: &str) -> DataFusionError {
        if let Some(meant) = self.qualified(name).first() {
            return plan_datafusion_err!("`{name}` is a column, and not a stream; write `{meant}`");
        }
        let known: Vec<String> = self.streams.keys().map(|stream| identifier(stream)).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let help = did_you_mean(name, &known).map(|help| help.replace("known names", "known streams"));
        plan_datafusion_err!("`{name}` is not a stream; {}", help.unwrap_or_default())
    }

    /// A name stands alone.
    fn unqualified(&self, ident: &Ident) -> DataFusionError {
        let name = normal(ident);
        let such = self.qualified(&name);
        if !such.is_empty() {
            let such = such.iter().map(|such| format!("`{such}`")).collect::<Vec<_>>().join(" or ");
            return plan_datafusion_err!("`{name}` does not say of which stream it is; write {such}");
        }
        if let Some(schema) = self.streams.get(&name) {
            let field =
                schema.as_ref().and_then(|schema| schema.fields().iter().find(|field| field.name() != "ts"));
            let column = field.map_or_else(|| "column".to_owned(), |field| identifier(field.name()));
            return plan_datafusion_err!(
                "`{name}` is a stream, and a condition compares its columns; write `{name}.{column}`"
            );
        }
        let known = || {
            self.streams
                .values()
                .flatten()
                .flat_map(|schema| schema.fields())
                .map(|field| field.name().as_str())
        };
        let near = nearest(&name, known()).and_then(|near| self.qualified(near).into_iter().next());
        let help = match (near, ident.quote_style, of_column(&name)) {
            (_, Some('"'), _) => format!("text stands in single quotes: '{name}'"),
            (_, _, Some(advice)) => advice.to_owned(),
            (Some(near), ..) => format!("did you mean `{near}`?"),
            (None, ..) => "name columns as `stream.column`".to_owned(),
        };
        plan_datafusion_err!("there is no column `{name}`; {help}")
    }
}

/// `error`, at `name`.
fn at(name: &Ident, error: DataFusionError) -> DataFusionError {
    complaint::at(&AstExpr::Identifier(name.clone()), error)
}

/// Where there is more than a condition can have.
const IN_A_RULE: &str = "in a rule that writes a derived stream";

/// Refuses functions of other rows, and of the time of day.
fn refuse_call(call: &Function) -> Result<()> {
    let (written, name) = (&call.name, call.name.to_string().to_lowercase());
    if wall_clock::is_clock(&name) {
        let why = plan_datafusion_err!(
            "`{written}` differs each time one looks, and a condition is looked at when rows come; how old \
            they may be is said by `max_age`"
        );
        return Err(complaint::at(written, why));
    }
    if call.over.is_some() || names::is_window(&name) || names::is_aggregate(&name) {
        let why = plan_datafusion_err!(
            "`{written}` looks at more than the newest row, and a condition knows no other; compute it \
            {IN_A_RULE}, and name its column here"
        );
        return Err(complaint::at(written, why));
    }
    Ok(())
}
