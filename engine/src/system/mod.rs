//! The streams that the box feeds itself: rules read them as any other, and nobody configures them.
//!
//! A new one is a file here and an entry of [`STREAMS`]: all that treats them otherwise than those of the
//! configuration (the catalog, inferred columns, replay, `tail`, what counts as having come in) asks there.

pub mod connections;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidegate_connectors::Source;
use tidegate_core::Clock;

use crate::config::Config;
use crate::status::Status;

/// A stream that the box feeds itself. Its rows go by their arrival.
pub struct SystemStream {
    /// how rules name it
    pub name: &'static str,
    schema: fn() -> &'static SchemaRef,
    open: Open,
}

type Open = fn(&Config, &Status, Arc<dyn Clock>) -> Box<dyn Source>;

/// All of them.
pub static STREAMS: [SystemStream; 1] =
    [SystemStream { name: connections::NAME, schema: connections::schema, open: connections::open }];

impl SystemStream {
    /// Its columns. `ts` is when the box saw what the row tells.
    #[must_use]
    pub fn schema(&self) -> &'static SchemaRef {
        (self.schema)()
    }

    /// What feeds it in a box with this configuration, which tells `status` how it is.
    #[must_use]
    pub fn open(&self, config: &Config, status: &Status, clock: Arc<dyn Clock>) -> Box<dyn Source> {
        (self.open)(config, status, clock)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tidegate_core::FieldType;
    use tidegate_core::schema::TS;

    use super::*;

    #[test]
    fn the_guide_lists_them_and_their_columns() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql.md");
        let guide = std::fs::read_to_string(path).unwrap();
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
