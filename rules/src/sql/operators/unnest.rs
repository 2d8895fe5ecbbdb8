//! `unnest`: a row for each element of a list, and a column for each field of a struct.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::{DataFusionError, Result};

use super::join::batch_of;
use super::{Chunk, Operator, Pass};

/// What becomes of a column of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) enum Unnested {
    /// it is repeated for each row
    Same,
    /// one of its elements a row
    List,
    /// its fields become columns
    Struct,
}

/// The operator.
#[derive(Debug)]
pub(in crate::sql) struct Unnest {
    input: Box<dyn Operator>,
    /// the columns of the output: index in the input, and what becomes of it
    columns: Vec<(usize, Unnested)>,
    /// whether a row whose lists are all null stays, with null
    keeps_null: bool,
    schema: SchemaRef,
}

impl Unnest {
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        columns: Vec<(usize, Unnested)>,
        keeps_null: bool,
        schema: SchemaRef,
    ) -> Self {
        Self { input, columns, keeps_null, schema }
    }

    /// The elements of each row's list: all values, and where those of a row begin and how many there are.
    /// `None`: the list is null.
    fn unnest(&self, rows: &Chunk) -> Result<Chunk> {
        let column = |index: usize| {
            rows.batch
                .columns()
                .get(index)
                .ok_or_else(|| DataFusionError::Internal("a column to unnest is missing".into()))
        };
        let lists: Vec<usize> = self
            .columns
            .iter()
            .filter(|(_, what)| *what == Unnested::List)
            .map(|(index, _)| *index)
            .collect();
        let mut elements = Vec::with_capacity(lists.len());
        for index in &lists {
            elements.push((*index, Elements::downcast(column(*index)?)?));
        }
        // The row and the place in its lists of each row that is written; where one list is shorter than
        // another, the rest is null.
        let mut places: Vec<(u32, usize)> = Vec::new();
        for (row, index) in (0..rows.len()).zip(0_u32..) {
            let longest = elements.iter().filter_map(|(_, elements)| elements.len(row)).max();
            let count = if elements.is_empty() { 1 } else { longest.unwrap_or(usize::from(self.keeps_null)) };
            places.extend((0..count).map(|place| (index, place)));
        }
        let repeated = UInt32Array::from_iter_values(places.iter().map(|(row, _)| *row));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (index, what) in &self.columns {
            match what {
                Unnested::Same => columns.push(take(column(*index)?, &repeated, None)?),
                Unnested::List => {
                    let Some((_, elements)) = elements.iter().find(|(of, _)| of == index) else { continue };
                    let rows = UInt32Array::from_iter(
                        places.iter().map(|(row, place)| elements.at(*row as usize, *place)),
                    );
                    columns.push(take(&elements.values, &rows, None)?);
                }
                Unnested::Struct => {
                    let taken = take(column(*index)?, &repeated, None)?;
                    let fields = taken
                        .as_struct_opt()
                        .ok_or_else(|| DataFusionError::Internal("a column is no struct".into()))?;
                    // A field of a null struct is null.
                    for field in fields.columns() {
                        let rows = UInt32Array::from_iter(
                            (0_u32..)
                                .take(fields.len())
                                .map(|row| fields.is_valid(row as usize).then_some(row)),
                        );
                        columns.push(take(field, &rows, None)?);
                    }
                }
            }
        }
        let causes = Some(places.iter().map(|(row, _)| rows.cause(*row as usize)).collect());
        Ok(Chunk { batch: batch_of(&self.schema, columns, places.len())?, causes })
    }
}

/// The elements of a column of lists.
struct Elements {
    values: ArrayRef,
    /// where the elements of each row begin, and how many there are
    ranges: Vec<Option<(usize, usize)>>,
}

impl Elements {
    fn downcast(lists: &ArrayRef) -> Result<Self> {
        let range = |valid: bool, from: usize, to: usize| valid.then_some((from, to.saturating_sub(from)));
        let (values, ranges) = match lists.data_type() {
            DataType::List(_) => {
                let lists = lists.as_list::<i32>();
                let ends = lists.value_offsets().windows(2).map(|ends| match ends {
                    [from, to] => (usize::try_from(*from).unwrap_or(0), usize::try_from(*to).unwrap_or(0)),
                    _ => (0, 0),
                });
                (
                    lists.values(),
                    ends.enumerate().map(|(row, (from, to))| range(lists.is_valid(row), from, to)).collect(),
                )
            }
            DataType::LargeList(_) => {
                let lists = lists.as_list::<i64>();
                let ends = lists.value_offsets().windows(2).map(|ends| match ends {
                    [from, to] => (usize::try_from(*from).unwrap_or(0), usize::try_from(*to).unwrap_or(0)),
                    _ => (0, 0),
                });
                (
                    lists.values(),
                    ends.enumerate().map(|(row, (from, to))| range(lists.is_valid(row), from, to)).collect(),
                )
            }
            DataType::FixedSizeList(..) => {
                let lists = lists.as_fixed_size_list();
                let size = usize::try_from(lists.value_length()).unwrap_or(0);
                (
                    lists.values(),
                    (0..lists.len())
                        .map(|row| range(lists.is_valid(row), row * size, (row + 1) * size))
                        .collect(),
                )
            }
            other => return Err(DataFusionError::Plan(format!("`unnest` takes a list, and not {other}"))),
        };
        Ok(Self { values: Arc::clone(values), ranges })
    }

    fn len(&self, row: usize) -> Option<usize> {
        self.ranges.get(row).copied().flatten().map(|(_, len)| len)
    }

    fn at(&self, row: usize, place: usize) -> Option<u32> {
        let (from, len) = self.ranges.get(row).copied().flatten()?;
        if place < len { u32::try_from(from + place).ok() } else { None }
    }
}

impl Operator for Unnest {
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
        if rows.is_empty() { Ok(Chunk::empty(&self.schema)) } else { self.unnest(&rows) }
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    fn explain(&self) -> String {
        let names = self.input.schema();
        let lists = self
            .columns
            .iter()
            .filter(|(_, what)| *what != Unnested::Same)
            .filter_map(|(index, _)| names.fields().get(*index));
        format!("unnest {}", lists.map(|field| field.name().as_str()).collect::<Vec<_>>().join(", "))
    }
}
