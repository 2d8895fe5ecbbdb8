//! One column under construction: Arrow buffers that can be cut back to an earlier row.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
};
use arrow::array::{BooleanBufferBuilder, NullBufferBuilder};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use tidegate_core::FieldType;

use super::time::{TimeFormat, shortened};

/// A value that is neither an object nor an array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// an integer above `i64::MAX`
    Big(u64),
    Float(f64),
    /// a number that float64 does not hold, as it is written
    Beyond(&'a str),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// What text may stand for beside itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Nothing: the format has numbers and booleans of its own.
    #[default]
    Text,
    /// A number, where a column takes numbers.
    Numbers,
    /// A number, or a word for true or false, where a column takes those: the format has nothing but text.
    Everything,
}

/// Words for true and false, in capitals.
const WORDS: [(&str, bool); 6] =
    [("TRUE", true), ("FALSE", false), ("ON", true), ("OFF", false), ("YES", true), ("NO", false)];

impl<'a> Scalar<'a> {
    /// What a text stands for; any other value is itself.
    pub(super) fn unquoted(self, quoting: Quoting) -> Self {
        let Self::Text(text) = self else { return self };
        match quoting {
            Quoting::Text => self,
            Quoting::Numbers => number(text).unwrap_or(self),
            Quoting::Everything => number(text).or_else(|| word(text)).unwrap_or(self),
        }
    }

    /// The same as a value of a column of `field_type`.
    fn for_column(self, quoting: Quoting, field_type: FieldType) -> Self {
        match (self, field_type) {
            (Self::Text(text), FieldType::Int64 | FieldType::Float64) if quoting != Quoting::Text => {
                number(text).unwrap_or(self)
            }
            (Self::Text(text), FieldType::Bool) if quoting == Quoting::Everything => match text {
                "1" => Self::Bool(true),
                "0" => Self::Bool(false),
                _ => word(text).unwrap_or(self),
            },
            _ => self,
        }
    }
}

/// The number that a text is, if it is one: decimal digits, as in JSON, also with `+` and leading zeros.
fn number(text: &str) -> Option<Scalar<'static>> {
    let text = text.trim();
    let text = text.strip_prefix('+').filter(|rest| !rest.starts_with(['+', '-'])).unwrap_or(text);
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.'))
        || !text.ends_with(|c: char| c.is_ascii_digit() || c == '.')
    {
        return None;
    }
    let whole = text.parse().map(Scalar::Int).or_else(|_| text.parse().map(Scalar::Big));
    whole.ok().or_else(|| text.parse().ok().filter(|value: &f64| value.is_finite()).map(Scalar::Float))
}

fn word(text: &str) -> Option<Scalar<'static>> {
    let found = WORDS.iter().find(|(word, _)| text.trim().eq_ignore_ascii_case(word));
    found.map(|(_, value)| Scalar::Bool(*value))
}

impl Scalar<'_> {
    /// The narrowest type that holds it; none for null.
    pub(super) fn narrowest(self) -> Option<FieldType> {
        match self {
            Self::Null => None,
            Self::Bool(_) => Some(FieldType::Bool),
            Self::Int(_) => Some(FieldType::Int64),
            Self::Big(_) | Self::Float(_) | Self::Beyond(_) => Some(FieldType::Float64),
            Self::Text(_) => Some(FieldType::Utf8),
            Self::Bytes(_) => Some(FieldType::Bytes),
        }
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "the boolean {value}"),
            Self::Int(value) => write!(f, "the number {value}"),
            Self::Big(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value:?}"),
            Self::Beyond(value) => write!(f, "the number {}, which no float64 holds", shortened(value)),
            Self::Text(value) if value.len() <= 40 => write!(f, "the string {value:?}"),
            Self::Text(value) => write!(f, "the string {:?}...", value.chars().take(40).collect::<String>()),
            Self::Bytes(value) => write!(f, "{} bytes", value.len()),
        }
    }
}

/// A value that the column's type cannot hold; a null was written instead.
pub(super) struct WrongType;

pub(super) struct Column {
    pub(super) name: Arc<str>,
    pub(super) field_type: FieldType,
    /// An inferred column of whole numbers takes others, too, by becoming one of floats. Nothing else widens:
    /// one bad value would change the column for good.
    pub(super) inferred: bool,
    /// Written once a row; the others once a message.
    pub(super) per_row: bool,
    /// An inferred column that several keys write to.
    pub(super) shared: bool,
    /// The user was told that a text column gets numbers.
    pub(super) told_text: bool,
    /// How its values are written, if they are times.
    pub(super) time: TimeFormat,
    /// What texts for it stand for.
    pub(super) quoting: Quoting,
    values: Values,
    nulls: NullBufferBuilder,
}

enum Values {
    Bool(BooleanBufferBuilder),
    /// int64 and timestamp
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Utf8(Strings),
    Bytes(Strings),
}

/// Texts or bytes as Arrow keeps them: all in one, and where each ends.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    ends: Vec<i32>,
}

impl Strings {
    fn push(&mut self, bytes: &[u8]) -> Result<(), WrongType> {
        // Arrow's offsets are 32 bits wide.
        let end = i32::try_from(self.bytes.len() + bytes.len()).map_err(|_| WrongType)?;
        self.bytes.extend_from_slice(bytes);
        self.ends.push(end);
        Ok(())
    }

    /// Adds row `row` again.
    fn push_again(&mut self, row: usize) -> Result<(), WrongType> {
        let end =
            |row: usize| self.ends.get(row).copied().and_then(|end| usize::try_from(end).ok()).unwrap_or(0);
        let (from, to) = (row.checked_sub(1).map_or(0, end), end(row));
        let new_end = i32::try_from(self.bytes.len() + (to - from)).map_err(|_| WrongType)?;
        self.bytes.extend_from_within(from..to);
        self.ends.push(new_end);
        Ok(())
    }

    /// Takes all, as Arrow's offsets and bytes.
    fn take(&mut self, rows: usize) -> (OffsetBuffer<i32>, Buffer) {
        let next = Self { bytes: Vec::with_capacity(self.bytes.len()), ends: Vec::with_capacity(rows) };
        let Self { bytes, ends } = std::mem::replace(self, next);
        let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
        (OffsetBuffer::new(offsets.into()), Buffer::from_vec(bytes))
    }

    fn push_empty(&mut self) {
        self.ends.push(self.ends.last().copied().unwrap_or(0));
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.bytes.truncate(usize::try_from(self.ends.last().copied().unwrap_or(0)).unwrap_or(0));
    }
}

impl Values {
    fn new(field_type: FieldType) -> Self {
        match field_type {
            FieldType::Bool => Self::Bool(BooleanBufferBuilder::new(0)),
            FieldType::Int64 | FieldType::Timestamp => Self::Int64(Vec::new()),
            FieldType::Float64 => Self::Float64(Vec::new()),
            FieldType::Utf8 => Self::Utf8(Strings::default()),
            FieldType::Bytes => Self::Bytes(Strings::default()),
        }
    }

    fn push_default(&mut self) {
        match self {
            Self::Bool(values) => values.append(false),
            Self::Int64(values) => values.push(0),
            Self::Float64(values) => values.push(0.0),
            Self::Utf8(strings) | Self::Bytes(strings) => strings.push_empty(),
        }
    }
}

impl Column {
    pub(super) fn new(name: &str, field_type: FieldType) -> Self {
        Self {
            name: name.into(),
            field_type,
            inferred: false,
            per_row: true,
            shared: false,
            told_text: false,
            time: TimeFormat::guessed(),
            quoting: Quoting::Text,
            values: Values::new(field_type),
            nulls: NullBufferBuilder::new(0),
        }
    }

    pub(super) fn inferred(name: &str, field_type: FieldType) -> Self {
        Self { inferred: true, ..Self::new(name, field_type) }
    }

    pub(super) fn capture(name: &str, field_type: FieldType) -> Self {
        Self { per_row: false, ..Self::new(name, field_type) }
    }

    pub(super) fn time(name: &str, time: TimeFormat) -> Self {
        Self { time, ..Self::new(name, FieldType::Timestamp) }
    }

    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Whether row `row` is there and not null.
    pub(super) fn is_valid(&self, row: usize) -> bool {
        row < self.len() && self.nulls.is_valid(row)
    }

    /// Forgets the rows from `rows` on.
    pub(super) fn truncate(&mut self, rows: usize) {
        if rows >= self.len() {
            return;
        }
        self.nulls.truncate(rows);
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::Int64(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Utf8(strings) | Values::Bytes(strings) => strings.truncate(rows),
        }
    }

    pub(super) fn push_null(&mut self) {
        self.values.push_default();
        self.nulls.append_null();
    }

    /// Adds nulls up to `rows` rows.
    pub(super) fn fill(&mut self, rows: usize) {
        while self.len() < rows {
            self.push_null();
        }
    }

    pub(super) fn push_ns(&mut self, ns: i64) {
        if let Values::Int64(values) = &mut self.values {
            values.push(ns);
            self.nulls.append_non_null();
        } else {
            self.push_null();
        }
    }

    /// Adds the value of row `row` again.
    pub(super) fn push_again(&mut self, row: usize) {
        if !self.nulls.is_valid(row) {
            return self.push_null();
        }
        match &mut self.values {
            Values::Bool(values) => {
                let value = values.get_bit(row);
                values.append(value);
            }
            Values::Int64(values) => values.extend_from_within(row..=row),
            Values::Float64(values) => values.extend_from_within(row..=row),
            Values::Utf8(strings) | Values::Bytes(strings) => {
                if strings.push_again(row).is_err() {
                    return self.push_null();
                }
            }
        }
        self.nulls.append_non_null();
    }

    /// Adds a value, converted where that loses nothing.
    pub(super) fn push(&mut self, value: Scalar<'_>) -> Result<(), WrongType> {
        let value = value.for_column(self.quoting, self.field_type);
        if self.inferred
            && self.field_type == FieldType::Int64
            && matches!(value, Scalar::Big(_) | Scalar::Float(_))
        {
            self.widen();
        }
        let done = match (&mut self.values, value) {
            (_, Scalar::Null) => {
                self.push_null();
                return Ok(());
            }
            (Values::Bool(values), Scalar::Bool(value)) => {
                values.append(value);
                Ok(())
            }
            (Values::Int64(values), Scalar::Int(value)) => {
                values.push(value);
                Ok(())
            }
            // 2^63 is the first double above i64::MAX; everything whole below it converts exactly.
            #[allow(clippy::cast_possible_truncation)]
            (Values::Int64(values), Scalar::Float(value))
                if value.fract() == 0.0 && (-TWO_63..TWO_63).contains(&value) =>
            {
                values.push(value as i64);
                Ok(())
            }
            // Whoever sends what is not a number, or infinite, has no value.
            (Values::Float64(values), Scalar::Float(value)) if value.is_finite() => {
                values.push(value);
                Ok(())
            }
            #[allow(clippy::cast_precision_loss)]
            (Values::Float64(values), Scalar::Int(value)) => {
                values.push(value as f64);
                Ok(())
            }
            #[allow(clippy::cast_precision_loss)]
            (Values::Float64(values), Scalar::Big(value)) => {
                values.push(value as f64);
                Ok(())
            }
            (Values::Utf8(strings), value) => push_as_text(strings, value),
            (Values::Bytes(strings), Scalar::Bytes(value)) => strings.push(value),
            (Values::Bytes(strings), Scalar::Text(value)) => {
                read_base64(value).ok_or(WrongType).and_then(|bytes| strings.push(&bytes))
            }
            _ => Err(WrongType),
        };
        match done {
            Ok(()) => self.nulls.append_non_null(),
            Err(WrongType) => self.push_null(),
        }
        done
    }

    /// Makes floats of the whole numbers.
    fn widen(&mut self) {
        if let Values::Int64(values) = &self.values {
            #[allow(clippy::cast_precision_loss)]
            let floats = values.iter().map(|value| *value as f64).collect();
            (self.values, self.field_type) = (Values::Float64(floats), FieldType::Float64);
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let rows = self.nulls.len();
        let nulls = std::mem::replace(&mut self.nulls, NullBufferBuilder::new(rows)).build();
        // The next batch is likely to be as large as this one.
        match &mut self.values {
            Values::Bool(values) => {
                let bits: BooleanBuffer = std::mem::replace(values, BooleanBufferBuilder::new(rows)).build();
                Arc::new(BooleanArray::new(bits, nulls))
            }
            Values::Int64(values) => {
                let values = ScalarBuffer::from(std::mem::replace(values, Vec::with_capacity(rows)));
                match self.field_type {
                    FieldType::Timestamp => {
                        Arc::new(TimestampNanosecondArray::new(values, nulls).with_timezone("UTC"))
                    }
                    _ => Arc::new(Int64Array::new(values, nulls)),
                }
            }
            Values::Float64(values) => {
                let values = ScalarBuffer::from(std::mem::replace(values, Vec::with_capacity(rows)));
                Arc::new(Float64Array::new(values, nulls))
            }
            Values::Utf8(strings) => {
                let (offsets, bytes) = strings.take(rows);
                Arc::new(StringArray::new(offsets, bytes, nulls))
            }
            Values::Bytes(strings) => {
                let (offsets, bytes) = strings.take(rows);
                Arc::new(BinaryArray::new(offsets, bytes, nulls))
            }
        }
    }
}

const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// The bytes that a format without them writes as base64 (RFC 4648, section 4), with `=` at the end or
/// without.
#[must_use]
pub fn read_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let engine = if text.ends_with('=') { STANDARD } else { STANDARD_NO_PAD };
    engine.decode(text).ok()
}

fn push_as_text(text: &mut Strings, value: Scalar<'_>) -> Result<(), WrongType> {
    struct End<'a>(&'a mut Vec<u8>);
    impl fmt::Write for End<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }

    let start = text.bytes.len();
    let written = match value {
        Scalar::Text(value) | Scalar::Beyond(value) => return text.push(value.as_bytes()),
        Scalar::Bytes(value) => return text.push(STANDARD.encode(value).as_bytes()),
        Scalar::Null => Ok(()),
        Scalar::Bool(value) => write!(End(&mut text.bytes), "{value}"),
        Scalar::Int(value) => write!(End(&mut text.bytes), "{value}"),
        Scalar::Big(value) => write!(End(&mut text.bytes), "{value}"),
        // As JSON writes it: the shortest digits that read back the same.
        Scalar::Float(value) => serde_json::to_writer(&mut text.bytes, &value).map_err(|_| fmt::Error),
    };
    match (written, i32::try_from(text.bytes.len())) {
        (Ok(()), Ok(end)) => {
            text.ends.push(end);
            Ok(())
        }
        _ => {
            text.bytes.truncate(start);
            Err(WrongType)
        }
    }
}
