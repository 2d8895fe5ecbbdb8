//! Payloads of one stream: its decoder, and what the log and the counters have about what it finds.

use std::sync::Arc;

use tidegate_core::{Ack, Batch, Sampler};

use super::handover::Pending;
use crate::codec::{DecodeError, Decoder, Findings};
use crate::hex::excerpt;
use crate::status::{Intake, LineStatus};

/// A decoder whose findings are counted and told. `source`: where a payload came from, for the log.
pub(crate) struct Decoding {
    pub(crate) decoder: Decoder,
    stream: Arc<str>,
    intake: Arc<Intake>,
    status: Arc<LineStatus>,
    malformed: Sampler,
    misfits: Sampler,
    untimed: Sampler,
    malformed_rows: Sampler,
}

impl Decoding {
    /// For this stream of a line.
    pub(crate) fn new(
        stream: Arc<str>,
        decoder: Decoder,
        intake: Arc<Intake>,
        status: Arc<LineStatus>,
    ) -> Self {
        let [malformed, misfits, untimed, malformed_rows] = std::array::from_fn(|_| Sampler::default());
        Self { decoder, stream, intake, status, malformed, misfits, untimed, malformed_rows }
    }

    /// Decodes a payload that came at `now_ns`; see [`Decoder::decode`]. Returns how many rows it gave: none
    /// when it is malformed, which is counted and told.
    pub(crate) fn decode(&mut self, payload: &[u8], given: &[&str], source: &str, now_ns: i64) -> usize {
        let rows = match self.decoder.decode(payload, given, now_ns) {
            Ok(rows) => rows,
            Err(error) => {
                self.is_malformed(payload, source, &error);
                0
            }
        };
        self.note_findings(source);
        rows
    }

    fn is_malformed(&mut self, payload: &[u8], source: &str, error: &DecodeError) {
        self.status.malformed.add(1);
        self.intake.malformed.add(1);
        if let Some(count) = self.malformed.count(1) {
            let (stream, payload) = (&self.stream, excerpt(payload));
            tracing::warn!(%stream, source, count, %error, payload, "malformed messages");
        }
    }

    fn note_findings(&mut self, source: &str) {
        let Some(findings) = self.decoder.take_findings() else { return };
        let Findings { misfits, untimed, malformed_rows, not_taken, notes } = findings;
        let stream = &*self.stream;
        for note in notes {
            tracing::warn!(stream, source, "{note}");
        }
        self.intake.not_taken.add(not_taken);
        self.intake.malformed_rows.add(malformed_rows.count);
        if let (Some(first), Some(count)) =
            (malformed_rows.first, self.malformed_rows.count(malformed_rows.count))
        {
            tracing::warn!(
                stream,
                source,
                count,
                first,
                "elements that are no objects are left out, and the others become rows"
            );
        }
        self.status.wrong_type.add(misfits.count);
        self.intake.misfits.add(misfits.count);
        if let (Some(first), Some(count)) = (misfits.first, self.misfits.count(misfits.count)) {
            tracing::warn!(stream, source, count, first, "values that do not fit their columns are null");
        }
        self.intake.untimed.add(untimed.count);
        if let (Some(first), Some(count)) = (untimed.first, self.untimed.count(untimed.count)) {
            tracing::warn!(
                stream,
                source,
                count,
                first,
                "rows without the time that `ts` declares are left out (see `ts_missing`)"
            );
        }
    }

    /// Says once which declared columns never have a value; call it with every batch.
    pub(crate) fn note_unseen(&mut self) {
        let Some(columns) = self.decoder.unseen() else { return };
        if columns.is_empty() {
            return self.intake.unseen.clear();
        }
        if !self.intake.unseen.is_some() {
            tracing::warn!(
                stream = %self.stream,
                columns,
                "no row has had a value in these declared columns so far: correct their names or `path` in \
                `fields`"
            );
        }
        self.intake.unseen.note(columns);
    }
}

impl Pending for Decoding {
    fn len(&self) -> usize {
        self.decoder.rows()
    }

    fn take(&mut self) -> Option<Batch> {
        let rows = self.decoder.finish()?;
        self.note_unseen();
        Some(Batch { stream: Arc::clone(&self.stream), rows, marks: Vec::new(), ack: Ack::none() })
    }
}
