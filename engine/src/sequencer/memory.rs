//! What streams have to remember through a restart, on disk: `DATA_DIR/memory/STREAM`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_connectors::Keep;

use crate::disk::Disk;

/// The files of a box, one a stream.
#[derive(Clone)]
pub struct StreamMemory {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl StreamMemory {
    /// Below `data_dir`.
    pub fn new(data_dir: &Path, disk: Arc<dyn Disk>) -> Self {
        Self { dir: data_dir.join("memory"), disk }
    }

    /// What was kept for a stream; nothing, if it cannot be read.
    #[must_use]
    pub fn load(&self, stream: &str) -> Vec<u8> {
        let path = self.dir.join(stream);
        if !self.disk.exists(&path) {
            return Vec::new();
        }
        self.disk.read(&path).unwrap_or_else(|error| {
            tracing::warn!(
                stream,
                path = %path.display(),
                %error,
                "cannot be read: what the stream has had may make its rows again"
            );
            Vec::new()
        })
    }

    /// Keeps it, on a thread that may wait for the disk.
    #[must_use]
    pub fn keep(&self) -> Keep {
        let memory = self.clone();
        Arc::new(move |stream: &str, content| {
            let (memory, stream) = (memory.clone(), stream.to_owned());
            let stored = tokio::task::spawn_blocking(move || memory.store(&stream, &content));
            Box::pin(async move { stored.await.map_err(io::Error::other)? })
        })
    }

    fn store(&self, stream: &str, content: &[u8]) -> io::Result<()> {
        self.disk.make_dir(&self.dir)?;
        let (path, fresh) = (self.dir.join(stream), self.dir.join(format!("{stream}.new")));
        self.disk.write(&fresh, content)?;
        self.disk.rename(&fresh, &path)?;
        self.disk.sync_dir(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SystemDisk;

    #[tokio::test]
    async fn what_was_kept_last_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let memory = StreamMemory::new(dir.path(), Arc::new(SystemDisk));
        assert!(memory.load("tank").is_empty());
        for content in [b"one".to_vec(), b"two".to_vec()] {
            memory.keep()("tank", content).await.unwrap();
        }
        assert_eq!(memory.load("tank"), b"two");
    }
}
