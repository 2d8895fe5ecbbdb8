//! Rules and tables come back from what the buffer has, also from what older programs left there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use arrow::array::{Int64Array, RecordBatch};
use tidegate_core::clock::SystemClock;
use tidegate_rules::{Catalog, Language, OutputColumns, Source};

use super::*;
use crate::buffer::{Uplinks, pack};
use crate::config;
use crate::disk::SystemDisk;
use crate::rules::tables::{adopt_copies, change};
use crate::sequence::edit::Edited;
use crate::sequence::verdict::Verdict;
use crate::sequence::version::RuleFile;

const RULE: &str = "INSERT INTO lamp SELECT x FROM tank";

fn sql(text: &str) -> Source {
    Source::new(Language::Sql, text)
}

fn limits(high: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("high", Arc::new(Int64Array::from(vec![high])) as _)]).unwrap()
}

fn book() -> RuleBook {
    let tank = Schema::new(vec![ts_field(), Field::new("x", arrow::datatypes::DataType::Float64, true)]);
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(Arc::new(tank)))].into(),
        tables: [("limits".to_owned(), None)].into(),
        outputs: [("lamp".to_owned(), OutputColumns::default())].into(),
        ..Catalog::default()
    };
    RuleBook::new(catalog, 1, Arc::default()).quiet()
}

/// A box's buffer, and what it begins with.
struct Stage {
    buffer: Buffer,
    journal: Journal,
    book: RuleBook,
}

impl Stage {
    async fn start(dir: &Path) -> Self {
        // Nobody takes what workers are handed.
        Self::heard(dir).await.0
    }

    /// With what the workers hear.
    async fn heard(dir: &Path) -> (Self, mpsc::Receiver<Entry>) {
        let settings = config::Buffer::at(dir.join("box.db"));
        let (clock, disk) = (Arc::new(SystemClock), Arc::new(SystemDisk));
        let (buffer, writer) =
            Buffer::open(&settings, Uplinks::default(), clock, disk, Arc::default()).unwrap();
        tokio::spawn(writer);
        adopt_copies(&SystemDisk, dir, &buffer).await.unwrap();
        let start = Start::new(&mut buffer.recovered());
        let mut book = book();
        let (worker, entries) = mpsc::channel(64);
        let workers = [worker];
        let columns = BTreeMap::new();
        let (kept, loads) = (Kept::default(), Arc::default());
        let journal = Journal::recover(buffer.clone(), kept, start, &mut book, &columns, &workers, &loads)
            .await
            .unwrap();
        (Self { buffer, journal, book }, entries)
    }

    async fn keep(&mut self, edited: Edited) {
        self.journal.edit(&edited.edit.unwrap(), When::at(1)).await;
    }

    fn snapshot(&mut self) {
        assert!(self.journal.snapshot(std::iter::empty(), 0).is_some());
    }

    async fn stop(self) {
        self.buffer.close().await;
    }
}

fn names(stage: &Stage) -> Vec<&str> {
    stage.book.names().collect()
}

#[tokio::test]
async fn rules_and_tables_come_back_from_entries_and_from_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::start(dir.path()).await;
    let edited = stage.book.put(&"a".into(), "a.sql", &sql(RULE), &"a".into());
    stage.keep(edited).await;
    let edited = change(&"limits".into(), limits(80), &mut stage.book).unwrap().unwrap();
    stage.keep(edited).await;
    stage.stop().await;
    for _ in 0..3 {
        let mut stage = Stage::start(dir.path()).await;
        assert!(stage.book.runs("a", &sql(RULE)));
        assert_eq!(stage.book.table("limits"), Some(&limits(80)));
        let edited = stage.book.put(&"b".into(), "b.sql", &sql(RULE), &"b".into());
        stage.keep(edited).await;
        stage.snapshot();
        stage.stop().await;
    }
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    let texts: u64 = raw
        .query_row("SELECT count(*) FROM content WHERE bytes = CAST(?1 AS BLOB)", [RULE], |row| row.get(0))
        .unwrap();
    assert_eq!(texts, 1, "two rules, three snapshots");
}

#[tokio::test]
async fn what_an_older_program_wrote_is_read() {
    const CONTENT: &str = "0123456789abcdef0123456789abcdef";
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::start(dir.path()).await;
    let put = format!(r#"{{"put":{{"name":"a","file":"a.sql","text":"{RULE}","inherits":"a"}}}}"#);
    let table = format!(r#"{{"table":{{"name":"limits","content":"{CONTENT}"}}}}"#);
    let manifest = format!(r#"{{"rules":{{"b":{{"file":"b.sql","text":"{RULE}"}}}},"columns":{{}}}}"#);
    let snapshot = Snapshot { number: 1, entry: 1, manifest, ..Snapshot::default() };
    for (id, edit) in (1..).zip([r#"{"remove":{"name":"z"}}"#, &put, &table]) {
        let step = JournalStep::Edit { edit: edit.to_owned(), content: None };
        stage.buffer.journal(JournalEntry { id, now_ns: 1, wall_ns: 1, step }, false).await.unwrap();
        if id == 1 {
            stage.buffer.snapshot(snapshot.clone()).unwrap();
        }
    }
    stage.stop().await;
    let copy = dir.path().join(format!("tables/limits-{CONTENT}.arrow"));
    std::fs::create_dir(dir.path().join("tables")).unwrap();
    std::fs::write(&copy, pack(&[limits(7)]).unwrap()).unwrap();
    for _ in 0..3 {
        let mut stage = Stage::start(dir.path()).await;
        assert_eq!(names(&stage), ["a", "b"]);
        assert!(stage.book.runs("a", &sql(RULE)) && stage.book.runs("b", &sql(RULE)));
        assert_eq!(stage.book.table("limits"), Some(&limits(7)));
        assert!(!copy.exists(), "the buffer has it");
        let edited = stage.book.put(&"c".into(), "c.sql", &sql(RULE), &"c".into());
        stage.keep(edited).await;
        stage.snapshot();
        let edited = stage.book.remove("c");
        stage.keep(edited).await;
        stage.stop().await;
    }
}

#[tokio::test]
async fn a_rule_whose_source_is_lost_is_gone_with_the_one_that_it_was_renamed_from() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::start(dir.path()).await;
    for (name, text) in [("other", RULE), ("old", "INSERT INTO lamp SELECT -x AS x FROM tank")] {
        let edited = stage.book.put(&name.into(), name, &sql(text), &name.into());
        stage.keep(edited).await;
    }
    let renamed = sql("INSERT INTO lamp SELECT x + 1 AS x FROM tank");
    let edited = stage.book.put(&"new".into(), "new", &renamed, &"old".into());
    stage.keep(edited).await;
    stage.stop().await;
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    let lose = "UPDATE content SET bytes = x'00' WHERE hash = ?1";
    assert_eq!(raw.execute(lose, [&**renamed.sha256()]).unwrap(), 1);
    drop(raw);
    let mut stage = Stage::start(dir.path()).await;
    assert_eq!(names(&stage), ["other"]);
    // Its file is still there.
    let edited = stage.book.put(&"new".into(), "new", &renamed, &"new".into());
    stage.keep(edited).await;
    stage.stop().await;
    assert_eq!(names(&Stage::start(dir.path()).await), ["new", "other"]);
}

#[tokio::test]
async fn what_could_not_start_is_not_in_force_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let newer = sql("INSERT INTO lamp SELECT -x AS x FROM tank");
    let goes_on = RuleFile { path: "a.sql".into(), source: sql(RULE) };
    let mut stage = Stage::start(dir.path()).await;
    for source in [sql(RULE), newer.clone()] {
        let edited = stage.book.put(&"a".into(), "a.sql", &source, &"a".into());
        stage.keep(edited).await;
    }
    let edited = stage.book.put(&"b".into(), "b.sql", &newer, &"b".into());
    stage.keep(edited).await;
    for (rule, goes_on) in [("a", Some(goes_on)), ("b", None)] {
        let (version, reason) = (newer.sha256().to_string(), "why".to_owned());
        let verdict = Verdict { rule: rule.into(), version, at: 7, reason, is_start: true };
        let edit = Edit::Refuse { verdict, goes_on };
        drop(stage.book.edit(&edit));
        stage.keep(Edited { edit: Some(edit), changes: Vec::new() }).await;
    }
    stage.stop().await;
    for is_in_snapshot in [false, true] {
        let mut stage = Stage::start(dir.path()).await;
        let wrong: Vec<String> = stage.book.wrong().iter().map(ToString::to_string).collect();
        if is_in_snapshot {
            // Nobody has tried them since, as their files will be.
            assert!(wrong.is_empty() && stage.book.runs("a", &sql(RULE)), "{wrong:?}");
            assert_eq!(names(&stage), ["a"]);
        } else {
            assert_eq!(wrong, ["a.sql: it cannot start: why", "b.sql: it cannot start: why"]);
        }
        assert_eq!((stage.book.worker_of("a"), stage.book.worker_of("b")), (Some(0), None));
        let edited = stage.book.put(&"c".into(), "c.sql", &sql(RULE), &"c".into());
        stage.keep(edited).await;
        let edited = stage.book.remove("c");
        stage.keep(edited).await;
        stage.snapshot();
        stage.stop().await;
    }
}

#[tokio::test]
async fn workers_hear_first_where_rules_were_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::start(dir.path()).await;
    let edited = stage.book.put(&"a".into(), "a.sql", &sql(RULE), &"a".into());
    stage.keep(edited).await;
    let verdict =
        Verdict { rule: "a".into(), version: "0a".into(), at: 7, reason: "time".into(), is_start: false };
    stage.keep(Edited { edit: Some(Edit::Stop(verdict.clone())), changes: Vec::new() }).await;
    stage.stop().await;
    let (stage, mut entries) = Stage::heard(dir.path()).await;
    match entries.recv().await.unwrap() {
        Entry::Verdicts(stops) => assert_eq!(*stops, [verdict]),
        _ => panic!("they hear something else"),
    }
    assert!(matches!(entries.recv().await.unwrap(), Entry::Change(_)));
    stage.stop().await;
}
