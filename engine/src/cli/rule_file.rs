//! The rule that a command line names: one of the rules directory, or a file that need not be there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_core::Diagnostic;
use tidegate_core::diagnostic::did_you_mean;
use tidegate_rules::{Language, Source};

use crate::rules::book::RuleBook;

/// Name, file and source of the rule that is meant.
///
/// # Errors
/// When it is neither the name of a rule nor a file that can be read.
pub(super) fn find(
    wanted: &str,
    book: &RuleBook,
    dir: &Path,
) -> Result<(Arc<str>, String, Source), Vec<Diagnostic>> {
    let mut in_dir =
        Language::ALL.into_iter().map(|language| dir.join(format!("{wanted}.{}", language.extension())));
    let (name, path) = match Path::new(wanted).file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if Path::new(wanted).is_file() => (stem, PathBuf::from(wanted)),
        _ => match in_dir.find(|path| path.is_file()) {
            Some(path) => (wanted, path),
            None => {
                let names: Vec<&str> = book.names().collect();
                let help = did_you_mean(wanted, &names)
                    .or_else(|| Some("name a rule of the rules directory, or a rule file".to_owned()));
                let file = dir.display().to_string();
                return Err(vec![Diagnostic::new(file, format!("there is no rule `{wanted}`")).help(help)]);
            }
        },
    };
    let file = path.display().to_string();
    let Some(language) = Language::from_path(&path) else {
        let endings: Vec<String> =
            Language::ALL.iter().map(|language| format!("`.{}`", language.extension())).collect();
        let help = format!("the name of a rule file ends with {}", endings.join(" or "));
        return Err(vec![Diagnostic::new(file, "its name does not say in which language it is").help(help)]);
    };
    match std::fs::read(&path) {
        Ok(bytes) => Ok((Arc::from(name), file, Source::new(language, bytes))),
        Err(error) => Err(vec![Diagnostic::new(file, format!("cannot read the rule: {error}"))]),
    }
}
