//! Compiled plugins, as files below the data directory: a restart need not compile them again.
//!
//! What cannot be read or written here is compiled again, and costs nothing but time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_rules::CompiledPlugins;

use crate::disk::Disk;

/// When there are more files, those of plugins that went long ago are among them, and nobody knows which.
const MOST_FILES: usize = 64;

/// A directory of compiled plugins, named by their keys.
pub struct CompiledFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl CompiledFiles {
    /// Those below `data_dir`.
    #[must_use]
    pub fn below(data_dir: &Path, disk: Arc<dyn Disk>) -> Self {
        Self { disk, dir: data_dir.join("plugins") }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.cwasm"))
    }

    fn store(&self, key: &str, code: &[u8]) -> std::io::Result<()> {
        self.disk.make_dir(&self.dir)?;
        let files = self.disk.list(&self.dir)?;
        if files.len() >= MOST_FILES {
            files.iter().try_for_each(|file| self.disk.remove(file))?;
        }
        let unfinished = self.dir.join(format!("{key}.new"));
        self.disk.write(&unfinished, code)?;
        self.disk.rename(&unfinished, &self.path(key))
    }
}

impl CompiledPlugins for CompiledFiles {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        self.disk.exists(&path).then(|| self.disk.read(&path).ok())?
    }

    fn put(&self, key: &str, code: &[u8]) {
        if let Err(error) = self.store(key, code) {
            tracing::warn!(
                dir = %self.dir.display(),
                %error,
                "a compiled plugin cannot be kept; it is compiled again at the next start"
            );
        }
    }
}

impl fmt::Debug for CompiledFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledFiles").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::disk::SystemDisk;

    #[test]
    fn what_is_kept_is_found_again_and_there_is_an_end_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = || CompiledFiles::below(dir.path(), Arc::new(SystemDisk));
        assert_eq!(files().get("a"), None);
        files().put("a", b"code");
        files().put("a", b"newer");
        assert_eq!(files().get("a"), Some(b"newer".to_vec()));
        for key in 1..MOST_FILES {
            files().put(&key.to_string(), b"x");
        }
        assert_eq!(files().get("a"), Some(b"newer".to_vec()));
        files().put("b", b"other");
        let count = std::fs::read_dir(dir.path().join("plugins")).unwrap().count();
        assert_eq!((files().get("a"), files().get("b"), count), (None, Some(b"other".to_vec()), 1));
    }
}
