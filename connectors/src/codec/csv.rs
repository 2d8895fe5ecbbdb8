//! Lines of values (RFC 4180), with any separator, and with a header or without.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use super::column::Scalar;
use super::decode::{Decoder, Place};
use super::layout::ROW;
use super::tokens::Fault;

/// `{ csv = { delimiter = ";", header = true } }`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvFormat {
    /// what separates values; a comma when absent
    pub delimiter: Delimiter,
    /// whether the first line of each payload names the values; without it, paths are positions from 0
    pub header: bool,
}

/// A character that separates values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "char")]
pub struct Delimiter(u8);

impl Delimiter {
    pub(super) fn mark(self) -> char {
        self.0.into()
    }
}

impl Default for Delimiter {
    fn default() -> Self {
        Self(b',')
    }
}

impl TryFrom<char> for Delimiter {
    type Error = String;

    fn try_from(mark: char) -> Result<Self, String> {
        let wrong =
            || format!("{mark:?} cannot separate values: write one such as \",\", \";\", \"\\t\" or \"|\"");
        let is_taken = mark.is_ascii_alphanumeric() || matches!(mark, '"' | '\n' | '\r' | '.' | '-' | '+');
        u8::try_from(mark).ok().filter(|byte| byte.is_ascii() && !is_taken).map(Self).ok_or_else(wrong)
    }
}

impl JsonSchema for Delimiter {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Delimiter".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": 1 })
    }
}

impl CsvFormat {
    /// What takes lines apart. It is made once: its tables take longer than a short payload.
    pub(super) fn reader(self) -> Box<Reader> {
        Box::new(ReaderBuilder::new().delimiter(self.delimiter.0).build())
    }
}

/// The lines of a payload.
struct Lines<'p> {
    reader: &'p mut Reader,
    rest: &'p [u8],
    /// the values of the line at hand, and where each ends
    values: Vec<u8>,
    ends: Vec<usize>,
}

impl<'p> Lines<'p> {
    fn new(payload: &'p [u8], reader: &'p mut Reader) -> Self {
        reader.reset();
        // No value is longer than what is written of it.
        Self { reader, rest: payload, values: vec![0; payload.len() + 1], ends: vec![0; 16] }
    }

    /// The values of the next line.
    fn next(&mut self) -> Result<Option<Vec<&str>>, Fault> {
        let (mut written, mut count) = (0, 0);
        loop {
            let values = self.values.get_mut(written..).unwrap_or_default();
            let ends = self.ends.get_mut(count..).unwrap_or_default();
            let (result, read, more, ended) = self.reader.read_record(self.rest, values, ends);
            self.rest = self.rest.get(read..).unwrap_or_default();
            written += more;
            count += ended;
            match result {
                // Without input it says that there is no more.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.values.resize(self.values.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        let mut start = 0;
        let value = |end: &usize| {
            let value = self.values.get(std::mem::replace(&mut start, *end)..*end).unwrap_or_default();
            let text = std::str::from_utf8(value).map(str::trim);
            text.map_err(|_| Fault::Malformed("a line is not UTF-8 text".into()))
        };
        self.ends.get(..count).unwrap_or_default().iter().map(value).collect::<Result<Vec<_>, _>>().map(Some)
    }
}

impl Decoder {
    /// Adds the rows of a payload of lines.
    pub(super) fn read_csv(
        &mut self,
        payload: &[u8],
        format: CsvFormat,
        reader: &mut Reader,
    ) -> Result<(), Fault> {
        let mut lines = Lines::new(payload, reader);
        let mut header = Vec::new();
        if format.header {
            let Some(names) = lines.next()? else { return Ok(()) };
            for name in names {
                header.push(self.find(ROW, name));
            }
        }
        let mut line = usize::from(format.header);
        while let Some(values) = lines.next()? {
            line += 1;
            if format.header && values.len() != header.len() {
                return Err(Fault::Malformed(format!(
                    "line {line} has {} values, and the header {}",
                    values.len(),
                    header.len()
                )));
            }
            self.begin_row();
            for (at, value) in values.into_iter().enumerate() {
                let key =
                    if format.header { header.get(at).copied().flatten() } else { self.element(ROW, at) };
                let Some(key) = key else { continue };
                let value = if value.is_empty() { Scalar::Null } else { Scalar::Text(value) };
                self.put(Place { node: ROW, key }, value);
            }
            self.end_row::<Fault>()?;
        }
        Ok(())
    }
}
