//! What a rule is, and how SQL becomes one.
//!
//! Read in this order:
//!
//! * [`rule`]: the one trait that every rule obeys, what it writes, and the state that it can hand over.
//! * [`catalog`]: the streams and outputs that a rule may name.
//! * [`options`]: the leading `--!` lines of a rule file.
//! * [`index`]: which of many rules a batch concerns.
//! * [`sql`]: SQL text -> logical plan -> stages that run on Arrow batches.
//!
//! A rule is a deterministic function of the rows it is handed: this crate has no clock, no file system, no
//! network and no runtime.

pub mod catalog;
pub mod index;
pub mod options;
pub mod rule;
pub mod sql;

pub use catalog::{Catalog, OutputColumns};
pub use options::{DeliveryPolicy, Mode, Options, Priority, SHORTEST_TTL, WhenFull, WhenStateFull};
pub use rule::{Emission, Emissions, Flow, Listened, Rule, RuleError, SealedState, Step, Target, When};
pub use sql::{SharedParts, is_evaluating};

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
    /// What its `--!` lines say.
    pub options: Options,
    /// What runs.
    pub rule: Box<dyn Rule>,
    /// What probably is not meant as it is written; the rule runs all the same.
    pub warnings: Vec<Diagnostic>,
}

/// Compiles the rule file `file` with content `text` against `catalog`.
///
/// # Errors
/// When the file is wrong, with every place that could be found, or when it reads a stream whose columns are
/// not known yet.
pub fn compile(file: &str, text: &str, catalog: &Catalog) -> Result<Compiled, CompileError> {
    // Editors of Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = Options::parse(file, text).map_err(CompileError::Wrong)?;
    let (rule, of_text) = sql::compile(file, text, &options, catalog)?;
    let mut warnings = options.warnings(file, text);
    warnings.extend(of_text);
    Ok(Compiled { options, rule: Box::new(rule), warnings })
}
