//! SQL rules against stock DataFusion, what they refuse, and what the documents show; plugins in a process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod behaviour;
mod bench_rows;
mod conditions;
mod docs;
mod forgetting;
mod fuzz;
mod golden;
mod growth;
mod joins;
mod joins_oracle;
mod many;
mod nesting;
mod nexmark;
mod oracle;
mod over;
mod patterns;
mod patterns_oracle;
#[cfg(feature = "wasm-compile")]
mod plugins;
mod refusals;
#[cfg(feature = "rhai")]
mod rhai;
mod silence;
mod state_limit;
mod widening;
mod windows;
mod windows_oracle;
