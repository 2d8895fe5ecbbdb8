//! One input of a replay: rows of a stream, messages of a connection, or the journal of a box.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidegate_core::Diagnostic;

use super::chunk::Chunk;
use super::journaled::{Found, JournaledStreams};
use super::lines::Reading;
use super::messages::RecordedMessages;
use super::rows::RecordedRows;

/// One input of a replay.
pub(super) struct Recording {
    source: Source,
    /// rows that were decoded and not yet taken
    waiting: VecDeque<Chunk>,
}

/// What is in it.
pub(super) enum Source {
    Rows(Box<RecordedRows>),
    Messages(Box<RecordedMessages>),
    Journal(Box<JournaledStreams>),
}

impl Recording {
    pub(super) fn new(source: Source) -> Self {
        Self { source, waiting: VecDeque::new() }
    }

    /// Of the journal of a box.
    pub(super) fn journal(journal: JournaledStreams) -> Self {
        Self::new(Source::Journal(Box::new(journal)))
    }

    /// Reads rows of these streams only, if it is the journal of a box.
    pub(super) fn only(&mut self, streams: BTreeSet<Arc<str>>) {
        if let Source::Journal(journal) = &mut self.source {
            journal.only(streams);
        }
    }

    /// What the journal has, if it is one.
    pub(super) fn found(&self) -> Option<&Found> {
        match &self.source {
            Source::Journal(journal) => Some(&journal.found),
            _ => None,
        }
    }

    /// The columns of the streams that it feeds.
    pub(super) fn schemas(&mut self) -> BTreeMap<String, SchemaRef> {
        match &mut self.source {
            Source::Rows(rows) => [(rows.tally.stream.to_string(), rows.schema())].into(),
            Source::Messages(messages) => messages.schemas(),
            Source::Journal(journal) => journal.schemas(),
        }
    }

    /// How much of it has been read.
    pub(super) fn reading(&self) -> &Reading {
        match &self.source {
            Source::Rows(rows) => &rows.reading,
            Source::Messages(messages) => &messages.reading,
            Source::Journal(journal) => &journal.reading,
        }
    }

    /// When the next row enters the sequence.
    pub(super) fn head(&mut self) -> Result<Option<i64>, Diagnostic> {
        if self.waiting.is_empty() {
            match &mut self.source {
                Source::Rows(rows) => self.waiting.extend(rows.read()?),
                Source::Messages(messages) => messages.read(&mut self.waiting)?,
                Source::Journal(journal) => self.waiting.extend(journal.read()?),
            }
        }
        Ok(self.waiting.front().and_then(|chunk| chunk.origins.first()).map(|origin| origin.at))
    }

    /// Takes the next row, and those behind it for which `mine` is true, as far as they are decoded.
    pub(super) fn take_while(&mut self, mine: impl Fn(i64) -> bool) -> Option<Chunk> {
        let mut chunk = self.waiting.pop_front()?;
        let count = chunk.origins.iter().skip(1).take_while(|origin| mine(origin.at)).count() + 1;
        if count < chunk.rows.num_rows() {
            let taken = chunk.split_to(count);
            self.waiting.push_front(chunk);
            return Some(taken);
        }
        Some(chunk)
    }

    /// Says what was read.
    pub(super) fn summarise(&self) {
        match &self.source {
            Source::Rows(rows) => rows.tally.summarise(),
            Source::Messages(messages) => messages.summarise(),
            Source::Journal(journal) => journal.summarise(),
        }
    }
}
