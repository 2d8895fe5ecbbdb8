//! `OVER`: rows that remember the rows before them.
//!
//! For each row that comes, each function gives one result from what it keeps of the row's key
//! (`PARTITION BY`). Rows come as they come, or, with `ORDER BY ts`, out of an [`InOrder`](super::InOrder)
//! below. A function never looks ahead, so a row passes at once.
//!
//! * [`keys`]: which rows belong together, and what time it is for each key.
//! * [`frame`]: the rows that a frame holds.
//! * [`pick`], [`aggregate`], [`memory`]: functions that give the value of another row, that add up a frame,
//!   that remember.
//! * [`held`]: the function that also speaks when no row comes.
//! * [`closed`]: `OVER` within closed windows, whose rows are there at once.

mod aggregate;
mod closed;
mod frame;
mod held;
mod keys;
mod memory;
mod pick;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampNanosecondType};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::{Chunk, Held as Kept, Operator, Pass, each_evaluable, evaluate_all};
use crate::expression::evaluate;
use crate::rule::SealedState;
use crate::sql::operators::at_rest::{place_of, take_state};

pub(in crate::sql) use aggregate::FrameAggregate;
pub(in crate::sql) use closed::OverClosed;
pub(in crate::sql) use frame::{Back, Frame};
pub(in crate::sql) use held::Held;
use held::Waits;
use keys::Keys;
pub(in crate::sql) use memory::{Memories, Remember};
pub(in crate::sql) use pick::{Pick, Which};

/// One function of an OVER, and what it keeps of each key.
pub(in crate::sql) trait Call: Debug + Send {
    /// What it computes, apart from thresholds; state with the same text fits.
    fn fingerprint(&self) -> &str;

    /// What it is computed from.
    fn arguments(&self) -> &[Arc<dyn PhysicalExpr>];

    /// Its result for each of the rows that have come, with their arguments.
    ///
    /// # Errors
    /// When the rule cannot go on.
    fn update(&mut self, rows: &Rows<'_>, arguments: &[ArrayRef]) -> Result<ArrayRef>;

    /// Keeps the state at these places only: that at place `n` of the list gets to `n`.
    ///
    /// # Errors
    /// When the state cannot be moved.
    fn keep(&mut self, places: &[usize]) -> Result<()>;

    /// About how many bytes it keeps; takes as long as there are keys.
    fn measure(&self) -> usize;

    /// Takes its state out, in parts with names.
    ///
    /// # Errors
    /// When the state cannot be given away.
    fn seal(&mut self) -> Result<Vec<(&'static str, RecordBatch)>>;

    /// Takes a part over, if it fits.
    ///
    /// # Errors
    /// When a part that claims to fit cannot be taken over.
    fn restore(&mut self, part: &str, batch: &RecordBatch) -> Result<bool>;
}

/// Rows that have come.
pub(in crate::sql) struct Rows<'a> {
    /// where the state of each row's key is
    places: &'a [usize],
    /// what time it is for each row's key
    times: &'a [i64],
    /// how many places there are
    keys: usize,
}

/// A function of an OVER.
#[derive(Debug)]
pub(in crate::sql) enum Function {
    /// One result a row.
    Call(Box<dyn Call>),
    /// One result a row, and rows when time passes.
    Held(Held),
}

/// What an [`Over`] is made of.
pub(in crate::sql) struct Parts {
    /// the expressions of PARTITION BY
    pub keys: Vec<(Arc<dyn PhysicalExpr>, Field)>,
    /// in the order of their columns
    pub functions: Vec<Function>,
    /// the column of the time, if some function asks what time it is
    pub time_column: Option<usize>,
    /// whether rows come in the order of their times
    pub in_order: bool,
    /// how long a key without rows is remembered
    pub ttl_ns: Option<i64>,
    /// of the rows that come out: the input's columns, and then one a function
    pub schema: SchemaRef,
}

/// The operator.
#[derive(Debug)]
pub(in crate::sql) struct Over {
    input: Box<dyn Operator>,
    fingerprint: String,
    key_exprs: Vec<Arc<dyn PhysicalExpr>>,
    keys: Keys,
    time_column: Option<usize>,
    /// `None` for the columns of `waits`
    calls: Vec<Option<Box<dyn Call>>>,
    waits: Option<Waits>,
    schema: SchemaRef,
    /// bytes that are kept, and the rows since somebody looked
    measured: (usize, usize),
}

/// Rows whose expressions have been evaluated.
struct Prepared {
    chunk: Chunk,
    keys: Vec<ArrayRef>,
    arguments: Vec<Vec<ArrayRef>>,
    conditions: Vec<ArrayRef>,
}

impl Over {
    /// `fingerprint` says which keys there are.
    pub(in crate::sql) fn new(input: Box<dyn Operator>, fingerprint: String, parts: Parts) -> Result<Self> {
        let (key_exprs, fields): (Vec<_>, Vec<_>) = parts.keys.into_iter().unzip();
        let (mut calls, mut helds) = (Vec::new(), Vec::new());
        for function in parts.functions {
            match function {
                Function::Call(call) => calls.push(Some(call)),
                Function::Held(held) => {
                    calls.push(None);
                    helds.push(held);
                }
            }
        }
        let waits = match parts.time_column {
            Some(time) if !helds.is_empty() => {
                Some(Waits::new(helds, time, parts.in_order, input.delay_ns(), &parts.schema))
            }
            _ => None,
        };
        Ok(Self {
            input,
            fingerprint,
            key_exprs,
            keys: Keys::new(Arc::new(Schema::new(fields)), parts.ttl_ns)?,
            time_column: parts.time_column,
            calls,
            waits,
            schema: parts.schema,
            measured: (0, 0),
        })
    }

    /// Evaluates keys and arguments; changes nothing.
    fn prepare(&self, chunk: &Chunk) -> Result<Prepared> {
        let batch = &chunk.batch;
        self.time_column.map(|column| event_times(batch, column)).transpose()?;
        let arguments = self.calls.iter().map(|call| {
            call.as_ref().map_or_else(|| Ok(Vec::new()), |call| evaluate_all(call.arguments(), batch))
        });
        let conditions =
            self.waits.iter().flat_map(Waits::conditions).map(|condition| evaluate(condition, batch));
        Ok(Prepared {
            chunk: chunk.clone(),
            keys: evaluate_all(&self.key_exprs, batch)?,
            arguments: arguments.collect::<Result<_>>()?,
            conditions: conditions.collect::<Result<_>>()?,
        })
    }

    fn absorb(&mut self, prepared: Prepared, pass: &Pass<'_>) -> Result<Chunk> {
        let Prepared { chunk, keys, arguments, conditions } = prepared;
        let ts = match self.time_column {
            None => None,
            Some(column) => Some(event_times(&chunk.batch, column)?),
        };
        let placed = self.keys.place(&keys, ts, &chunk, pass)?;
        let rows = Rows { places: &placed.places, times: &placed.times, keys: self.keys.len() };
        let mut columns = chunk.batch.columns().to_vec();
        for (call, arguments) in self.calls.iter_mut().zip(&arguments) {
            columns.push(match call {
                Some(call) => call.update(&rows, arguments)?,
                None => Arc::new(BooleanArray::new_null(chunk.len())),
            });
        }
        let made = match &mut self.waits {
            None => Chunk {
                batch: RecordBatch::try_new(Arc::clone(&self.schema), columns)?,
                causes: chunk.causes.clone(),
            },
            Some(waits) => waits.rows(&chunk, columns, &rows, &conditions, &self.keys, pass)?,
        };
        self.measured.1 += chunk.len();
        if self.measured.1 * 4 >= self.keys.known() {
            self.measure();
        }
        Ok(made)
    }

    fn forget(&mut self, watermark: i64) -> Result<()> {
        let places = self.keys.forget(watermark)?;
        self.keep(&places)
    }

    fn keep(&mut self, places: &[usize]) -> Result<()> {
        if let Some(waits) = &mut self.waits {
            waits.keep(places)?;
        }
        self.calls.iter_mut().flatten().try_for_each(|call| call.keep(places))?;
        self.measure();
        Ok(())
    }

    fn measure(&mut self) {
        self.measured = (self.calls.iter().flatten().map(|call| call.measure()).sum(), 0);
    }

    fn part(&self, of: &str, part: &str) -> String {
        format!("{}: {of}, {part}", self.fingerprint)
    }
}

impl Operator for Over {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        let mut made = Vec::with_capacity(1);
        if !rows.is_empty() {
            let mut prepared = Vec::with_capacity(1);
            each_evaluable(&rows, pass.out, &mut |rows| {
                prepared.push(self.prepare(rows)?);
                Ok(())
            });
            for part in prepared {
                made.push(self.absorb(part, pass)?);
            }
        }
        if let Some(waits) = &mut self.waits {
            made.push(waits.time(&self.keys, pass)?);
        }
        if pass.ends {
            // Nobody may have looked yet, and what is over is not remembered in the new time.
            if self.keys.forgets() {
                self.forget(pass.before(0))?;
            }
            self.keys.start_anew();
            self.waits.iter_mut().for_each(Waits::start_anew);
        } else if let Some(watermark) =
            pass.watermarks.last().copied().filter(|watermark| self.keys.wants_forgetting(*watermark))
        {
            self.forget(watermark)?;
        }
        Chunk::concat(&self.schema, made)
    }

    fn explain(&self) -> String {
        let calls = self.calls.iter().flatten().map(|call| call.fingerprint().to_owned());
        let functions: Vec<String> = calls.chain(self.waits.iter().flat_map(Waits::fingerprints)).collect();
        format!("{}: {}", self.fingerprint, functions.join(", "))
    }

    fn gives_input_rows(&self) -> bool {
        self.waits.is_none() && self.input.gives_input_rows()
    }

    fn is_timed(&self) -> bool {
        self.time_column.is_some() || self.keys.forgets()
    }

    fn deadline(&self) -> Option<i64> {
        self.waits.as_ref().and_then(Waits::deadline)
    }

    fn held(&self) -> Kept {
        let bytes = self.keys.bytes() + self.measured.0 + self.waits.as_ref().map_or(0, Waits::bytes);
        Kept { entries: self.keys.known(), bytes }
    }

    /// The keys that have been silent longest.
    fn shed(&mut self) -> Result<usize> {
        let known = self.keys.known();
        let places = self.keys.shed()?;
        self.keep(&places)?;
        Ok(known - places.len())
    }

    /// The keys, and then what each function keeps of them, in the same order.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let (keys, places) = self.keys.seal()?;
        self.keep(&places)?;
        let state = |fingerprint, batch| SealedState { fingerprint, watermark: i64::MIN, batch };
        let mut sealed = vec![state(self.fingerprint.clone(), keys)];
        if places.is_empty() {
            return Ok(sealed);
        }
        let mut calls = std::mem::take(&mut self.calls);
        for call in calls.iter_mut().flatten() {
            for (part, batch) in call.seal()? {
                sealed.push(state(self.part(call.fingerprint(), part), Some(batch)));
            }
        }
        self.calls = calls;
        if let Some(waits) = &mut self.waits {
            let (last, holds) = waits.seal()?;
            sealed.push(state(self.part("held", "last rows"), Some(last)));
            sealed.extend(
                holds.into_iter().map(|(call, batch)| state(self.part(&call, "since when"), Some(batch))),
            );
        }
        Ok(sealed)
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let Some(at) = place_of(state, &self.fingerprint) else { return Ok(()) };
        let SealedState { fingerprint, batch, .. } = state.remove(at);
        let Some(keys) = batch else { return Ok(()) };
        // What the functions keep follows: another OVER of the same keys may be behind it, and has other
        // keys.
        let own = format!("{fingerprint}: ");
        let end =
            state.iter().skip(at).take_while(|sealed| sealed.fingerprint.starts_with(&own)).count() + at;
        let mut parts: Vec<SealedState> = state.drain(at..end).collect();
        if !self.keys.restore(&keys)? {
            misfits.push(format!(
                "`{}` has keys of other types now and remembers nothing yet",
                self.fingerprint
            ));
            return Ok(());
        }
        self.calls.iter_mut().flatten().try_for_each(|call| call.keep(&[]))?;
        let mut take = |fingerprint: &str| take_state(&mut parts, fingerprint)?.batch;
        let mut calls = std::mem::take(&mut self.calls);
        for call in calls.iter_mut().flatten() {
            let mut fits = false;
            for part in ["sums", "rows", "memory"] {
                if let Some(batch) = take(&self.part(call.fingerprint(), part)) {
                    fits = call.restore(part, &batch)?;
                }
            }
            if !fits {
                misfits.push(format!("`{}` is new and remembers nothing yet", call.fingerprint()));
            }
        }
        self.calls = calls;
        let (last_rows, since) =
            (self.part("held", "last rows"), |call: &str| format!("{own}{call}, since when"));
        if let Some(waits) = &mut self.waits {
            let last = take(&last_rows);
            if let Some(last) = &last {
                waits.restore_last(last)?;
            }
            for (call, fingerprint) in waits.fingerprints().iter().enumerate() {
                match take(&since(fingerprint)).filter(|_| last.is_some()) {
                    Some(batch) => waits.restore_call(call, &batch, &self.keys)?,
                    None => misfits.push(format!("`{fingerprint}` is new and remembers nothing yet")),
                }
            }
        }
        state.extend(parts);
        Ok(())
    }
}

/// The column `column` as times.
fn event_times(batch: &RecordBatch, column: usize) -> Result<&[i64]> {
    let times =
        batch.columns().get(column).and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    match times.filter(|times| times.null_count() == 0) {
        Some(times) => Ok(times.values()),
        None => Err(DataFusionError::Execution("a row has no time".into())),
    }
}

fn first_argument(arguments: &[ArrayRef]) -> Result<&ArrayRef> {
    arguments.first().ok_or_else(|| DataFusionError::Internal("an argument is missing".into()))
}
