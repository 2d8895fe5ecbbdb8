//! A rule that is not SQL: it repeats what it has read, a while later. Without ticks it would never write.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use tidegate_core::schema::ts_field;
use tidegate_core::{Diagnostic, Rows, Seqs};
use tidegate_rules::{
    Catalog, CompileError, Compiled, Emissions, Explanation, Fit, Flow, Language, Options, Rule, RuleError,
    SealedState, Source, Target, Unfit, When, compile,
};

use crate::programs::Cache;
use crate::rules::LEAST;

/// A text with this line is such a rule.
const MARK: &str = "ECHO";
/// How long a message is held, less than the silence after which a round is over.
pub const DELAY_NS: i64 = 1_500_000_000;

/// The text of such a rule.
#[must_use]
pub fn text(version: u64) -> String {
    format!("-- version {version}\n{MARK}")
}

/// Makes a rule of its source: an echo, or what a box knows.
///
/// # Errors
/// As [`compile`] has it.
pub fn compile_any(file: &str, source: &Source, catalog: &Catalog) -> Result<Compiled, CompileError> {
    let text = if source.language() == Language::Sql { source.text(file).unwrap_or_default() } else { "" };
    if text.lines().all(|line| line != MARK) {
        let mut catalog = catalog.clone();
        catalog.plugins.compiled = catalog.plugins.compiled.map(|kept| Arc::new(Cache { kept }) as _);
        return compile(file, source, &catalog);
    }
    let wrong = |unfit: Unfit| CompileError::Wrong(vec![Diagnostic::new(file, unfit.to_string())]);
    let echo = Echo::new(catalog).map_err(wrong)?;
    Ok(Compiled { options: Options::default(), rule: Box::new(echo), warnings: Vec::new() })
}

/// Writes `n` and how long it was held, to the uplink and to the stream `echoed`.
struct Echo {
    flows: [Flow; 2],
    /// makes rows fit the stream
    fit: Fit,
    /// when it is due, `n`, and when it came
    held: BTreeSet<(i64, i64, i64)>,
}

impl Echo {
    fn new(catalog: &Catalog) -> Result<Self, Unfit> {
        let flow = |target| Flow { input: "tank".into(), target };
        let echoed = Target::find("echoed", catalog)?;
        let columns = ["n", "waited"].map(|name| Field::new(name, DataType::Int64, true));
        let written = Schema::new(columns.into_iter().chain([ts_field()]).collect::<Vec<_>>());
        let fit = Fit::new(&echoed, &written, catalog)?;
        Ok(Self { flows: [flow(Target::Uplink), flow(echoed)], fit, held: BTreeSet::new() })
    }
}

fn column(batch: &RecordBatch, name: &str) -> Result<Vec<i64>, RuleError> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column
        .map(|values| values.values().to_vec())
        .ok_or_else(|| RuleError(format!("there is no column {name}")))
}

fn batch(columns: Vec<(&str, Vec<i64>)>) -> Result<RecordBatch, RuleError> {
    let columns =
        columns.into_iter().map(|(name, values)| (name, Arc::new(Int64Array::from(values)) as ArrayRef));
    RecordBatch::try_from_iter(columns).map_err(|error| RuleError(error.to_string()))
}

impl Rule for Echo {
    fn flows(&self) -> &[Flow] {
        &self.flows
    }

    fn on_batch(&mut self, _: &str, rows: &Rows, when: When, _: &mut Emissions) -> Result<(), RuleError> {
        let (numbers, values) = (column(&rows.batch, "n")?, column(&rows.batch, "v")?);
        let held = numbers
            .into_iter()
            .zip(values)
            .filter(|(_, v)| *v >= LEAST)
            .map(|(n, _)| (when.now + DELAY_NS, n, when.now));
        self.held.extend(held);
        Ok(())
    }

    fn on_tick(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        let later = self.held.split_off(&(when.now + 1, i64::MIN, i64::MIN));
        let due = std::mem::replace(&mut self.held, later);
        let (n, waited): (Vec<i64>, Vec<i64>) =
            due.into_iter().map(|(_, n, came)| (n, when.now - came)).unzip();
        let rows = batch(vec![("n", n), ("waited", waited)])?;
        let times =
            Arc::new(TimestampNanosecondArray::from(vec![when.now; rows.num_rows()]).with_timezone("UTC"))
                as ArrayRef;
        let fields: Vec<_> = rows.schema().fields().iter().cloned().chain([Arc::new(ts_field())]).collect();
        let columns = rows.columns().iter().cloned().chain([times]).collect();
        let with_ts = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .and_then(|rows| self.fit.apply(&rows))
            .map_err(|error| RuleError(error.to_string()))?;
        for (flow, batch) in self.flows.iter().zip([rows, with_ts]) {
            out.emit(&flow.target, Rows { batch, seqs: Seqs::One { seq } });
        }
        Ok(())
    }

    fn wakes_at(&self) -> Option<i64> {
        self.held.first().map(|(at, ..)| *at)
    }

    fn on_end(&mut self, _: u64, _: When, _: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    fn explain(&self) -> Explanation {
        Explanation::default()
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        let held: Vec<_> = std::mem::take(&mut self.held).into_iter().collect();
        let of = |part: fn(&(i64, i64, i64)) -> i64| held.iter().map(part).collect();
        let state =
            batch(vec![("at", of(|held| held.0)), ("n", of(|held| held.1)), ("came", of(|held| held.2))])?;
        Ok(vec![SealedState { fingerprint: MARK.into(), watermark: 0, batch: Some(state) }])
    }

    fn restore(&mut self, state: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        for batch in state.into_iter().filter_map(|state| state.batch) {
            let (at, n, came) = (column(&batch, "at")?, column(&batch, "n")?, column(&batch, "came")?);
            self.held.extend(at.into_iter().zip(n).zip(came).map(|((at, n), came)| (at, n, came)));
        }
        Ok(Vec::new())
    }
}
