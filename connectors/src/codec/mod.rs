//! JSON payloads to Arrow columns, and rows back to JSON objects.
//!
//! [`Decoder`] reads a payload once, from front to back, and writes each value straight into the buffer of
//! its column: there is no tree and no map in between. A [`Layout`] says where the values are. [`Encoder`] is
//! the way back.
//!
//! * A message that is malformed leaves no row behind.
//! * A value of the wrong type is null, a row without its time is left out; both are counted, and one of them
//!   is described: see [`Decoder::take_findings`].
//! * A key that occurs twice in one object counts once, with its last value.
//! * Numbers with a fraction of zero are integers (`3.0` fits `int64`), integers are floats, any scalar is
//!   text where text is declared, and so is an object or array, as JSON.
//!
//! There is no I/O and no clock in here.

mod binary;
mod cbor;
mod check;
mod column;
mod csv;
mod decode;
mod json;
mod layout;
mod msgpack;
mod nmea;
mod pairs;
mod path;
mod pattern;
mod payload;
mod raw;
mod time;
mod tokens;

pub use binary::{BinaryField, ByteOrder, ValueType};
pub use check::check_fields;
pub(crate) use column::Scalar;
pub use column::read_base64;
pub use csv::{CsvFormat, Delimiter};
pub use decode::{DecodeError, Decoder, Findings, Tally};
pub use json::encode::{Encoder, write_value};
pub(crate) use json::encode::{is_null, write_rfc3339, write_time};
pub use layout::{Field, Fields, Layout, LayoutError, MAX_INFERRED, Missing, TsPlace};
pub use nmea::{NmeaFormat, Sentence};
pub use pairs::PairFormat;
pub use path::Path;
pub use pattern::Pattern;
pub use payload::{FieldAt, FieldConfig, Format, PayloadConfig, TsAt, TsConfig};
pub use time::{Numbers, TextFormat, TimeFormat, TimeUnit, Zone};

/// The column of a payload that is one value, if none is declared.
const ONLY: &str = "value";

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod tests;
