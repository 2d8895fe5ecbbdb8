//! The rules directory and the files of reference tables: files become changes while the box runs.
//!
//! One task, on a thread of its own, watches the directory and owns the rule book. Events of the file system
//! only say that it is worth looking; what counts is what is there. So editors that write in place, renames,
//! `rsync` and a thousand files at once are all one case, and a lost event costs [`PATROL`] at most.
//!
//! A file that somebody has open for writing is left alone until it is closed (or [`STALE_WRITE`] has passed
//! without another write), so that half a rule never runs. A file that vanishes is missed for [`GRACE`]
//! before its rule goes: many editors save by moving the old file away first. A file that appears with the
//! source of one that vanished is the same rule under a new name, and keeps its state; also when that source
//! is wrong: then the version before it goes on under the new name.
//!
//! A file's name is the rule's, and its ending the language. Two files of one name are an error, since nobody
//! could say which of them is the rule.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecursiveMode, Watcher};
use tidegate_core::Diagnostic;
use tidegate_rules::Source;
use tokio::sync::{mpsc, oneshot};

use crate::rules::book::RuleBook;
use crate::rules::tables::TableFiles;
use crate::sequence::edit::{Edit, Edited, Placed};
pub use files::strays;
use files::{Listed, Stamp, ambiguous, list, read, stamp, touched_rule, unreadable};

/// Events of one save come together within this time.
const SETTLE: Duration = Duration::from_millis(10);
/// How long a file may be missing before its rule goes.
const GRACE: Duration = Duration::from_millis(250);
/// A writer that has been silent for so long has forgotten to close, or its closing was not seen.
const STALE_WRITE: Duration = Duration::from_secs(2);
/// How often the directory is looked at without being told to.
const PATROL: Duration = Duration::from_secs(5);
/// Wake-ups, and the sequencer's requests, of which there is one at a time.
const QUEUED: usize = 64;

/// What whoever owns the rule book is asked for.
pub enum Request {
    /// Something in the directory moved.
    Look,
    /// The columns of an input stream are known, or have widened: the changes that follow are the reply.
    ColumnsChanged {
        /// the stream
        stream: String,
        /// its columns
        schema: SchemaRef,
        /// takes the changes
        reply: oneshot::Sender<Vec<Placed>>,
    },
    /// It is to end.
    Stop,
}

/// The way to whoever owns the rule book.
#[derive(Clone)]
pub struct RulesHandle {
    ask: mpsc::Sender<Request>,
    is_stopped: Arc<AtomicBool>,
    /// versions that could not start, of which the book has not been told yet
    refusals: Arc<Mutex<Vec<Edit>>>,
}

impl RulesHandle {
    /// A way to somebody who takes what is asked for.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (ask, requests) = mpsc::channel(QUEUED);
        (Self { ask, is_stopped: Arc::default(), refusals: Arc::default() }, requests)
    }

    /// Has the rules that read `stream` compiled for its new columns. Returns the changes that follow.
    pub async fn columns_changed(&self, stream: &str, schema: &SchemaRef) -> Vec<Placed> {
        let (reply, changes) = oneshot::channel();
        let request =
            Request::ColumnsChanged { stream: stream.to_owned(), schema: Arc::clone(schema), reply };
        // When nobody takes it, the reply never comes.
        drop(self.ask.send(request).await);
        changes.await.unwrap_or_default()
    }

    /// A version could not start, as `edit` says: it is taken note of with the next look.
    pub fn refused(&self, edit: Edit) {
        lock(&self.refusals).push(edit);
        // A full queue already holds a wake-up.
        drop(self.ask.try_send(Request::Look));
    }

    /// Takes the versions that could not start since it was asked last.
    #[must_use]
    pub fn take_refused(&self) -> Vec<Edit> {
        std::mem::take(&mut *lock(&self.refusals))
    }

    /// Ends it.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        // When the queue is full of other requests, it is seen with the next of them.
        drop(self.ask.try_send(Request::Stop));
    }
}

/// The thread's state.
pub struct RulesDir {
    dir: PathBuf,
    book: RuleBook,
    tables: TableFiles,
    files: BTreeMap<Arc<str>, File>,
    /// Rules whose files are open for writing, with the time of the last write. Names, since events may spell
    /// the directory another way.
    writers: Arc<Mutex<HashMap<String, Instant>>>,
    /// rules whose files events have named since the last look
    touched: Arc<Mutex<HashSet<String>>>,
    requests: mpsc::Receiver<Request>,
    handle: RulesHandle,
    watcher: Option<(notify::RecommendedWatcher, u64)>,
    gone_said: bool,
}

#[derive(Default)]
struct File {
    /// `None`: not looked at yet
    stamp: Option<Stamp>,
    /// what was read last; `None`: it never could be, or is of an earlier run and wrong by now
    source: Option<Source>,
    missing_since: Option<Instant>,
    /// why it is not read now, which the book has been told
    unread: Option<Unread>,
}

/// Why a file that is there is not read.
#[derive(PartialEq, Eq)]
enum Unread {
    /// It cannot be.
    Unreadable,
    /// Another file has its name.
    HasDouble,
}

impl RulesDir {
    /// Reads the directory once, for `tidegate check` and replay. Returns the changes for the workers; the
    /// book says what is wrong.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn load(
        dir: &Path,
        tables: &mut TableFiles,
        mut book: RuleBook,
    ) -> Result<(RuleBook, Vec<Placed>), Diagnostic> {
        let mut changes: Vec<Placed> =
            tables.look(&mut book, &|_| false, true).into_iter().flat_map(|edited| edited.changes).collect();
        for (name, paths) in list(dir).map_err(|error| unreadable(dir, &error))? {
            let read = match paths.as_slice() {
                [path] => read(path).map(|(source, _)| (path, source)),
                doubles => Err(ambiguous(&name, doubles)),
            };
            match read {
                Ok((path, source)) => {
                    changes.extend(book.put(&name, &path.display().to_string(), &source, &name).changes)
                }
                Err(diagnostic) => book.cannot_read(&name, diagnostic),
            }
        }
        Ok((book, changes))
    }

    /// Prepares to watch `dir`. Rules that the book has already are those of an earlier run: a file with the
    /// same source changes nothing, and a rule without a file goes at once.
    #[must_use]
    pub fn new(dir: &Path, tables: TableFiles, book: RuleBook) -> (Self, RulesHandle) {
        let (handle, requests) = RulesHandle::new();
        let (writers, touched) = (Arc::default(), Arc::default());
        let long_ago = Instant::now().checked_sub(GRACE);
        let known = |source: Option<&Source>| File {
            source: source.cloned(),
            missing_since: long_ago,
            ..File::default()
        };
        let files = book.sources().map(|(name, source)| (Arc::clone(name), known(source))).collect();
        let rules = Self {
            dir: dir.to_owned(),
            book,
            tables,
            files,
            writers,
            touched,
            requests,
            handle: handle.clone(),
            watcher: None,
            gone_said: false,
        };
        (rules, handle)
    }

    /// Loads what is there, reports that by `loaded`, and follows the directory until it is told to stop or
    /// nobody takes its changes.
    pub async fn run(mut self, changes: mpsc::Sender<Edited>, loaded: oneshot::Sender<()>) {
        self.watch();
        strays(&self.dir).iter().for_each(|stray| tracing::warn!("{stray}"));
        let first = self.look();
        if !send_all(&changes, first).await {
            return;
        }
        tracing::info!(dir = %self.dir.display(), rules = self.book.len(), "rules are loaded");
        self.book.say_what_runs();
        // Whoever waited may have been stopped meanwhile.
        let _ = loaded.send(());
        let mut look_at = Instant::now() + PATROL;
        loop {
            let request = tokio::select! {
                // What is due comes before a request: there may always be another one.
                biased;
                () = tokio::time::sleep_until(look_at.into()) => None,
                request = self.requests.recv() => Some(request.unwrap_or(Request::Stop)),
            };
            if self.handle.is_stopped.load(Ordering::Acquire) {
                return;
            }
            match request {
                Some(Request::Look) => look_at = look_at.min(Instant::now() + SETTLE),
                Some(Request::ColumnsChanged { stream, schema, reply }) => {
                    drop(reply.send(self.book.columns_changed(&stream, &schema)));
                    self.book.log_warnings();
                }
                Some(Request::Stop) => return,
                None => {
                    let found = self.look();
                    if !send_all(&changes, found).await {
                        return;
                    }
                    look_at = Instant::now() + self.next_look();
                }
            }
        }
    }

    fn next_look(&self) -> Duration {
        let missing = self.files.values().any(|file| file.missing_since.is_some());
        let writing = !lock(&self.writers).is_empty();
        if missing || writing { GRACE / 2 } else { PATROL }
    }

    /// Watches the directory that is there now; called again when it is another one.
    fn watch(&mut self) {
        let Ok(inode) = fs::metadata(&self.dir).map(|meta| meta.ino()) else { return };
        if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == inode) {
            return;
        }
        let tables: HashSet<String> = self.tables.file_names().map(str::to_owned).collect();
        let dirs: Vec<PathBuf> =
            self.tables.dirs().filter(|dir| *dir != self.dir).map(Path::to_owned).collect();
        let (writers, touched, wake) =
            (Arc::clone(&self.writers), Arc::clone(&self.touched), self.handle.ask.clone());
        let on_event = move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event {
                // Reading a rule opens its file, which must not be a reason to read it again.
                if matches!(
                    event.kind,
                    EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write),
                ) {
                    return;
                }
                take_note(&event, &tables, &writers, &touched);
            }
            // A full queue already holds a wake-up.
            drop(wake.try_send(Request::Look));
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.dir, RecursiveMode::NonRecursive)?;
            // A directory that is not there is looked at now and then.
            dirs.iter().for_each(|dir| drop(watcher.watch(dir, RecursiveMode::NonRecursive)));
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.watcher = Some((watcher, inode)),
            Err(error) => {
                self.watcher = None;
                tracing::warn!(
                    dir = %self.dir.display(),
                    %error,
                    every = ?PATROL,
                    "the rules directory cannot be watched; it is read now and then instead"
                );
            }
        }
    }

    /// Compares the directory with what is known, and has what is new compiled.
    fn look(&mut self) -> Vec<Edited> {
        self.watch();
        lock(&self.writers).retain(|_, last| last.elapsed() < STALE_WRITE);
        // Rules may name columns that a table has only now.
        let is_busy = |path: &Path| {
            path.file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|name| lock(&self.writers).contains_key(name))
        };
        let mut changes = self.tables.look(&mut self.book, &is_busy, false);
        let refusals = self.handle.take_refused();
        // The journal has them.
        let refused = |edit: Edit| Edited { edit: None, ..self.book.edit(&edit) };
        changes.extend(refusals.into_iter().map(refused));
        let listed = list(&self.dir).map_err(|error| {
            let meanwhile = if self.files.is_empty() {
                "no rule runs until it is there"
            } else {
                "the rules that are loaded keep running"
            };
            format!("{} ({meanwhile})", unreadable(&self.dir, &error))
        });
        let wrong: Vec<String> = listed
            .as_ref()
            .err()
            .cloned()
            .into_iter()
            .chain(self.tables.wrong().map(ToString::to_string))
            .collect();
        self.book.status().files.note(wrong);
        let listed = match listed {
            Ok(listed) => listed,
            Err(unreadable) => {
                if !std::mem::replace(&mut self.gone_said, true) {
                    tracing::error!("{unreadable}");
                }
                return changes;
            }
        };
        self.gone_said = false;
        let touched = std::mem::take(&mut *lock(&self.touched));
        let missing = self.note_missing(&listed);
        for (name, paths) in listed {
            if let Some(file) = self.files.get_mut(&name) {
                file.missing_since = None;
            }
            if lock(&self.writers).contains_key(&*name) {
                lock(&self.touched).insert(name.to_string());
                continue;
            }
            let [path] = paths.as_slice() else {
                self.refuse_doubles(&name, &paths);
                continue;
            };
            let known = self.files.get(&name).and_then(|file| file.stamp);
            if known.is_some() && known == stamp(path) && !touched.contains(&*name) {
                continue;
            }
            self.take(&name, path, &missing, &mut changes);
        }
        self.forget_missing(&mut changes);
        self.book.log_warnings();
        changes
    }

    fn take(
        &mut self,
        name: &Arc<str>,
        path: &Path,
        missing: &[(Arc<str>, Source)],
        changes: &mut Vec<Edited>,
    ) {
        let (source, stamp) = match read(path) {
            Ok(read) => read,
            // It vanished while we looked.
            Err(_) if !path.exists() => return,
            Err(diagnostic) => return self.take_unread(name, path, diagnostic, missing, changes),
        };
        if let Some(file) = self.files.get_mut(name) {
            file.stamp = Some(stamp);
            if file.source.as_ref() == Some(&source) && file.unread.is_none() {
                return;
            }
        }
        let old_name = missing.iter().find(|(old, old_source)| {
            *old_source == source && !self.files.contains_key(name) && self.files.contains_key(old)
        });
        let file = path.display().to_string();
        if let Some((old, _)) = old_name {
            self.rename(old, name, &file, changes);
        }
        // Nothing is left to be done for a source that runs already; a wrong one is said once more, with the
        // file's new name.
        if !self.book.runs(name, &source) {
            changes.push(self.book.put(name, &file, &source, name));
        }
        let file = File { stamp: Some(stamp), source: Some(source), ..File::default() };
        self.files.insert(Arc::clone(name), file);
    }

    /// The file of rule `name` cannot be read, because of `why`. What it held is not forgotten: it may be
    /// readable again in a moment, also under another name.
    fn take_unread(
        &mut self,
        name: &Arc<str>,
        path: &Path,
        why: Diagnostic,
        missing: &[(Arc<str>, Source)],
        changes: &mut Vec<Edited>,
    ) {
        let stamp = stamp(path);
        let is_it = |old: &Arc<str>| {
            let before = self.files.get(old).and_then(|file| file.stamp);
            before.zip(stamp).is_some_and(|(before, now)| before.is_of_same_file(&now))
        };
        let moved = missing.iter().find(|(old, _)| !self.files.contains_key(name) && is_it(old));
        if let Some((old, _)) = moved {
            self.rename(old, name, &why.file, changes);
        }
        self.book.cannot_read(name, why);
        let file = self.files.entry(Arc::clone(name)).or_default();
        (file.stamp, file.unread) = (stamp, Some(Unread::Unreadable));
        if let Some((_, source)) = moved {
            file.source = Some(source.clone());
        }
    }

    fn rename(&mut self, old: &Arc<str>, name: &Arc<str>, file: &str, changes: &mut Vec<Edited>) {
        let renamed = self.book.rename(old, name, file);
        if renamed.edit.is_some() {
            tracing::info!(from = %old, to = %name, "a rule was renamed");
            self.files.remove(old);
        }
        changes.push(renamed);
    }

    /// None of `paths` is read before it is the only one.
    fn refuse_doubles(&mut self, name: &Arc<str>, paths: &[PathBuf]) {
        let file = self.files.entry(Arc::clone(name)).or_default();
        file.stamp = None;
        if file.unread.replace(Unread::HasDouble) != Some(Unread::HasDouble) {
            self.book.cannot_read(name, ambiguous(name, paths));
        }
    }

    /// Notes which files are not in `listed`. Returns their names and sources.
    fn note_missing(&mut self, listed: &Listed) -> Vec<(Arc<str>, Source)> {
        let missing = self.files.iter_mut().filter(|(name, _)| !listed.contains_key(*name));
        missing
            .filter_map(|(name, file)| {
                file.missing_since.get_or_insert_with(Instant::now);
                Some((Arc::clone(name), file.source.clone()?))
            })
            .collect()
    }

    fn forget_missing(&mut self, changes: &mut Vec<Edited>) {
        let over = |file: &File| file.missing_since.is_some_and(|since| since.elapsed() >= GRACE);
        let gone: Vec<Arc<str>> =
            self.files.iter().filter(|(_, file)| over(file)).map(|(name, _)| Arc::clone(name)).collect();
        for name in gone {
            tracing::info!(rule = %name, "the rule's file is gone; the rule ends");
            self.files.remove(&name);
            changes.push(self.book.remove(&name));
        }
    }
}

/// Files of rules are noted by the rule's name, those of `tables` by their own, which has a dot in it.
fn take_note(
    event: &notify::Event,
    tables: &HashSet<String>,
    writers: &Mutex<HashMap<String, Instant>>,
    touched: &Mutex<HashSet<String>>,
) {
    let mut writers = lock(writers);
    let table_file = |path: &Path| {
        path.file_name().and_then(OsStr::to_str).filter(|name| tables.contains(*name)).map(str::to_owned)
    };
    for name in event
        .paths
        .iter()
        .filter_map(|path| touched_rule(path).map(str::to_owned).or_else(|| table_file(path)))
    {
        let name = name.as_str();
        match event.kind {
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => {
                writers.insert(name.to_owned(), Instant::now());
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_) => {
                writers.remove(name);
            }
            _ => {}
        }
        lock(touched).insert(name.to_owned());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send_all(to: &mpsc::Sender<Edited>, changes: Vec<Edited>) -> bool {
    // What was refused changes nothing.
    for change in changes.into_iter().filter(|change| change.edit.is_some() || !change.changes.is_empty()) {
        if to.send(change).await.is_err() {
            return false;
        }
    }
    true
}

mod files;
#[cfg(test)]
mod tests;
