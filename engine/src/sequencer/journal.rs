//! The journal: the sequence on disk, as far as it can be run again.
//!
//! # What is kept
//! Every batch of a journaled stream (those of the box itself are), with its numbers, every tick, when streams were listened to, and every
//! change of rules and reference tables, in the order of the sequence and with its time and what the wall
//! clock showed; and now and then a snapshot: the state of all rules between two entries, with the rules'
//! sources and the columns of streams that were in force there. Sources, and what tables hold, are named by
//! their hash and kept once.
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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tidegate_connectors::stream::OnDiskFailure;
use tidegate_core::schema::ts_field;
use tidegate_core::{Ack, Rows};
use tidegate_rules::{Listened, When};
use tokio::sync::mpsc;

use crate::buffer::{Buffer, BufferError, Content, JournalEntry, JournalStep, Recovered, Snapshot, States};
use crate::config::{Config, Stream};
use crate::rules::book::RuleBook;
use crate::sequence::edit::Edit;
use crate::sequence::entry::Entry;
use crate::sequence::loads::Loads;
use crate::sequence::version::RuleFile;
use crate::sequencer::schemas::typed;
use crate::status::StreamStatus;
use crate::system;
use again::Again;
use stored::{ListenedTo, Manifest, StoredEdit, StoredRule, stored};

mod again;
mod stored;

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
        let own = system::STREAMS.iter().map(|own| own.name.to_owned());
        let mut kept = Self { streams: own.collect(), hold: BTreeSet::new() };
        for (name, stream) in &config.streams {
            let Stream::Input(stream) = stream else { continue };
            kept.streams.extend(stream.is_journaled().then(|| name.clone()));
            kept.hold.extend((stream.on_disk_failure() == OnDiskFailure::Hold).then(|| name.clone()));
        }
        kept
    }
}

/// Where a box starts: what it had got to when it ended.
#[derive(Debug)]
pub struct Start {
    entries: (u64, u64),
    /// what stopped rules, as it is stored
    stops: Vec<String>,
    /// the newest entry that there ever was: its number is not used again
    newest: u64,
    /// the snapshot that the journal goes on from: its last entry, what was in force, and the rules' state
    snapshot: Option<(u64, Manifest, States)>,
}

impl Start {
    /// Takes the snapshot out of what the buffer found, and says what is wrong with it.
    #[must_use]
    pub fn new(recovered: &mut Recovered) -> Self {
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
        let stops = std::mem::take(&mut recovered.stops);
        Self { entries: recovered.entries, stops, newest, snapshot }
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
    rules: BTreeMap<String, RuleFile>,
    /// the contents of the reference tables there
    tables: BTreeMap<String, Content>,
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
        loads: &Arc<Loads>,
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
        let mut run = Again::new(book, (workers, loads), journal.buffer.clone());
        run.verdicts(&start.stops).await;
        let (first, last) = start.entries;
        let after = match start.snapshot {
            Some((entry, manifest, states)) => {
                for (name, content) in manifest.tables {
                    journal.edit_again(StoredEdit::Table { name, content }, &mut run).await?;
                }
                for (name, StoredRule { file, source }) in manifest.rules {
                    let put = StoredEdit::Put { inherits: name.clone(), name, file, source };
                    journal.edit_again(put, &mut run).await?;
                }
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

    async fn run_again(
        &mut self,
        mut after: u64,
        newest: u64,
        run: &mut Again<'_>,
    ) -> Result<(), BufferError> {
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
                    JournalStep::Edit { edit, .. } => match serde_json::from_str(&edit) {
                        Ok(edit) => self.edit_again(edit, run).await?,
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

    async fn edit_again(&mut self, edit: StoredEdit, run: &mut Again<'_>) -> Result<(), BufferError> {
        run.edit(edit).await?.iter().for_each(|edit| self.note(edit));
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
        let (stored, content) = stored(edit);
        match serde_json::to_string(&stored) {
            Ok(edit) => drop(self.append(when, JournalStep::Edit { edit, content }).await),
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
        let rule = |(name, file): (&String, &RuleFile)| (name.clone(), StoredRule::from(file));
        let tables = self.tables.iter().map(|(name, content)| (name.clone(), content.hash().to_string()));
        let manifest = Manifest {
            rules: self.rules.iter().map(rule).collect(),
            tables: tables.collect(),
            columns,
            listened: self.listened.clone(),
        };
        let manifest = serde_json::to_string(&manifest)
            .map_err(|error| tracing::error!(%error, "what a snapshot needs cannot be written down"))
            .ok()?;
        self.snapshots += 1;
        let number = self.snapshots;
        let sources = self.rules.values().map(|rule| Content::from(&rule.source));
        let contents = sources.chain(self.tables.values().cloned()).collect();
        let snapshot =
            Snapshot { number, entry: self.next - 1, manifest, contents, parts: workers, mends: false };
        let taken = self.buffer.snapshot(snapshot).unwrap_or(false);
        self.changed |= !taken;
        taken.then_some(number)
    }

    fn note(&mut self, edit: &Edit) {
        match edit {
            Edit::Put { name, file, source, inherits } => {
                self.rules.remove(inherits);
                let file = RuleFile { path: file.clone(), source: source.clone() };
                self.rules.insert(name.clone(), file);
            }
            Edit::Remove { name } => {
                self.rules.remove(name);
            }
            Edit::Stop(_) => {}
            Edit::Refuse { verdict, goes_on } => {
                // Another version may have come meanwhile.
                let refused = |file: &RuleFile| **file.source.sha256() == *verdict.version;
                if self.rules.get(&verdict.rule).is_some_and(refused) {
                    self.rules.remove(&verdict.rule);
                    self.rules.extend(goes_on.clone().map(|file| (verdict.rule.clone(), file)));
                }
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

#[cfg(test)]
mod tests;
