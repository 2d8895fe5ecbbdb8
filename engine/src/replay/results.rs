//! Results as lines of JSON: what was written, by which rule, what outputs would have been sent, and what led
//! to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::Value;
use tidegate_connectors::codec::Encoder;

use super::run::{Came, Said};
use super::written;
use crate::config::Values;
use crate::decision::{Decision, Verdict};
use crate::outputs::contract::What;

/// Writes results, and counts them.
pub(super) struct Results {
    out: Box<dyn Write>,
    /// where decisions of contracts go, if anybody wants them
    decisions: Option<Box<dyn Write>>,
    rows: RowsAsJson,
    line: Vec<u8>,
    /// rows by rule and target
    counts: BTreeMap<Arc<str>, BTreeMap<String, u64>>,
    /// what contracts did, by output
    pub(super) decided: BTreeMap<Arc<str>, Decided>,
}

/// What a contract did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Decided {
    /// writes
    pub sent: u64,
    /// how often something was held back
    pub held: u64,
    /// rows that were no claims
    pub refused: u64,
}

impl Decided {
    /// One more.
    pub(super) fn note(&mut self, decision: &Decision) {
        match decision.verdict {
            Verdict::Sent { .. } => self.sent += 1,
            Verdict::Held { .. } => self.held += 1,
            // The same is told again and again, more and more rarely.
            Verdict::Refused { .. } => self.refused += decision.times - decision.times / 10,
            Verdict::Answered { .. } => {}
        }
    }
}

impl Results {
    /// Results go to the file `output`, or to standard output for `-`, and decisions to a file of their own.
    pub(super) fn to(output: &Path, decisions: Option<&Path>) -> io::Result<Self> {
        let file =
            |path: &Path| -> io::Result<Box<dyn Write>> { Ok(Box::new(BufWriter::new(File::create(path)?))) };
        let out: Box<dyn Write> = if output == Path::new("-") {
            Box::new(BufWriter::new(io::stdout().lock()))
        } else {
            file(output)?
        };
        Ok(Self { decisions: decisions.map(file).transpose()?, ..Self::new(out) })
    }

    pub(super) fn new(out: Box<dyn Write>) -> Self {
        Self {
            out,
            decisions: None,
            rows: RowsAsJson::default(),
            line: Vec::new(),
            counts: BTreeMap::new(),
            decided: BTreeMap::new(),
        }
    }

    pub(super) fn write(&mut self, came: &Came<'_>) -> io::Result<()> {
        for (seq, said) in came.all() {
            let (time, cause) = came.causes.of(seq);
            let (time, cause) = (quoted(&written(time)), quoted(&cause));
            self.line.clear();
            match said {
                Said::Row(routed, row) => {
                    let counts = self.counts.entry(Arc::clone(&routed.version.name)).or_default();
                    *counts.entry(routed.target.name().to_owned()).or_default() += 1;
                    let (target, rule) = (quoted(routed.target.name()), quoted(&routed.version.name));
                    write!(
                        self.line,
                        "{{\"target\":{target},\"rule\":{rule},\"time\":{time},\"seq\":{seq},\
                        \"cause\":{cause},\"row\":"
                    )?;
                    self.rows.write(&routed.rows.batch, row, &mut self.line);
                }
                Said::Sent(order) => {
                    let What::Write { key, values } = &order.what else { continue };
                    let (output, by) = (quoted(&order.output), quoted(&order.by.to_string()));
                    let instance = match &*order.instance {
                        "" => String::new(),
                        instance => format!("\"instance\":{},", quoted(instance)),
                    };
                    let write = order.write;
                    write!(
                        self.line,
                        "{{\"output\":{output},{instance}\"write\":{write},\"by\":{by},\"time\":{time},\
                        \"seq\":{seq},\"cause\":{cause},\"row\":{}",
                        sent(key, values)?
                    )?;
                }
            }
            self.line.extend_from_slice(b"}\n");
            self.out.write_all(&self.line)?;
        }
        for decision in &came.made.decisions {
            self.decided.entry(Arc::clone(&decision.output)).or_default().note(decision);
            if let Some(out) = &mut self.decisions {
                let (time, cause) = came.causes.of(decision.seq);
                let (time, cause) = (quoted(&written(time)), quoted(&cause));
                let decision = serde_json::to_string(decision)?;
                writeln!(out, "{{\"time\":{time},\"cause\":{cause},\"decision\":{decision}}}")?;
            }
        }
        Ok(())
    }

    /// Everything is where it should be.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.decisions.as_mut().map_or(Ok(()), Write::flush)
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

/// Writes rows as JSON objects.
#[derive(Default)]
pub(super) struct RowsAsJson(Vec<(SchemaRef, Encoder)>);

impl RowsAsJson {
    pub(super) fn write(&mut self, rows: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        let schema = rows.schema_ref();
        let at = self.0.iter().position(|(known, _)| known == schema).unwrap_or_else(|| {
            self.0.push((Arc::clone(schema), Encoder::new(schema)));
            self.0.len() - 1
        });
        if let Some((_, encoder)) = self.0.get(at) {
            encoder.encode_row(rows, row, out);
        }
    }
}

/// What an output is sent, as a JSON object.
pub(super) fn sent(key: &Values, values: &Values) -> serde_json::Result<String> {
    let all: BTreeMap<_, _> = key.iter().chain(values).collect();
    serde_json::to_string(&all)
}

fn quoted(text: &str) -> Value {
    Value::from(text)
}
