//! Memory that holds compiled plugins, where no memory may be both written and executed.
//!
//! The service file says `MemoryDenyWriteExecute`: memory that was ever written cannot be made executable, and
//! that is how wasmtime publishes code. What is allowed is a new mapping that is executable from the start, so
//! [`CodeMemory`] puts the code into a file without a name and maps that over the place where it was written.
//! The file is closed then, and nothing can write to it any more.
//!
//! # Unsafe code
//! The workspace forbids it, and this crate is an exception for two things:
//! * the mapping, which has to replace memory in place;
//! * [`load`], since wasmtime believes compiled code without a look at it: whoever can have any bytes loaded
//!   can have any code run. So it takes only what [`seal`] made, under the name that it was made for.

use std::io;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{CustomCodeMemory, Engine};

mod caches;

/// What stands before code that was sealed; another number when that is laid out otherwise.
const MAGIC: &[u8; 16] = b"tidegate code 1\n";
/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// Publishes code without ever making memory executable that was written.
#[derive(Debug)]
pub struct CodeMemory {
    page: usize,
}

impl CodeMemory {
    /// Tries it.
    ///
    /// # Errors
    /// When this machine does not allow it, for instance by `vm.memfd_noexec=2`: then code can only be
    /// interpreted.
    pub fn new() -> io::Result<Self> {
        let page = rustix::param::page_size();
        let code = vec![0; page];
        // SAFETY: a new mapping, at a place that the kernel chooses, overlaps nothing.
        let place = unsafe { map(std::ptr::null_mut(), &code, MapFlags::PRIVATE)? };
        // SAFETY: it was mapped just now with this length, and nobody else knows of it.
        unsafe { munmap(place, code.len())? };
        Ok(Self { page })
    }
}

/// Maps a copy of `code`, to be read and executed, at `place`.
///
/// # Safety
/// With `MapFlags::FIXED`, `place` must be the beginning of whole pages, as many as `code` has, that belong to
/// the caller and to which nobody holds a reference through which they change; without it, anything goes.
unsafe fn map(
    place: *mut core::ffi::c_void,
    code: &[u8],
    flags: MapFlags,
) -> io::Result<*mut core::ffi::c_void> {
    // Kernels since 6.3 want to be told; older ones do not know the word.
    let file = memfd_create(c"tidegate-code", MemfdFlags::CLOEXEC | MemfdFlags::EXEC)
        .or_else(|_| memfd_create(c"tidegate-code", MemfdFlags::CLOEXEC))?;
    let mut rest = code;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    // SAFETY: the caller's promise; the bytes there are the same afterwards.
    Ok(unsafe { mmap(place, code.len(), ProtFlags::READ | ProtFlags::EXEC, flags, &file, 0)? })
}

impl CustomCodeMemory for CodeMemory {
    fn required_alignment(&self) -> usize {
        self.page
    }

    #[allow(clippy::not_unsafe_ptr_arg_deref)] // wasmtime's trait is safe, and only wasmtime calls it
    fn publish_executable(&self, ptr: *const u8, len: usize) -> wasmtime::Result<()> {
        // SAFETY: wasmtime owns these bytes, has written all of them, and promises that they are whole pages.
        let code = unsafe { std::slice::from_raw_parts(ptr, len) };
        // SAFETY: as above. The bytes do not change, so it does not matter who still looks at them.
        unsafe { map(ptr.cast_mut().cast(), code, MapFlags::PRIVATE | MapFlags::FIXED) }.map_err(
            |error| wasmtime::Error::msg(format!("the compiled code cannot be made executable: {error}")),
        )?;
        caches::synchronise(ptr, len)?;
        Ok(())
    }

    fn unpublish_executable(&self, _ptr: *const u8, _len: usize) -> wasmtime::Result<()> {
        // Wasmtime asks before it unmaps the pages, for which they are as good as any. To change code that is
        // there is for debuggers, and a feature that is not built in.
        Ok(())
    }
}

/// `code`, which `Engine::precompile_component` or `Component::serialize` made, as it is kept under `name`.
#[must_use]
pub fn seal(name: &str, code: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(MAGIC.len() + DIGEST + code.len());
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(&digest(name, code));
    sealed.extend_from_slice(code);
    sealed
}

fn digest(name: &str, code: &[u8]) -> [u8; DIGEST] {
    let mut hasher = Sha256::new();
    hasher.update((name.len() as u64).to_le_bytes());
    hasher.update(name);
    hasher.update(code);
    hasher.finalize().into()
}

/// The component that was sealed under `name`; `None`: it is damaged, or was sealed under another name.
///
/// This finds what a disk has done to it, and files that were mistaken for others. It does not find what was
/// made on purpose by somebody who may write where the box keeps its code: nobody else may be allowed that.
///
/// # Errors
/// When wasmtime refuses it, for instance since another version made it.
pub fn load(engine: &Engine, name: &str, sealed: &[u8]) -> wasmtime::Result<Option<Component>> {
    let parts = sealed.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<DIGEST>());
    let Some((_, code)) = parts.filter(|(kept, code)| **kept == digest(name, code)) else { return Ok(None) };
    // SAFETY: these are, byte for byte, what `seal` was given, which is what wasmtime made.
    unsafe { Component::deserialize(engine, code) }.map(Some)
}

/// Has this process never again make memory executable that was written, as the service file asks systemd to:
/// for tests, and for programs that start without it.
///
/// # Errors
/// When the kernel does not know of it: Linux 6.3 is the first that does.
pub fn deny_write_execute() -> io::Result<()> {
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    const NONE: libc::c_ulong = 0;
    // SAFETY: it takes numbers only, and takes away what is never relied on.
    match unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, NONE, NONE, NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn only_what_was_sealed_under_the_name_is_loaded() {
        let engine = Engine::default();
        let sealed = seal("one", b"no code at all");
        // Wasmtime sees that it is none of its own.
        assert!(load(&engine, "one", &sealed).is_err());
        assert!(load(&engine, "other", &sealed).unwrap().is_none());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(load(&engine, "one", &damaged).unwrap().is_none(), "{at}");
            assert!(load(&engine, "one", &sealed[..at]).unwrap().is_none(), "{at}");
        }
    }
}
