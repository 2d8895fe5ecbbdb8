//! What is sent for a row: `T{net:07.2}\r\n`. Pure.

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::escapes::unescape;
use crate::cells::{cell, is_name, write_text};

/// Text in which `{column}` stands for the row's value; any other brace is itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Telegram {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Column(String, Option<Shape>),
}

/// `07.2`: how a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    zeros: bool,
    width: usize,
    decimals: Option<usize>,
}

/// More digits than any display has.
const WIDEST: usize = 40;

impl std::str::FromStr for Telegram {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            match after.split_once('}').and_then(|(inside, tail)| Some((column(inside)?, tail))) {
                Some((column, tail)) => {
                    parts.push(Part::Bytes(unescape(&literal)?));
                    literal.clear();
                    parts.push(column?);
                    rest = tail;
                }
                None => {
                    literal.push('{');
                    rest = after;
                }
            }
        }
        literal.push_str(rest);
        parts.push(Part::Bytes(unescape(&literal)?));
        parts.retain(|part| *part != Part::Bytes(Vec::new()));
        Ok(Self { parts })
    }
}

/// None: what is between the braces is no column.
fn column(inside: &str) -> Option<Result<Part, String>> {
    let (name, shape) = match inside.split_once(':') {
        Some((name, shape)) => (name, Some(shape)),
        None => (inside, None),
    };
    if !is_name(name) {
        return None;
    }
    let wrong = |shape| {
        format!(
            "\"{shape}\" does not say how `{name}` is written: write `{{{name}:07.2}}` for a number that is 7 \
                wide, filled with zeros, and has 2 decimals"
        )
    };
    let shape = shape.map(|shape| Shape::parse(shape).ok_or_else(|| wrong(shape))).transpose();
    Some(shape.map(|shape| Part::Column(name.to_owned(), shape)))
}

impl Shape {
    fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse::<usize>().ok().filter(|number| is_number && *number <= WIDEST)
        };
        let (width, decimals) = match text.split_once('.') {
            Some((width, decimals)) => (width, Some(number(decimals)?)),
            None => (text, None),
        };
        let zeros = width.starts_with('0');
        let width = if width.is_empty() { 0 } else { number(width)? };
        (width > 0 || decimals.is_some()).then_some(Self { zeros, width, decimals })
    }

    /// A number that is wider than the device has room for is not sent: it would show another one.
    fn write(self, name: &str, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let Self { zeros, width, decimals } = self;
        let text = match (array.data_type(), decimals) {
            (DataType::Int64, None | Some(0)) => array.as_primitive::<Int64Type>().value(row).to_string(),
            #[expect(clippy::cast_precision_loss, reason = "decimals are what was asked for")]
            (DataType::Int64, Some(decimals)) => {
                format!("{:.decimals$}", array.as_primitive::<Int64Type>().value(row) as f64)
            }
            (DataType::Float64, decimals) => {
                let value = array.as_primitive::<Float64Type>().value(row);
                if !value.is_finite() {
                    return Err(format!("column {name} is {value}"));
                }
                decimals.map_or_else(|| value.to_string(), |decimals| format!("{value:.decimals$}"))
            }
            (other, _) => {
                return Err(format!("column {name} is {other}, and `{{{name}:..}}` writes numbers"));
            }
        };
        if width > 0 && text.len() > width {
            return Err(format!("column {name} is {text}, which is wider than {width}"));
        }
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) if zeros => ("-", digits),
            _ => ("", text.as_str()),
        };
        out.extend_from_slice(sign.as_bytes());
        let fill = width.saturating_sub(text.len());
        out.extend(std::iter::repeat_n(if zeros { b'0' } else { b' ' }, fill));
        out.extend_from_slice(digits.as_bytes());
        Ok(())
    }
}

impl Telegram {
    /// Whether it sends nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The names of the columns in it.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts
            .iter()
            .filter_map(|part| if let Part::Column(name, _) = part { Some(name.as_str()) } else { None })
    }

    /// The bytes for a row.
    ///
    /// # Errors
    /// When the rows have no such column, its value is null, or a text has a control character in it: that
    /// could end the command, and begin another. So could a byte that loses its highest bit on a line with
    /// fewer `data_bits`.
    pub fn render(&self, rows: &RecordBatch, row: usize, data_bits: u8) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Column(name, shape) => {
                    let array = cell(rows, name, row, "payload")?;
                    if let Some(shape) = shape {
                        shape.write(name, array, row, &mut out)?;
                        continue;
                    }
                    let start = out.len();
                    match float(array, row) {
                        Some(value) => write_decimals(name, value, &mut out)?,
                        None => write_text(array, row, &mut out),
                    }
                    let is_bytes = matches!(
                        array.data_type(),
                        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
                    );
                    let value = out.get(start..).unwrap_or_default();
                    if let Some(why) = (!is_bytes).then(|| flaw(value, data_bits)).flatten() {
                        let value = value.escape_ascii();
                        return Err(format!("column {name} is \"{value}\": {why}"));
                    }
                }
            }
        }
        Ok(out)
    }
}

fn float(array: &ArrayRef, row: usize) -> Option<f64> {
    let double = array.as_primitive_opt::<Float64Type>().map(|array| array.value(row));
    double.or_else(|| array.as_primitive_opt::<Float32Type>().map(|array| array.value(row).into()))
}

/// Writes a number as devices read it: with its decimals, however many, and never as `1e-7`.
fn write_decimals(name: &str, value: f64, out: &mut Vec<u8>) -> Result<(), String> {
    if !value.is_finite() {
        return Err(format!("column {name} is {value}"));
    }
    let text = value.to_string();
    out.extend_from_slice(text.as_bytes());
    if !text.contains('.') {
        out.extend_from_slice(b".0");
    }
    Ok(())
}

/// Why a text must not be sent.
fn flaw(text: &[u8], data_bits: u8) -> Option<&'static str> {
    // Those beyond ASCII (C1, U+0080 to U+009F) are control characters for terminals and printers as well.
    if String::from_utf8_lossy(text).chars().any(char::is_control) {
        return Some("a control character could begin another command");
    }
    (data_bits < 8 && !text.is_ascii()).then_some(
        "the line has 7 `data_bits` or fewer, in which only ASCII fits; another character would arrive as one \
         that was not written",
    )
}

impl fmt::Debug for Telegram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Telegram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Telegram {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Telegram".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{BinaryArray, Float64Array, Int64Array, StringArray};
    use std::sync::Arc;

    fn rows() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("net", Arc::new(Float64Array::from(vec![12.345, -0.5, f64::NAN])) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![7, -7, 123_456]))),
            ("text", Arc::new(StringArray::from(vec![Some("on"), None, Some("a\rb")]))),
            ("raw", Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice(), b"", b"\r"]))),
        ])
        .unwrap()
    }

    fn sent(template: &str, row: usize) -> Result<String, String> {
        let telegram: Telegram = template.parse()?;
        telegram.render(&rows(), row, 8).map(|bytes| bytes.escape_ascii().to_string())
    }

    #[test]
    fn values_stand_where_their_columns_are_named() {
        assert_eq!(sent(r"\x02T{net},{text}\r\n", 0), Ok(r"\x02T12.345,on\r\n".into()));
        assert_eq!(sent("{a b}{net}{", 0), Ok("{a b}12.345{".into()));
        assert_eq!(sent("{raw}", 0), Ok(r"\x00\xff".into()));
        let columns: Telegram = "{net:6.1}{n}".parse().unwrap();
        assert_eq!(columns.columns().collect::<Vec<_>>(), ["net", "n"]);
    }

    #[test]
    fn numbers_have_the_shape_that_a_display_takes() {
        assert_eq!(
            sent("{net:07.2}|{net:7.2}|{net:.1}|{n:04}|{n:4.1}", 0),
            Ok("0012.35|  12.35|12.3|0007| 7.0".into())
        );
        assert_eq!(sent("{net:07.2}|{n:04}", 1), Ok("-000.50|-007".into()));
        assert!(sent("{n:4}", 2).unwrap_err().contains("wider than 4"));
        assert!(sent("{text:4}", 0).unwrap_err().contains("writes numbers"));
        assert!(sent("{net:.1}", 2).unwrap_err().contains("NaN"));
        assert!(sent("{net:x}", 0).unwrap_err().contains("07.2"));
    }

    #[test]
    fn a_number_without_a_shape_has_plain_decimals() {
        let numbers = [(1e-7, "0.0000001"), (-2.5e-10, "-0.00000000025"), (1e21, "1000000000000000000000.0")];
        let usual = [(80.0, "80.0"), (0.1, "0.1"), (123_456.75, "123456.75")];
        let telegram: Telegram = "{x}".parse().unwrap();
        for (number, text) in numbers.into_iter().chain(usual) {
            let column: ArrayRef = Arc::new(Float64Array::from(vec![number]));
            let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
            assert_eq!(telegram.render(&rows, 0, 8).unwrap(), text.as_bytes());
        }
        assert_eq!(sent("{net}", 2), Err("column net is NaN".into()));
    }

    #[test]
    fn what_would_be_another_command_is_refused() {
        assert_eq!(sent("{text}", 1), Err("column text is null, and the payload needs it".into()));
        assert!(sent("{text}", 2).unwrap_err().contains("could begin another command"));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a\u{8d}b", "5 \u{20ac}", "5 A"]));
        let rows = RecordBatch::try_from_iter([("text", text)]).unwrap();
        let telegram: Telegram = "{text}".parse().unwrap();
        let refused = |row, bits| telegram.render(&rows, row, bits).unwrap_err();
        assert!(refused(0, 8).contains("could begin another command"), "C1");
        assert!(refused(1, 7).contains("only ASCII fits"));
        assert_eq!(telegram.render(&rows, 1, 8).unwrap(), "5 \u{20ac}".as_bytes());
        assert_eq!(telegram.render(&rows, 2, 7).unwrap(), b"5 A");
        assert!(sent("{nett}", 0).unwrap_err().contains("no column `nett`"));
    }
}
