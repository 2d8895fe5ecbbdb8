//! Room on the stack. A script can nest maps as deep as they may be large, and what goes through them level by
//! level, down to giving their memory back, needs the stack for it.

/// For maps and lists as deep as they may be large: a level takes some 500 bytes, and more without
/// optimisation. It is reserved, and used as far as it is needed.
const DEEP: usize = if cfg!(debug_assertions) { 64 << 20 } else { 16 << 20 };
/// For scripts that cannot nest, and do not call functions of their own.
const FLAT: usize = if cfg!(debug_assertions) { 4 << 20 } else { 1 << 20 };

/// Runs `run` with room for all that a script may do.
pub(super) fn deep<T>(run: impl FnOnce() -> T) -> T {
    stacker::grow(DEEP, run)
}

/// Runs `run` with room for a script that does not nest, which most of the time is there already.
pub(super) fn flat<T>(run: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(FLAT, DEEP, run)
}
