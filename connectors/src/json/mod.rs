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

mod column;
mod decode;
mod encode;
mod layout;
mod text;
mod time;

pub use decode::{DecodeError, Decoder, Findings, Tally};
pub use encode::{Encoder, write_value};
pub(crate) use encode::{write_rfc3339, write_time};
pub use layout::{Field, Fields, Layout, LayoutError, MAX_INFERRED, Missing, TsPlace};
pub use time::{Numbers, TextFormat, TimeFormat, TimeUnit, Zone};

#[cfg(test)]
mod tests;
