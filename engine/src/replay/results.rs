//! Results as lines of JSON: what was written, by which rule, and what led to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde_json::Value;
use tidegate_connectors::codec::Encoder;

use super::causes::Causes;
use super::written;
use crate::rules::router::Routed;

/// Writes results, and counts them.
pub(super) struct Results {
    out: Box<dyn Write>,
    encoders: Vec<(SchemaRef, Encoder)>,
    line: Vec<u8>,
    /// rows by rule and target
    counts: BTreeMap<Arc<str>, BTreeMap<String, u64>>,
}

impl Results {
    /// Results go to the file `output`, or to standard output for `-`.
    pub(super) fn to(output: &Path) -> io::Result<Self> {
        if output == Path::new("-") {
            return Ok(Self::new(Box::new(BufWriter::new(io::stdout().lock()))));
        }
        Ok(Self::new(Box::new(BufWriter::new(File::create(output)?))))
    }

    pub(super) fn new(out: Box<dyn Write>) -> Self {
        Self { out, encoders: Vec::new(), line: Vec::new(), counts: BTreeMap::new() }
    }

    pub(super) fn write(&mut self, results: Vec<Routed>, causes: &Causes<'_>) -> io::Result<()> {
        for routed in results {
            let counts = self.counts.entry(Arc::clone(&routed.version.name)).or_default();
            *counts.entry(routed.target.name().to_owned()).or_default() += routed.rows.len() as u64;
            let schema = routed.rows.batch.schema();
            let at = match self.encoders.iter().position(|(known, _)| *known == schema) {
                Some(at) => at,
                None => {
                    self.encoders.push((Arc::clone(&schema), Encoder::new(&schema)));
                    self.encoders.len() - 1
                }
            };
            let Some((_, encoder)) = self.encoders.get(at) else { continue };
            let head = format!(
                "{{\"target\":{},\"rule\":{}",
                quoted(routed.target.name()),
                quoted(&routed.version.name)
            );
            for row in 0..routed.rows.len() {
                let seq = routed.rows.seqs.get(row);
                let (time, cause) = causes.of(seq);
                self.line.clear();
                write!(
                    self.line,
                    "{head},\"time\":{},\"seq\":{seq},\"cause\":{},\"row\":",
                    quoted(&written(time)),
                    quoted(&cause)
                )?;
                encoder.encode_row(&routed.rows.batch, row, &mut self.line);
                self.line.extend_from_slice(b"}\n");
                self.out.write_all(&self.line)?;
            }
        }
        Ok(())
    }

    /// Everything is where it should be.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// How many rows `rule` wrote: all of them, and by target, in words.
    pub(super) fn count(&self, rule: &str) -> (u64, String) {
        let counts = self.counts.get(rule);
        let all = counts.map_or(0, |counts| counts.values().sum());
        let each: Vec<String> =
            counts.into_iter().flatten().map(|(target, rows)| format!("{target} {rows}")).collect();
        (all, each.join(", "))
    }
}

fn quoted(text: &str) -> Value {
    Value::from(text)
}
