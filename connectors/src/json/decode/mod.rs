//! The decoder: columns under construction, and what to do with each value that the visitors in `visit` meet.

mod findings;
mod inference;
mod unseen;
mod visit;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::de::{self, DeserializeSeed};
use tidegate_core::{FieldType, TS};

use crate::json::column::{Column, Scalar, WrongType};
use crate::json::layout::{Compiled, Layout, LayoutError, Missing, Node, ROOT, ROW, TimePlace};
use crate::json::text::{each_row, find, trimmed, with_marked_numbers};
use crate::json::time::{Unreadable, implausible};
use crate::json::{Fields, TsPlace};
pub use findings::{Findings, Tally};
use unseen::Unseen;
use visit::{Object, Rows, Within};

/// Turns payloads of one stream into rows.
pub struct Decoder {
    columns: Vec<Column>,
    nodes: Vec<Node>,
    /// columns `1 ..= captures`
    captures: usize,
    rows_path: Option<Vec<String>>,
    /// Whether any column is read from the payload instead of the row: those need a second pass, since the
    /// values may follow the rows.
    reads_root: bool,
    inferred: bool,
    /// Where the time is, in words, and what becomes of a row without it: `None` refuses its message. Without
    /// a place, rows have the time of arrival.
    time: Option<(String, Option<Missing>)>,
    times: Vec<TimePlace>,
    /// Of each row of the message, in order, what was found at the places in `times`.
    found_times: VecDeque<Option<Result<i64, Unreadable>>>,
    /// Why what was found as the time of the row at hand is none.
    no_time: Option<Unreadable>,
    keys: usize,
    rows: usize,
    arrival_ns: i64,
    findings: Findings,
    told_implausible: bool,
    told_missing: bool,
    told_full: bool,
    unseen: Unseen,
    schema: Option<SchemaRef>,
}

/// A message that cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There is nothing in it.
    #[error("the payload is empty")]
    Empty,
    /// It is not JSON.
    #[error("not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// It is JSON of another shape.
    #[error("{0}")]
    Shape(#[source] serde_json::Error),
    /// The caller gave another number of captures than the layout has.
    #[error("{given} captures were given for {expected} capture columns")]
    Captures {
        /// how many
        given: usize,
        /// how many there are in the layout
        expected: usize,
    },
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_data() { Self::Shape(error) } else { Self::NotJson(error) }
    }
}

impl Decoder {
    /// A decoder for payloads of this layout.
    ///
    /// # Errors
    /// When two columns have one name, or a path starts with `^` although there is no `rows`.
    pub fn new(layout: &Layout) -> Result<Self, LayoutError> {
        let Compiled { columns, times, nodes } = Compiled::new(layout)?;
        let given = 1 + layout.captures.len() + usize::from(layout.flag.is_some());
        let unseen = match (&layout.fields, &layout.ts) {
            (Fields::Declared(_), TsPlace::Arrival | TsPlace::At { .. }) => Unseen::new(&columns, given),
            _ => Unseen::default(),
        };
        let reads_root = nodes.get(ROOT).is_some_and(|root| !root.keys.is_empty());
        Ok(Self {
            columns,
            nodes,
            captures: layout.captures.len() + usize::from(layout.flag.is_some()),
            rows_path: layout.rows.as_ref().map(|path| path.names().to_vec()),
            reads_root,
            inferred: matches!(layout.fields, Fields::Inferred(_)),
            time: match &layout.ts {
                TsPlace::Arrival => None,
                TsPlace::At { path, missing, .. } => Some((path.to_string(), Some(*missing))),
                TsPlace::Recorded => Some((TS.to_owned(), None)),
            },
            times,
            found_times: VecDeque::new(),
            no_time: None,
            keys: 0,
            rows: 0,
            arrival_ns: 0,
            findings: Findings::default(),
            told_implausible: false,
            told_missing: false,
            told_full: false,
            unseen,
            schema: None,
        })
    }

    /// Rows that were decoded since the last [`Self::finish`].
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the rows of one message and returns how many they are. Rows without their time may be left out,
    /// and so are elements of an array that are no objects.
    ///
    /// # Errors
    /// When the payload is not JSON of the expected shape: no row is added then. Columns that it introduced
    /// stay.
    pub fn decode(
        &mut self,
        payload: &[u8],
        captures: &[&str],
        arrival_ns: i64,
    ) -> Result<usize, DecodeError> {
        // RFC 8259, section 8.1: a parser may ignore a byte order mark.
        let payload = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload);
        if payload.is_empty() {
            return Err(DecodeError::Empty);
        }
        if captures.len() != self.captures {
            return Err(DecodeError::Captures { given: captures.len(), expected: self.captures });
        }
        let start = self.rows;
        self.arrival_ns = arrival_ns;
        match self.read_again(payload) {
            Ok(()) => {
                for (column, capture) in self.columns.iter_mut().skip(1).zip(captures) {
                    let is_flag = column.field_type == FieldType::Bool;
                    for _ in start..self.rows {
                        // The only thing that can be wrong is 2 GiB of text; then it is null.
                        let _ = column.push(if is_flag {
                            Scalar::Bool(*capture == "true")
                        } else {
                            Scalar::Text(capture)
                        });
                    }
                }
                Ok(self.rows - start)
            }
            Err(error) => {
                self.truncate(start);
                Err(error.into())
            }
        }
    }

    /// Reads a message, once more with its numbers marked if one of them is beyond float64: it costs itself.
    fn read_again(&mut self, payload: &[u8]) -> Result<(), serde_json::Error> {
        let (start, counts) = (self.rows, self.findings.counts());
        let result = self.read(payload, payload);
        // The parser does not say it in any other way.
        let is_beyond = |error: &serde_json::Error| error.to_string().starts_with("number out of range");
        if !result.as_ref().is_err_and(is_beyond) {
            return result;
        }
        let Some(marked) = with_marked_numbers(payload) else { return result };
        self.truncate(start);
        self.findings.count_again(counts);
        self.read(&marked, payload)
    }

    /// Reads `payload`, and the text of times in it `as_written`.
    fn read(&mut self, payload: &[u8], as_written: &[u8]) -> Result<(), serde_json::Error> {
        let start = self.rows;
        self.find_times(trimmed(as_written));
        let mut json = serde_json::Deserializer::from_slice(payload);
        match self.rows_path.take() {
            None => Rows { decoder: self, path: &[] }.deserialize(&mut json)?,
            Some(path) => {
                let result =
                    Within { path: &path, decoder: self, start, whole: &path }.deserialize(&mut json);
                self.rows_path = Some(path);
                if !result? {
                    let path = self.rows_path.as_ref().map(|path| path.join(".")).unwrap_or_default();
                    return Err(de::Error::custom(format_args!(
                        "there is no array at \"{path}\" that could become rows"
                    )));
                }
            }
        }
        json.end()?;
        if self.reads_root && self.rows > start {
            self.read_root(payload, as_written, start)?;
        }
        Ok(())
    }

    /// Finds the times of all rows of a message.
    fn find_times(&mut self, payload: &[u8]) {
        self.found_times.clear();
        if self.times.iter().all(|place| place.path.is_from_root()) {
            return;
        }
        match self.rows_path.take() {
            Some(path) => {
                each_row(payload, &path, &mut |row| self.read_times(row, false));
                self.rows_path = Some(path);
            }
            None => each_row(payload, &[], &mut |row| self.read_times(row, false)),
        }
    }

    /// Reads the values outside the rows, and gives them to every row.
    fn read_root(
        &mut self,
        payload: &[u8],
        as_written: &[u8],
        start: usize,
    ) -> Result<(), serde_json::Error> {
        let end = self.rows;
        // Values land in the row that is being built: for now that is the first one of this message.
        self.rows = start;
        self.no_time = None;
        let result = Object { decoder: self, node: ROOT }
            .deserialize(&mut serde_json::Deserializer::from_slice(payload));
        self.found_times.clear();
        self.read_times(trimmed(as_written), true);
        self.write_times(true);
        self.rows = end;
        result?;
        if self.columns.first().is_some_and(|ts| !ts.per_row && !ts.is_valid(start)) {
            if !self.goes_by_arrival(end - start)? {
                self.truncate(start);
                return Ok(());
            }
            self.push_arrival(start);
        }
        let captures = self.captures;
        let from_root = self
            .columns
            .iter_mut()
            .enumerate()
            .filter(|(index, column)| !column.per_row && !(1..=captures).contains(index));
        for (_, column) in from_root {
            if column.len() == start {
                column.push_null();
            }
            while column.len() < end {
                column.push_again(start);
            }
        }
        Ok(())
    }

    /// Takes the rows that were decoded; none if there are none.
    pub fn finish(&mut self) -> Option<RecordBatch> {
        if self.rows == 0 {
            return None;
        }
        let rows = std::mem::take(&mut self.rows);
        let schema = self.schema();
        let arrays: Vec<_> = self
            .columns
            .iter_mut()
            .map(|column| {
                column.fill(rows);
                column.finish()
            })
            .collect();
        if !self.unseen.is_empty() {
            self.unseen.rows(&arrays, rows);
        }
        // Every column has the schema's type and `rows` rows, so this cannot fail.
        RecordBatch::try_new_with_options(
            schema,
            arrays,
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )
        .ok()
    }

    /// The columns: `ts`, the captures, then the fields, inferred ones in the order in which they were first
    /// seen.
    #[must_use]
    pub fn schema(&mut self) -> SchemaRef {
        Arc::clone(self.schema.get_or_insert_with(|| {
            let fields = self
                .columns
                .iter()
                .map(|column| Field::new(&*column.name, column.field_type.data_type(), &*column.name != TS));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }))
    }

    /// The declared columns that have had no value in many rows, if there is something new to say of them;
    /// empty: by now all of them have had one.
    pub fn unseen(&mut self) -> Option<String> {
        self.unseen.news()
    }

    /// Takes what was found since the last call, if anything was.
    pub fn take_findings(&mut self) -> Option<Findings> {
        (!self.findings.is_empty()).then(|| std::mem::take(&mut self.findings))
    }

    fn misfit(&mut self, column: usize, found: impl fmt::Display) {
        let Some(column) = self.columns.get(column) else { return };
        self.findings.misfits.add(1, || match column.field_type {
            FieldType::Timestamp => format!("column {}: {found}", column.name),
            expected => format!("column {}: expected {expected}, found {found}", column.name),
        });
    }

    fn note(&mut self, note: String) {
        self.findings.notes.push(note);
    }

    fn truncate(&mut self, rows: usize) {
        self.rows = rows;
        for column in &mut self.columns {
            column.truncate(rows);
        }
    }

    /// Counts an element of the array of rows at `path` that is no object.
    fn leave_out_element(&mut self, path: &[String], index: usize, found: impl fmt::Display) {
        self.findings.malformed_rows.add(1, || {
            let mut place = path.join(".");
            place.push_str(if place.is_empty() { "" } else { "." });
            format!("\"{place}{index}\": expected an object, found {found}")
        });
    }

    /// Forgets what the unfinished row has in it.
    fn begin_row(&mut self) {
        self.no_time = None;
        if let Some(node) = self.nodes.get_mut(ROW) {
            node.next = 0;
        }
    }

    /// Ends a row: columns without a value get null.
    fn end_row<E: de::Error>(&mut self) -> Result<(), E> {
        let rows = self.rows;
        self.write_times(false);
        if self.columns.first().is_some_and(|ts| ts.per_row && !ts.is_valid(rows)) {
            if !self.goes_by_arrival(1)? {
                self.truncate(rows);
                return Ok(());
            }
            self.push_arrival(rows);
        }
        for column in self.columns.iter_mut().filter(|column| column.per_row && column.len() <= rows) {
            column.push_null();
        }
        self.rows += 1;
        Ok(())
    }

    /// Whether `rows` rows without a time stay, with the time of arrival. They are counted, unless the stream
    /// declares none.
    fn goes_by_arrival<E: de::Error>(&mut self, rows: usize) -> Result<bool, E> {
        let Some((path, missing)) = &self.time else { return Ok(true) };
        let why = match self.no_time.take() {
            None => format!("there is no \"{path}\""),
            Some(why) => format!("\"{path}\" is {why}"),
        };
        let Some(missing) = *missing else {
            return Err(E::custom(format_args!("the row has no readable `ts`: {why}")));
        };
        self.findings.untimed.add(rows as u64, || why.clone());
        if missing == Missing::Arrival {
            self.findings.untimed.first = None;
            if !std::mem::replace(&mut self.told_missing, true) {
                self.note(format!(
                    "rows without their time get the time of arrival, as `ts_missing` says: \
                    in the first, {why}"
                ));
            }
        }
        Ok(missing == Missing::Arrival)
    }

    fn push_arrival(&mut self, row: usize) {
        let arrival_ns = self.arrival_ns;
        if let Some(ts) = self.columns.first_mut() {
            ts.truncate(row);
            ts.push_ns(arrival_ns);
        }
    }

    /// Writes a value into the columns of a key, in the row that is being built; an earlier one of the same
    /// key gives way.
    fn put(&mut self, place: Place, value: Scalar<'_>) {
        let Some(key) = self.nodes.get(place.node).and_then(|node| node.keys.get(place.key)) else { return };
        if key.columns.is_empty() && self.inferred && value != Scalar::Null {
            if key.has_no_room {
                self.findings.not_taken += 1;
            } else if !key.left_out {
                self.infer(place, value);
            }
        }
        for index in 0.. {
            let Some(column) = self.column_of(place, index) else { break };
            self.write(column, value);
        }
    }

    /// Reads the times of the rows at `outside` the rows or in them, from the text of `value`, and puts them
    /// after those that were read.
    fn read_times(&mut self, value: &[u8], outside: bool) {
        let Self { columns, times, found_times, arrival_ns, findings, told_implausible, .. } = self;
        for TimePlace { column, path } in times.iter().filter(|place| place.path.is_from_root() == outside) {
            let json = find(value, path.names()).map(|json| std::str::from_utf8(json).unwrap_or_default());
            let (Some(json), Some(format)) = (json, columns.get(*column).map(|column| &column.time)) else {
                found_times.push_back(None);
                continue;
            };
            let read = format.read(json);
            if let (Ok(ns), 0, false) = (&read, column, *told_implausible)
                && let Some(note) = implausible(*ns, json, format, *arrival_ns)
            {
                *told_implausible = true;
                findings.notes.push(note);
            }
            found_times.push_back(Some(read));
        }
    }

    /// Writes the times that were found for the row at hand.
    fn write_times(&mut self, outside: bool) {
        for index in 0..self.times.len() {
            let Some(TimePlace { column, path }) = self.times.get(index) else { break };
            if path.is_from_root() != outside {
                continue;
            }
            let (index, found) = (*column, self.found_times.pop_front().flatten());
            let Some(column) = self.columns.get_mut(index) else { continue };
            column.truncate(self.rows);
            match found {
                Some(Ok(ns)) => column.push_ns(ns),
                None | Some(Err(_)) => column.push_null(),
            }
            match found {
                Some(Err(why)) if index == 0 => self.no_time = Some(why),
                Some(Err(why)) if why != Unreadable::Null => self.misfit(index, why),
                _ => {}
            }
        }
    }

    fn column_of(&self, place: Place, index: usize) -> Option<usize> {
        self.nodes.get(place.node)?.keys.get(place.key)?.columns.get(index).copied()
    }

    fn write(&mut self, index: usize, value: Scalar<'_>) {
        let rows = self.rows;
        let Some(column) = self.columns.get_mut(index) else { return };
        let before = column.field_type;
        let is_number =
            matches!(value, Scalar::Int(_) | Scalar::Big(_) | Scalar::Float(_) | Scalar::Beyond(_));
        let note = (column.inferred
            && before == FieldType::Utf8
            && is_number
            && !std::mem::replace(&mut column.told_text, true))
        .then(|| inference::number_in_text(&column.name));
        let replaced = column.shared && column.is_valid(rows);
        if replaced && value == Scalar::Null {
            return;
        }
        column.truncate(rows);
        let result = column.push(value);
        if column.field_type != before {
            self.schema = None;
        }
        if let Some(note) = note {
            self.note(note);
        }
        if replaced {
            self.misfit(index, "values in two places of the row, of which the last counts");
        }
        if let Err(WrongType) = result {
            self.misfit(index, value);
        }
    }

    /// Writes null in place of an array or object.
    fn refuse(&mut self, place: Place, found: &str) {
        let key = self.nodes.get(place.node).and_then(|node| node.keys.get(place.key));
        self.findings.not_taken += u64::from(key.is_some_and(|key| key.has_no_room));
        let rows = self.rows;
        for index in 0.. {
            let Some(index) = self.column_of(place, index) else { break };
            if let Some(column) = self.columns.get_mut(index) {
                column.truncate(rows);
                column.push_null();
            }
        }
        self.misfits(place, found);
    }

    /// Counts what none of the columns of a key can hold.
    fn misfits(&mut self, place: Place, found: impl fmt::Display) {
        for index in 0.. {
            let Some(column) = self.column_of(place, index) else { break };
            self.misfit(column, &found);
        }
    }
}

/// A key of a node.
#[derive(Clone, Copy)]
struct Place {
    node: usize,
    key: usize,
}
