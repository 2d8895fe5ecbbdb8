//! A payload that is one value: a number, text, a word such as `ON`, or bytes.

use tidegate_core::FieldType;

use super::column::Scalar;
use super::decode::{Decoder, Place};
use super::layout::ROW;
use super::tokens::Fault;

impl Decoder {
    /// Adds the row of a payload that is one value.
    pub(super) fn read_raw(&mut self, payload: &[u8]) -> Result<(), Fault> {
        self.begin_row();
        let Some(key) = self.only_key() else { return Ok(()) };
        let place = Place { node: ROW, key };
        let text = std::str::from_utf8(payload);
        let value = match (self.type_of(place), text) {
            (Some(FieldType::Bytes), _) => Scalar::Bytes(payload),
            (Some(FieldType::Utf8), Ok(text)) => Scalar::Text(text),
            (_, Ok(text)) => Scalar::Text(text.trim()),
            (_, Err(_)) => {
                let why = "it is not UTF-8 text: declare the type `bytes`, and take it apart in rules";
                return Err(Fault::Malformed(why.into()));
            }
        };
        self.put(place, value);
        self.end_row()
    }
}
