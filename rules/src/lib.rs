//! What a rule is, and how each language's source becomes one.
//!
//! Read in this order:
//!
//! * [`rule`]: the one trait that every rule obeys, what it writes, and the state that it can hand over.
//! * [`capability`]: what a rule can do besides, if its language can.
//! * [`Fence`]: what stops a rule that takes too long.
//! * [`source`]: what a rule is made of, and in which language.
//! * [`catalog`]: the streams and outputs that a rule may name; [`target`]: what those that it writes ask of
//!   its columns.
//! * [`options`]: the options that rules of every language have.
//! * [`index`]: which of many rules a batch concerns.
//! * [`Condition`]: what an interlock asks of the newest rows of streams.
//! * [`sql`]: SQL text -> logical plan -> stages that run on Arrow batches.
//! * `rhai`: a script whose functions are called for rows and timers.
//! * [`wasm`]: plugins, in whatever language they were written.
//!
//! A rule is a deterministic function of the rows it is handed: this crate has no clock, no file system, no
//! network and no runtime.

pub mod capability;
pub mod catalog;
mod evaluation;
mod expression;
mod fence;
pub mod index;
mod limit;
pub mod options;
#[cfg(feature = "rhai")]
mod rhai;
pub mod rule;
pub mod source;
pub mod sql;
pub mod target;
#[cfg(any(feature = "rhai", feature = "wasm"))]
mod timers;
mod types;
pub mod wasm;

pub use capability::{Indexed, Keeping, Lookups, Shared, Sharing, Silences, Starting};
pub use catalog::{Catalog, CompiledPlugins, OutputColumns, Plugins};
pub use evaluation::is_evaluating;
pub use fence::Fence;
pub use options::{DeliveryPolicy, Mode, Options, Priority, Rank, SHORTEST_TTL, WhenFull, WhenStateFull};
pub use rule::{
    Emission, Emissions, Explanation, Flow, Listened, LogLevel, LogLine, Rule, RuleError, SealedState, Step,
    When,
};
pub use source::{Language, Source, sha256};
pub use sql::{Condition, ConditionColumn, ConditionError, NoVerdict};
pub use target::{Fit, Origin, Target, Unfit};

use tidegate_core::Diagnostic;

/// Why a rule file did not become a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompileError {
    /// The rule reads streams whose columns are not known yet; it can be compiled when their first data has
    /// come.
    Waiting(Vec<String>),
    /// The file is wrong.
    Wrong(Vec<Diagnostic>),
}

/// A rule file that has become a rule.
pub struct Compiled {
    /// What its option lines say that all languages have.
    pub options: Options,
    /// What runs.
    pub rule: Box<dyn Rule>,
    /// What probably is not meant as it is written; the rule runs all the same.
    pub warnings: Vec<Diagnostic>,
}

/// Compiles the rule file `file` with content `source` against `catalog`.
///
/// # Errors
/// When the file is wrong, with every place that could be found, or when it reads a stream whose columns are
/// not known yet.
pub fn compile(file: &str, source: &Source, catalog: &Catalog) -> Result<Compiled, CompileError> {
    let Compiled { options, rule, warnings } = match source.language() {
        Language::Sql => sql::compile(file, source, catalog)?,
        #[cfg(feature = "rhai")]
        Language::Rhai => rhai::compile(file, source, catalog)?,
        #[cfg(not(feature = "rhai"))]
        Language::Rhai => return Err(left_out(file, "Rhai", "rhai")),
        Language::Wasm => wasm::compile(file, source, catalog)?,
    };
    let rule = Box::new(limit::Limited::new(rule, &options));
    Ok(Compiled { options, rule, warnings })
}

/// The language of `file` is not part of this program.
#[cfg(not(feature = "rhai"))]
fn left_out(file: &str, language: &str, feature: &str) -> CompileError {
    let help = format!("use a tidegate with its cargo feature `{feature}`, or write the rule in SQL");
    let what = format!("this tidegate was built without {language}");
    CompileError::Wrong(vec![Diagnostic::new(file, what).help(help)])
}
