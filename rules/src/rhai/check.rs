//! What is wrong with a script, as far as that can be seen without running it.

use rhai::AST;
use tidegate_core::Diagnostic;

use super::call::Calls;
use super::run::Input;
use super::script::Script;

/// What is known of a script that is not wrong.
pub(super) struct Checked {
    /// whether it can nest lists or maps, or call functions of its own
    pub is_deep: bool,
    pub warnings: Vec<Diagnostic>,
}

/// Lines that are options in the wrong place.
pub(super) fn options(_file: &str, _text: &str) -> Vec<Diagnostic> {
    Vec::new()
}

pub(super) fn script(
    _file: &str,
    _script: &Script,
    _ast: &AST,
    _inputs: &[Input],
    _calls: &Calls,
) -> Result<Checked, Vec<Diagnostic>> {
    Ok(Checked { is_deep: true, warnings: Vec::new() })
}
