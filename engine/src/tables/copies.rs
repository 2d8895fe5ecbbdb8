//! Copies of what tables held: `DATA_DIR/tables/NAME-CONTENT.arrow`, packed as the buffer's blocks are.

use std::collections::BTreeMap;
use std::fs;
use std::hash::Hasher;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::buffer::{pack, unpack};

/// Snapshots that may be gone back to: the newest, the one before it when that is damaged, and as many again for those that failed.
const SNAPSHOTS: u32 = 4;
/// Copies are kept for this long at least.
const SHORTEST: Duration = Duration::from_hours(1);

/// The directory of the copies.
#[derive(Debug, Clone)]
pub struct Copies {
    dir: PathBuf,
    /// how long a copy is kept when it has been superseded
    keeps: Duration,
    /// by table: the copy of what it holds
    current: BTreeMap<String, PathBuf>,
    /// when a copy was first seen to be superseded
    superseded: BTreeMap<PathBuf, Instant>,
}

impl Copies {
    /// The copies of a box, which makes a snapshot every `snapshot_every` when anything has changed.
    #[must_use]
    pub fn of(data_dir: &Path, snapshot_every: Duration) -> Self {
        let keeps = (snapshot_every * SNAPSHOTS).max(SHORTEST);
        Self { dir: data_dir.join("tables"), keeps, current: BTreeMap::new(), superseded: BTreeMap::new() }
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
        if !path.exists() {
            fs::create_dir_all(&self.dir)?;
            let fresh = path.with_extension("arrow.new");
            let mut file = fs::File::create(&fresh)?;
            file.write_all(&packed)?;
            file.sync_all()?;
            fs::rename(fresh, &path)?;
            // The name must be on disk before the journal speaks of it.
            fs::File::open(&self.dir)?.sync_all()?;
        }
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
    /// When the copy is gone or damaged.
    pub fn load(&self, name: &str, content: &str) -> io::Result<RecordBatch> {
        unpack(&fs::read(self.path(name, content))?).map_err(io::Error::other)
    }

    /// Deletes copies that nobody can ask for any more. What cannot be deleted is tried again the next time.
    fn tidy(&mut self) {
        let Ok(files) = fs::read_dir(&self.dir) else { return };
        for path in files.filter_map(|file| Some(file.ok()?.path())) {
            let is_current = self.current.values().any(|current| *current == path);
            let since = *self.superseded.entry(path.clone()).or_insert_with(Instant::now);
            if is_current || (since.elapsed() > self.keeps && fs::remove_file(&path).is_ok()) {
                self.superseded.remove(&path);
            }
        }
    }

    fn path(&self, name: &str, content: &str) -> PathBuf {
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
