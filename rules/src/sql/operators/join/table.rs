//! Reference tables, and a stream with what they hold at the moment.
//!
//! A table is not a stream: it has no time and gives no rows of its own. When its content changes there is a
//! pass for that, in which every [`Table`] takes the new content and every [`TableJoin`] above it looks at it
//! anew; rows of streams that come later see it. The table's side of a join is not run in other passes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_physical_expr::PhysicalExpr;

use super::keys::{KeyRows, Keys};
use super::{batch_of, pairs_that_hold};
use crate::sql::operators::{Chunk, Held, Operator, Pass, each_evaluable, written};

/// So many pairs of rows are looked at at once, when there is no equality that tells which belong together.
const PAIRS: usize = 1 << 16;

/// What a key costs in the index, with the list of its rows.
const BYTES_A_KEY: usize = 112;

/// What a table holds, or a list of values.
#[derive(Debug)]
pub(in crate::sql) struct Table {
    /// `None`: it never changes
    name: Option<Arc<str>>,
    content: RecordBatch,
}

impl Table {
    /// The table `name`, which is empty until its content comes.
    pub(in crate::sql) fn named(name: Arc<str>, schema: &SchemaRef) -> Self {
        Self { name: Some(name), content: RecordBatch::new_empty(Arc::clone(schema)) }
    }

    /// Rows that are written in the rule.
    pub(in crate::sql) fn constant(content: RecordBatch) -> Self {
        Self { name: None, content }
    }
}

impl Operator for Table {
    fn schema(&self) -> &SchemaRef {
        self.content.schema_ref()
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        Vec::new()
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        Vec::new()
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        if let (Some((changed, content)), Some(name)) = (pass.input, &self.name)
            && changed == &**name
        {
            self.content =
                RecordBatch::try_new(Arc::clone(self.content.schema_ref()), content.columns().to_vec())?;
        }
        Ok(Chunk { batch: self.content.clone(), causes: Some(vec![0; self.content.num_rows()]) })
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    fn explain(&self) -> String {
        self.name.as_ref().map_or_else(|| "values".to_owned(), |name| format!("table {name}"))
    }

    fn origin(&self) -> String {
        self.explain()
    }

    fn held(&self) -> Held {
        // The content is shared by all who read it, and belongs to none of them.
        Held { entries: self.content.num_rows(), bytes: 0 }
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) enum TableJoinKind {
    /// it is written with each row of the table that belongs to it
    Inner,
    /// the same, and alone when there is none
    Left,
    /// the same, but more than one is an error: a scalar subquery
    Single,
    /// it is written if there is one
    Semi,
    /// it is written if there is none. `null_aware`: nulls are compared as NOT IN does
    Anti { null_aware: bool },
    /// it is written with whether there is one
    Mark,
}

/// The operator.
#[derive(Debug)]
pub(in crate::sql) struct TableJoin {
    input: Box<dyn Operator>,
    table: Box<dyn Operator>,
    /// the tables below `table`
    names: BTreeSet<Arc<str>>,
    keys: Keys,
    table_keys: Keys,
    kind: TableJoinKind,
    /// what else must hold, for the columns of both
    condition: Option<Arc<dyn PhysicalExpr>>,
    /// of the pairs that the condition is about
    pair_schema: SchemaRef,
    schema: SchemaRef,
    /// `None`: not looked at yet
    content: Option<Content>,
}

#[derive(Debug)]
struct Content {
    rows: RecordBatch,
    by_key: HashMap<Arc<[u8]>, Vec<u32>>,
    /// whether some row equals nothing, because a part of its key is null
    null_key: bool,
}

/// What belongs to the join.
pub(in crate::sql) struct TableJoinParts {
    pub input: Box<dyn Operator>,
    pub table: Box<dyn Operator>,
    pub names: BTreeSet<Arc<str>>,
    pub keys: (Keys, Keys),
    pub kind: TableJoinKind,
    pub condition: Option<Arc<dyn PhysicalExpr>>,
}

impl TableJoin {
    /// `pair_schema` has the columns of the stream, then those of the table; `schema` those that are written.
    pub(in crate::sql) fn new(parts: TableJoinParts, pair_schema: SchemaRef, schema: SchemaRef) -> Self {
        let TableJoinParts { input, table, names, keys: (keys, table_keys), kind, condition } = parts;
        Self { input, table, names, keys, table_keys, kind, condition, pair_schema, schema, content: None }
    }

    /// Looks at the table anew if it has changed.
    fn refresh(&mut self, pass: &mut Pass<'_>) -> Result<()> {
        if self.content.is_some() && !pass.input.is_some_and(|(changed, _)| self.names.contains(changed)) {
            return Ok(());
        }
        let rows = self.table.run(pass)?;
        let mut parts = Vec::with_capacity(1);
        each_evaluable(&rows, pass.out, &mut |part| {
            parts.push((part.clone(), self.table_keys.of(&part.batch)?));
            Ok(())
        });
        let (mut by_key, mut null_key, mut row) = (HashMap::<Arc<[u8]>, Vec<u32>>::new(), false, 0_u32);
        for (part, keys) in &parts {
            for index in 0..part.len() {
                match keys.get(index) {
                    Some(key) => match by_key.get_mut(key) {
                        Some(rows) => rows.push(row),
                        None => drop(by_key.insert(Arc::from(key), vec![row])),
                    },
                    None => null_key = true,
                }
                row += 1;
            }
        }
        let rows =
            Chunk::concat(self.table.schema(), parts.into_iter().map(|(part, _)| part).collect())?.batch;
        self.content = Some(Content { rows, by_key, null_key });
        Ok(())
    }

    /// Pairs of a row of `chunk` and a row of the table for which all holds, in order.
    fn pairs(
        &self,
        chunk: &Chunk,
        keys: &KeyRows,
        content: &Content,
        pass: &mut Pass<'_>,
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (row, index) in (0..chunk.len()).zip(0_u32..) {
            for partner in keys.get(row).and_then(|key| content.by_key.get(key)).into_iter().flatten() {
                left.push(index);
                right.push(*partner);
            }
        }
        if self.condition.is_none() || left.is_empty() {
            return Ok((left, right));
        }
        let mut columns = taken(&chunk.batch, &UInt32Array::from(left.clone()))?;
        columns.extend(taken(&content.rows, &UInt32Array::from(right.clone()))?);
        let hold = pairs_that_hold(
            self.condition.as_ref(),
            &batch_of(&self.pair_schema, columns, left.len())?,
            pass.out,
        );
        let of = |side: &[u32]| hold.iter().filter_map(|pair| side.get(*pair).copied()).collect();
        Ok((of(&left), of(&right)))
    }

    fn join(&self, chunk: &Chunk, content: &Content, pass: &mut Pass<'_>) -> Result<Chunk> {
        let keys = self.keys.of(&chunk.batch)?;
        let (left, right) = self.pairs(chunk, &keys, content, pass)?;
        let mut met = vec![0_u32; chunk.len()];
        left.iter().for_each(|row| met.get_mut(*row as usize).map_or((), |met| *met += 1));
        let rows_where = |keep: &dyn Fn(usize, u32) -> bool| -> Vec<u32> {
            (0_u32..)
                .zip(met.iter().enumerate())
                .filter(|(_, (row, met))| keep(*row, **met))
                .map(|(index, _)| index)
                .collect()
        };
        match self.kind {
            TableJoinKind::Inner => self.wide(chunk, content, left, right.into_iter().map(Some)),
            TableJoinKind::Left | TableJoinKind::Single => {
                if self.kind == TableJoinKind::Single {
                    let many = met.iter().filter(|met| **met > 1);
                    many.for_each(|met| {
                        pass.out.bad(format!("a subquery gives {met} rows where one value is needed"))
                    });
                }
                let mut pairs = left.into_iter().zip(right).peekable();
                let (mut left, mut right) = (Vec::new(), Vec::new());
                for (row, met) in (0_u32..).zip(&met) {
                    let bad = self.kind == TableJoinKind::Single && *met > 1;
                    if *met == 0 {
                        left.push(row);
                        right.push(None);
                    }
                    while let Some((_, partner)) = pairs.next_if(|(of, _)| *of == row) {
                        if !bad {
                            left.push(row);
                            right.push(Some(partner));
                        }
                    }
                }
                self.wide(chunk, content, left, right.into_iter())
            }
            TableJoinKind::Semi => chunk.take(rows_where(&|_, met| met > 0)),
            TableJoinKind::Anti { null_aware } => {
                let empty = content.rows.num_rows() == 0;
                let unknown =
                    |row: usize| null_aware && !empty && (content.null_key || keys.get(row).is_none());
                chunk.take(rows_where(&|row, met| met == 0 && !unknown(row)))
            }
            TableJoinKind::Mark => {
                let mut columns = chunk.batch.columns().to_vec();
                columns
                    .push(Arc::new(BooleanArray::from(met.iter().map(|met| *met > 0).collect::<Vec<_>>())));
                Ok(Chunk {
                    batch: batch_of(&self.schema, columns, chunk.len())?,
                    causes: chunk.causes.clone(),
                })
            }
        }
    }

    /// Columns of both sides.
    fn wide(
        &self,
        chunk: &Chunk,
        content: &Content,
        left: Vec<u32>,
        right: impl Iterator<Item = Option<u32>>,
    ) -> Result<Chunk> {
        let causes = left.iter().map(|row| chunk.cause(*row as usize)).collect();
        let rows = left.len();
        let mut columns = taken(&chunk.batch, &UInt32Array::from(left))?;
        columns.extend(taken(&content.rows, &UInt32Array::from_iter(right))?);
        Ok(Chunk { batch: batch_of(&self.schema, columns, rows)?, causes: Some(causes) })
    }
}

fn taken(batch: &RecordBatch, rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    batch.columns().iter().map(|column| Ok(take(column, rows, None)?)).collect()
}

impl Operator for TableJoin {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input, &*self.table]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input, &mut *self.table]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        self.refresh(pass)?;
        let rows = self.input.run(pass)?;
        let Some(content) = self.content.as_ref().filter(|_| !rows.is_empty()) else {
            return Ok(Chunk::empty(&self.schema));
        };
        let at_once =
            if self.keys.is_empty() { (PAIRS / content.rows.num_rows().max(1)).max(1) } else { rows.len() };
        let mut made = Vec::with_capacity(1);
        for offset in (0..rows.len()).step_by(at_once) {
            // What cannot be evaluated is found one by one, in keys and in conditions alike.
            let slice = rows.slice(offset, at_once.min(rows.len() - offset));
            let mut good = Vec::with_capacity(1);
            each_evaluable(&slice, pass.out, &mut |part| {
                self.keys.of(&part.batch)?;
                good.push(part.clone());
                Ok(())
            });
            for part in good {
                made.push(self.join(&part, content, pass)?);
            }
        }
        let mut made: Vec<Chunk> = made.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        made.iter_mut().try_for_each(|chunk| {
            chunk.batch = batch_of(&self.schema, chunk.batch.columns().to_vec(), chunk.len())?;
            Ok::<_, datafusion_common::DataFusionError>(())
        })?;
        Chunk::concat(&self.schema, made)
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    fn explain(&self) -> String {
        let names = self.names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
        let what = match self.kind {
            TableJoinKind::Inner | TableJoinKind::Left => "look up in",
            TableJoinKind::Single => "take the value of",
            TableJoinKind::Semi => "keep what is in",
            TableJoinKind::Anti { .. } => "keep what is not in",
            TableJoinKind::Mark => "mark what is in",
        };
        let names = if names.is_empty() { "values" } else { &names };
        let keys = (!self.keys.is_empty()).then(|| self.keys.written(&self.table_keys));
        let conditions: Vec<String> = keys.into_iter().chain(self.condition.as_ref().map(written)).collect();
        if conditions.is_empty() {
            return format!("{what} {names}");
        }
        format!("{what} {names} where {}", conditions.join(" AND "))
    }

    fn origin(&self) -> String {
        format!("{} WITH {}", self.input.origin(), self.table.origin())
    }

    fn delay_ns(&self) -> i64 {
        self.input.delay_ns()
    }

    fn end_delay_ns(&self) -> i64 {
        self.input.end_delay_ns()
    }

    fn held(&self) -> Held {
        let Some(content) = &self.content else { return Held::default() };
        Held {
            entries: content.rows.num_rows(),
            bytes: content.rows.get_array_memory_size() + content.by_key.len() * BYTES_A_KEY,
        }
    }
}
