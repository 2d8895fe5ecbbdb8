//! Messages that were recorded, treated by a stream as those that come.

use tidegate_core::FieldType;

use super::config::{Retained, StreamConfig};
use super::marks::Marks;
use super::retained::Memory;
use super::topic::Filter;
use crate::codec::{DecodeError, Decoder};

/// What a stream makes of one recorded message.
#[derive(Debug)]
pub enum Outcome {
    /// The topic is none of the stream's.
    NotMine,
    /// The broker had retained it, and the stream wants no row of such a message, or has had one.
    LeftOut,
    /// So many rows were added to the decoder.
    Rows(usize),
    /// The payload cannot be read.
    Malformed(DecodeError),
}

/// A stream that is fed from a recording.
pub struct Recorded {
    filter: Filter,
    /// where rows gather
    pub decoder: Decoder,
    retained: Retained,
    /// the column of the retain flag
    flag: Option<String>,
    memory: Memory,
    marks: Marks,
}

impl Recorded {
    /// A stream like `config`, of which the columns in `known` were found before.
    ///
    /// # Errors
    /// In words for the user, as [`StreamConfig::decoder`].
    pub fn new(config: &StreamConfig, known: Vec<(String, FieldType)>) -> Result<Self, String> {
        Ok(Self {
            filter: config.filter()?,
            decoder: config.decoder(known)?,
            retained: config.retained,
            flag: config.retained_column.clone(),
            memory: Memory::default(),
            marks: Marks::new("", 0, 1),
        })
    }

    /// Columns whose values are not from the payload: parts of the topic, and the retain flag.
    pub fn is_given(&self, column: &str) -> bool {
        self.filter.captures().iter().any(|capture| capture == column) || self.flag.as_deref() == Some(column)
    }

    /// Whether messages of `topic` are the stream's.
    pub fn takes(&self, topic: &str) -> bool {
        self.filter.matches(topic).is_some()
    }

    /// Adds the rows of a message; `now_ns` is when it came. `retained` is its flag (MQTT 5.0, section
    /// 3.3.1.3).
    pub fn take(&mut self, topic: &str, payload: &[u8], retained: bool, now_ns: i64) -> Outcome {
        let Some(ranges) = self.filter.matches(topic) else { return Outcome::NotMine };
        let hashes = self.marks.hashes(topic.as_bytes(), payload);
        let is_old = retained
            && match self.retained {
                Retained::First => self.memory.knows(hashes),
                Retained::Always => false,
                Retained::Never => true,
            };
        if is_old {
            return Outcome::LeftOut;
        }
        let mut given: Vec<&str> =
            ranges.into_iter().map(|range| topic.get(range).unwrap_or_default()).collect();
        if self.flag.is_some() {
            given.push(if retained { "true" } else { "false" });
        }
        match self.decoder.decode(payload, &given, now_ns) {
            Ok(0) => Outcome::Rows(0),
            Ok(rows) => {
                self.memory.took(hashes, retained);
                // Nothing is under way in a replay.
                self.memory.handed_over(None);
                self.memory.settle();
                Outcome::Rows(rows)
            }
            Err(error) => Outcome::Malformed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn stream(retained: &str) -> Recorded {
        let mut config = json!({
            "connection": "plant",
            "topic": "valve/+", "retained": retained, "retained_column": "old", "fields": { "v": "int64" },
        });
        let config = StreamConfig::read(config.as_object_mut().unwrap()).unwrap();
        Recorded::new(&config, Vec::new()).unwrap()
    }

    fn rows(stream: &mut Recorded, messages: &[(&str, bool)]) -> Vec<usize> {
        let take = |(payload, retained): &(&str, bool)| match stream.take(
            "valve/1",
            payload.as_bytes(),
            *retained,
            1,
        ) {
            Outcome::Rows(rows) => rows,
            Outcome::LeftOut => 0,
            other => panic!("{other:?}"),
        };
        messages.iter().map(take).collect()
    }

    /// What a broker with a retained value sends when the recording was interrupted once: MQTT 3.1.1,
    /// section 3.8.4.
    const INTERRUPTED: [(&str, bool); 4] =
        [("{\"v\":1}", true), ("{\"v\":2}", false), ("{\"v\":2}", true), ("{\"v\":3}", false)];

    #[test]
    fn a_retained_message_makes_a_row_once_as_when_it_came() {
        assert_eq!(rows(&mut stream("first"), &INTERRUPTED), [1, 1, 0, 1]);
        assert_eq!(rows(&mut stream("always"), &INTERRUPTED), [1, 1, 1, 1]);
        assert_eq!(rows(&mut stream("never"), &INTERRUPTED), [0, 1, 0, 1]);
    }

    #[test]
    fn the_flag_is_a_column_also_of_what_was_recorded() {
        let mut stream = stream("first");
        rows(&mut stream, &INTERRUPTED);
        let batch = stream.decoder.finish().unwrap();
        let flags = batch.column_by_name("old").unwrap();
        let flags = flags.as_any().downcast_ref::<arrow::array::BooleanArray>().unwrap();
        assert_eq!(flags.iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(false)]);
        assert!(matches!(stream.take("pump/1", b"{}", false, 1), Outcome::NotMine));
    }
}
