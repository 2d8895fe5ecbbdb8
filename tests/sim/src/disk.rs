//! A disk whose power can be cut.
//!
//! Of each file it knows what it holds, what of that would survive, and the writes in between. A power cut
//! keeps what survives and, of the writes since the last sync, none, all, the first few or any of them, some
//! torn at sectors of 512 bytes. Names of files that were made, deleted or renamed since the last sync of
//! their directory are kept up to some point.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tidegate::disk::LockFile;
use tidegate_vfs::{Fault, Files, Mount, NAME};
use tokio::sync::Notify;

use crate::dice::Dice;

const SECTOR: usize = 512;

/// What is wrong with the disk, and how often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// of a thousand reads, so many fail
    pub reads: u64,
    /// of a thousand writes
    pub writes: u64,
    /// of a thousand syncs
    pub syncs: u64,
    /// no file may grow
    pub full: bool,
}

/// The disk of one box, which outlives it.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
    _mount: Arc<Mount>,
    root: String,
}

struct Shared {
    state: Mutex<State>,
    cut: Notify,
}

#[derive(Clone)]
struct State {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    /// as they are after a power cut
    lasting_names: BTreeMap<String, u64>,
    /// what became of `names` since they were synced
    renamed: Vec<BTreeMap<String, u64>>,
    locked: BTreeSet<String>,
    next: u64,
    powered: bool,
    /// writes and syncs until the power is cut
    fuse: Option<u64>,
    faults: Faults,
    /// whether anything has failed since it was mended
    has_failed: bool,
    dice: Dice,
}

#[derive(Clone, Default)]
struct File {
    content: Vec<u8>,
    lasting: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Truncate(len) => content.resize(*len, 0),
            Self::Write { at, data } => {
                let end = at + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                if let Some(place) = content.get_mut(*at..end) {
                    place.copy_from_slice(data);
                }
            }
        }
    }

    /// The sectors of a write, each a write of its own.
    fn sectors(&self) -> Vec<Self> {
        let Self::Write { at, data } = self else { return vec![self.clone()] };
        let mut sectors = Vec::new();
        let mut start = 0;
        while start < data.len() {
            let end = (start + SECTOR - (at + start) % SECTOR).min(data.len());
            sectors.push(Self::Write {
                at: at + start,
                data: data.get(start..end).unwrap_or_default().to_vec(),
            });
            start = end;
        }
        sectors
    }
}

impl File {
    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.lasting);
        }
    }

    /// Keeps some of what was not synced.
    fn lose(&mut self, dice: &Dice) {
        let kept = match dice.below(4) {
            0 => 0,
            1 => self.pending.len(),
            _ => usize::try_from(dice.below(self.pending.len() as u64 + 1)).unwrap_or(0),
        };
        let (any, torn) = (dice.one_in(2), dice.one_in(2));
        for (index, change) in self.pending.drain(..).enumerate() {
            let keep = if any { kept > 0 && dice.one_in(2) } else { index < kept };
            if torn && dice.one_in(3) {
                change
                    .sectors()
                    .iter()
                    .filter(|_| dice.one_in(2))
                    .for_each(|sector| sector.apply(&mut self.lasting));
            } else if keep {
                change.apply(&mut self.lasting);
            }
        }
        self.content.clone_from(&self.lasting);
    }
}

impl State {
    fn step(&mut self, one_in_a_thousand: u64, counts: bool) -> Result<(), Fault> {
        if !self.powered {
            return Err(Fault::Broken);
        }
        if counts && let Some(fuse) = &mut self.fuse {
            *fuse = fuse.saturating_sub(1);
            self.powered = *fuse > 0;
        }
        let fails = one_in_a_thousand > 0 && self.dice.below(1_000) < one_in_a_thousand;
        self.has_failed |= fails;
        if fails { Err(Fault::Broken) } else { Ok(()) }
    }

    fn change(&mut self, file: u64, change: Change) -> Result<(), Fault> {
        let outcome = self.step(self.faults.writes, true);
        let full = self.faults.full;
        let file = self.files.get_mut(&file).ok_or(Fault::Broken)?;
        let grows = matches!(&change, Change::Write { at, data } if at + data.len() > file.content.len());
        if full && grows {
            self.has_failed = true;
            return Err(Fault::Full);
        }
        // Of a write that fails, anything may have been done; so too of the one during which the power goes.
        if outcome.is_ok() || self.dice.one_in(2) {
            change.apply(&mut file.content);
            file.pending.push(change);
        }
        if self.powered { outcome } else { Err(Fault::Broken) }
    }

    fn sync(&mut self, number: u64) -> Result<(), Fault> {
        let outcome = self.step(self.faults.syncs, true);
        if !self.powered {
            return Err(Fault::Broken);
        }
        let file = self.files.get_mut(&number).ok_or(Fault::Broken)?;
        if outcome.is_err() {
            if self.dice.one_in(4) {
                // What Linux does: the pages count as clean, and the next sync succeeds without them.
                file.pending.clear();
            }
            return outcome;
        }
        file.sync();
        if !self.lasting_names.values().any(|lasting| *lasting == number) {
            self.sync_names();
        }
        Ok(())
    }

    fn sync_names(&mut self) {
        self.lasting_names.clone_from(&self.names);
        self.renamed.clear();
    }

    fn open(&mut self, path: &str, make: bool) -> Result<u64, Fault> {
        self.step(0, false)?;
        match self.names.get(path) {
            Some(number) => Ok(*number),
            None if make => {
                self.next += 1;
                self.files.insert(self.next, File::default());
                self.rename(|names, number| {
                    names.insert(path.to_owned(), number);
                });
                Ok(self.next)
            }
            None => Err(Fault::Absent),
        }
    }

    fn rename(&mut self, change: impl FnOnce(&mut BTreeMap<String, u64>, u64)) {
        change(&mut self.names, self.next);
        self.renamed.push(self.names.clone());
    }

    fn delete(&mut self, path: &str) -> Result<(), Fault> {
        self.step(self.faults.writes, true)?;
        if !self.names.contains_key(path) {
            return Err(Fault::Absent);
        }
        self.rename(|names, _| {
            names.remove(path);
        });
        Ok(())
    }

    fn cut(&mut self) {
        let kept = usize::try_from(self.dice.below(self.renamed.len() as u64 + 1)).unwrap_or(0);
        if let Some(names) = kept.checked_sub(1).and_then(|last| self.renamed.get(last)) {
            self.lasting_names.clone_from(names);
        }
        self.names.clone_from(&self.lasting_names);
        self.renamed.clear();
        self.locked.clear();
        for file in self.files.values_mut() {
            file.lose(&self.dice);
        }
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|number, _| named.contains(number));
        (self.powered, self.fuse) = (true, None);
    }
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self::with_state(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            lasting_names: BTreeMap::new(),
            renamed: Vec::new(),
            locked: BTreeSet::new(),
            next: 0,
            powered: true,
            fuse: None,
            faults: Faults::default(),
            has_failed: false,
            dice,
        })
    }

    fn with_state(state: State) -> Self {
        static MOUNTS: AtomicU64 = AtomicU64::new(0);
        let name = format!("disk-{}", MOUNTS.fetch_add(1, Ordering::Relaxed));
        let shared = Arc::new(Shared { state: Mutex::new(state), cut: Notify::new() });
        let mount = Arc::new(Mount::new(&name, Arc::clone(&shared) as Arc<dyn Files>));
        Self { shared, _mount: mount, root: format!("/{name}/") }
    }

    /// A disk with the same content, to look at.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::with_state(State { faults: Faults::default(), ..self.lock().clone() })
    }

    /// Where its files are.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Goes wrong like that from now on.
    pub fn fail(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Nothing goes wrong from now on. Returns whether anything did.
    pub fn mend(&self) -> bool {
        let mut state = self.lock();
        (state.faults, state.fuse) = (Faults::default(), None);
        std::mem::take(&mut state.has_failed)
    }

    /// The power will be cut at the `writes`th write or sync from now on.
    pub fn light_fuse(&self, writes: u64) {
        self.lock().fuse = Some(writes.max(1));
    }

    /// Resolves when the power was cut.
    pub async fn power_cut(&self) {
        loop {
            let cut = self.shared.cut.notified();
            if !self.lock().powered {
                return;
            }
            cut.await;
        }
    }

    /// Nothing that is done from now on leaves a trace.
    pub fn cut_power(&self) {
        self.lock().powered = false;
    }

    /// The power comes back.
    pub fn restore_power(&self) {
        self.lock().cut();
    }

    /// Names of all files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    fn path<'a>(&self, path: &'a Path) -> &'a str {
        path.to_str().and_then(|path| path.strip_prefix(&self.root)).unwrap_or_default()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let done = work(&mut state);
        if !state.powered {
            self.cut.notify_one();
        }
        done
    }
}

impl Files for Shared {
    fn open(&self, path: &str, make: bool) -> Result<u64, Fault> {
        self.with(|state| state.open(path, make))
    }

    fn delete(&self, path: &str, lasting: bool) -> Result<(), Fault> {
        self.with(|state| {
            state.delete(path)?;
            if lasting && state.powered {
                state.sync_names();
            }
            Ok(())
        })
    }

    fn exists(&self, path: &str) -> bool {
        self.lock().names.contains_key(path)
    }

    fn read(&self, file: u64, at: u64, into: &mut [u8]) -> Result<usize, Fault> {
        self.with(|state| {
            state.step(state.faults.reads, false)?;
            let content = &state.files.get(&file).ok_or(Fault::Broken)?.content;
            let start = usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
            let found = content.get(start..content.len().min(start + into.len())).unwrap_or_default();
            into.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
            Ok(found.len())
        })
    }

    fn write(&self, file: u64, at: u64, data: &[u8]) -> Result<(), Fault> {
        let at = usize::try_from(at).map_err(|_| Fault::Full)?;
        self.with(|state| state.change(file, Change::Write { at, data: data.to_vec() }))
    }

    fn truncate(&self, file: u64, len: u64) -> Result<(), Fault> {
        let len = usize::try_from(len).map_err(|_| Fault::Full)?;
        self.with(|state| state.change(file, Change::Truncate(len)))
    }

    fn sync(&self, file: u64) -> Result<(), Fault> {
        self.with(|state| state.sync(file))
    }

    fn len(&self, file: u64) -> Result<u64, Fault> {
        self.with(|state| {
            state.step(0, false)?;
            Ok(state.files.get(&file).ok_or(Fault::Broken)?.content.len() as u64)
        })
    }
}

fn failed(fault: Fault) -> io::Error {
    match fault {
        Fault::Broken => io::Error::other("the disk does not answer"),
        Fault::Full => io::ErrorKind::StorageFull.into(),
        Fault::Absent => io::ErrorKind::NotFound.into(),
    }
}

impl tidegate::disk::Disk for Disk {
    fn database(&self, path: &Path) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags_and_vfs(path, flags, NAME)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockFile>>> {
        let path = self.path(path);
        self.shared.with(|state| {
            let number = state.open(path, true).map_err(failed)?;
            let free = state.locked.insert(path.to_owned());
            Ok(free.then(|| {
                Box::new(Locked { disk: self.clone(), path: path.to_owned(), number }) as Box<dyn LockFile>
            }))
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let within = format!("{}/", self.path(dir));
        self.shared.with(|state| state.step(state.faults.reads, false)).map_err(failed)?;
        Ok(self
            .names()
            .into_iter()
            .filter(|name| name.starts_with(&within))
            .map(|name| Path::new(&self.root).join(name))
            .collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let number = self.shared.open(self.path(path), false).map_err(failed)?;
        let mut content = vec![0; usize::try_from(self.shared.len(number).map_err(failed)?).unwrap_or(0)];
        self.shared.read(number, 0, &mut content).map_err(failed)?;
        Ok(content)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let number = self.shared.open(self.path(path), true).map_err(failed)?;
        self.shared.truncate(number, 0).map_err(failed)?;
        self.shared.write(number, 0, content).map_err(failed)?;
        self.shared.sync(number).map_err(failed)
    }

    fn exists(&self, path: &Path) -> bool {
        self.shared.exists(self.path(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.shared.with(|state| {
            state.step(state.faults.writes, true).map_err(failed)?;
            let number = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            state.rename(|names, _| {
                names.remove(from);
                names.insert(to.to_owned(), number);
            });
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.shared.with(|state| state.delete(self.path(path))).map_err(failed)
    }

    fn make_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.shared.with(|state| {
            state.step(state.faults.syncs, true).map_err(failed)?;
            if state.powered {
                state.sync_names();
            }
            Ok(())
        })
    }
}

struct Locked {
    disk: Disk,
    path: String,
    number: u64,
}

impl LockFile for Locked {
    fn read(&mut self) -> io::Result<String> {
        let mut text = [0; 32];
        let len = self.disk.shared.read(self.number, 0, &mut text).map_err(failed)?;
        Ok(String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned())
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.disk.shared.write(self.number, 0, text.as_bytes()).map_err(failed)?;
        self.disk.shared.sync(self.number).map_err(failed)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.disk.lock().locked.remove(&self.path);
    }
}
