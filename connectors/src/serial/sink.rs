//! An output: rows that become bytes.

use std::time::Duration;

use arrow::array::RecordBatch;

use super::telegram::Telegram;
use crate::Takes;
use crate::codec::Pattern;
use crate::line::writes::Encode;

/// What an output asks of the line.
pub(super) struct TelegramWrite {
    pub(super) bytes: Vec<u8>,
    /// the frame by which the device confirms it
    pub(super) answer: Option<Pattern>,
    pub(super) timeout: Duration,
}

/// What an output sends.
pub(super) struct Telegrams {
    pub(super) telegram: Telegram,
    /// of a byte on the line
    pub(super) data_bits: u8,
    pub(super) answer: Option<Pattern>,
    pub(super) timeout: Duration,
}

impl Encode for Telegrams {
    type Write = TelegramWrite;

    fn takes(&self) -> Takes {
        Takes::All
    }

    fn encode(&self, _: &str, rows: &RecordBatch, row: usize) -> Result<Option<TelegramWrite>, String> {
        let bytes = self.telegram.render(rows, row, self.data_bits)?;
        Ok(Some(TelegramWrite { bytes, answer: self.answer.clone(), timeout: self.timeout }))
    }
}
