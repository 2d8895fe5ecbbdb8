//! What is on a disk after a cut, by programs that know nothing of Tidegate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::{Connection, OpenFlags};

/// A new ext4 file system of this size, with the sizes of blocks that large disks have.
pub fn format(bytes: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(bytes).unwrap();
    e2fs("mkfs.ext4", &["-q", "-F", "-b", "4096"], &image, &[0]);
    fs::read(image).unwrap()
}

/// Panics if the file system needs a person, or the buffer in `data_dir` is damaged or was replaced.
pub fn inspect(image: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    fs::write(&file, image).unwrap();
    // Takes over the file system's own journal, as mounting does; 1: and mended something that is always safe
    // to mend.
    e2fs("e2fsck", &["-f", "-p"], &file, &[0, 1]);
    e2fs("e2fsck", &["-f", "-n"], &file, &[0]);
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    e2fs("debugfs", &["-R", &format!("rdump / {}", copy.display())], &file, &[0]);
    let names: Vec<String> =
        fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.contains("corrupt")), "a damaged buffer was replaced: {names:?}");
    let buffer =
        Connection::open_with_flags(copy.join("buffer.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let verdict: String = buffer.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "the buffer is damaged");
}

/// Runs a program of e2fsprogs on an image. Debian keeps them where only root's PATH leads.
fn e2fs(program: &str, args: &[&str], image: &Path, fine: &[i32]) {
    let installed = PathBuf::from("/usr/sbin").join(program);
    let program = if installed.exists() { installed } else { PathBuf::from(program) };
    let output = match Command::new(&program).args(args).arg(image).output() {
        Ok(output) => output,
        Err(error) => panic!(
            "cannot start {}: {error}; install it: sudo apt-get install -y e2fsprogs",
            program.display()
        ),
    };
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.code().is_some_and(|code| fine.contains(&code)),
        "{} {args:?}: {}\n{said}",
        program.display(),
        output.status
    );
}
