//! The decoder: columns under construction, and what to do with each value that the visitors in `visit` meet.

mod findings;
mod inference;
mod times;
mod unseen;
mod visit;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::de::{self, DeserializeSeed};
use tidegate_core::{FieldType, TS};

use crate::codec::cbor::Cbor;
use crate::codec::column::{Column, Quoting, Scalar, WrongType};
use crate::codec::json::Json;
use crate::codec::json::text::{trimmed, with_marked_numbers};
use crate::codec::layout::{Compiled, Layout, LayoutError, Missing, Node, ROOT, ROW, TimePlace};
use crate::codec::msgpack::MsgPack;
use crate::codec::time::Unreadable;
use crate::codec::tokens::{self, Fault};
use crate::codec::{BinaryField, Fields, Format, Pattern, TsPlace};
pub use findings::{Findings, Tally};
use unseen::Unseen;
use visit::{Object, Rows, Within};

/// Turns payloads of one stream into rows.
pub struct Decoder {
    format: Format,
    pattern: Option<Pattern>,
    /// of CSV, once there was some
    csv: Option<Box<csv_core::Reader>>,
    binary_fields: Vec<(String, BinaryField)>,
    quoting: Quoting,
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
    /// In JSON: of each row of the message, in order, what was found at the places in `times`.
    found_times: VecDeque<Option<Result<i64, Unreadable>>>,
    /// Elsewhere: what was found at each of these places in the row at hand.
    row_times: Vec<Option<Result<i64, Unreadable>>>,
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
    /// It is not what the stream's format is.
    #[error("not {format}: {why}")]
    Malformed {
        /// the format's name
        format: &'static str,
        /// why
        why: String,
    },
    /// It is of another shape than the stream's values.
    #[error("{0}")]
    Misshapen(String),
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
        let Compiled { mut columns, times, nodes } = Compiled::new(layout)?;
        let quoting = match layout.format {
            Format::Csv(_) | Format::Raw | Format::Regex | Format::KeyValue(_) | Format::Nmea(_) => {
                Quoting::Everything
            }
            _ if layout.numbers_as_text => Quoting::Numbers,
            _ => Quoting::Text,
        };
        columns.iter_mut().for_each(|column| column.quoting = quoting);
        let given = 1 + layout.captures.len() + usize::from(layout.flag.is_some());
        let unseen = match (&layout.fields, &layout.ts) {
            (Fields::Declared(_), TsPlace::Arrival | TsPlace::At { .. }) => Unseen::new(&columns, given),
            _ => Unseen::default(),
        };
        let reads_root = nodes.get(ROOT).is_some_and(|root| !root.keys.is_empty());
        Ok(Self {
            format: layout.format,
            pattern: layout.pattern.clone(),
            csv: None,
            binary_fields: layout.binary_fields.clone(),
            quoting,
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
            row_times: times.iter().map(|_| None).collect(),
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
    /// When the payload is not of its format, or of another shape: no row is added then. Columns that it
    /// introduced stay.
    pub fn decode(
        &mut self,
        payload: &[u8],
        captures: &[&str],
        arrival_ns: i64,
    ) -> Result<usize, DecodeError> {
        // RFC 8259, section 8.1: a parser may ignore a byte order mark.
        let is_json = self.format == Format::Json;
        let payload = payload.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_json).unwrap_or(payload);
        if payload.is_empty() {
            return Err(DecodeError::Empty);
        }
        if captures.len() != self.captures {
            return Err(DecodeError::Captures { given: captures.len(), expected: self.captures });
        }
        let start = self.rows;
        self.arrival_ns = arrival_ns;
        match self.read(payload) {
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
                Err(error)
            }
        }
    }

    /// Adds a row that has nothing but the time of arrival, for what came to nothing. False: rows without
    /// their own time are left out.
    pub fn add_blank(&mut self, arrival_ns: i64) -> bool {
        let before = self.rows;
        self.arrival_ns = arrival_ns;
        self.begin_row();
        self.end_row::<Fault>().is_ok() && self.rows > before
    }

    fn read(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        let in_format = |format| {
            move |fault: Fault| match fault {
                Fault::Malformed(why) => DecodeError::Malformed { format, why },
                Fault::Shape(why) => DecodeError::Misshapen(why),
            }
        };
        match self.format {
            Format::Json => Ok(self.read_json(payload)?),
            Format::Csv(format) => {
                let mut reader = self.csv.take().unwrap_or_else(|| format.reader());
                let read = self.read_csv(payload, format, &mut reader);
                self.csv = Some(reader);
                read.map_err(in_format("CSV"))
            }
            Format::Raw => self.read_raw(payload).map_err(in_format("a value")),
            Format::KeyValue(format) => self.read_pairs(payload, format).map_err(in_format("pairs")),
            Format::Nmea(format) => self.read_nmea(payload, format).map_err(in_format("NMEA")),
            Format::Regex => {
                let Some(pattern) = self.pattern.take() else { return Ok(()) };
                let result = self.read_pattern(payload, &pattern);
                self.pattern = Some(pattern);
                result.map_err(in_format("such a text"))
            }
            Format::Layout => {
                let binary_fields = std::mem::take(&mut self.binary_fields);
                let result = self.read_binary(payload, &binary_fields);
                self.binary_fields = binary_fields;
                result.map_err(in_format("of this layout"))
            }
            Format::Cbor => self.read_values(&mut || Cbor::new(payload)).map_err(in_format("CBOR")),
            Format::MsgPack => {
                self.read_values(&mut || MsgPack::new(payload)).map_err(in_format("MessagePack"))
            }
        }
    }

    /// Reads a message, once more with its numbers marked if one of them is beyond float64: it costs itself.
    fn read_json(&mut self, payload: &[u8]) -> Result<(), serde_json::Error> {
        let (start, counts) = (self.rows, self.findings.counts());
        self.find_times(trimmed(payload));
        let result = self.read_values(&mut Json { payload, as_written: payload });
        // The parser does not say it in any other way.
        let is_beyond = |error: &serde_json::Error| error.to_string().starts_with("number out of range");
        if !result.as_ref().is_err_and(is_beyond) {
            return result;
        }
        let Some(marked) = with_marked_numbers(payload) else { return result };
        self.truncate(start);
        self.findings.count_again(counts);
        self.find_times(trimmed(payload));
        self.read_values(&mut Json { payload: &marked, as_written: payload })
    }

    /// Reads a payload of nested values.
    fn read_values<'p, V: Values<'p>>(&mut self, values: &mut V) -> Result<(), V::Error> {
        let start = self.rows;
        match self.rows_path.take() {
            None => values.read(Rows { decoder: self, path: &[] })?,
            Some(path) => {
                let result = values.read(Within { path: &path, decoder: self, start, whole: &path });
                self.rows_path = Some(path);
                if !result? {
                    let path = self.rows_path.as_ref().map(|path| path.join(".")).unwrap_or_default();
                    return Err(de::Error::custom(format_args!(
                        "there is no array at \"{path}\" that could become rows"
                    )));
                }
            }
        }
        if self.reads_root && self.rows > start {
            self.read_root(values, start)?;
        }
        Ok(())
    }

    /// Reads the values outside the rows, and gives them to every row.
    fn read_root<'p, V: Values<'p>>(&mut self, values: &mut V, start: usize) -> Result<(), V::Error> {
        let end = self.rows;
        // Values land in the row that is being built: for now that is the first one of this message.
        self.rows = start;
        self.no_time = None;
        self.row_times.fill_with(|| None);
        let result = values.read(Object { decoder: self, node: ROOT });
        self.found_times.clear();
        if let Some(json) = values.json() {
            self.read_times(trimmed(json), true);
        }
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
    pub(super) fn begin_row(&mut self) {
        self.no_time = None;
        self.row_times.fill_with(|| None);
        if let Some(node) = self.nodes.get_mut(ROW) {
            node.next = 0;
        }
    }

    /// Ends a row: columns without a value get null.
    pub(super) fn end_row<E: de::Error>(&mut self) -> Result<(), E> {
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

    /// Writes a value into the columns of a key, in the row that is being built; an earlier one of the same
    /// key gives way.
    pub(super) fn put(&mut self, place: Place, value: Scalar<'_>) {
        let Some(key) = self.nodes.get(place.node).and_then(|node| node.keys.get(place.key)) else { return };
        // What JSON writes was read from its text.
        if self.format != Format::Json && !key.times.is_empty() {
            self.put_time(place, value);
            self.put_values(place, value);
            return;
        }
        if key.columns.is_empty() && self.inferred && value != Scalar::Null {
            if key.has_no_room {
                self.findings.not_taken += 1;
            } else if !key.left_out {
                self.infer(place, value);
            }
        }
        self.put_values(place, value);
    }

    fn put_values(&mut self, place: Place, value: Scalar<'_>) {
        for index in 0.. {
            let Some(column) = self.column_of(place, index) else { break };
            self.write(column, value);
        }
    }

    /// The key of the element `index` of a row that is a list.
    pub(super) fn element(&self, node: usize, index: usize) -> Option<usize> {
        self.nodes.get(node)?.find_element(index)
    }

    /// The key of the one value that there is.
    pub(super) fn only_key(&mut self) -> Option<usize> {
        let row = self.nodes.get_mut(ROW)?;
        if row.keys.is_empty() {
            row.add(crate::codec::ONLY);
        }
        Some(0)
    }

    /// The type of the column for a key's value.
    pub(super) fn type_of(&self, place: Place) -> Option<FieldType> {
        self.columns.get(self.column_of(place, 0)?).map(|column| column.field_type)
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
            let Some(time) = self.time_of(place, index) else { break };
            if let Some(slot) = self.row_times.get_mut(time) {
                *slot = Some(Err(Unreadable::NoTime(found.to_owned())));
            }
        }
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

/// A payload of nested values that can be read from its beginning, several times.
pub(super) trait Values<'p> {
    /// Why it cannot be read.
    type Error: de::Error;

    /// Reads it; nothing may follow its value.
    fn read<S: DeserializeSeed<'p>>(&mut self, seed: S) -> Result<S::Value, Self::Error>;

    /// Its text, if it is JSON.
    fn json(&self) -> Option<&'p [u8]> {
        None
    }
}

impl<'p, T: tokens::Tokens, F: FnMut() -> T> Values<'p> for F {
    type Error = Fault;

    fn read<S: DeserializeSeed<'p>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        tokens::read(&mut self(), seed)
    }
}

/// A key of a node.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) node: usize,
    pub(super) key: usize,
}
