//! What contracts keep over a restart, as the snapshots of the rules' state have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use serde::{Deserialize, Serialize};
use tidegate_rules::SealedState;

use super::Contracts;
use super::instance::{Instance, Lock};
use super::newest::Seen;

/// What is kept of an output.
#[derive(Serialize, Deserialize)]
struct Stored {
    instances: BTreeMap<Arc<str>, Instance>,
    line_is_up: bool,
    writes: u64,
    decisions: u64,
    writers: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    refusals: Vec<(Arc<str>, String, u64, u64)>,
}

const OUTPUT: &str = "output ";
const NEWEST: &str = "newest ";

impl Contracts {
    /// The name of their part of a snapshot: no rule has such a name.
    pub const STORED_AS: &str = "outputs/contracts";

    /// What has to be kept.
    #[must_use]
    pub fn stored(&self) -> Vec<SealedState> {
        let outputs = self.outputs.iter().filter_map(|(name, output)| {
            let stored = Stored {
                instances: output.instances.clone(),
                line_is_up: output.line_is_up,
                writes: output.writes,
                decisions: output.decisions,
                writers: output.writers.clone(),
                refusals: output
                    .refusals
                    .iter()
                    .map(|((rule, kind), (number, times))| (Arc::clone(rule), kind.clone(), *number, *times))
                    .collect(),
            };
            let text = serde_json::to_string(&stored)
                .map_err(|error| tracing::error!(output = %name, %error, "what an output has to keep cannot be written down"))
                .ok()?;
            let column = Arc::new(StringArray::from(vec![text])) as _;
            let batch = RecordBatch::try_from_iter([("contract", column)]).ok();
            Some(SealedState { fingerprint: format!("{OUTPUT}{name}"), watermark: self.now, batch })
        });
        let newest = self.newest.0.iter().map(|((stream, instance), seen)| SealedState {
            fingerprint: format!("{NEWEST}{stream}\n{instance}\n{}\n{}", seen.seq, seen.age_then),
            watermark: seen.arrived,
            batch: Some(seen.row.clone()),
        });
        outputs.chain(newest).collect()
    }

    /// Goes on from what was kept. An output whose contract has other interlocks by now begins them anew.
    pub fn restore(&mut self, states: Vec<SealedState>) {
        for SealedState { fingerprint, watermark, batch } in states {
            let Some(batch) = batch.filter(|batch| batch.num_rows() == 1) else { continue };
            if let Some(name) = fingerprint.strip_prefix(OUTPUT) {
                self.now = self.now.max(watermark);
                self.restore_output(name, &batch);
            } else if let Some(key) = fingerprint.strip_prefix(NEWEST) {
                let mut parts = key.split('\n');
                let mut part = || parts.next().unwrap_or_default();
                let (stream, instance) = (Arc::from(part()), Arc::from(part()));
                let (Ok(seq), Ok(age_then)) = (part().parse(), part().parse()) else { continue };
                let seen = Seen { row: batch, seq, arrived: watermark, age_then };
                self.newest.0.insert((stream, instance), seen);
            }
        }
        let wakes = self.outputs.iter().flat_map(|(output, governed)| {
            let instances = governed.instances.iter();
            instances.filter_map(|(name, instance)| {
                Some((instance.wakes_at?, Arc::clone(output), Arc::clone(name)))
            })
        });
        self.wakes = wakes.collect();
    }

    fn restore_output(&mut self, name: &str, batch: &RecordBatch) {
        let text =
            batch.column(0).as_string_opt::<i32>().filter(|text| text.is_valid(0)).map(|text| text.value(0));
        let stored: Stored = match text.map(serde_json::from_str) {
            Some(Ok(stored)) => stored,
            Some(Err(error)) => {
                tracing::error!(output = name, %error, "what an output kept cannot be read: it begins anew");
                return;
            }
            None => return,
        };
        let Some(output) = self.outputs.get_mut(name) else { return };
        let locks = output.contract.interlocks.len();
        let keyed = !output.contract.key.is_empty();
        for (name, mut instance) in stored.instances {
            if keyed == name.is_empty() {
                continue;
            }
            instance.locks.resize_with(locks, Lock::default);
            output.instances.insert(name, instance);
        }
        (output.line_is_up, output.writers) = (stored.line_is_up, stored.writers);
        (output.writes, output.decisions) = (stored.writes, stored.decisions);
        let refusals = stored.refusals.into_iter();
        output.refusals =
            refusals.map(|(rule, kind, number, times)| ((rule, kind), (number, times))).collect();
    }
}
