//! The event time of each row, and other columns of times.
//!
//! In JSON they are read from the text of the payload, in which a number has all its digits; in other formats
//! from the values, as these come.

use serde::de;

use super::{Decoder, Place};
use crate::codec::Format;
use crate::codec::column::{Column, Scalar};
use crate::codec::json::text::{each_row, find};
use crate::codec::layout::{Missing, TimePlace};
use crate::codec::time::{Unreadable, implausible, is_plausible};

impl Decoder {
    /// Finds the times of all rows of a message.
    pub(super) fn find_times(&mut self, payload: &[u8]) {
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

    /// Reads a value as the time that it is.
    pub(super) fn put_time(&mut self, place: Place, value: Scalar<'_>) {
        let read = |column: &Column| column.time.read_value(value);
        let written = || match value {
            Scalar::Text(text) => serde_json::Value::from(text).to_string(),
            Scalar::Float(number) => serde_json::Value::from(number).to_string(),
            Scalar::Int(number) => number.to_string(),
            Scalar::Beyond(number) => number.to_owned(),
            other => other.to_string(),
        };
        for index in 0.. {
            let Some(time) = self.time_of(place, index) else { break };
            let Some(column) = self.times.get(time).map(|place| place.column) else { break };
            let Some(found) = self.columns.get(column).map(read) else { break };
            if let (Ok(ns), 0, false) = (&found, column, self.told_implausible)
                && !is_plausible(*ns, self.arrival_ns)
                && let Some(format) = self.columns.get(column).map(|column| &column.time)
                && let Some(note) = implausible(*ns, &written(), format, self.arrival_ns)
            {
                self.told_implausible = true;
                self.findings.notes.push(note);
            }
            if let Some(slot) = self.row_times.get_mut(time) {
                *slot = Some(found);
            }
        }
    }

    pub(super) fn time_of(&self, place: Place, index: usize) -> Option<usize> {
        self.nodes.get(place.node)?.keys.get(place.key)?.times.get(index).copied()
    }

    /// Reads the times of the rows at `outside` the rows or in them, from the text of `value`, and puts them
    /// after those that were read.
    pub(super) fn read_times(&mut self, value: &[u8], outside: bool) {
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
    pub(super) fn write_times(&mut self, outside: bool) {
        for index in 0..self.times.len() {
            let Some(TimePlace { column, path }) = self.times.get(index) else { break };
            if path.is_from_root() != outside {
                continue;
            }
            let found = match self.format {
                Format::Json => self.found_times.pop_front().flatten(),
                _ => self.row_times.get_mut(index).and_then(Option::take),
            };
            let index = *column;
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

    /// Whether `rows` rows without a time stay, with the time of arrival. They are counted, unless the stream
    /// declares none.
    pub(super) fn goes_by_arrival<E: de::Error>(&mut self, rows: usize) -> Result<bool, E> {
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

    pub(super) fn push_arrival(&mut self, row: usize) {
        let arrival_ns = self.arrival_ns;
        if let Some(ts) = self.columns.first_mut() {
            ts.truncate(row);
            ts.push_ns(arrival_ns);
        }
    }
}
