//! `tail`: rows as they pass, of a stream, a rule or an output.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use tidegate_connectors::codec::Encoder;
use tidegate_core::diagnostic::nearest;

use super::{Caller, Listener, ManagementCommand, Right};
use crate::management::managed_box::ManagedBox;
use crate::management::protocol::{Code, Refusal};
use crate::system;
use crate::tap::{Passed, Subscription};

/// Asks for the rows of something that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    /// a stream, a rule or an output
    pub name: String,
    /// After so many rows it ends; absent: when nobody listens any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// One row that has passed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// by the box's clock
    pub time: String,
    /// the number of the row that it stems from
    pub seq: u64,
    /// the rule that wrote it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// the version of the rule
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// where the rule wrote it to
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// the columns
    pub row: Columns,
    /// of an output: whether the far side confirmed it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<bool>,
    /// why it did not
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Rows so far that passed by because they came faster than they were taken.
    pub missed: u64,
}

/// Columns with their values, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns(pub Vec<(String, Value)>);

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> de::Visitor<'de> for InOrder {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tailed {
    /// rows that were told
    pub rows: u64,
    /// rows that passed by because they came faster than they were taken
    pub missed: u64,
}

impl ManagementCommand for Tail {
    const OP: &'static str = "tail";
    const NEEDS: Right = Right::Read;
    type Answer = Tailed;
    type Part = Row;

    async fn run(
        self,
        managed: &ManagedBox,
        _: &Caller,
        listener: &mut dyn Listener,
    ) -> Result<Tailed, Refusal> {
        let mut subscription = listen(managed, &self.name)?;
        let (mut rows, limit) = (0, self.count.unwrap_or(u64::MAX));
        while rows < limit {
            let passed = tokio::select! {
                passed = subscription.next() => passed,
                () = listener.gone() => None,
            };
            let Some(passed) = passed else { break };
            let encoder = Encoder::new(passed.rows.batch.schema_ref());
            for row in 0..passed.rows.len() {
                if rows == limit {
                    break;
                }
                rows += 1;
                let told = serde_json::to_string(&told(&passed, row, &encoder, subscription.missed()))
                    .unwrap_or_default();
                if !listener.tell(told).await {
                    return Ok(Tailed { rows, missed: subscription.missed() });
                }
            }
        }
        Ok(Tailed { rows, missed: subscription.missed() })
    }
}

fn listen(managed: &ManagedBox, name: &str) -> Result<Subscription, Refusal> {
    let status = &managed.status;
    // Streams and outputs never share a name; a rule may have that of either, which is then the one that is
    // meant less.
    let is_stream = system::is_fed_by_the_box(name) || managed.config.streams.contains_key(name);
    let known = is_stream.then(|| status.streams.of(name));
    if let Some(stream) = known.or_else(|| status.streams.get(name)) {
        return Ok(stream.tap.listen());
    }
    if let Some(output) = status.outputs.get(name) {
        return Ok(output.tap.listen());
    }
    if let Some(rule) = status.rules.get(name) {
        return Ok(rule.tap.listen());
    }
    let names: Vec<String> =
        managed.config.streams.keys().cloned().chain(managed.config.outputs.keys().cloned()).collect();
    let names: Vec<String> =
        names.into_iter().chain(status.rules.all().into_iter().map(|(name, _)| name)).collect();
    let refusal = Refusal::new(Code::NotFound, format!("there is no stream, rule or output `{name}`"));
    Err(match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => refusal.help(format!("did you mean `{near}`?")),
        None => refusal.help("`tidegate status` lists them"),
    })
}

fn told(passed: &Passed, row: usize, encoder: &Encoder, missed: u64) -> Row {
    let mut text = Vec::new();
    encoder.encode_row(&passed.rows.batch, row, &mut text);
    let time = Timestamp::from_nanosecond(i128::from(passed.wall_ns))
        .map_or_else(|_| String::new(), |time| format!("{time:.3}"));
    let failure = passed.failures.as_ref().and_then(|failures| failures.get(row));
    Row {
        time,
        seq: passed.rows.seqs.get(row),
        rule: passed.rule.as_ref().map(|(rule, _)| rule.to_string()),
        version: passed.rule.as_ref().and_then(|(_, version)| *version),
        target: passed.target.as_ref().map(|target| target.to_string()),
        row: serde_json::from_slice(&text).unwrap_or_default(),
        written: failure.map(Option::is_none),
        error: failure.and_then(|failure| failure.as_ref().map(|why| why.to_string())),
        missed,
    }
}
