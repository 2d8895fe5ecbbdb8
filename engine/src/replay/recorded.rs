//! Recordings as they are, for whoever runs rules on them otherwise.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidegate_core::Diagnostic;

use super::{Input, columns, next, open};
use crate::config::Config;

/// Rows of one stream that stand next to each other.
#[derive(Debug, Clone)]
pub struct Part {
    /// the stream
    pub stream: Arc<str>,
    /// the rows
    pub rows: RecordBatch,
    /// when each enters the sequence, nanoseconds since 1970
    pub times: Vec<i64>,
    /// from where each is: `FILE:LINE`, without folders
    pub places: Vec<String>,
}

/// All rows of some recordings, and the columns of their streams.
#[derive(Debug)]
pub struct Recorded {
    /// in the order of their times
    pub parts: Vec<Part>,
    /// by stream
    pub columns: BTreeMap<String, SchemaRef>,
}

/// Reads recordings, which must fit into memory.
///
/// # Errors
/// When one of them is wrong.
pub fn read(config: &Config, inputs: &[Input]) -> Result<Recorded, Vec<Diagnostic>> {
    let mut recordings = open(config, inputs)?;
    let columns = columns(&mut recordings).map_err(|wrong| vec![wrong])?;
    let mut parts = Vec::new();
    while let Some(chunk) = next(&mut recordings).map_err(|wrong| vec![wrong])? {
        let file = Path::new(&*chunk.file).file_name().unwrap_or_default().to_string_lossy();
        parts.push(Part {
            times: chunk.origins.iter().map(|origin| origin.at).collect(),
            places: chunk.origins.iter().map(|origin| format!("{file}:{}", origin.line)).collect(),
            stream: chunk.stream,
            rows: chunk.rows,
        });
    }
    Ok(Recorded { parts, columns })
}
