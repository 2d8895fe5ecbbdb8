//! Rows on their way out: to outputs, to the uplink, or back in as a derived stream.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use tidegate_connectors::By;
use tidegate_core::{Ack, Rows, Seqs};
use tidegate_rules::Target;

use crate::buffer::{Buffer, OutboxRows};
use crate::decision::Decision;
use crate::outputs::Outputs;
use crate::outputs::contract::Made;
use crate::outputs::waiting::Waiting;
use crate::sequence::entry::Origin;
use crate::sequence::version::RuleVersion;

/// Rows that one statement wrote, with their identities: row `i` is
/// `(version.name, rows.seqs[i], ordinals[i])`.
#[derive(Debug, Clone)]
pub struct Routed {
    /// what wrote them
    pub version: Arc<RuleVersion>,
    /// where the rows go
    pub target: Target,
    /// the rows
    pub rows: Rows,
    /// one a row
    pub ordinals: Vec<u32>,
}

/// Where rows go.
#[derive(Clone)]
pub struct Router {
    /// what is to be written
    pub outputs: Outputs,
    /// keeps what goes to the uplink
    pub buffer: Buffer,
    /// By rule: up to which number its rows were in the outbox when the box started. What comes of the
    /// journal again up to there is left out.
    pub done: Arc<HashMap<Arc<str>, u64>>,
    /// By output: the newest decision that was on disk then. Those up to it stay as they were made: what is
    /// run again may be less than there was.
    pub decided: Arc<HashMap<Arc<str>, u64>>,
}

impl Router {
    /// Sends what the rules of one worker made of one entry of the sequence, whose time is `now`, and what
    /// contracts made of it, to where it goes: to outputs first, since control waits for nothing.
    pub async fn send(&self, mut written: Vec<Routed>, made: Made, now: i64, origin: &Origin) {
        let Made { orders, mut decisions } = made;
        if origin.is_replayed() {
            let is_new = |decision: &Decision| {
                self.decided.get(&decision.output).is_none_or(|newest| decision.number > *newest)
            };
            decisions.retain(is_new);
        } else {
            for order in orders {
                self.outputs.order(order).await;
            }
        }
        self.buffer.decisions(decisions);
        let for_uplink: Vec<Routed> =
            written.extract_if(.., |routed| routed.target == Target::Uplink).collect();
        self.write(written, now, origin.is_replayed()).await;
        let appended = match origin {
            Origin::Live(ack) => {
                let rows = for_uplink.into_iter().map(|routed| outbox_rows(routed, now, ack.clone()));
                self.buffer.append(rows.collect()).await
            }
            Origin::Journal => {
                let rows = for_uplink.into_iter().filter_map(|routed| self.not_done(routed));
                self.buffer
                    .append_again(rows.map(|routed| outbox_rows(routed, now, Ack::none())).collect())
                    .await
            }
        };
        if let Err(error) = appended {
            let then = "they are made again when the box starts, or sent again by whoever sent them";
            tracing::warn!(%error, "rows for the uplink come too late; {then}");
        }
    }

    /// Hands outputs what is meant for them. What is run again tells them how it was, and is not written.
    async fn write(&self, mut written: Vec<Routed>, now: i64, is_replayed: bool) {
        written.retain(|routed| matches!(routed.target, Target::Output(_)));
        for routed in in_order(written) {
            if let Routed { version, target: Target::Output(output), rows, ordinals } = routed {
                let RuleVersion { name, hash, .. } = &*version;
                let by = By::Rule { name: Arc::clone(name), version: Arc::clone(hash) };
                self.outputs
                    .write(&output, Waiting { by, rows, ordinals, at: now, is_replayed, order: None })
                    .await;
            }
        }
    }

    /// Without the rows that are in the outbox already.
    fn not_done(&self, mut routed: Routed) -> Option<Routed> {
        let Some(done) = self.done.get(&routed.version.name) else { return Some(routed) };
        let rows = routed.rows.len();
        let first = (0..rows).find(|row| routed.rows.seqs.get(*row) > *done)?;
        routed.rows = routed.rows.slice(first, rows - first);
        routed.ordinals.drain(..first);
        Some(routed)
    }
}

fn outbox_rows(Routed { version, rows, ordinals, .. }: Routed, now_ns: i64, ack: Ack) -> OutboxRows {
    let (rule, delivery) = (Arc::clone(&version.name), version.delivery);
    OutboxRows { rule, rows, ordinals, delivery, now_ns, ack }
}

/// Cuts and sorts what was written so that sequence numbers never decrease. Rows with equal numbers stay in
/// the order they were written in. This makes the order of rows independent of where batches were cut.
#[must_use]
pub fn in_order(written: Vec<Routed>) -> Vec<Routed> {
    let lens: Vec<(&Seqs, usize)> =
        written.iter().map(|routed| (&routed.rows.seqs, routed.rows.len())).collect();
    let runs = runs(&lens);
    if runs.len() == written.len() && runs.iter().zip(0..).all(|(run, i)| run.part == i) {
        return written;
    }
    let part = |run: &Run| {
        let routed = written.get(run.part)?;
        Some(Routed {
            version: Arc::clone(&routed.version),
            target: routed.target.clone(),
            rows: routed.rows.slice(run.offset, run.len),
            ordinals: routed.ordinals.get(run.offset..run.offset + run.len)?.to_vec(),
        })
    };
    runs.iter().filter_map(part).collect()
}

/// One batch of all `parts`, which have the same columns, in the order of their numbers.
///
/// # Errors
/// When the columns differ after all.
pub fn merge(mut parts: Vec<Rows>) -> Result<Rows, ArrowError> {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return Ok(only);
    }
    let lens: Vec<(&Seqs, usize)> = parts.iter().map(|rows| (&rows.seqs, rows.len())).collect();
    let pieces: Vec<Rows> =
        runs(&lens).iter().filter_map(|run| Some(parts.get(run.part)?.slice(run.offset, run.len))).collect();
    let Some(schema) = pieces.first().map(|piece| piece.batch.schema()) else {
        return Err(ArrowError::InvalidArgumentError("there is nothing to merge".into()));
    };
    let batch = concat_batches(&schema, pieces.iter().map(|piece| &piece.batch))?;
    let seqs = pieces.iter().flat_map(|piece| (0..piece.len()).map(|row| piece.seqs.get(row))).collect();
    Ok(Rows { batch, seqs: Seqs::list(seqs) })
}

/// Consecutive rows of one part.
struct Run {
    part: usize,
    offset: usize,
    len: usize,
}

fn runs(parts: &[(&Seqs, usize)]) -> Vec<Run> {
    if let [(_, len)] = parts {
        return vec![Run { part: 0, offset: 0, len: *len }];
    }
    let mut rows: Vec<(u64, usize, usize)> = Vec::with_capacity(parts.iter().map(|(_, len)| len).sum());
    for (part, (seqs, len)) in parts.iter().enumerate() {
        rows.extend((0..*len).map(|row| (seqs.get(row), part, row)));
    }
    rows.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for (_, part, row) in rows {
        match runs.last_mut() {
            Some(run) if run.part == part && run.offset + run.len == row => run.len += 1,
            _ => runs.push(Run { part, offset: row, len: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use futures::future::BoxFuture;
    use tidegate_connectors::{Delivery, Sink, Writes};
    use tidegate_core::clock::SystemClock;

    use super::*;
    use crate::buffer::Uplinks;
    use crate::disk::SystemDisk;
    use crate::status::Status;
    use crate::system::control::ControlEvents;
    use crate::system::writes::WriteReports;

    fn rows(values: &[i64], seqs: &[u64]) -> Rows {
        let batch =
            RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(values.to_vec())) as _)]).unwrap();
        Rows { batch, seqs: Seqs::list(seqs.to_vec()) }
    }

    #[test]
    fn rows_of_two_statements_are_put_into_the_order_of_their_numbers() {
        let merged = merge(vec![rows(&[1, 2, 3], &[0, 5, 5]), rows(&[10, 20], &[1, 5])]).unwrap();
        assert_eq!(merged.batch.column(0).as_primitive::<Int64Type>().values(), &[1, 10, 2, 3, 20]);
        assert_eq!((0..5).map(|row| merged.seqs.get(row)).collect::<Vec<_>>(), [0, 1, 5, 5, 5]);
    }

    /// What an output was told to write.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<i64>>>);

    impl Sink for Written {
        fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
            self.0.lock().unwrap().extend(rows.column(0).as_primitive::<Int64Type>().values());
            Box::pin(async { Delivery { written: rows.num_rows(), ..Delivery::default() } })
        }
    }

    #[tokio::test]
    async fn outputs_write_what_comes_in_and_nothing_that_the_journal_runs_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.toml");
        let text = "name = \"box\"\n[connections.c]\nkind = \"mqtt\"\nhost = \"c\"\n\
            [outputs.pump]\nconnection = \"c\"\ntopic = \"pump\"\n";
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path).unwrap();
        let settings = crate::config::Buffer::at(dir.path().join("box.db"));
        let (clock, disk) = (Arc::new(SystemClock), Arc::new(SystemDisk));
        let (buffer, _writer) =
            Buffer::open(&settings, Uplinks::default(), clock, disk, Arc::default()).unwrap();
        let reports = WriteReports::new(Arc::new(SystemClock), Arc::default());
        let control = ControlEvents::new(Arc::new(SystemClock));
        let outputs = Outputs::from_config(&config, &Status::default(), buffer.time(), reports, control);
        let (done, decided) = Default::default();
        let router = Router { outputs: outputs.clone(), buffer, done, decided };
        let written = Written::default();
        let task = outputs.task("pump", Box::new(written.clone())).unwrap();
        let live = || Origin::Live(Ack::none());
        for (value, origin) in [(1, Origin::Journal), (2, live()), (3, Origin::Journal), (4, live())] {
            router.send(vec![routed(rows(&[value], &[0]), "rule")], Made::default(), 0, &origin).await;
        }
        outputs.close();
        task.run().await;
        assert_eq!(*written.0.lock().unwrap(), [2, 4]);
    }

    fn routed(rows: Rows, rule: &str) -> Routed {
        Routed {
            version: RuleVersion::active(rule),
            target: Target::Output("pump".into()),
            ordinals: vec![0; rows.len()],
            rows,
        }
    }

    #[test]
    fn on_and_off_from_one_batch_reach_the_output_in_the_order_of_their_causes() {
        let ordered = in_order(vec![routed(rows(&[1, 1], &[0, 3]), "on"), routed(rows(&[0], &[2]), "off")]);
        let said: Vec<(&str, usize)> = ordered.iter().map(|r| (&*r.version.name, r.rows.len())).collect();
        assert_eq!(said, [("on", 1), ("off", 1), ("on", 1)]);
    }
}
