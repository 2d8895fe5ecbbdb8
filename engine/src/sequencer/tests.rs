//! A sequencer without rules: the test stands where the worker would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;

use tidegate_rules::{Listened, Target};

use super::*;
use crate::buffer::{Buffer, JournalStep, Uplinks};
use crate::config;
use crate::disk::SystemDisk;
use crate::rules::book::RuleBook;
use crate::rules::worker::tests::Echo;
use crate::sequence::change::{Change, Load};
use crate::sequence::verdict::Verdict;
use crate::sequence::version::RuleVersion;
use crate::sequence::wakes::Waker;
use crate::sequencer::journal::{Kept, Start};
use crate::time::tests::RuntimeClock;
use arrow::array::{Float64Array, RecordBatch, TimestampNanosecondArray};
use tidegate_core::Clock;
use tokio::sync::watch;
use tokio::time::timeout;

const S: i64 = 1_000_000_000;
const CONFIG: &str = r#"
name = "box"
[connections.plant]
kind = "mqtt"
host = "plant"
[streams.tank]
connection = "plant"
topic = "tank"
fields = { x = "float64" }
"#;

struct Stage {
    buffer: Buffer,
    time: Arc<SequenceTime>,
    inlet: mpsc::Sender<Arrival>,
    /// when the line was asked
    asked: watch::Receiver<i64>,
    entries: mpsc::Receiver<Entry>,
    waker: Waker,
    changes: mpsc::Sender<Edited>,
    refused: RulesHandle,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// `queue` batches may wait.
    async fn new(queue: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(RuntimeClock(Instant::now()));
        let config = config::parse(CONFIG, "tidegate.toml", dir.path()).unwrap();
        let settings = config::Buffer::at(dir.path().join("box.db"));
        let (buffer, writer) =
            Buffer::open(&settings, Uplinks::default(), clock, Arc::new(SystemDisk), Arc::default()).unwrap();
        tokio::spawn(writer);
        let status = Arc::new(Status::default());
        let columns = crate::catalog::catalog(&config, &|_| None);
        let mut book = RuleBook::new(columns, 1, Arc::clone(&status));
        let (worker, entries) = mpsc::channel(64);
        let workers = vec![worker];
        let start = Start::new(&mut buffer.recovered());
        let wakes = Wakes::new(1);
        let journal = Journal::recover(
            buffer.clone(),
            Kept { streams: ["tank".to_owned()].into(), ..Kept::default() },
            start,
            &mut book,
            &BTreeMap::new(),
            &workers,
            wakes.loads(),
        )
        .await
        .unwrap();
        let (inlet, intake) = mpsc::channel(queue);
        let mut listeners = Listeners::default();
        let (_, asked) = listeners.add([Arc::from("tank")]);
        let (changes, change_queue) = mpsc::channel(1);
        let (waker, refused) = (wakes.waker(0), RulesHandle::new().0);
        let sequencer = Sequencer {
            numbers: Numbers::from(98),
            time: buffer.time(),
            workers,
            wakes,
            listeners,
            rules: refused.clone(),
            schemas: SchemaStore::new(&config, Arc::new(SystemDisk)),
            status,
            journal,
            snapshot_every: Duration::from_hours(1_000),
            decided: Arc::default(),
        };
        tokio::spawn(sequencer.run(intake, change_queue, mpsc::channel(1).1));
        let mut stage =
            Self { time: buffer.time(), buffer, inlet, asked, entries, waker, changes, refused, _dir: dir };
        assert!(!stage.next().await.0, "it says that it has started");
        assert!(!stage.listened().await.1.goes_on, "nobody has listened yet");
        stage
    }

    fn batch() -> Arrival {
        let times = TimestampNanosecondArray::from(vec![0]).with_timezone("UTC");
        let columns =
            [("ts", Arc::new(times) as _, false), ("x", Arc::new(Float64Array::from(vec![1.0])) as _, true)];
        let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        Arrival::Rows(Batch { stream: "tank".into(), rows, marks: Vec::new(), ack: Ack::none() })
    }

    /// Number and time of the next entry, and whether it is a tick.
    async fn next(&mut self) -> (bool, u64, i64) {
        match self.entries.recv().await.unwrap() {
            Entry::Tick { seq, when, .. } => (true, seq, when.now),
            Entry::Batch { rows, when, .. } => (false, rows.seqs.get(0), when.now),
            _ => panic!("nobody asked for that"),
        }
    }

    /// The number of the next entry, and what it says of stream `tank`.
    async fn listened(&mut self) -> (u64, Listened) {
        match self.entries.recv().await.unwrap() {
            Entry::Listened { seq, streams, listened, .. } => {
                assert_eq!(*streams, [Arc::from("tank")]);
                (seq, listened)
            }
            _ => panic!("it says nothing of a line"),
        }
    }

    async fn line(&self, news: LineNews) {
        self.inlet.send(Arrival::Line { line: 0, news }).await.unwrap();
    }

    /// Rules wait for a silence of stream `tank` up to the time `at`.
    fn leave_silence(&self, at: i64) {
        self.waker.leave_silences([(Arc::from("tank"), at)].into());
    }

    async fn question(&mut self) -> i64 {
        self.asked.changed().await.unwrap();
        *self.asked.borrow_and_update()
    }

    async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_hours(2), self.next()).await.is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_is_made_when_a_rule_wants_it_and_only_then() {
    let mut stage = Stage::new(16).await;
    assert!(stage.is_quiet().await);
    let now = stage.time.now();
    stage.waker.leave(Some(now + 5 * S), 0);
    stage.waker.leave(Some(now + 3 * S), 0);
    assert_eq!(stage.next().await, (true, 100, now + 3 * S));
    // Until the worker has taken it, what it left is from before.
    assert!(stage.is_quiet().await);
    stage.waker.leave(Some(now + 5 * S), 1);
    let (is_tick, seq, late) = stage.next().await;
    assert!(is_tick && seq == 101 && late >= now + 7_203 * S);
    stage.waker.leave(None, 2);
    assert!(stage.is_quiet().await);
    // Far away.
    let now = stage.time.now();
    stage.waker.leave(Some(now + 1_000_000 * S), 2);
    assert_eq!(stage.next().await, (true, 102, now + 1_000_000 * S));
    stage.inlet.send(Stage::batch()).await.unwrap();
    assert_eq!(stage.next().await, (false, 103, now + 1_000_000 * S));
    let ticks: Vec<(u64, i64)> = stage
        .buffer
        .read_journal(0)
        .await
        .unwrap()
        .iter()
        .filter_map(|entry| match entry.step {
            JournalStep::Tick { seq } => Some((seq, entry.now_ns)),
            _ => None,
        })
        .collect();
    assert_eq!(ticks.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [100, 101, 102]);
    assert_eq!((ticks[1].1, ticks[2].1), (late, now + 1_000_000 * S));
}

#[tokio::test(start_paused = true)]
async fn rows_that_wait_go_before_a_tick_and_a_line_that_is_never_quiet_does_not_hold_it_up() {
    let mut stage = Stage::new(4).await;
    stage.waker.leave(Some(0), 0);
    let inlet = stage.inlet.clone();
    for _ in 0..4 {
        inlet.try_send(Stage::batch()).unwrap();
    }
    let busy = tokio::spawn(async move {
        for _ in 0..36 {
            inlet.send(Stage::batch()).await.unwrap();
        }
    });
    let mut order = Vec::new();
    for _ in 0..40 {
        order.push(stage.next().await.0);
    }
    busy.await.unwrap();
    let first = order.iter().position(|is_tick| *is_tick).unwrap();
    assert!((4..=6).contains(&first), "{order:?}");
    assert_eq!(order.iter().filter(|is_tick| **is_tick).count(), 1, "it was not taken yet");
}

#[tokio::test(start_paused = true)]
async fn a_silence_is_one_when_the_line_shows_that_it_was_listening() {
    let mut stage = Stage::new(16).await;
    let began = stage.time.now();
    stage.leave_silence(began + 5 * S);
    assert!(timeout(Duration::from_hours(1), stage.question()).await.is_err(), "the line is down");
    assert!(stage.is_quiet().await);
    stage.line(LineNews::Begins).await;
    let (_, up) = stage.listened().await;
    assert!(up.goes_on && up.since == up.until && up.since > began + 5 * S, "what was before is no silence");
    stage.leave_silence(up.since + 5 * S);
    assert_eq!(stage.question().await, up.since + 5 * S);
    assert!(stage.is_quiet().await, "it has not answered");
    let tick = stage.time.now() + 7 * S;
    stage.waker.leave(Some(tick), 0);
    assert_eq!(stage.next().await.2, tick, "whoever does not wait for a silence is not held up");
    stage.line(LineNews::Heard { asked: up.since + 5 * S }).await;
    let (seq, heard) = stage.listened().await;
    assert_eq!(heard, Listened { until: up.since + 5 * S, ..up });
    // A silence that was shown is not asked for again before the worker has taken it.
    assert!(timeout(Duration::from_hours(1), stage.question()).await.is_err());
    stage.line(LineNews::Heard { asked: began }).await;
    stage.line(LineNews::Ends { heard: Instant::now() - Duration::from_secs(1) }).await;
    let (next, down) = stage.listened().await;
    assert!(next == seq + 1 && !down.goes_on && down.until == stage.time.now() - S, "{down:?}");
    let steps = stage.buffer.read_journal(0).await.unwrap().into_iter();
    let kept: Vec<_> = steps.filter(|entry| matches!(entry.step, JournalStep::Listened { .. })).collect();
    assert_eq!(kept.len(), 4, "all of that is run again after a crash: {kept:?}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_waits_until_it_is_known_what_runs() {
    let mut stage = Stage::new(16).await;
    let version = RuleVersion::active("a");
    let rule = Box::new(Echo::new("tank", Target::Uplink, 1));
    let (inherits, status) = (Arc::from("a"), Status::default().rules.of("a"));
    let load = Change::Load(Load { version, rule, inherits, is_said: false, status, undecided: None });
    stage.changes.send(Edited { edit: None, changes: vec![(0, load)] }).await.unwrap();
    let Entry::Change(load) = stage.entries.recv().await.unwrap() else { panic!("it loads something") };
    // The box stops.
    drop(stage.inlet);
    assert!(matches!(stage.entries.recv().await.unwrap(), Entry::Batch { .. }), "it says so");
    assert!(timeout(Duration::from_hours(1), stage.entries.recv()).await.is_err());
    let (rule, version, reason) = ("a".to_owned(), "0a".to_owned(), "why".to_owned());
    let verdict = Verdict { rule, version, at: 7, reason, is_start: true };
    stage.waker.leave_verdict(Edit::Refuse { verdict, goes_on: None });
    drop(load);
    assert!(matches!(stage.entries.recv().await.unwrap(), Entry::Snapshot(_)));
    assert_eq!(stage.refused.take_refused().len(), 1, "the book hears of it");
    let edits =
        stage.buffer.read_journal(0).await.unwrap().into_iter().filter_map(|entry| match entry.step {
            JournalStep::Edit { edit, .. } => Some(edit),
            _ => None,
        });
    assert_eq!(
        edits.collect::<Vec<_>>(),
        [
            r#"{"refuse":{"verdict":{"rule":"a","version":"0a","at":7,"reason":"why","is_start":true},"goes_on":null}}"#
        ]
    );
}
