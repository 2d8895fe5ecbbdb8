//! Columns that are taken from the data: keys and columns come when they are seen for the first time.

use tidegate_core::{FieldType, TS};

use super::{Decoder, Place};
use crate::codec::column::{Column, Scalar};
use crate::codec::layout::{Key, MAX_INFERRED, Node, ROOT};
use crate::codec::time::shortened;

/// Keys, seen or containing others, that an inferred layout remembers: a few times the columns, for objects
/// around values.
const MAX_KEYS: usize = 4 * MAX_INFERRED;

impl Decoder {
    /// Makes or finds the column of a key that was seen for the first time with a value.
    pub(super) fn infer(&mut self, place: Place, value: Scalar<'_>) {
        let Some(node) = self.nodes.get(place.node) else { return };
        let Some(key) = node.keys.get(place.key) else { return };
        let name = format!("{}{}", node.prefix, key.name);
        let fixed = 1 + self.captures;
        let column = match self.columns.iter().position(|column| *column.name == *name) {
            // `ts` and captures come from elsewhere.
            Some(column) if column < fixed => {
                return self.leave_out(place, &name);
            }
            Some(column) => {
                self.share(column, &name);
                column
            }
            None if self.columns.len() >= fixed + MAX_INFERRED => {
                if let Some(key) = self.key_mut(place) {
                    key.has_no_room = true;
                }
                return self.take_no_more(&name, &format!("{MAX_INFERRED} inferred columns"));
            }
            None => {
                let narrowest = value.unquoted(self.quoting).narrowest().unwrap_or(FieldType::Utf8);
                let mut column = Column::inferred(&name, narrowest);
                column.quoting = self.quoting;
                column.fill(self.rows);
                self.columns.push(column);
                self.schema = None;
                self.columns.len() - 1
            }
        };
        if let Some(key) = self.key_mut(place) {
            key.columns.push(column);
        }
    }

    fn key_mut(&mut self, place: Place) -> Option<&mut Key> {
        self.nodes.get_mut(place.node)?.keys.get_mut(place.key)
    }

    /// Counts a value for which there is no room, since `most` are there.
    fn take_no_more(&mut self, name: &str, most: &str) {
        self.findings.not_taken += 1;
        if !std::mem::replace(&mut self.told_full, true) {
            self.note(format!(
                "the payload's `{}` is not taken, nor is any other new key: the stream has {most}, and may \
                have no more. If the payload's keys are data, such as serial numbers, or if you need this \
                one: declare `fields`",
                shortened(name)
            ));
        }
    }

    fn leave_out(&mut self, place: Place, name: &str) {
        if let Some(key) = self.key_mut(place) {
            key.left_out = true;
        }
        self.note(match &self.time {
            None if name == TS => "the payload's `ts` is not taken, and rows have the time of arrival: \
                write `ts = \"ts\"` to take it, or declare `fields` to give it another name"
                .to_owned(),
            Some((path, _)) if name == TS => {
                format!(
                    "the payload's `ts` is not taken, since the time of rows is \"{path}\": declare \
                    `fields` to give it another name"
                )
            }
            _ => format!(
                "the payload's `{name}` is not taken, since the topic gives a column of that name: declare \
                `fields`, or rename it in `topic`"
            ),
        });
    }

    /// Says so when `column` belongs to another key already; it may also be known from an earlier start.
    fn share(&mut self, column: usize, name: &str) {
        let is_taken = self.nodes.iter().flat_map(|node| &node.keys).any(|key| key.columns.contains(&column));
        if !is_taken {
            return;
        }
        if let Some(column) = self.columns.get_mut(column) {
            column.shared = true;
        }
        self.note(format!(
            "two places in the payload become the one column `{name}`, since nested names are joined with \
            `_`; where a row has both, the last counts: declare `fields`, with a `path` each, to have two \
            columns"
        ));
    }

    /// The key's index in its node; none if nobody wants its value.
    pub(in crate::codec) fn find(&mut self, node: usize, name: &str) -> Option<usize> {
        let here = self.nodes.get_mut(node)?;
        if let Some(found) = here.find(name) {
            return Some(found);
        }
        if !self.inferred || node == ROOT {
            if let Some(here) = self.nodes.get(node).filter(|_| !self.unseen.is_empty()) {
                self.unseen.meets(here, &self.nodes, name);
            }
            return None;
        }
        if self.keys >= MAX_KEYS {
            let name = format!("{}{name}", here.prefix);
            self.take_no_more(&name, &format!("{MAX_KEYS} different keys"));
            return None;
        }
        self.keys += 1;
        Some(here.add(name))
    }

    /// The node for the object under a key; none if nobody wants what is in it.
    pub(super) fn child(&mut self, place: Place) -> Option<usize> {
        let new_node = self.nodes.len();
        let node = self.nodes.get_mut(place.node)?;
        let key = node.keys.get_mut(place.key)?;
        if let Some(child) = key.child {
            return Some(child);
        }
        if !self.inferred || key.left_out {
            return None;
        }
        let prefix = format!("{}{}_", node.prefix, key.name);
        key.child = Some(new_node);
        self.nodes.push(Node { prefix, ..Node::default() });
        Some(new_node)
    }

    /// Whether a key has columns of its own beside what a path finds in it. Of an inferred one, objects are
    /// only what is in them.
    pub(super) fn is_read_as_a_whole(&self, place: Place) -> bool {
        let key = self.nodes.get(place.node).and_then(|node| node.keys.get(place.key));
        !self.inferred && key.is_some_and(|key| !key.columns.is_empty())
    }

    /// The node for what is under a key, if a path leads there.
    pub(super) fn declared_child(&self, place: Place) -> Option<usize> {
        let child = self.nodes.get(place.node)?.keys.get(place.key)?.child?;
        self.nodes.get(child).filter(|node| node.declared).map(|_| child)
    }

    /// Whether a key has a column that takes text, and so JSON as it is.
    pub(super) fn takes_json(&self, place: Place) -> bool {
        let Some(key) = self.nodes.get(place.node).and_then(|node| node.keys.get(place.key)) else {
            return false;
        };
        if key.columns.is_empty() {
            return self.inferred && !key.left_out && !key.has_no_room;
        }
        key.columns.iter().any(|column| {
            self.columns.get(*column).is_some_and(|column| column.field_type == FieldType::Utf8)
        })
    }
}

/// What is said when the inferred text column `name` gets a number.
pub(super) fn number_in_text(name: &str) -> String {
    format!(
        "column {name} is text, because its first value was, and now gets numbers, which become text, too; \
        if it should be a number, declare it in `fields`, or stop the box and delete the stream's file in \
        the directory `schemas` of `data_dir`: then its columns are inferred anew"
    )
}
