//! Processors whose caches for data and for instructions do not know of each other.

use std::io;

/// Has all processors see the code at `start`, which was written there as data.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn synchronise(_start: *const u8, _len: usize) -> io::Result<()> {
    // x86-64 keeps them equal by itself; elsewhere plugins are interpreted.
    Ok(())
}

/// Has all processors see the code at `start`, which was written there as data: "Arm Architecture Reference
/// Manual for A-profile", B2.7.4.2.
#[cfg(target_arch = "aarch64")]
pub(crate) fn synchronise(start: *const u8, len: usize) -> io::Result<()> {
    use std::arch::asm;

    use rustix::thread::{MembarrierCommand, membarrier};

    // The smallest that the architecture knows: where lines are longer, some are named more than once.
    const LINE: usize = 16;
    let (first, end) = (start as usize & !(LINE - 1), start as usize + len);
    for line in (first..end).step_by(LINE) {
        // SAFETY: to clean a line of mapped memory changes nothing that Rust can see.
        unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    for line in (first..end).step_by(LINE) {
        // SAFETY: to forget a line of the instruction cache changes nothing that Rust can see.
        unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    // The other processors may have read ahead.
    membarrier(MembarrierCommand::RegisterPrivateExpeditedSyncCore)?;
    membarrier(MembarrierCommand::PrivateExpeditedSyncCore)?;
    Ok(())
}
