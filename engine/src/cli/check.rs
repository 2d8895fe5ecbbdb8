//! `tidegate check`: is everything right, without starting anything?

use std::path::Path;
use std::sync::Arc;

use tidegate_core::Diagnostic;

use super::args::{CheckArgs, Format};
use super::{Failure, find_config, print, render};
use crate::catalog::catalog;
use crate::config::{self, Config};
use crate::rulebook::RuleBook;
use crate::rules_dir::RulesDir;
use crate::schemas::SchemaStore;
use crate::status::Status;
use crate::tables::TableFiles;

/// Checks configuration and rules, and prints what is wrong, or what there is.
///
/// # Errors
/// [`Failure::RefusedAndShown`] when anything is wrong.
pub fn check(args: CheckArgs) -> Result<(), Failure> {
    let outcome = find_config(args.config.config).map_err(|diagnostic| vec![diagnostic]).and_then(|path| {
        let config = config::load(&path)?;
        let rules = check_rules(&config, &path)?;
        Ok(summary(&config, rules))
    });
    match (&outcome, args.format) {
        (Ok(summary), Format::Text) => print(&format!("{summary}\n"))?,
        (Err(diagnostics), Format::Text) => print(&render::text(diagnostics, render::colours(&std::io::stdout())))?,
        (outcome, Format::Json) => {
            let diagnostics = outcome.as_ref().err().map_or(&[][..], Vec::as_slice);
            print(&format!("{}\n", serde_json::to_string_pretty(diagnostics)?))?;
        }
    }
    outcome.map(drop).map_err(|_| Failure::RefusedAndShown)
}

/// Compiles every rule against the configured streams, looks whether those that uplinks name are there, and counts them.
fn check_rules(config: &Config, path: &Path) -> Result<usize, Vec<Diagnostic>> {
    let mut schemas = SchemaStore::of(config);
    config.streams.keys().for_each(|stream| drop(schemas.load(stream)));
    let catalog = catalog(config, &|stream| schemas.get(stream).cloned());
    let book = RuleBook::new(catalog, 1, Arc::new(Status::default())).quiet();
    let mut tables = TableFiles::of(config);
    let (book, _) = RulesDir::load(&config.rules.dir, &mut tables, book).map_err(|diagnostic| vec![diagnostic])?;
    let mut wrong = config::check_uplink_rules(path, &book.names().collect::<Vec<_>>()).map_err(|diagnostic| vec![diagnostic])?;
    wrong.extend(tables.wrong().cloned());
    wrong.extend(book.wrong());
    if !wrong.is_empty() {
        return Err(wrong);
    }
    for (rule, streams) in book.waiting() {
        tracing::warn!(
            rule,
            streams = streams.join(", "),
            "the rule could not be checked: the columns of streams without declared fields are known only after their first data, and those of a table when its file is right"
        );
    }
    Ok(book.len())
}

fn summary(config: &Config, rules: usize) -> String {
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "ok: {}, {}, {}, {}",
        counted(config.connections.len(), "connection"),
        counted(config.streams.len(), "stream"),
        counted(config.outputs.len(), "output"),
        counted(rules, "rule")
    )
}
