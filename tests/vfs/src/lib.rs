//! A file system of one's own under SQLite.
//!
//! A test that cuts the power has to know what SQLite wrote and what it had synced. SQLite asks for files by
//! a table of C functions; this crate is that table and nothing else, so that the file system itself is safe
//! Rust: [`Files`].
//!
//! SQLite finds all of them under one name, [`NAME`]; the first part of a path says which:
//! `/MOUNT/path/of/the/file`.
//!
//! # Unsafe code
//! The workspace forbids it, and this crate is the exception, since C calls it by pointers. `sqlite-plugin`,
//! which does the same, needs libclang on every machine that builds the project. What has to hold:
//! * SQLite gives `xOpen` a block of `szOsFile` bytes, calls the other methods only on what was opened so,
//!   and calls `xClose` once.
//! * It never calls two methods of one file at a time.
//! * Regions of `xShmMap` stay where they are until `xShmUnmap` or `xClose`.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::slice;
use std::sync::{Arc, Mutex, Once, PoisonError};

use rusqlite::ffi;

/// What SQLite calls the file system: the last argument of `Connection::open_with_flags_and_vfs`.
pub const NAME: &CStr = c"tidegate-test";

/// Longest path.
const PATH_BYTES: usize = 512;
/// `u64`s in a region of shared memory: SQLite asks for 32 KiB at a time.
const REGION: usize = 4096;

/// Why the file system did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// the disk does not answer
    Broken,
    /// there is no room
    Full,
    /// there is no such file
    Absent,
}

/// A file system. Paths come without the mount. Files are numbered by [`Files::open`].
pub trait Files: Send + Sync {
    /// Opens a file, and makes it if it is to be made.
    ///
    /// # Errors
    /// As the file system has it.
    fn open(&self, path: &str, make: bool) -> Result<u64, Fault>;
    /// Deletes a file; `lasting`: that survives a power cut.
    ///
    /// # Errors
    /// As the file system has it.
    fn delete(&self, path: &str, lasting: bool) -> Result<(), Fault>;
    /// Whether there is such a file.
    fn exists(&self, path: &str) -> bool;
    /// Reads, and returns how many bytes there were.
    ///
    /// # Errors
    /// As the file system has it.
    fn read(&self, file: u64, at: u64, into: &mut [u8]) -> Result<usize, Fault>;
    /// Writes; the file grows as it has to.
    ///
    /// # Errors
    /// As the file system has it.
    fn write(&self, file: u64, at: u64, data: &[u8]) -> Result<(), Fault>;
    /// Cuts the file, or makes it longer.
    ///
    /// # Errors
    /// As the file system has it.
    fn truncate(&self, file: u64, len: u64) -> Result<(), Fault>;
    /// What was written survives a power cut from now on.
    ///
    /// # Errors
    /// As the file system has it.
    fn sync(&self, file: u64) -> Result<(), Fault>;
    /// How long the file is.
    ///
    /// # Errors
    /// As the file system has it.
    fn len(&self, file: u64) -> Result<u64, Fault>;
}

static MOUNTED: Mutex<BTreeMap<String, Arc<dyn Files>>> = Mutex::new(BTreeMap::new());

/// A file system that SQLite can reach. Files that are open when this is dropped stay usable.
#[derive(Debug)]
pub struct Mount(String);

impl Mount {
    /// Mounts `files` at `/NAME`; another one that was mounted there is replaced.
    #[must_use]
    pub fn new(name: &str, files: Arc<dyn Files>) -> Self {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(register);
        mounted().insert(name.to_owned(), files);
        Self(name.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        mounted().remove(&self.0);
    }
}

fn mounted() -> std::sync::MutexGuard<'static, BTreeMap<String, Arc<dyn Files>>> {
    MOUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file system that `path` is on, and the path there.
fn resolve(path: &str) -> Option<(Arc<dyn Files>, &str)> {
    let (mount, path) = path.strip_prefix('/')?.split_once('/')?;
    Some((Arc::clone(mounted().get(mount)?), path))
}

fn register() {
    let vfs = ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<File>() as c_int,
        mxPathname: PATH_BYTES as c_int,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_path),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: None,
        xGetLastError: None,
        xCurrentTimeInt64: Some(current_time),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    };
    // SAFETY: the table and its name live as long as the process.
    unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) };
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(no_lock),
    xUnlock: Some(no_lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// What SQLite makes room for.
#[repr(C)]
struct File {
    methods: *const ffi::sqlite3_io_methods,
    /// owned
    open: *mut Open,
}

/// An open file.
struct Open {
    files: Arc<dyn Files>,
    number: u64,
    /// The index of the write-ahead log. Only one connection has a file open at a time, so that nobody shares
    /// it and locks are not needed.
    regions: Vec<Box<[u64; REGION]>>,
}

/// Does `work` on an open file.
///
/// # Safety
/// `file` was opened by [`open`] and not closed.
unsafe fn with(
    file: *mut ffi::sqlite3_file,
    code: c_int,
    work: impl FnOnce(&mut Open) -> Result<(), Fault>,
) -> c_int {
    // SAFETY: the caller's promise; `open` stored a valid pointer, and SQLite uses a file from one place at a
    // time.
    match work(unsafe { &mut *(*file.cast::<File>()).open }) {
        Ok(()) => ffi::SQLITE_OK,
        Err(fault) => code_of(fault, code),
    }
}

fn code_of(fault: Fault, broken: c_int) -> c_int {
    match fault {
        Fault::Broken => broken,
        Fault::Full => ffi::SQLITE_FULL,
        Fault::Absent => ffi::SQLITE_CANTOPEN,
    }
}

/// # Safety
/// `path` is null or a C string that lives long enough.
unsafe fn text<'a>(path: *const c_char) -> Option<&'a str> {
    // SAFETY: the caller's promise.
    (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) })?.to_str().ok()
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let file = file.cast::<File>();
    // SAFETY: SQLite gives a block of `szOsFile` bytes. Without methods it will not close what was not
    // opened.
    unsafe { (*file).methods = ptr::null() };
    // SAFETY: SQLite gives a C string, or null for a temporary file, of which there are none: they are in
    // memory.
    let Some((files, path)) = unsafe { text(path) }.and_then(resolve) else { return ffi::SQLITE_CANTOPEN };
    match files.open(path, flags & ffi::SQLITE_OPEN_CREATE != 0) {
        Ok(number) => {
            let open = Box::into_raw(Box::new(Open { files, number, regions: Vec::new() }));
            // SAFETY: as above; `out_flags` may be null.
            unsafe {
                *file = File { methods: &raw const METHODS, open };
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
            }
            ffi::SQLITE_OK
        }
        Err(fault) => code_of(fault, ffi::SQLITE_CANTOPEN),
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: `open` made it, and SQLite closes once.
    drop(unsafe { Box::from_raw((*file.cast::<File>()).open) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, path: *const c_char, lasting: c_int) -> c_int {
    // SAFETY: SQLite gives a C string.
    let Some((files, path)) = unsafe { text(path) }.and_then(resolve) else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    match files.delete(path, lasting != 0) {
        Ok(()) => ffi::SQLITE_OK,
        Err(Fault::Absent) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(fault) => code_of(fault, ffi::SQLITE_IOERR_DELETE),
    }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    _: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a C string and a place for the answer.
    unsafe {
        *found = text(path).and_then(resolve).is_some_and(|(files, path)| files.exists(path)).into();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    full: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives a C string, and `room` bytes for the answer.
    unsafe {
        let bytes = CStr::from_ptr(path).to_bytes_with_nul();
        if bytes.len() > usize::try_from(room).unwrap_or(0) {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(bytes.as_ptr().cast(), full, bytes.len());
    }
    ffi::SQLITE_OK
}

/// Called only if this were the default file system.
unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

/// Nobody else has a file, so that there is nothing to wait for.
unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, _: c_int) -> c_int {
    0
}

/// Nothing that is stored depends on SQLite's clock.
unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, now: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *now = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    len: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let (len, at) = (usize::try_from(len).unwrap_or(0), u64::try_from(at).unwrap_or(0));
    // SAFETY: SQLite gives `len` bytes.
    let into = unsafe { slice::from_raw_parts_mut(into.cast::<u8>(), len) };
    let mut found = 0;
    // SAFETY: SQLite calls this on open files.
    let code = unsafe {
        with(file, ffi::SQLITE_IOERR_READ, |open| {
            found = open.files.read(open.number, at, into)?;
            Ok(())
        })
    };
    if code == ffi::SQLITE_OK && found < len {
        // The contract of xRead.
        into.iter_mut().skip(found).for_each(|byte| *byte = 0);
        return ffi::SQLITE_IOERR_SHORT_READ;
    }
    code
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    len: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let (len, at) = (usize::try_from(len).unwrap_or(0), u64::try_from(at).unwrap_or(0));
    // SAFETY: SQLite gives `len` bytes, and calls this on open files.
    unsafe {
        let data = slice::from_raw_parts(data.cast::<u8>(), len);
        with(file, ffi::SQLITE_IOERR_WRITE, |open| open.files.write(open.number, at, data))
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: ffi::sqlite3_int64) -> c_int {
    let len = u64::try_from(len).unwrap_or(0);
    // SAFETY: SQLite calls this on open files.
    unsafe { with(file, ffi::SQLITE_IOERR_TRUNCATE, |open| open.files.truncate(open.number, len)) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite calls this on open files.
    unsafe { with(file, ffi::SQLITE_IOERR_FSYNC, |open| open.files.sync(open.number)) }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, len: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls this on open files, with a place for the answer.
    unsafe {
        with(file, ffi::SQLITE_IOERR_FSTAT, |open| {
            *len = i64::try_from(open.files.len(open.number)?).unwrap_or(i64::MAX);
            Ok(())
        })
    }
}

unsafe extern "C" fn no_lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, locked: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *locked = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

/// As SQLite has it on Linux.
unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// As SQLite has it on Linux: a write that is cut off by a power cut harms nothing beside it.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    number: c_int,
    bytes: c_int,
    make: c_int,
    region: *mut *mut c_void,
) -> c_int {
    let number = usize::try_from(number).unwrap_or(0);
    if usize::try_from(bytes).unwrap_or(usize::MAX) > REGION * size_of::<u64>() {
        return ffi::SQLITE_IOERR_SHMMAP;
    }
    // SAFETY: SQLite calls this on open files, with a place for the answer. A box stays where it is when the
    // list grows.
    unsafe {
        with(file, ffi::SQLITE_IOERR_SHMMAP, |open| {
            while make != 0 && open.regions.len() <= number {
                open.regions.push(Box::new([0; REGION]));
            }
            *region =
                open.regions.get_mut(number).map_or(ptr::null_mut(), |region| region.as_mut_ptr().cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn shm_lock(_: *mut ffi::sqlite3_file, _: c_int, _: c_int, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite calls this on open files, when it uses no region any more.
    unsafe {
        with(file, ffi::SQLITE_IOERR_SHMMAP, |open| {
            open.regions.clear();
            Ok(())
        })
    }
}
