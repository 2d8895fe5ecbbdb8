//! What scripts write: each row is fitted to its target when it is written, so that what does not fit is an
//! error with its place; at the end of a call they become batches.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, NullArray, RecordBatch,
    RecordBatchOptions, StringBuilder, TimestampNanosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use rhai::{Dynamic, ImmutableString, Map};
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{FieldType, Rows, Seqs, TS, ts_type};

use super::value::{kind, shown};
use crate::rule::Emissions;
use crate::target::{Fit, Target, Unfit};
use crate::types::field_type;
use crate::{Catalog, RuleError};

/// More kinds of rows than this for one target: the names of columns are made of data.
const MOST_SHAPES: usize = 200;

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(ImmutableString),
    Bytes(Vec<u8>),
    /// nanoseconds since 1970
    Time(i64),
}

/// A row that fits its target.
#[derive(Debug, Clone)]
pub(super) struct Written {
    outlet: usize,
    shape: usize,
    seq: u64,
    cells: Vec<Cell>,
}

impl Written {
    /// How many bytes of texts and the like are in it.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |cell: &Cell| match cell {
            Cell::Text(text) => text.len(),
            Cell::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        self.cells.iter().map(bytes).sum()
    }
}

/// A place that a script may write to.
#[derive(Debug)]
pub(super) struct Outlet {
    pub target: Target,
    /// the columns that there are; `None`: any
    declared: Option<SchemaRef>,
    shapes: Vec<Shape>,
}

/// Rows for one target that have equal columns.
#[derive(Debug)]
struct Shape {
    columns: Vec<(String, DataType)>,
    schema: SchemaRef,
    fit: Fit,
}

/// All of them, in the order of the option `writes`.
#[derive(Debug)]
pub(super) struct Outlets {
    outlets: Vec<Outlet>,
    catalog: Catalog,
}

impl Outlets {
    /// Those for `targets` of `catalog`.
    pub(super) fn new(targets: &[Target], catalog: &Catalog) -> Self {
        let mut own = Catalog { uplink: catalog.uplink, ..Catalog::default() };
        let outlet = |target: &Target| {
            let declared = match target {
                Target::Stream(name) => catalog.derived.get(&**name).inspect(|schema| {
                    own.derived.insert(name.to_string(), Arc::clone(schema));
                }),
                Target::Output(name) => catalog.outputs.get(&**name).and_then(|columns| {
                    own.outputs.insert(name.to_string(), columns.clone());
                    columns.accepted.as_ref()
                }),
                Target::Uplink => None,
            };
            Outlet { target: target.clone(), declared: declared.cloned(), shapes: Vec::new() }
        };
        let outlets = targets.iter().map(outlet).collect();
        Self { outlets, catalog: own }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.outlets.iter().map(|outlet| outlet.target.name())
    }

    /// Makes `row` fit the target `name`. A row of a stream or for the uplink that has no `ts` is of `ts`.
    pub(super) fn fit(&mut self, name: &str, row: &Map, seq: u64, ts: i64) -> Result<Written, String> {
        let Some(at) = self.outlets.iter().position(|outlet| outlet.target.name() == name) else {
            let known: Vec<&str> = self.names().collect();
            let help = did_you_mean(name, &known).unwrap_or_default();
            return Err(format!("`{name}` is not among the targets of the option `writes`; {help}"));
        };
        let Some(outlet) = self.outlets.get_mut(at) else { return Err(String::new()) };
        let has_time = !matches!(outlet.target, Target::Output(_));
        let mut cells = Vec::with_capacity(row.len() + 1);
        let mut columns: Vec<(&str, DataType)> = Vec::with_capacity(row.len() + 1);
        for (column, value) in row {
            let (cell, data_type) = outlet.cell(column, value)?;
            cells.push(cell);
            columns.push((column, data_type));
        }
        if has_time && !row.contains_key(TS) {
            let at = columns.partition_point(|(column, _)| *column < TS);
            columns.insert(at, (TS, ts_type()));
            cells.insert(at, Cell::Time(ts));
        }
        let shape = outlet.shape(&columns, &self.catalog)?;
        Ok(Written { outlet: at, shape, seq, cells })
    }

    /// Whether rows with `columns`, as far as their types are known, fit the target `name`.
    pub(super) fn check(&self, name: &str, columns: &[(String, Option<DataType>)]) -> Result<(), Unfit> {
        let Some(outlet) = self.outlets.iter().find(|outlet| outlet.target.name() == name) else {
            return Ok(());
        };
        let field = |(column, found): &(String, Option<DataType>)| {
            let declared = outlet.declared.as_ref().and_then(|schema| schema.field_with_name(column).ok());
            let declared = declared.map(|field| field.data_type().clone());
            let is_time = column == TS && !matches!(outlet.target, Target::Output(_));
            let data_type = match (found, declared) {
                // Times are numbers in scripts.
                (Some(DataType::Int64) | None, Some(wanted @ DataType::Timestamp(..))) => wanted,
                (Some(DataType::Int64) | None, None) if is_time => ts_type(),
                (Some(found), _) => found.clone(),
                (None, Some(wanted)) => wanted,
                (None, None) => DataType::Utf8,
            };
            Field::new(column, data_type, true)
        };
        let mut fields: Vec<Field> = columns.iter().map(field).collect();
        if !matches!(outlet.target, Target::Output(_)) && !columns.iter().any(|(column, _)| column == TS) {
            fields.push(Field::new(TS, ts_type(), false));
        }
        Fit::new(&outlet.target, &Schema::new(fields), &self.catalog).map(drop)
    }

    /// Takes `written` apart into batches: target by target, and for each in the order of the rows that led to
    /// it and of the script's writes. A new batch begins where the columns are others.
    ///
    /// # Errors
    /// When Arrow refuses, which it has no reason to.
    pub(super) fn emit(&self, mut written: Vec<Written>, out: &mut Emissions) -> Result<(), RuleError> {
        // A script can go through the rows of a batch as often as it likes.
        written.sort_by_key(|row| (row.outlet, row.seq));
        for rows in written.chunk_by(|a, b| (a.outlet, a.shape) == (b.outlet, b.shape)) {
            let Some(Written { outlet, shape, .. }) = rows.first() else { continue };
            let Some(outlet) = self.outlets.get(*outlet) else { continue };
            let Some(shape) = outlet.shapes.get(*shape) else { continue };
            let batch = shape.batch(rows).and_then(|batch| shape.fit.apply(&batch));
            let batch = batch.map_err(|error| {
                RuleError(format!("what it wrote to `{}` is no batch: {error}", outlet.target))
            })?;
            let seqs = Seqs::list(rows.iter().map(|row| row.seq).collect());
            out.emit(&outlet.target, Rows { batch, seqs });
        }
        Ok(())
    }
}

impl Outlet {
    /// `value` as a value of `column`, with the type that it has there.
    fn cell(&self, column: &str, value: &Dynamic) -> Result<(Cell, DataType), String> {
        let is_time = column == TS && !matches!(self.target, Target::Output(_));
        if is_time && !value.is_int() {
            return Err(format!(
                "`ts` is {}, and must be a time: a whole number of nanoseconds since 1970, such as `row.ts` or \
                `now()`",
                kind(value)
            ));
        }
        let declared = self.declared.as_ref().and_then(|schema| schema.field_with_name(column).ok());
        match declared.map(|field| (field.data_type(), cell_as(value, field.data_type()))) {
            Some((data_type, Some(cell))) => Ok((cell, data_type.clone())),
            Some((data_type, None)) => Err(format!(
                "column `{column}` is {}, but {} declares it {}{}",
                kind(value),
                self.said(),
                field_type(data_type),
                advice(value, data_type)
            )),
            None if is_time => Ok((Cell::Time(value.as_int().unwrap_or(0)), ts_type())),
            None => natural(value).ok_or_else(|| {
                format!(
                    "column `{column}` is {}, {}: write a number, a text, `true` or `false`, bytes or `()`",
                    kind(value),
                    shown(value, 40)
                )
            }),
        }
    }

    fn said(&self) -> String {
        match &self.target {
            Target::Stream(name) => format!("stream `{name}`"),
            Target::Output(name) => format!("output `{name}`"),
            Target::Uplink => "the uplink".to_owned(),
        }
    }

    /// The number of the shape that `columns` are.
    fn shape(&mut self, columns: &[(&str, DataType)], catalog: &Catalog) -> Result<usize, String> {
        let is_it = |shape: &Shape| {
            shape.columns.len() == columns.len()
                && shape.columns.iter().zip(columns).all(|((a, t), (b, u))| a == b && t == u)
        };
        if let Some(at) = self.shapes.iter().position(is_it) {
            return Ok(at);
        }
        if self.shapes.len() >= MOST_SHAPES {
            return Err(format!(
                "it has written {MOST_SHAPES} different sets of columns to {}, and may write no other",
                self.said()
            ));
        }
        let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let fit = Fit::new(&self.target, &schema, catalog).map_err(|unfit| misfit(&unfit))?;
        let columns =
            columns.iter().map(|(name, data_type)| ((*name).to_owned(), data_type.clone())).collect();
        self.shapes.push(Shape { columns, schema, fit });
        Ok(self.shapes.len() - 1)
    }
}

/// Why a row does not fit, and what to write.
pub(super) fn misfit(unfit: &Unfit) -> String {
    match unfit {
        Unfit::NoColumn { near: Some(near), .. } => format!("{unfit}; is `{near}` meant for it?"),
        Unfit::NoColumn { column, .. } => format!("{unfit}; write `{column}: ..` as well"),
        _ => unfit.to_string(),
    }
}

/// `value` in a column of the type `data_type`; `None`: it is none.
pub(super) fn cell_as(value: &Dynamic, data_type: &DataType) -> Option<Cell> {
    if value.is_unit() {
        return Some(Cell::Null);
    }
    match FieldType::from_arrow(data_type)? {
        FieldType::Bool => value.as_bool().ok().map(Cell::Bool),
        FieldType::Int64 => value.as_int().ok().map(Cell::Int),
        FieldType::Float64 => {
            value.as_float().or_else(|_| value.as_int().map(|value| value as f64)).ok().map(Cell::Float)
        }
        FieldType::Utf8 => text(value).map(Cell::Text),
        FieldType::Timestamp => value.as_int().ok().map(Cell::Time),
        FieldType::Bytes => value.as_blob_ref().ok().map(|bytes| Cell::Bytes(bytes.clone())),
    }
}

/// What to do about it.
pub(super) fn advice(value: &Dynamic, wanted: &DataType) -> &'static str {
    match FieldType::from_arrow(wanted) {
        Some(FieldType::Int64) if value.is_float() => "; write `x.round().to_int()`",
        Some(FieldType::Bool) if value.is_int() => "; write `x != 0`",
        Some(FieldType::Utf8) => "; write `x.to_string()`",
        Some(FieldType::Float64) if value.is_string() => "; write `x.parse_float()`",
        Some(FieldType::Int64) if value.is_string() => "; write `x.parse_int()`",
        Some(FieldType::Timestamp) => "; times are whole numbers of nanoseconds since 1970",
        _ => "",
    }
}

/// The value where any type is taken.
fn natural(value: &Dynamic) -> Option<(Cell, DataType)> {
    Some(if value.is_unit() {
        (Cell::Null, DataType::Null)
    } else if let Ok(value) = value.as_bool() {
        (Cell::Bool(value), DataType::Boolean)
    } else if let Ok(value) = value.as_int() {
        (Cell::Int(value), DataType::Int64)
    } else if let Ok(value) = value.as_float() {
        (Cell::Float(value), DataType::Float64)
    } else if let Ok(value) = value.as_blob_ref() {
        (Cell::Bytes(value.clone()), DataType::Binary)
    } else {
        (Cell::Text(text(value)?), DataType::Utf8)
    })
}

fn text(value: &Dynamic) -> Option<ImmutableString> {
    if let Ok(value) = value.as_char() {
        return Some(value.to_string().into());
    }
    value.as_immutable_string_ref().ok().map(|text| text.clone())
}

impl Shape {
    fn batch(&self, rows: &[Written]) -> Result<RecordBatch, ArrowError> {
        let columns = self.columns.iter().enumerate().map(|(at, (_, data_type))| {
            let cells = rows.iter().map(|row| row.cells.get(at).unwrap_or(&Cell::Null));
            column(data_type, cells)
        });
        let columns = columns.collect::<Vec<_>>();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

/// A column of `data_type`. Cells of another type than it has do not occur.
fn column<'a>(data_type: &DataType, cells: impl ExactSizeIterator<Item = &'a Cell>) -> ArrayRef {
    macro_rules! build {
        ($builder:expr, $kind:path) => {{
            let mut builder = $builder;
            for cell in cells {
                match cell {
                    $kind(value) => builder.append_value(value.clone()),
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }};
    }
    match data_type {
        DataType::Boolean => build!(BooleanBuilder::new(), Cell::Bool),
        DataType::Int64 => build!(Int64Builder::new(), Cell::Int),
        DataType::Float64 => build!(Float64Builder::new(), Cell::Float),
        DataType::Utf8 => build!(StringBuilder::new(), Cell::Text),
        DataType::Binary => build!(BinaryBuilder::new(), Cell::Bytes),
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            build!(TimestampNanosecondBuilder::new().with_timezone_opt(zone.clone()), Cell::Time)
        }
        _ => Arc::new(NullArray::new(cells.len())),
    }
}
