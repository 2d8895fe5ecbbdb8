//! Tidegate: a rules engine and stream processor for industrial edge boxes.
//!
//! Read in the order in which data flows:
//!
//! * [`config`]: what a user wrote, as types that cannot be wrong; [`mod@catalog`] is the part of it that
//!   rules see.
//! * [`run`]: puts a box together and takes it apart ([`mod@preflight`]: would it start?); [`supervisor`]
//!   owns its tasks.
//! * [`sequence`]: one order of all that comes in, and the words for it; [`sequencer`] makes it and keeps it
//!   on disk, by [`mod@time`].
//! * [`rules`]: rule files and reference tables, what becomes of them, and what runs them; what they write,
//!   on its way to [`outputs`] or to the uplink. [`system`] has the streams that the box feeds itself.
//! * [`decision`]: what was decided about an output, and why.
//! * [`buffer`]: the SQLite database that keeps rows for the uplink; [`uplinks`] sends them.
//! * [`replay`]: the same on recorded rows.
//! * [`world`]: what the engine takes from its caller, so that the same code runs a box and a simulation;
//!   [`disk`] is a part of it, and [`machine`] is a box's.
//! * [`status`]: what flows, for whoever looks; [`tap`]: rows as they pass. [`management`] answers who asks a
//!   running box.
//! * `plugin`: plugins as their authors have them.
//! * [`cli`] is the command line, [`demo`] the demo plant.

pub mod buffer;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod decision;
#[cfg(feature = "demo")]
pub mod demo;
pub mod disk;
pub mod error;
pub mod machine;
pub mod management;
pub mod outputs;
#[cfg(feature = "wasm")]
pub mod plugin;
pub mod preflight;
pub mod replay;
pub mod rules;
pub mod run;
#[cfg(feature = "screen")]
pub mod screen;
pub mod sequence;
pub mod sequencer;
pub mod status;
pub mod supervisor;
pub mod system;
pub mod tap;
pub mod time;
pub mod uplinks;
pub mod world;
