//! What is sent for a row: `{"id":"BOX/RULE/SEQ/ORDINAL","rule":"RULE","row":{..}}`, and for rows that were dropped:
//! `{"id":"BOX/gap/NUMBER","rule":"RULE","gap":{"first_seq":..,"last_seq":..,"rows":..,"reason":"..","wall_ns":..}}`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tidegate_connectors::json::Encoder;

use crate::buffer::{Gap, StoredBlock};

/// Renders rows of blocks.
pub(super) struct Messages {
    name: String,
    topic: String,
    encoder: Option<(SchemaRef, Encoder)>,
    /// of the rule that was rendered last
    rule: Option<(Arc<str>, String, String)>,
}

impl Messages {
    /// `topic` may hold `{box}` and `{rule}`.
    pub(super) fn new(name: &str, topic: &str) -> Self {
        Self { name: name.to_owned(), topic: topic.replace("{box}", name), encoder: None, rule: None }
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
        let schema = block.rows.batch.schema_ref();
        if !self.encoder.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, schema) || known == schema) {
            self.encoder = Some((Arc::clone(schema), Encoder::new(schema)));
        }
        if self.rule.as_ref().is_none_or(|(rule, ..)| *rule != block.rule) {
            let topic = self.topic.replace("{rule}", &block.rule);
            self.rule = Some((Arc::clone(&block.rule), topic, serde_json::Value::from(&*block.rule).to_string()));
        }
        let (topic, quoted) = self.rule.as_ref().map_or(("", ""), |(_, topic, quoted)| (topic, quoted));
        let ordinal = block.ordinals.get(row).copied().unwrap_or_default();
        let head = format!("{{\"id\":\"{}/{}/{}/{ordinal}\",\"rule\":{quoted},\"row\":", self.name, block.rule, block.rows.seqs.get(row));
        let mut payload = head.into_bytes();
        if let Some((_, encoder)) = &self.encoder {
            encoder.encode_row(&block.rows.batch, row, &mut payload);
        }
        payload.push(b'}');
        (topic.to_owned(), payload.into())
    }
}
