//! The columns of stream `noise`, which declares none: they come, and widen, as devices send them.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tidegate_core::FieldType;
use tidegate_core::schema::ts_field;

use crate::dice::Dice;

/// More than these, and the box would do nothing but compile its rules.
const MOST: usize = 8;

/// What a connection knows of them.
#[derive(Debug, Clone, Default)]
pub struct Columns(Vec<(String, FieldType)>);

impl Columns {
    /// Those that the box knew when it started, and those that rules read.
    #[must_use]
    pub fn from(mut known: Vec<(String, FieldType)>) -> Self {
        for name in ["n", "v"] {
            if !known.iter().any(|(known, _)| known == name) {
                known.push((name.to_owned(), FieldType::Int64));
            }
        }
        Self(known)
    }

    /// Now and then a device sends one more, or numbers with a fraction.
    pub fn grow(&mut self, dice: &Dice) {
        let count = self.0.len();
        if dice.one_in(20) && count < MOST {
            self.0.push((format!("x{count}"), FieldType::Int64));
        }
        if dice.one_in(20) {
            let extra = usize::try_from(dice.below(count as u64)).unwrap_or(0);
            if let Some((_, field_type)) = self.0.get_mut(extra).filter(|(name, _)| name.starts_with('x')) {
                *field_type = FieldType::Float64;
            }
        }
    }

    /// The stream's schema.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let columns = self.0.iter().map(|(name, field_type)| Field::new(name, field_type.data_type(), true));
        Arc::new(Schema::new(std::iter::once(ts_field()).chain(columns).collect::<Vec<_>>()))
    }

    /// What is wrong with the file that the box keeps them in, when it knew these for certain.
    #[must_use]
    pub fn missing_in(&self, file: &[u8]) -> Option<String> {
        let stored: serde_json::Value = match serde_json::from_slice(file) {
            Ok(stored) => stored,
            Err(error) => return Some(format!("it is damaged: {error}")),
        };
        let is_there = |name: &str, field_type: FieldType| {
            let fields = stored.get("fields").and_then(serde_json::Value::as_array).into_iter().flatten();
            let found =
                fields.filter_map(serde_json::Value::as_array).find_map(|field| match field.as_slice() {
                    [known, stored, ..] if known == name => Some(stored),
                    _ => None,
                });
            found.is_some_and(|stored| {
                *stored == field_type.to_string() || *stored == FieldType::Float64.to_string()
            })
        };
        let missing = self.0.iter().find(|(name, field_type)| !is_there(name, *field_type))?;
        Some(format!("{missing:?} was forgotten"))
    }

    /// Whether the box never knew any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
