//! The journal: the sequence on disk, as far as it can be run again.
//!
//! # What is kept
//! Every batch of a journaled stream, with its numbers, every tick, when streams were listened to, and every
//! change of rules and reference tables, in the order of the sequence and with its time and what the wall
//! clock showed; and now and then a snapshot: the state of all rules between two entries, with the rules'
//! texts and the columns of streams that were in force there.
//!
//! # What follows
//! A message of a journaled stream is acknowledged when its entry is on disk; nobody else waits for that.
//! What the rules make of it goes to the outbox later, so it is never on disk before its cause.
//!
//! While the disk refuses, messages of streams that go on are acknowledged at once, and when no more fits
//! into memory the journal breaks off. It goes on from a snapshot, which has all that the rows in between did
//! to the rules' state.
//!
//! # After a crash
//! The newest snapshot is loaded, and all that came after it is run again, by the same rule book and workers.
//! Rows for the outbox come out with the same identities, and those that had been stored before are left out.
//! Outputs are not written: their causes have gone. Only then the rules directory is looked at, and
//! connections are opened.
//!
//! Rows of streams that are not journaled are not run again: what they did to a rule's state since the last
//! snapshot is lost in a crash.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tidegate_connectors::stream::OnDiskFailure;
use tidegate_core::schema::ts_field;
use tidegate_core::{Ack, FieldType, Rows};
use tidegate_rules::{Listened, When};
use tokio::sync::mpsc;

use crate::buffer::{Buffer, BufferError, JournalEntry, JournalStep, Recovered, Snapshot, States};
use crate::config::{Config, Stream};
use crate::rulebook::{Edit, Placed, RuleBook};
use crate::schemas::typed;
use crate::sequencer::{Entry, Origin};
use crate::status::StreamStatus;
use crate::tables::Copies;

/// Journaled rows after which a snapshot is due, whatever the time: these take about a second to run again.
const SNAPSHOT_ROWS: u64 = 500_000;

/// What the configuration says of streams and the journal.
#[derive(Debug, Default)]
pub struct Kept {
    /// streams that are journaled
    pub streams: BTreeSet<String>,
    /// Streams that wait when the disk refuses. With one of them the sequence itself waits for room, since it
    /// has one order only.
    pub hold: BTreeSet<String>,
}

impl Kept {
    /// What `config` says.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let mut kept = Self::default();
        for (name, stream) in &config.streams {
            let Stream::Input(stream) = stream else { continue };
            kept.streams.extend(stream.is_journaled().then(|| name.clone()));
            kept.hold.extend((stream.on_disk_failure() == OnDiskFailure::Hold).then(|| name.clone()));
        }
        kept
    }
}

/// What was in force at a snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    /// by name
    rules: BTreeMap<String, RuleText>,
    /// by reference table: what names the copy of its content
    #[serde(default)]
    tables: BTreeMap<String, String>,
    /// by stream: the columns behind `ts`, as far as they were known
    columns: BTreeMap<String, Vec<(String, FieldType)>>,
    /// by stream: when it was listened to
    #[serde(default)]
    listened: BTreeMap<String, Listened>,
}

/// When some streams were listened to, as the journal keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct ListenedTo {
    streams: Vec<String>,
    listened: Listened,
}

/// The newest good text of a rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RuleText {
    /// as diagnostics name it
    file: String,
    text: String,
}

/// Where a box starts: what it had got to when it ended.
#[derive(Debug)]
pub struct Start {
    entries: (u64, u64),
    /// the newest entry that there ever was: its number is not used again
    newest: u64,
    /// the snapshot that the journal goes on from: its last entry, what was in force, and the rules' state
    snapshot: Option<(u64, Manifest, States)>,
    /// where copies of what reference tables held are
    copies: Copies,
}

impl Start {
    /// Takes the snapshot out of what the buffer found, and says what is wrong with it.
    #[must_use]
    pub fn new(recovered: &mut Recovered, copies: Copies) -> Self {
        for reason in &recovered.damaged {
            tracing::error!(
                reason,
                "a snapshot of the rules' state cannot be read; the one before it is used, if there is one"
            );
        }
        let snapshot =
            recovered.snapshot.take().and_then(|snapshot| match serde_json::from_str(&snapshot.manifest) {
                Ok(manifest) => Some((snapshot.entry, manifest, snapshot.states)),
                Err(error) => {
                    tracing::error!(%error, "the snapshot of the rules' state cannot be read");
                    None
                }
            });
        // After damage the journal may end before the snapshot, or before what was noted of it.
        let newest =
            recovered.entries.1.max(recovered.newest).max(snapshot.as_ref().map_or(0, |(entry, ..)| *entry));
        Self { entries: recovered.entries, newest, snapshot, copies }
    }

    /// The columns of `stream` that were known at the snapshot. `None`: there is no snapshot.
    #[must_use]
    pub fn columns(&self, stream: &str) -> Option<Option<SchemaRef>> {
        let (_, manifest, _) = self.snapshot.as_ref()?;
        Some(manifest.columns.get(stream).map(|columns| {
            let columns =
                columns.iter().map(|(name, field_type)| Field::new(name, field_type.data_type(), true));
            Arc::new(Schema::new(std::iter::once(ts_field()).chain(columns).collect::<Vec<_>>()))
        }))
    }
}

/// The sequencer's side of the journal.
pub struct Journal {
    buffer: Buffer,
    kept: Kept,
    /// the number of the next entry
    next: u64,
    /// the rules at this place of the sequence
    rules: BTreeMap<String, RuleText>,
    /// the contents of the reference tables there
    tables: BTreeMap<String, String>,
    /// when streams were listened to, there
    listened: BTreeMap<String, Listened>,
    snapshots: u64,
    /// journaled rows since the last snapshot
    rows: u64,
    /// whether anything has happened since the last snapshot
    changed: bool,
}

impl Journal {
    /// Runs again what came after the snapshot, so that the rules have the state that they had. `book` has
    /// the columns of [`Start::columns`]; `columns` are those of now.
    ///
    /// # Errors
    /// When the buffer cannot be read.
    pub async fn recover(
        buffer: Buffer,
        kept: Kept,
        start: Start,
        book: &mut RuleBook,
        columns: &BTreeMap<String, SchemaRef>,
        workers: &[mpsc::Sender<Entry>],
    ) -> Result<Self, BufferError> {
        let begun = Instant::now();
        let mut journal = Self {
            buffer,
            kept,
            next: start.newest + 1,
            rules: BTreeMap::new(),
            tables: BTreeMap::new(),
            listened: BTreeMap::new(),
            snapshots: 0,
            rows: 0,
            changed: false,
        };
        book.set_quiet(true);
        let mut run = Run {
            book,
            workers,
            copies: &start.copies,
            columns: HashMap::new(),
            when: When::at(0),
            entries: 0,
            rows: 0,
        };
        let (first, last) = start.entries;
        let after = match start.snapshot {
            Some((entry, manifest, states)) => {
                for (name, content) in &manifest.tables {
                    run.edit(&Edit::Table { name: name.clone(), content: content.clone() }).await?;
                }
                journal.tables = manifest.tables;
                for (name, RuleText { file, text }) in &manifest.rules {
                    run.edit(&Edit::Put {
                        name: name.clone(),
                        file: file.clone(),
                        text: text.clone(),
                        inherits: name.clone(),
                    })
                    .await?;
                }
                journal.rules = manifest.rules;
                for (stream, listened) in &manifest.listened {
                    run.listened(0, std::slice::from_ref(stream), *listened).await;
                }
                journal.listened = manifest.listened;
                run.restore(states).await;
                Some(entry)
            }
            // Nothing was deleted yet: the journal is the whole story.
            None if first <= 1 => Some(0),
            None => {
                tracing::error!(
                    first,
                    last,
                    "there is no snapshot that can be read, and the journal does not go back to the \
                    beginning: windows start empty"
                );
                None
            }
        };
        if let Some(after) = after {
            journal.run_again(after, start.newest, &mut run).await?;
        }
        let (entries, rows) = (run.entries, run.rows);
        for (stream, schema) in columns {
            run.columns(stream, schema).await;
        }
        if entries > 0 || after.is_some_and(|after| after > 0) {
            let (took, rules) = (begun.elapsed(), journal.rules.len());
            tracing::info!(
                rules,
                entries,
                rows,
                ?took,
                "the rules' state is restored; rows of the journal were run again"
            );
        }
        journal.rows = rows;
        journal.changed = entries > 0;
        if after.is_none() {
            // The journal is of no use until there is something that it goes on from.
            (journal.rows, journal.changed) = (SNAPSHOT_ROWS, true);
        }
        book.set_quiet(false);
        Ok(journal)
    }

    async fn run_again(&mut self, mut after: u64, newest: u64, run: &mut Run<'_>) -> Result<(), BufferError> {
        let mut missing = 0;
        while after < newest {
            let entries = self.buffer.read_journal(after).await?;
            if entries.is_empty() {
                missing += newest - after;
                break;
            }
            for JournalEntry { id, now_ns, wall_ns, step } in entries {
                missing += id.saturating_sub(after + 1);
                after = id;
                run.entries += 1;
                // Entries of older layouts have only wall time, which may go back.
                run.when = When { wall_ns, ..When::at(run.when.now.max(now_ns)) };
                match step {
                    JournalStep::Tick { seq } => run.tick(seq).await,
                    JournalStep::Listened { seq, streams } => match serde_json::from_str(&streams) {
                        Ok(ListenedTo { streams, listened }) => {
                            self.note_listened(&streams, listened);
                            run.listened(seq, &streams, listened).await;
                        }
                        Err(error) => {
                            tracing::error!(entry = id, %error, "what the journal says of a line cannot be \
                                read")
                        }
                    },
                    JournalStep::Rows { stream, rows, .. } => run.rows(&stream, rows).await,
                    JournalStep::Edit(edit) => match serde_json::from_str(&edit) {
                        Ok(edit) => {
                            self.note(&edit);
                            run.edit(&edit).await?;
                        }
                        Err(error) => {
                            tracing::error!(entry = id, %error, "a change of the rules in the journal \
                                cannot be read")
                        }
                    },
                }
            }
        }
        if missing > 0 {
            tracing::error!(missing, "entries of the journal are missing; the rules' state lacks their rows");
        }
        Ok(())
    }

    /// Keeps rows, if their stream is journaled. Returns what the workers have to hold: nothing, if it is,
    /// because then the rows are acknowledged when their entry is on disk.
    pub async fn rows(
        &mut self,
        stream: &Arc<str>,
        rows: &Rows,
        when: When,
        marks: Vec<u64>,
        ack: Ack,
        status: &StreamStatus,
    ) -> Ack {
        self.changed = true;
        if self.kept.hold.contains(&**stream) {
            ack.hold();
        }
        if !self.kept.streams.contains(&**stream) {
            return ack;
        }
        self.rows += rows.len() as u64;
        let step = JournalStep::Rows { stream: Arc::clone(stream), rows: rows.clone(), marks, ack };
        if !self.append(when, step).await {
            status.unjournaled.add(rows.len() as u64);
        }
        Ack::none()
    }

    /// Whether the sequence waits when the disk refuses.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.kept.hold.is_empty()
    }

    /// Nothing is kept from here on, until there is a snapshot.
    pub fn break_off(&mut self) {
        self.changed = true;
        self.buffer.break_off();
    }

    /// Resolves when the journal has broken off, and a snapshot would let it go on.
    pub async fn mendable(&self) {
        self.buffer.mendable().await;
    }

    /// Keeps a tick.
    pub async fn tick(&mut self, seq: u64, when: When) {
        self.changed = true;
        self.rows += 1;
        self.append(when, JournalStep::Tick { seq }).await;
    }

    /// Keeps when `streams` were listened to.
    pub async fn listened(&mut self, seq: u64, when: When, streams: &[Arc<str>], listened: Listened) {
        self.changed = true;
        self.rows += 1;
        let streams: Vec<String> = streams.iter().map(ToString::to_string).collect();
        self.note_listened(&streams, listened);
        match serde_json::to_string(&ListenedTo { streams, listened }) {
            Ok(streams) => drop(self.append(when, JournalStep::Listened { seq, streams }).await),
            Err(error) => tracing::error!(%error, "what is known of a line cannot be kept in the journal"),
        }
    }

    fn note_listened(&mut self, streams: &[String], listened: Listened) {
        self.listened.extend(streams.iter().map(|stream| (stream.clone(), listened)));
    }

    /// Keeps a change of the rules.
    pub async fn edit(&mut self, edit: &Edit, when: When) {
        self.changed = true;
        self.note(edit);
        match serde_json::to_string(edit) {
            Ok(json) => drop(self.append(when, JournalStep::Edit(json)).await),
            Err(error) => tracing::error!(%error, "a change of the rules cannot be kept in the journal"),
        }
    }

    /// Whether so much has come in that a snapshot is due.
    #[must_use]
    pub fn snapshot_is_due(&self) -> bool {
        self.rows >= SNAPSHOT_ROWS
    }

    /// Announces a snapshot of this place of the sequence, of which `workers` send their parts. Returns its
    /// number; `None` if nothing has happened since the last one, or the disk does not take one now.
    pub fn snapshot<'a>(
        &mut self,
        columns: impl Iterator<Item = (&'a String, &'a SchemaRef)>,
        workers: usize,
    ) -> Option<u64> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.rows = 0;
        let columns = columns.map(|(name, schema)| (name.clone(), typed(schema))).collect();
        let (rules, tables, listened) = (self.rules.clone(), self.tables.clone(), self.listened.clone());
        let manifest = Manifest { rules, tables, columns, listened };
        let manifest = serde_json::to_string(&manifest)
            .map_err(|error| tracing::error!(%error, "what a snapshot needs cannot be written down"))
            .ok()?;
        self.snapshots += 1;
        let number = self.snapshots;
        let snapshot = Snapshot { number, entry: self.next - 1, manifest, parts: workers, mends: false };
        let taken = self.buffer.snapshot(snapshot).unwrap_or(false);
        self.changed |= !taken;
        taken.then_some(number)
    }

    fn note(&mut self, edit: &Edit) {
        match edit {
            Edit::Put { name, file, text, inherits } => {
                self.rules.remove(inherits);
                self.rules.insert(name.clone(), RuleText { file: file.clone(), text: text.clone() });
            }
            Edit::Remove { name } => {
                self.rules.remove(name);
            }
            Edit::Table { name, content } => {
                self.tables.insert(name.clone(), content.clone());
            }
        }
    }

    /// Returns whether it is kept.
    async fn append(&mut self, when: When, step: JournalStep) -> bool {
        let entry = JournalEntry { id: self.next, now_ns: when.now, wall_ns: when.wall_ns, step };
        self.next += 1;
        // The buffer is closed only when the box is going down; the messages are not acknowledged then, and
        // come again.
        self.buffer.journal(entry, self.holds()).await.unwrap_or(true)
    }
}

/// The journal being run again.
struct Run<'a> {
    book: &'a mut RuleBook,
    workers: &'a [mpsc::Sender<Entry>],
    copies: &'a Copies,
    /// of each stream, as its last rows had them
    columns: HashMap<Arc<str>, SchemaRef>,
    /// when the entry at hand came
    when: When,
    entries: u64,
    rows: u64,
}

impl Run<'_> {
    async fn edit(&mut self, edit: &Edit) -> Result<(), BufferError> {
        let changes = match edit {
            Edit::Table { name, content } => match self.copies.load(name, content) {
                Ok(rows) => self.book.set_table(&Arc::from(name.as_str()), rows),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) =>
                {
                    tracing::error!(
                        table = name,
                        %error,
                        "what the table held cannot be read any more; rules do without it until its file is \
                        read"
                    );
                    Vec::new()
                }
                // It may be read the next time: to go on without it would lose the state of its rules.
                Err(error) => return Err(BufferError::Io { path: self.copies.path(name, content), error }),
            },
            _ => self.book.edit(edit).changes,
        };
        self.place(changes).await;
        Ok(())
    }

    async fn restore(&self, states: States) {
        for (rule, state) in states {
            match self.book.worker_of(&rule) {
                Some(worker) => self.send(worker, Entry::Restore { rule, state }).await,
                None => {
                    tracing::warn!(rule = %rule, "the rule cannot be loaded any more; its state is dropped")
                }
            }
        }
    }

    async fn rows(&mut self, stream: &Arc<str>, rows: Rows) {
        self.rows += rows.len() as u64;
        let schema = rows.batch.schema();
        if self.columns.get(stream).is_none_or(|known| *known != schema) {
            self.columns(stream, &schema).await;
            self.columns.insert(Arc::clone(stream), schema);
        }
        for worker in 0..self.workers.len() {
            let (stream, rows) = (Arc::clone(stream), rows.clone());
            self.send(worker, Entry::Batch { stream, rows, when: self.when, origin: Origin::Journal }).await;
        }
    }

    async fn tick(&self, seq: u64) {
        for worker in 0..self.workers.len() {
            self.send(worker, Entry::Tick { seq, when: self.when, origin: Origin::Journal }).await;
        }
    }

    async fn listened(&self, seq: u64, streams: &[String], listened: Listened) {
        let streams: Arc<[Arc<str>]> = streams.iter().map(|stream| Arc::from(stream.as_str())).collect();
        for worker in 0..self.workers.len() {
            let (streams, when, origin) = (Arc::clone(&streams), self.when, Origin::Journal);
            self.send(worker, Entry::Listened { seq, streams, listened, when, origin }).await;
        }
    }

    /// Has the rules compiled for these columns, if they are not.
    async fn columns(&mut self, stream: &str, schema: &SchemaRef) {
        if self.book.columns(stream) != Some(schema) {
            let changes = self.book.columns_changed(stream, schema);
            self.place(changes).await;
        }
    }

    async fn place(&self, changes: Vec<Placed>) {
        for (worker, change) in changes {
            self.send(worker, Entry::Change(change)).await;
        }
    }

    async fn send(&self, worker: usize, entry: Entry) {
        if let Some(worker) = self.workers.get(worker) {
            // A worker is gone only when the box is going down.
            drop(worker.send(entry).await);
        }
    }
}
