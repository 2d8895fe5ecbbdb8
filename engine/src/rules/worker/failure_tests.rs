//! A worker that dies leaves outputs as a box does that stops.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use futures::future::BoxFuture;
use tidegate_connectors::{Delivery, Sink, Writes};
use tidegate_core::Seqs;
use tidegate_core::clock::SystemClock;
use tidegate_rules::{Catalog, Explanation, Flow};

use super::*;
use crate::buffer::{Buffer, Uplinks};
use crate::disk::SystemDisk;
use crate::outputs::Outputs;
use crate::sequence::wakes::Wakes;
use crate::system::control::ControlEvents;
use crate::system::writes::WriteReports;

const CONFIG: &str = r#"
name = "box"
[connections.c]
kind = "mqtt"
host = "c"
[outputs.pump]
connection = "c"
topic = "pump"
[outputs.pump.contract]
expiry = "1h"
failsafe = { x = 0 }
"#;

/// Writes what it reads, and is broken behind 13.
struct Fragile(Vec<Flow>, bool);

impl Rule for Fragile {
    fn flows(&self) -> &[Flow] {
        &self.0
    }

    fn on_batch(&mut self, _: &str, rows: &Rows, _: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.1 = rows.batch.column(0).as_primitive::<Int64Type>().values().contains(&13);
        out.emit(&Target::Output("pump".into()), rows.clone());
        Ok(())
    }

    fn on_tick(&mut self, _: u64, _: When, _: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    /// A call that the worker itself stands for.
    fn wakes_at(&self) -> Option<i64> {
        assert!(!self.1, "thirteen");
        None
    }

    fn on_end(&mut self, _: u64, _: When, _: &mut Emissions) -> Result<(), RuleError> {
        Ok(())
    }

    fn explain(&self) -> Explanation {
        Explanation::default()
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        Ok(Vec::new())
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<i64>>>);

impl Sink for Written {
    fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
        self.0.lock().unwrap().extend(rows.column(0).as_primitive::<Int64Type>().values());
        Box::pin(async { Delivery { written: rows.num_rows(), ..Delivery::default() } })
    }
}

#[tokio::test]
async fn outputs_go_to_their_failsafe_values_when_their_worker_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tidegate.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let config = crate::config::load(&path).unwrap();
    let settings = crate::config::Buffer::at(dir.path().join("box.db"));
    let (clock, disk) = (Arc::new(SystemClock), Arc::new(SystemDisk));
    let (buffer, _writer) = Buffer::open(&settings, Uplinks::default(), clock, disk, Arc::default()).unwrap();
    let reports = WriteReports::new(Arc::new(SystemClock), Arc::default());
    let control = ControlEvents::new(Arc::new(SystemClock));
    let status = Arc::new(Status::default());
    let outputs = Outputs::from_config(&config, &status, buffer.time(), reports, control);
    let (done, decided) = Default::default();
    let router = Router { outputs: outputs.clone(), buffer, done, decided };
    let written = Written::default();
    let task = outputs.task("pump", Box::new(written.clone())).unwrap();
    let contracts = Contracts::from_config(&config, &Catalog::default(), &status);
    let mut worker = Worker::new(Arc::clone(&status)).governing(contracts);
    let flow = Flow { input: "tank".into(), target: Target::Output("pump".into()) };
    worker.load(crate::sequence::change::Load {
        version: RuleVersion::active("fragile"),
        rule: Box::new(Fragile(vec![flow], false)),
        inherits: "fragile".into(),
        is_said: false,
        status: status.rules.of("fragile"),
        undecided: None,
    });

    let (queue, entries) = mpsc::channel(4);
    for (seq, x) in [(1, 7), (2, 13), (3, 9)] {
        let column = Arc::new(Int64Array::from(vec![x])) as _;
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let (rows, when) = (Rows { batch, seqs: Seqs::One { seq } }, router.outputs.time());
        let origin = Origin::Live(Ack::none());
        assert!(queue.try_send(Entry::Batch { stream: "tank".into(), rows, when, origin }).is_ok());
    }
    let deliver = tokio::spawn(task.run());
    let ended = tokio::spawn(worker.run(entries, router, Wakes::new(1).waker(0))).await;
    assert!(ended.unwrap_err().is_panic(), "the supervisor has to hear of it");
    outputs.close();
    deliver.await.unwrap();
    let written = written.0.lock().unwrap();
    // That which was on its way may have given way.
    assert_eq!(written.last(), Some(&0), "{written:?}");
    assert!(!written.contains(&9), "nothing is taken behind it");
}
