//! Declared columns that never have a value: most likely their keys are called otherwise.

use arrow::array::{Array, ArrayRef};

use crate::codec::column::Column;
use crate::codec::layout::Node;

/// A device may leave a key out for a while.
const ENOUGH: usize = 100;

/// The declared columns that have had no value so far.
#[derive(Default)]
pub(super) struct Unseen {
    columns: Vec<Waiting>,
    rows: usize,
    /// what was last told of them
    told: Option<String>,
}

struct Waiting {
    index: usize,
    name: String,
    /// a key of the payload that differs from the column's in upper and lower case only
    alike: Option<String>,
}

impl Unseen {
    /// All of `columns` from `first` on.
    pub(super) fn new(columns: &[Column], first: usize) -> Self {
        let columns = columns.iter().enumerate().skip(first);
        let waiting =
            |(index, column): (usize, &Column)| Waiting { index, name: column.name.to_string(), alike: None };
        Self { columns: columns.map(waiting).collect(), ..Self::default() }
    }

    /// Whether there are any left.
    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// A key that no column of the object `here` has was met.
    pub(super) fn meets(&mut self, here: &Node, nodes: &[Node], name: &str) {
        let alike = here.keys.iter().filter(|key| key.name.eq_ignore_ascii_case(name));
        let mut found = Vec::new();
        for key in alike {
            found.extend(&key.columns);
            let mut inside: Vec<usize> = key.child.into_iter().collect();
            while let Some(node) = inside.pop().and_then(|node| nodes.get(node)) {
                found.extend(node.keys.iter().flat_map(|key| &key.columns));
                inside.extend(node.keys.iter().filter_map(|key| key.child));
            }
        }
        for waiting in self.columns.iter_mut().filter(|waiting| found.contains(&waiting.index)) {
            waiting.alike.get_or_insert_with(|| name.to_owned());
        }
    }

    /// Takes note of rows.
    pub(super) fn rows(&mut self, arrays: &[ArrayRef], rows: usize) {
        self.columns
            .retain(|waiting| arrays.get(waiting.index).is_some_and(|array| array.null_count() == rows));
        self.rows = self.rows.saturating_add(rows);
    }

    /// What there is to tell of them, if it is something else than the last time; empty: all is well by now.
    pub(super) fn news(&mut self) -> Option<String> {
        if self.rows < ENOUGH || (self.columns.is_empty() && self.told.is_none()) {
            return None;
        }
        let tell = |Waiting { name, alike, .. }: &Waiting| match alike {
            Some(alike) => format!("{name} (the payload has \"{alike}\", and case counts)"),
            None => name.clone(),
        };
        let news = self.columns.iter().map(tell).collect::<Vec<_>>().join(", ");
        if self.told.as_ref() == Some(&news) {
            return None;
        }
        self.told = Some(news.clone());
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tidegate_core::FieldType;

    use crate::codec::Decoder;
    use crate::codec::tests::declared;

    #[test]
    fn declared_columns_that_never_have_a_value_are_named_once_with_the_key_that_is_spelled_otherwise() {
        let layout = declared(&[
            ("temp", FieldType::Float64, "temp"),
            ("speed", FieldType::Float64, "motor.speed"),
            ("seldom", FieldType::Int64, "seldom"),
        ]);
        let mut decoder = Decoder::new(&layout).unwrap();
        let mut feed = |rows: usize, payload: &str| {
            for _ in 0..rows {
                decoder.decode(payload.as_bytes(), &[], 0).unwrap();
            }
            decoder.finish().unwrap();
            decoder.unseen()
        };
        let payload = r#"{"Temp": 81.5, "Motor": {"speed": 7}}"#;
        assert_eq!(feed(99, payload), None, "it may come later");
        let said = feed(1, payload).unwrap();
        assert_eq!(
            said,
            "temp (the payload has \"Temp\", and case counts), speed (the payload has \"Motor\", and case \
            counts), seldom"
        );
        assert_eq!(feed(1, payload), None);
        let said = feed(1, r#"{"seldom": 1, "temp": 1}"#).unwrap();
        assert_eq!(said, "speed (the payload has \"Motor\", and case counts)");
        assert_eq!(feed(1, r#"{"motor": {"speed": 7}}"#), Some(String::new()), "all is well");
    }
}
