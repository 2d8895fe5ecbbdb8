//! What is sent for a row: `{"id":"BOX/RULE/SEQ/ORDINAL","rule":"RULE","row":{..}}`, and for rows that were
//! dropped:
//! `{"id":"BOX/gap/NUMBER","rule":"RULE","gap":{"first_seq":..,"last_seq":..,"rows":..,"reason":"..",
//! "wall_ns":..}}`.
//!
//! A row that was written while the box's clock was wrong has
//! `"clock":{"written":"RFC 3339 time","behind_ms":..}` besides, if the clock has been set since: when it
//! really was, and how far the clock was behind then (negative: ahead), by which times in the row can be
//! corrected. It is no part of the row: when the row is sent again it may be there although it was not known
//! the first time.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tidegate_connectors::codec::Encoder;
use tidegate_core::Rows;

use crate::buffer::{Gap, StoredBlock};
use crate::time::{Known, WallTime};

/// Renders rows of blocks.
pub(super) struct Messages {
    name: String,
    payloads: Payloads,
}

impl Messages {
    /// Of the box called `name`.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), payloads: Payloads::new(Some(name)) }
    }

    /// The record of a gap.
    pub(super) fn of_gap(&self, gap: &Gap) -> Bytes {
        let record = serde_json::json!({
            "id": format!("{}/gap/{}", self.name, gap.id),
            "rule": &*gap.rule,
            "gap": {
                "first_seq": gap.first_seq, "last_seq": gap.last_seq, "rows": gap.rows, "reason": gap.reason,
                "wall_ns": gap.wall_ns,
            },
        });
        record.to_string().into_bytes().into()
    }

    /// Row `row` of `block`.
    pub(super) fn of(&mut self, block: &StoredBlock, row: usize) -> Bytes {
        let ordinal = block.ordinals.get(row).copied().unwrap_or_default();
        let mut payload = Vec::new();
        self.payloads.write(&block.rule, &block.rows, ordinal, row, block.written, &mut payload);
        payload.into()
    }
}

/// A time that had to be corrected, and by how many milliseconds.
pub(crate) fn corrected(written: WallTime) -> Option<(jiff::Timestamp, i64)> {
    let Known::Corrected { by_ns } = written.by else { return None };
    let time = jiff::Timestamp::from_nanosecond(i128::from(written.wall_ns)).ok()?;
    Some((time, by_ns / 1_000_000))
}

/// Renders rows with their identities, for uplinks and for whoever looks into the buffer.
pub(crate) struct Payloads {
    /// in front of the rule's name in each id
    prefix: String,
    encoder: Option<(SchemaRef, Encoder)>,
    /// the rule that was rendered last, and its name as JSON
    rule: Option<(Arc<str>, String)>,
}

impl Payloads {
    /// Of the box called `name`; the ids of one that is not known start with the rule.
    pub(crate) fn new(name: Option<&str>) -> Self {
        Self { prefix: name.map_or_else(String::new, |name| format!("{name}/")), encoder: None, rule: None }
    }

    /// Appends row `row` of `rows`, which was `written` then, to `out`.
    pub(crate) fn write(
        &mut self,
        rule: &Arc<str>,
        rows: &Rows,
        ordinal: u32,
        row: usize,
        written: Option<WallTime>,
        out: &mut Vec<u8>,
    ) {
        let schema = rows.batch.schema_ref();
        if !self.encoder.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, schema) || known == schema) {
            self.encoder = Some((Arc::clone(schema), Encoder::new(schema)));
        }
        if self.rule.as_ref().is_none_or(|(known, _)| known != rule) {
            self.rule = Some((Arc::clone(rule), serde_json::Value::from(&**rule).to_string()));
        }
        let quoted = self.rule.as_ref().map_or("", |(_, quoted)| quoted);
        let head = format!(
            "{{\"id\":\"{}{rule}/{}/{ordinal}\",\"rule\":{quoted},\"row\":",
            self.prefix,
            rows.seqs.get(row)
        );
        out.extend_from_slice(head.as_bytes());
        if let Some((_, encoder)) = &self.encoder {
            encoder.encode_row(&rows.batch, row, out);
        }
        if let Some((written, behind_ms)) = written.and_then(corrected) {
            out.extend_from_slice(
                format!(",\"clock\":{{\"written\":\"{written}\",\"behind_ms\":{behind_ms}}}").as_bytes(),
            );
        }
        out.push(b'}');
    }
}
