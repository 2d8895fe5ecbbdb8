//! What happened, so that nobody can say later that it did not: a chain of records, and signed checkpoints
//! that others keep.
//!
//! Each record's hash covers its stored bytes and the hash before it:
//! `hash_n = SHA-256("tidegate.audit.v1" || hash_(n-1) || bytes_n)`, and `hash_0` is 32 zero bytes. Whoever
//! changes or takes out a record has to change all hashes behind it, which a checkpoint tells; whoever owns
//! the box can do that and sign again, which only a checkpoint tells that somebody else has kept.

mod chain;
mod record;
mod verify;

pub use chain::{CHECKPOINT_EVERY, CHECKPOINT_PERIOD, Chain, Checkpoint, Stored};
pub use record::{Event, Record, Who};
pub use verify::{Fault, Source, Verified, Verifier, verify};
