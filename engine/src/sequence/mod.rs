//! The sequence: one order of all that comes in, on disk where it is journaled.
//!
//! [`entry`], [`edit`] and [`change`] are the words that its parties share; [`sequencer`] makes the order,
//! [`journal`] keeps it.

pub mod change;
pub mod edit;
pub mod entry;
pub mod journal;
pub mod memory;
pub mod numbers;
pub mod schemas;
pub mod sequencer;
pub mod wakes;
