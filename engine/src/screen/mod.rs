//! The full-screen view of a box, for `tidegate top` and the demo: [`terminal`] is the screen, [`panes`] are
//! what is on it.

pub mod panes;
pub mod terminal;
