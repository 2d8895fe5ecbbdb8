//! What is sent for a row: `{"id":"BOX/RULE/SEQ/ORDINAL","rule":"RULE","row":{..}}`, and for rows that were dropped:
//! `{"id":"BOX/gap/NUMBER","rule":"RULE","gap":{"first_seq":..,"last_seq":..,"rows":..,"reason":"..","wall_ns":..}}`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tidegate_connectors::json::Encoder;
use tidegate_core::Rows;

use crate::buffer::{Gap, StoredBlock};

/// Renders rows of blocks.
pub(super) struct Messages {
    name: String,
    topic: String,
    /// of the rule that was rendered last
    rule_topic: Option<(Arc<str>, String)>,
    payloads: Payloads,
}

impl Messages {
    /// `topic` may hold `{box}` and `{rule}`.
    pub(super) fn new(name: &str, topic: &str) -> Self {
        Self { name: name.to_owned(), topic: topic.replace("{box}", name), rule_topic: None, payloads: Payloads::new(Some(name)) }
    }

    /// Topic and payload of the record of a gap. The rule is `*` when nobody knows whose rows are missing; its topic says `unknown`.
    pub(super) fn of_gap(&self, gap: &Gap) -> (String, Bytes) {
        let rule = if &*gap.rule == "*" { "unknown" } else { &gap.rule };
        let record = serde_json::json!({
            "id": format!("{}/gap/{}", self.name, gap.id),
            "rule": &*gap.rule,
            "gap": { "first_seq": gap.first_seq, "last_seq": gap.last_seq, "rows": gap.rows, "reason": gap.reason, "wall_ns": gap.wall_ns },
        });
        (self.topic.replace("{rule}", rule), record.to_string().into_bytes().into())
    }

    /// Topic and payload of row `row` of `block`.
    pub(super) fn of(&mut self, block: &StoredBlock, row: usize) -> (String, Bytes) {
        if self.rule_topic.as_ref().is_none_or(|(rule, _)| *rule != block.rule) {
            self.rule_topic = Some((Arc::clone(&block.rule), self.topic.replace("{rule}", &block.rule)));
        }
        let topic = self.rule_topic.as_ref().map_or("", |(_, topic)| topic);
        let ordinal = block.ordinals.get(row).copied().unwrap_or_default();
        let mut payload = Vec::new();
        self.payloads.write(&block.rule, &block.rows, ordinal, row, &mut payload);
        (topic.to_owned(), payload.into())
    }
}

/// Renders rows with their identities, for the uplink and for whoever looks into the buffer.
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

    /// Appends row `row` of `rows` to `out`.
    pub(crate) fn write(&mut self, rule: &Arc<str>, rows: &Rows, ordinal: u32, row: usize, out: &mut Vec<u8>) {
        let schema = rows.batch.schema_ref();
        if !self.encoder.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, schema) || known == schema) {
            self.encoder = Some((Arc::clone(schema), Encoder::new(schema)));
        }
        if self.rule.as_ref().is_none_or(|(known, _)| known != rule) {
            self.rule = Some((Arc::clone(rule), serde_json::Value::from(&**rule).to_string()));
        }
        let quoted = self.rule.as_ref().map_or("", |(_, quoted)| quoted);
        let head = format!("{{\"id\":\"{}{rule}/{}/{ordinal}\",\"rule\":{quoted},\"row\":", self.prefix, rows.seqs.get(row));
        out.extend_from_slice(head.as_bytes());
        if let Some((_, encoder)) = &self.encoder {
            encoder.encode_row(&rows.batch, row, out);
        }
        out.push(b'}');
    }
}
