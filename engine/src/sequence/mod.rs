//! The sequence: one order of all that comes in. These are the words that its parties share: who makes the
//! order and keeps it ([`sequencer`](crate::sequencer)), and who follows it ([`rules`](crate::rules)).
//!
//! [`entry`]: what stands in it; [`edit`] and [`change`]: what becomes of rules; [`version`]: what one is;
//! [`loads`]: those that are on their way, and [`hosted`]: one that runs, also on its way from worker to
//! worker; [`wakes`]: when rules want an entry; [`verdict`]: what stopped one.

pub mod change;
pub mod edit;
pub mod entry;
pub mod hosted;
pub mod loads;
pub mod verdict;
pub mod version;
pub mod wakes;
