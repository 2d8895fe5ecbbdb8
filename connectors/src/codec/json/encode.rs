//! Rows to JSON objects.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray, LargeStringArray, RecordBatch,
    StringArray, StringViewArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::codec::time::offset_at;

/// Writes rows of one schema as JSON objects: keys are the columns' names in order, nulls are written as
/// `null`.
///
/// Times are RFC 3339 with `Z`, in another zone with its offset, and without both if they have no zone; with
/// as few fraction digits (0, 3, 6 or 9) as keep them whole. Floats have the shortest digits that read back
/// the same (`80.0`); NaN and the infinities, which JSON does not know, are `null`. Bytes are base64 (RFC
/// 4648, section 4). Lists are arrays, structs are objects; anything else is the text that Arrow displays.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// `{"name":`, then `,"name":`
    heads: Vec<Vec<u8>>,
}

impl Encoder {
    /// An encoder for batches of this schema.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let heads = schema.fields().iter().enumerate().map(|(index, field)| {
            let mut head = vec![if index == 0 { b'{' } else { b',' }];
            write_json(field.name(), &mut head);
            head.push(b':');
            head
        });
        Self { heads: heads.collect() }
    }

    /// Appends row `row` of `batch`, which must have the encoder's schema, to `out`. A row past the end is an
    /// object of nulls.
    pub fn encode_row(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        if self.heads.is_empty() {
            out.push(b'{');
        }
        for (head, column) in self.heads.iter().zip(batch.columns()) {
            out.extend_from_slice(head);
            write_value(column, row, out);
        }
        out.push(b'}');
    }
}

fn write_json(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    // Writing a scalar into memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// Whether there is no value. To Arrow, all of a column whose type is null are values.
pub(crate) fn is_null(array: &dyn Array, row: usize) -> bool {
    array.is_null(row) || *array.data_type() == DataType::Null
}

/// Appends row `row` of a column as JSON, in the way of [`Encoder`]; a row past the end is `null`.
pub fn write_value(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    if row >= array.len() || is_null(array, row) {
        out.extend_from_slice(b"null");
        return;
    }
    let any = array.as_any();
    macro_rules! scalars {
        ($($array:ty),+) => {
            $(if let Some(values) = any.downcast_ref::<$array>() {
                return write_json(&values.value(row), out);
            })+
        };
    }
    if let DataType::Timestamp(..) = array.data_type() {
        out.push(b'"');
        let begin = out.len();
        if write_time(array, row, out) {
            return out.push(b'"');
        }
        out.truncate(begin - 1);
    }
    scalars!(
        Float64Array,
        Int64Array,
        StringArray,
        BooleanArray,
        StringViewArray,
        LargeStringArray,
        Float32Array,
        Int32Array,
        UInt64Array
    );
    scalars!(Int8Array, Int16Array, UInt8Array, UInt16Array, UInt32Array);
    macro_rules! bytes {
        ($($array:ty),+) => {
            $(if let Some(values) = any.downcast_ref::<$array>() {
                return write_json(&STANDARD.encode(values.value(row)), out);
            })+
        };
    }
    bytes!(BinaryArray, BinaryViewArray, LargeBinaryArray);
    match array.data_type() {
        DataType::List(_) => write_elements(&array.as_list::<i32>().value(row), out),
        DataType::LargeList(_) => write_elements(&array.as_list::<i64>().value(row), out),
        DataType::FixedSizeList(_, _) => write_elements(&array.as_fixed_size_list().value(row), out),
        DataType::Struct(fields) => {
            out.push(b'{');
            for (index, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_json(field.name(), out);
                out.push(b':');
                write_value(column, row, out);
            }
            out.push(b'}');
        }
        _ => write_displayed(array, row, out),
    }
}

fn write_elements(elements: &ArrayRef, out: &mut Vec<u8>) {
    out.push(b'[');
    for row in 0..elements.len() {
        if row > 0 {
            out.push(b',');
        }
        write_value(elements, row, out);
    }
    out.push(b']');
}

fn write_displayed(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match ArrayFormatter::try_new(array, &FormatOptions::default()) {
        Ok(formatter) => write_json(&formatter.value(row).to_string(), out),
        Err(_) => out.extend_from_slice(b"null"),
    }
}

/// Appends the time in row `row`, without quotes. Returns whether there is one that nanoseconds can say.
pub(crate) fn write_time(array: &dyn Array, row: usize, out: &mut Vec<u8>) -> bool {
    let DataType::Timestamp(unit, zone) = array.data_type() else { return false };
    let any = array.as_any();
    let ns = match unit {
        TimeUnit::Nanosecond => any.downcast_ref::<TimestampNanosecondArray>().map(|v| (v.value(row), 1)),
        TimeUnit::Microsecond => {
            any.downcast_ref::<TimestampMicrosecondArray>().map(|v| (v.value(row), 1_000))
        }
        TimeUnit::Millisecond => {
            any.downcast_ref::<TimestampMillisecondArray>().map(|v| (v.value(row), 1_000_000))
        }
        TimeUnit::Second => any.downcast_ref::<TimestampSecondArray>().map(|v| (v.value(row), 1_000_000_000)),
    };
    let Some(ns) = ns.and_then(|(value, unit)| value.checked_mul(unit)) else { return false };
    let (s, fraction) = (ns.div_euclid(NS), ns.rem_euclid(NS));
    match zone.as_deref() {
        None => write_clock(s, fraction, out),
        Some("UTC" | "Etc/UTC" | "Z" | "+00:00") => write_rfc3339(ns, out),
        // RFC 3339 has no offsets with seconds, as they were before 1900.
        Some(name) => match offset_at(name, s).filter(|offset| offset % 60 == 0) {
            Some(offset) => {
                write_clock(s + offset, fraction, out);
                out.push(if offset < 0 { b'-' } else { b'+' });
                digits(offset.abs() / 3600, 2, out);
                out.push(b':');
                digits(offset.abs() / 60 % 60, 2, out);
            }
            None => write_rfc3339(ns, out),
        },
    }
    true
}

const NS: i64 = 1_000_000_000;

/// Appends `2026-03-01T12:00:00Z`, with 3, 6 or 9 digits of fraction when they are needed. All of i64 is in
/// the years 1677 to 2262.
pub(crate) fn write_rfc3339(ns: i64, out: &mut Vec<u8>) {
    write_clock(ns.div_euclid(NS), ns.rem_euclid(NS), out);
    out.push(b'Z');
}

/// Appends what a clock shows `seconds` after it showed 1970-01-01 00:00:00, and `fraction` nanoseconds.
fn write_clock(seconds: i64, fraction: i64, out: &mut Vec<u8>) {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    digits(year, 4, out);
    for (mark, value) in
        [(b'-', month), (b'-', day), (b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)]
    {
        out.push(mark);
        digits(value, 2, out);
    }
    if fraction != 0 {
        out.push(b'.');
        match fraction {
            _ if fraction % 1_000_000 == 0 => digits(fraction / 1_000_000, 3, out),
            _ if fraction % 1_000 == 0 => digits(fraction / 1_000, 6, out),
            _ => digits(fraction, 9, out),
        }
    }
}

/// The decimal digits of a number that is not negative, with leading zeros.
fn digits(value: i64, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        let digit = value / 10_i64.pow(place) % 10;
        out.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_column_of_nulls_has_no_values() {
        let columns: [(&str, ArrayRef); 2] = [
            ("a", std::sync::Arc::new(arrow::array::NullArray::new(2))),
            ("b", std::sync::Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut out = Vec::new();
        Encoder::new(&batch.schema()).encode_row(&batch, 1, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":null,"b":2}"#);
        assert!(crate::cells::cell(&batch, "a", 1, "topic").is_err());
    }

    /// The offsets are those of the IANA database, as `date -d @S` shows them with `TZ` set.
    #[test]
    fn a_time_is_written_by_the_clock_of_its_zone() {
        let s = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
        let berlin = Some("Europe/Berlin");
        for (utc, zone, expected) in [
            ("2026-10-25T00:30:05Z", berlin, "2026-10-25T02:30:05+02:00"),
            ("2026-10-25T01:30:05Z", berlin, "2026-10-25T02:30:05+01:00"),
            ("2026-07-01T00:00:00Z", Some("America/St_Johns"), "2026-06-30T21:30:00-02:30"),
            ("2026-01-01T00:00:00Z", Some("Europe/London"), "2026-01-01T00:00:00+00:00"),
            ("2026-01-01T00:00:00Z", Some("+05:45"), "2026-01-01T05:45:00+05:45"),
            ("2026-01-01T00:00:00Z", Some("UTC"), "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", Some("+00:00"), "2026-01-01T00:00:00Z"),
            ("2026-03-28T14:00:00Z", None, "2026-03-28T14:00:00"),
            // Berlin was 53 minutes and 28 seconds ahead, which RFC 3339 cannot say.
            ("1880-01-01T00:00:00Z", berlin, "1880-01-01T00:00:00Z"),
        ] {
            let zone = zone.map(std::sync::Arc::<str>::from);
            let columns = [
                std::sync::Arc::new(
                    TimestampNanosecondArray::from(vec![s(utc) * 1_000_000_000])
                        .with_timezone_opt(zone.clone()),
                ) as ArrayRef,
                std::sync::Arc::new(
                    TimestampMillisecondArray::from(vec![s(utc) * 1_000]).with_timezone_opt(zone.clone()),
                ),
                std::sync::Arc::new(TimestampSecondArray::from(vec![s(utc)]).with_timezone_opt(zone)),
            ];
            for column in columns {
                let mut out = Vec::new();
                write_value(&column, 0, &mut out);
                assert_eq!(
                    String::from_utf8(out).unwrap(),
                    format!("\"{expected}\""),
                    "{:?}",
                    column.data_type()
                );
            }
        }
    }
}
