//! Rules that are plugins: components of WebAssembly, in whatever language they were written.
//!
//! What such a component can do is `wasm-plugins/wit/rule.wit`. Read in this order:
//!
//! * [`section`]: a component and its manifest as one file, which is the rule's source.
//! * `manifest`: what the plugin reads, writes and may take; [`signature`]: who stands in for it.
//! * `runtime`: the engine, and how components become code; `tidegate-code-memory` keeps that where it may run.
//! * `columns`: Arrow's columns as the plugin sees them, and back; `targets`: how its rows become a rule's.
//! * `host`: what it may ask for; `kept`: its state and its timers; `instance`: a call, and what comes of it.
//! * `rule`: when it is called.
//!
//! A call either goes well or has never been: then the rows are handed over again in smaller parts, to a new
//! instance, until only those are left out that fail alone. So a plugin's memory is no state, and what it
//! keeps is with the host.

pub mod section;
pub mod signature;

#[cfg(feature = "wasm")]
mod columns;
#[cfg(feature = "wasm")]
mod compile;
#[cfg(feature = "wasm")]
mod host;
#[cfg(feature = "wasm")]
mod instance;
#[cfg(feature = "wasm")]
mod kept;
#[cfg(feature = "wasm")]
mod manifest;
#[cfg(feature = "wasm")]
mod rule;
#[cfg(feature = "wasm")]
mod runtime;
#[cfg(feature = "wasm")]
mod targets;
#[cfg(all(test, feature = "wasm-compile"))]
mod tests;

#[cfg(feature = "wasm")]
pub(crate) use compile::compile;
#[cfg(feature = "wasm")]
pub use compile::config_schema;
pub use section::{pack, unpack};

/// Says that plugins do not run here.
///
/// # Errors
/// Always.
#[cfg(not(feature = "wasm"))]
pub(crate) fn compile(
    file: &str,
    _: &crate::Source,
    _: &crate::Catalog,
) -> Result<crate::Compiled, crate::CompileError> {
    let wrong = tidegate_core::Diagnostic::new(file, "this tidegate was built without WASM plugins")
        .help("install one that was built with the feature `wasm`".to_owned());
    Err(crate::CompileError::Wrong(vec![wrong]))
}
