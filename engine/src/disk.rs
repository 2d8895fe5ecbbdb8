//! The disk that the engine takes from its caller: a box gives it the machine's, a simulation its own.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

/// Where the engine keeps its database, and the few files beside it.
pub trait Disk: Send + Sync {
    /// Opens or makes the database at `path`.
    ///
    /// # Errors
    /// When SQLite cannot.
    fn database(&self, path: &Path) -> rusqlite::Result<Connection>;

    /// Opens or makes the file at `path` and locks it. `None`: somebody else has it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockFile>>>;

    /// The files in a directory; none, if there is no such directory.
    ///
    /// # Errors
    /// When the disk fails.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// What is in a file.
    ///
    /// # Errors
    /// When there is none, or the disk fails.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Makes a file, or one anew, and returns when what is in it lasts through a power cut. Its name does
    /// when its directory was synced.
    ///
    /// # Errors
    /// When the disk fails.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Whether there is a file.
    fn exists(&self, path: &Path) -> bool;

    /// Gives a file another name, which takes the place of a file that has it.
    ///
    /// # Errors
    /// When there is none, or the disk fails.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Deletes a file.
    ///
    /// # Errors
    /// When there is none, or the disk fails.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory, and those that it is in.
    ///
    /// # Errors
    /// When the disk fails.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory last through a power cut.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// A locked file with one short text in it. Dropping it frees the lock.
pub trait LockFile: Send {
    /// The text.
    ///
    /// # Errors
    /// When the disk fails.
    fn read(&mut self) -> io::Result<String>;

    /// Replaces the text by one of the same length, and returns when it lasts through a power cut.
    ///
    /// # Errors
    /// When the disk fails.
    fn write(&mut self, text: &str) -> io::Result<()>;
}

/// The machine's disk.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn database(&self, path: &Path) -> rusqlite::Result<Connection> {
        Connection::open(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockFile>>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(dir) {
            Ok(files) => files.map(|file| Ok(file?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl LockFile for File {
    fn read(&mut self) -> io::Result<String> {
        let mut text = String::new();
        self.seek(SeekFrom::Start(0))?;
        self.take(32).read_to_string(&mut text)?;
        Ok(text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.seek(SeekFrom::Start(0))?;
        self.write_all(text.as_bytes())?;
        self.sync_all()
    }
}
