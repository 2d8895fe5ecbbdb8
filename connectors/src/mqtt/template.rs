//! Topics and payloads with columns in them: `actuators/{device}/pump`, `{"run": {run}}`.

use arrow::array::RecordBatch;

use super::topic::check_text;
use crate::cells::{cell, is_name, write_text};

/// Text in which `{column}` stands for the row's value. Any other brace is itself, so that JSON can be
/// written as it is.
///
/// Text and bytes are put in as they are, without quotes; times as RFC 3339; other values as JSON writes
/// them. There is no text for null: a machine would take `null` for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Column(String),
}

impl Template {
    /// Reads the template of a payload; every text is one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, after) = rest.split_at(open);
            literal.push_str(before);
            let after = after.strip_prefix('{').unwrap_or(after);
            match after.split_once('}') {
                Some((name, tail)) if is_name(name) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Column(name.to_owned()));
                    rest = tail;
                }
                _ => {
                    literal.push('{');
                    rest = after;
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self { parts }
    }

    /// Reads the template of a topic.
    ///
    /// # Errors
    /// Why no topic can come out of it, in words for the user.
    pub fn parse_topic(text: &str) -> Result<Self, String> {
        check_text(text)?;
        if text.contains(['+', '#']) {
            return Err("`+` and `#` belong into topic filters; a message has one topic".into());
        }
        let this = Self::parse(text);
        for part in &this.parts {
            let Part::Literal(literal) = part else { continue };
            if literal.contains(['{', '}']) {
                return Err(wrong_brace(literal));
            }
        }
        Ok(this)
    }

    /// The names of the columns in it.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts
            .iter()
            .filter_map(|part| if let Part::Column(name) = part { Some(name.as_str()) } else { None })
    }

    /// The text with `value` of each name in place of it.
    pub(super) fn filled<'v>(&self, value: impl Fn(&str) -> &'v str) -> String {
        let part = |part: &Part| match part {
            Part::Literal(text) => text.clone(),
            Part::Column(name) => value(name).to_owned(),
        };
        self.parts.iter().map(part).collect()
    }

    /// Appends the payload for a row.
    ///
    /// # Errors
    /// When the rows have no such column, or its value is null.
    pub(super) fn payload(&self, rows: &RecordBatch, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Column(name) => write_text(cell(rows, name, row, "payload")?, row, out),
            }
        }
        Ok(())
    }

    /// The topic for a row.
    ///
    /// # Errors
    /// When the rows have no such column, or its value cannot be in a topic: null, empty, or with `/`, `+`,
    /// `#` or NUL.
    pub(super) fn topic(&self, rows: &RecordBatch, row: usize) -> Result<String, String> {
        let mut topic = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => topic.extend_from_slice(text.as_bytes()),
                Part::Column(name) => {
                    let array = cell(rows, name, row, "topic")?;
                    let start = topic.len();
                    write_text(array, row, &mut topic);
                    let value = topic.get(start..).unwrap_or_default();
                    if value.is_empty() {
                        return Err(format!("column {name} is empty, and the topic needs it"));
                    }
                    if value.iter().any(|byte| matches!(byte, b'/' | b'+' | b'#' | 0)) {
                        let value = String::from_utf8_lossy(value);
                        return Err(format!(
                            "column {name} is {value:?}: a value with `/`, `+`, `#` or NUL would change the \
                            topic"
                        ));
                    }
                }
            }
        }
        if topic.starts_with(b"$") {
            return Err(BROKERS_OWN.into());
        }
        String::from_utf8(topic).map_err(|_| "the topic is not UTF-8".to_owned())
    }
}

/// Why an output does not write to a topic that starts with `$` (MQTT 5.0, section 4.7.2).
pub(super) const BROKERS_OWN: &str = "topics that start with `$` belong to the broker";

fn wrong_brace(literal: &str) -> String {
    match literal.split_once('{').and_then(|(_, inside)| inside.split_once('}')) {
        Some(("", _)) => "write a column's name between the braces: `{column}`".into(),
        Some((name, _)) if !name.contains('{') => {
            format!(
                "`{name}` cannot stand in a topic: name the column with AS, with letters, digits and `_`, \
                as in `{{my_column}}`"
            )
        }
        _ => "a brace is not closed, or not opened: write `{column}`".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mqtt::OutputConfig;
    use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray};
    use std::sync::Arc;

    fn rows() -> RecordBatch {
        RecordBatch::try_from_iter([
            (
                "device",
                Arc::new(StringArray::from(vec![Some("p1"), None, Some("a/b"), Some("")])) as ArrayRef,
            ),
            ("run", Arc::new(BooleanArray::from(vec![true, false, true, true]))),
            ("level", Arc::new(Float64Array::from(vec![80.0, 0.5, 1.0, 2.0]))),
        ])
        .unwrap()
    }

    #[test]
    fn values_stand_where_their_columns_are_named() {
        let mut out = Vec::new();
        let template = Template::parse(r#"{"run": {run}, "at": {"level": {level}}, "of": "{device}"}"#);
        assert_eq!(template.columns().collect::<Vec<_>>(), ["run", "level", "device"]);
        template.payload(&rows(), 0, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"run": true, "at": {"level": 80.0}, "of": "p1"}"#);
        assert_eq!(
            Template::parse_topic("a/{device}/{run}").unwrap().topic(&rows(), 0).unwrap(),
            "a/p1/true"
        );
    }

    #[test]
    fn null_is_no_command() {
        let payload = Template::parse("{device}");
        let error = payload.payload(&rows(), 1, &mut Vec::new()).unwrap_err();
        assert_eq!(error, "column device is null, and the payload needs it");
    }

    #[test]
    fn values_that_would_change_the_topic_are_refused() {
        let topic = Template::parse_topic("a/{device}").unwrap();
        for (row, why) in [(1, "is null"), (2, "\"a/b\""), (3, "is empty")] {
            let error = topic.topic(&rows(), row).unwrap_err();
            assert!(error.contains("column device") && error.contains(why), "{error}");
        }
        assert!(
            Template::parse_topic("a/{devcie}")
                .unwrap()
                .topic(&rows(), 0)
                .unwrap_err()
                .contains("`devcie`, only `device`")
        );
    }

    #[test]
    fn topics_that_cannot_be_published_to_are_refused() {
        for (topic, why) in [
            ("", "is empty"),
            ("a/+", "belong into topic filters"),
            ("a/#", "belong into topic filters"),
            ("a/{", "not closed"),
            ("a/}", "not closed"),
            ("a/{{b}}", "not closed"),
            ("a/{}", "between the braces"),
            ("a/{not a name}", "`not a name` cannot stand in a topic"),
        ] {
            assert!(
                Template::parse_topic(topic).is_err_and(|error| error.contains(why)),
                "{topic}: {:?}",
                Template::parse_topic(topic)
            );
        }
        let topic = |topic: &str| OutputConfig::topic_of(topic).map(drop);
        assert!(topic("$SYS/a").is_err_and(|error| error.contains("belong to the broker")));
        assert_eq!(topic("{device}$b"), Ok(()), "the `$` does not stand in front");
        let dollar =
            RecordBatch::try_from_iter([("a", Arc::new(StringArray::from(vec!["$x", "x"])) as ArrayRef)])
                .unwrap();
        let topic = Template::parse_topic("{a}$b").unwrap();
        assert!(topic.topic(&dollar, 0).is_err_and(|error| error.contains("belong to the broker")));
        assert_eq!(topic.topic(&dollar, 1).unwrap(), "x$b");
    }
}
