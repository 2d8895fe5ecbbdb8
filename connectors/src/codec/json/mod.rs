//! JSON (RFC 8259).

pub(super) mod encode;
pub(super) mod text;

use serde::de::DeserializeSeed;

use super::decode::Values;

/// A payload of JSON.
pub(super) struct Json<'p> {
    pub(super) payload: &'p [u8],
    /// Without marks at its numbers.
    pub(super) as_written: &'p [u8],
}

impl<'p> Values<'p> for Json<'p> {
    type Error = serde_json::Error;

    fn read<S: DeserializeSeed<'p>>(&mut self, seed: S) -> Result<S::Value, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(self.payload);
        let value = seed.deserialize(&mut json)?;
        json.end()?;
        Ok(value)
    }

    fn json(&self) -> Option<&'p [u8]> {
        Some(self.as_written)
    }
}
