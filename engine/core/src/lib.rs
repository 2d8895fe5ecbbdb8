//! The words that Tidegate's connectors, rules and engine share, and nothing else.
//!
//! Read in this order:
//!
//! * [`schema`]: what a stream's columns are, and the `ts` column that every row has.
//! * [`batch`]: rows of one stream, with the sequence numbers that give every row its identity.
//! * [`ack`]: the guard that travels with a batch and acknowledges it upstream when all is done.
//! * [`clock`]: the time that the engine takes from its caller.
//! * [`names`]: which names users may give.
//! * [`units`]: durations and sizes as users write them (`"250ms"`, `"64MiB"`).
//! * [`sampler`]: how often floods are told in the log.
//! * [`status`]: what running parts count and note, for whoever looks.
//! * [`diagnostic`]: an error that names file, line, column and the nearest valid name.
//!
//! This crate has no I/O, no runtime and no SQL in it.

pub mod ack;
pub mod batch;
pub mod clock;
pub mod diagnostic;
pub mod names;
pub mod sampler;
pub mod schema;
pub mod status;
pub mod units;

pub use ack::{Ack, Outcome};
pub use batch::{Batch, RowId, Rows, Seqs};
pub use clock::Clock;
pub use diagnostic::{Diagnostic, Place};
pub use sampler::Sampler;
pub use schema::{FieldType, TS, ts_type};
pub use units::{ByteSize, Span};
