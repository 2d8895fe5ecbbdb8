//! Rules: from files to what workers run.
//!
//! [`directory`] finds the files, [`book`] makes rules of them and decides where they live, [`worker`] runs
//! them, and [`router`] sends on what they write. [`tables`] are what they look up; [`compiled`] keeps
//! plugins; [`watchdog`] stops those that take too long.

pub mod book;
pub mod compiled;
pub mod directory;
pub(crate) mod order;
pub mod router;
pub mod tables;
pub mod watchdog;
pub mod worker;
