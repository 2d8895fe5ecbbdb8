//! The lines of a recording: a file or standard input, and how far it has been read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use tidegate_core::{Diagnostic, Place};

/// A longer line is no row and no message that a device sent.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// How much of a recording has been read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    read: Rc<Cell<u64>>,
    /// bytes of the whole file; `None`: nobody knows, as for a pipe
    pub total: Option<u64>,
}

impl Reading {
    /// Of something that has so many bytes, and is read in pieces.
    pub(super) fn in_pieces(total: u64) -> Self {
        Self { read: Rc::default(), total: Some(total) }
    }

    /// A piece was read.
    pub(super) fn add(&self, bytes: u64) {
        self.read.set(self.read.get() + bytes);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.read.get()
    }
}

/// What counts the bytes that come through it.
struct Counted {
    inner: Box<dyn Read>,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

/// A recording that was opened, with what it begins with.
pub(super) struct Opened {
    pub reader: Box<dyn BufRead>,
    pub reading: Reading,
}

impl Opened {
    /// Opens the file `path`, or standard input for `-`.
    pub(super) fn new(path: &Path) -> Result<Self, Diagnostic> {
        let (inner, total): (Box<dyn Read>, _) = if is_standard_input(path) {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(|error| cannot_read(&path.display().to_string(), &error))?;
            let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
            (Box::new(file), size)
        };
        let read = Rc::new(Cell::new(0));
        let reading = Reading { read: Rc::clone(&read), total };
        Ok(Self { reader: Box::new(BufReader::with_capacity(1 << 16, Counted { inner, read })), reading })
    }

    /// The first byte that is no white space, without taking it. Looks no further than one buffer.
    pub(super) fn first_byte(&mut self, file: &str) -> Result<Option<u8>, Diagnostic> {
        let start = self.reader.fill_buf().map_err(|error| cannot_read(file, &error))?;
        Ok(without_mark(start).trim_ascii_start().first().copied())
    }
}

/// Whether `path` stands for standard input.
pub(super) fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads line by line.
pub(super) struct Lines {
    file: String,
    reader: Box<dyn BufRead>,
    /// number of the line that was read last, from 1
    number: u64,
    text: Vec<u8>,
}

impl Lines {
    pub(super) fn new(file: &str, reader: Box<dyn BufRead>) -> Self {
        Self { file: file.to_owned(), reader, number: 0, text: Vec::new() }
    }

    /// The next line that is not blank, without its end, and its number.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, Diagnostic> {
        loop {
            self.text.clear();
            self.number += 1;
            let mut limited = Read::take(&mut self.reader, MAX_LINE_BYTES);
            let read =
                limited.read_until(b'\n', &mut self.text).map_err(|error| cannot_read(&self.file, &error))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == MAX_LINE_BYTES && !self.text.ends_with(b"\n") {
                let why = format!("the line is longer than {MAX_LINE_BYTES} bytes");
                return Err(Diagnostic::new(&*self.file, why).at(place(self.number, 1)));
            }
            if !self.text.trim_ascii().is_empty() {
                break;
            }
        }
        let line = if self.number == 1 { without_mark(&self.text) } else { &self.text };
        let line = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        Ok(Some((self.number, line)))
    }
}

/// Line `line`, as diagnostics have it.
pub(super) fn place(line: u64, column: usize) -> Place {
    Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
}

pub(super) fn cannot_read(file: &str, error: &io::Error) -> Diagnostic {
    Diagnostic::new(file, format!("cannot read the recording: {error}"))
}

/// Windows programs put a byte order mark in front of UTF-8.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}
