//! Copies of what tables held: `DATA_DIR/tables/NAME-CONTENT.arrow`, packed as the buffer's blocks are.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use siphasher::sip128::{Hasher128, SipHasher13};
use tidegate_core::Clock;

use crate::buffer::{pack, unpack};
use crate::disk::Disk;

/// Snapshots that may be gone back to: the newest, the one before it when that is damaged, and as many again
/// for those that failed.
const SNAPSHOTS: u32 = 4;
/// Copies are kept for this long at least.
const SHORTEST: Duration = Duration::from_hours(1);

/// The directory of the copies.
#[derive(Clone)]
pub struct Copies {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    /// how long a copy is kept when it has been superseded
    keeps: Duration,
    /// by table: the copy of what it holds
    current: BTreeMap<String, PathBuf>,
    /// when a copy was first seen to be superseded, by the machine's monotonic clock
    superseded: BTreeMap<PathBuf, Duration>,
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Copies {
    /// The copies of a box with the directory `data_dir` on `disk`, which makes a snapshot every
    /// `snapshot_every` when anything has changed.
    #[must_use]
    pub fn new(
        data_dir: &Path,
        snapshot_every: Duration,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let keeps = (snapshot_every * SNAPSHOTS).max(SHORTEST);
        Self {
            disk,
            clock,
            dir: data_dir.join("tables"),
            keeps,
            current: BTreeMap::new(),
            superseded: BTreeMap::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn keeping_for(self, keeps: Duration) -> Self {
        Self { keeps, ..self }
    }

    /// Keeps a copy of what table `name` holds now. Returns what the journal calls it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep(&mut self, name: &str, rows: &RecordBatch) -> io::Result<String> {
        let packed = pack(std::slice::from_ref(rows)).map_err(io::Error::other)?;
        let content = content(&packed);
        let path = self.path(name, &content);
        if !self.disk.exists(&path) {
            self.disk.make_dir(&self.dir)?;
            let fresh = path.with_extension("arrow.new");
            self.disk.write(&fresh, &packed)?;
            self.disk.rename(&fresh, &path)?;
        }
        // The name must be on disk before the journal speaks of it; that it is there does not mean that it
        // lasts.
        self.disk.sync_dir(&self.dir)?;
        self.current.insert(name.to_owned(), path);
        self.tidy();
        Ok(content)
    }

    /// Table `name` holds `rows`, as it did before a restart.
    pub fn is_current(&mut self, name: &str, rows: &RecordBatch) {
        if let Ok(packed) = pack(std::slice::from_ref(rows)) {
            self.current.insert(name.to_owned(), self.path(name, &content(&packed)));
        }
    }

    /// What table `name` held when the journal called it `content`.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when the copy is gone, [`io::ErrorKind::InvalidData`] when it is damaged,
    /// and others when the disk fails.
    pub fn load(&self, name: &str, content: &str) -> io::Result<RecordBatch> {
        let packed = self.disk.read(&self.path(name, content))?;
        unpack(&packed).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Deletes copies that nobody can ask for any more. What cannot be deleted is tried again the next time.
    fn tidy(&mut self) {
        let Ok(files) = self.disk.list(&self.dir) else { return };
        let now = self.clock.monotonic();
        for path in files {
            let is_current = self.current.values().any(|current| *current == path);
            let since = *self.superseded.entry(path.clone()).or_insert(now);
            if is_current || (now.saturating_sub(since) > self.keeps && self.disk.remove(&path).is_ok()) {
                self.superseded.remove(&path);
            }
        }
    }

    /// Where the copy is.
    pub(crate) fn path(&self, name: &str, content: &str) -> PathBuf {
        self.dir.join(format!("{name}-{content}.arrow"))
    }
}

/// A name for these bytes.
fn content(packed: &[u8]) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(packed);
    let hash = hasher.finish128();
    format!("{:016x}{:016x}", hash.h1, hash.h2)
}
