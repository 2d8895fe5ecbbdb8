//! Rows that a plugin is handed.

use std::marker::PhantomData;

use crate::columns::{Data, Values};
use crate::schema::{Column, Input, Schema};
use crate::value::{Timestamp, Value};

/// Rows of one stream.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) input: u32,
    pub(crate) rows: usize,
    pub(crate) columns: &'a [Values],
}

/// A row of a stream.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    batch: Batch<'a>,
    index: usize,
}

/// The values of a column in a batch.
pub struct Cells<'a, T: ?Sized> {
    values: &'a Values,
    rows: usize,
    of: PhantomData<fn(&T)>,
}

impl<'a> Batch<'a> {
    /// The stream.
    pub fn input(self) -> Input<'a> {
        Input(&self.schema.inputs[self.input as usize])
    }

    /// How many rows there are.
    pub fn len(self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.rows == 0
    }

    /// One after the other.
    pub fn rows(self) -> impl ExactSizeIterator<Item = Row<'a>> {
        (0..self.rows).map(move |index| Row { batch: self, index })
    }

    /// All values of a column; `None`: the stream does not have it.
    pub fn cells<T: Value + ?Sized>(self, column: &Column<T>) -> Option<Cells<'a, T>> {
        let values = self.columns.get(column.place(self.input)?)?;
        Some(Cells { values, rows: self.rows, of: PhantomData })
    }
}

impl<'a> Row<'a> {
    /// The stream.
    pub fn input(self) -> Input<'a> {
        self.batch.input()
    }

    /// Its place in the batch.
    pub fn index(self) -> usize {
        self.index
    }

    /// The value of a column; `None`: the row has none, or the stream does not have the column.
    #[inline]
    pub fn get<T: Value + ?Sized>(self, column: &Column<T>) -> Option<T::Ref<'a>> {
        let values = self.batch.columns.get(column.place(self.batch.input)?)?;
        values.has_value(self.index).then(|| T::read(values, self.index))
    }

    /// When it was measured: its column `ts`.
    pub fn ts(self) -> Option<Timestamp> {
        self.get(&self.batch.schema.times)
    }
}

impl<'a, T: Value + ?Sized> Cells<'a, T> {
    /// That of a row, counted from 0.
    #[inline]
    pub fn get(&self, row: usize) -> Option<T::Ref<'a>> {
        (row < self.rows && self.values.has_value(row)).then(|| T::read(self.values, row))
    }

    /// One after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<T::Ref<'a>>> {
        (0..self.rows).map(|row| self.get(row))
    }
}

impl<'a> Cells<'a, f64> {
    /// The values as they lie in memory; `None`: some row has none, or they are whole numbers.
    pub fn as_slice(&self) -> Option<&'a [f64]> {
        match (&self.values.data, &self.values.valid) {
            (Data::Float64(numbers), None) => Some(numbers),
            _ => None,
        }
    }
}
