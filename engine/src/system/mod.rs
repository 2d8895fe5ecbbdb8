//! The streams that the box feeds itself: rules read them as any other, and nobody configures them.
//!
//! A new one is a file here and an entry of [`STREAMS`]: all that treats them otherwise than those of the
//! configuration (the catalog, inferred columns, the journal, replay, `tail`, what counts as having come in)
//! asks there.

pub mod connections;
pub mod control;
mod feed;
pub mod writes;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tidegate_connectors::Source;
use tidegate_core::schema::ts_field;
use tidegate_core::{Clock, FieldType};

use crate::config::Config;
use crate::status::Status;
use control::ControlEvents;
use writes::WriteReports;

/// A stream that the box feeds itself. Its rows go by their arrival, and are journaled: what rules and
/// outputs make of them comes out the same when they are run again.
pub struct SystemStream {
    /// how rules name it
    pub name: &'static str,
    schema: fn() -> &'static SchemaRef,
    open: fn(BoxItself<'_>) -> Box<dyn Source>,
}

/// What the box tells of in its own streams.
pub struct BoxItself<'a> {
    /// what it was told
    pub config: &'a Config,
    /// how it is
    pub status: &'a Status,
    /// what time it is
    pub clock: Arc<dyn Clock>,
    /// what people and the box itself say
    pub control: &'a ControlEvents,
    /// what became of writes
    pub writes: &'a WriteReports,
}

/// All of them.
pub static STREAMS: [SystemStream; 3] = [
    SystemStream { name: connections::NAME, schema: connections::schema, open: connections::open },
    SystemStream { name: control::NAME, schema: control::schema, open: control::open },
    SystemStream { name: writes::NAME, schema: writes::schema, open: writes::open },
];

impl SystemStream {
    /// Its columns. `ts` is when the box saw what the row tells.
    #[must_use]
    pub fn schema(&self) -> &'static SchemaRef {
        (self.schema)()
    }

    /// What feeds it.
    #[must_use]
    pub fn open(&self, itself: BoxItself<'_>) -> Box<dyn Source> {
        (self.open)(itself)
    }
}

/// The one of this name.
#[must_use]
pub fn stream(name: &str) -> Option<&'static SystemStream> {
    STREAMS.iter().find(|stream| stream.name == name)
}

/// Whether the box feeds the stream of this name itself.
#[must_use]
pub fn is_fed_by_the_box(name: &str) -> bool {
    stream(name).is_some()
}

/// These columns behind `ts`.
fn columns<const N: usize>(columns: [(&str, FieldType); N]) -> SchemaRef {
    let columns = columns.map(|(name, kind)| Field::new(name, kind.data_type(), true));
    Arc::new(Schema::new([ts_field()].into_iter().chain(columns).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tidegate_core::FieldType;
    use tidegate_core::schema::TS;

    use super::*;

    #[test]
    fn the_guide_lists_them_and_their_columns() {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let read = |file| std::fs::read_to_string(docs.join(file)).unwrap();
        let guide = [read("sql.md"), read("outputs.md")].concat();
        for stream in &STREAMS {
            let (_, told) = guide.split_once(&format!("The stream `{}`", stream.name)).unwrap();
            for field in stream.schema().fields() {
                let kind = FieldType::from_arrow(field.data_type()).unwrap();
                let line = format!("\n| `{}` | {kind} | ", field.name());
                assert!(told.contains(&line), "{}: {line}", stream.name);
            }
            assert_eq!(stream.schema().field(0).name(), TS);
        }
    }

    #[test]
    fn no_configuration_can_have_their_names() {
        for stream in &STREAMS {
            assert!(stream.name.starts_with("tidegate_"), "{}", stream.name);
        }
    }
}
