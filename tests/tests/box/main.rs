//! Whole-box scenarios: the real binary, real mosquitto brokers, and plain clients on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod golden_rules;
