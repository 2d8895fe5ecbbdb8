//! Plugins as their authors have them: a project, what is built from it, and whether that does what it
//! should.
//!
//! * [`project`]: a new one; [`build`]: its component; [`file`]: that with its manifest.
//! * [`trial`]: recorded rows run through it.
//! * [`facts`]: what is in it; [`sign`]: who stands in for it.

pub mod build;
pub mod facts;
pub mod file;
pub mod project;
pub mod sign;
pub mod trial;
