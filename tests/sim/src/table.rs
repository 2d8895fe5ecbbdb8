//! The file of a reference table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidegate::rules::book::RuleBook;
use tidegate::rules::tables;
use tidegate::sequence::edit::Edited;

use crate::broker::DEVICES;

/// The table that rules know.
const NAME: &str = "factors";

/// A factor for each device, another one after each edit. It outlives the box.
#[derive(Clone, Default)]
pub struct TableFile {
    edits: Arc<AtomicI64>,
    /// whether a box had to do without it
    missed: Arc<AtomicBool>,
}

impl TableFile {
    /// Somebody writes another factor.
    pub fn edit(&self) {
        self.edits.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether no row came while the rules could not know the table.
    #[must_use]
    pub fn was_always_there(&self) -> bool {
        !self.missed.load(Ordering::Relaxed)
    }

    /// What is new in the file, as [`tables::TableFiles`] finds it.
    pub(crate) fn read(&self, book: &mut RuleBook) -> Option<Edited> {
        let known = book.table(NAME).is_some();
        let edited = self.rows().and_then(|rows| tables::change(&Arc::from(NAME), rows, book).ok());
        if edited.is_none() && !known {
            self.missed.store(true, Ordering::Relaxed);
        }
        edited.flatten()
    }

    fn rows(&self) -> Option<RecordBatch> {
        let factor = 1 + self.edits.load(Ordering::Relaxed);
        let fields =
            vec![Field::new("device", DataType::Utf8, true), Field::new("factor", DataType::Int64, true)];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(DEVICES)),
            Arc::new(Int64Array::from(vec![factor; DEVICES.len()])),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).ok()
    }
}
