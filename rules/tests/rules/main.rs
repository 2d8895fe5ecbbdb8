//! SQL rules against stock DataFusion, and what they refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod behaviour;
mod bench_rows;
mod oracle;
mod refusals;
