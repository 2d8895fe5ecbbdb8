//! `tidegate check`: is everything right, without starting anything?

use std::path::Path;
use std::sync::Arc;

use tidegate_core::Diagnostic;

use super::args::{CheckArgs, Format};
use super::{Failure, find_config, print, render};
use crate::catalog::catalog;
use crate::config::{self, Config};
use crate::outputs::contract::Contracts;
use crate::preflight::{is_for_the_service, preflight};
use crate::rules::book::RuleBook;
use crate::rules::directory::{RulesDir, strays};
use crate::rules::tables::TableFiles;
use crate::sequencer::schemas::SchemaStore;
use crate::status::Status;

/// Checks configuration and rules, and prints what is wrong, or what there is.
///
/// # Errors
/// [`Failure::RefusedAndShown`] when anything is wrong.
pub fn check(args: CheckArgs) -> Result<(), Failure> {
    let outcome = find_config(args.config.config).map_err(|diagnostic| vec![diagnostic]).and_then(|path| {
        let config = config::load(&path)?;
        let (later, mut wrong): (Vec<_>, Vec<_>) =
            preflight(&path, &config).into_iter().partition(is_for_the_service);
        let later = later.into_iter().map(|secret| {
            let help =
                "it is there only while the service runs, so that only `tidegate run` can tell".to_owned();
            secret.help(help).warning()
        });
        let rules = check_rules(&config, &path).map_err(|rules| wrong.extend(rules));
        match rules {
            Ok((rules, mut warnings)) if wrong.is_empty() => {
                warnings.splice(0..0, later);
                Ok((summary(&config, rules, warnings.len()), warnings))
            }
            _ => Err(wrong),
        }
    });
    let diagnostics = outcome.as_ref().map_or_else(Vec::as_slice, |(_, warnings)| warnings);
    match args.format {
        Format::Text => {
            let shown = render::text(diagnostics, render::colours(&std::io::stdout()));
            let gap = if diagnostics.is_empty() { "" } else { "\n" };
            print(
                &outcome
                    .as_ref()
                    .map_or_else(|_| shown.clone(), |(summary, _)| format!("{shown}{gap}{summary}\n")),
            )?;
        }
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(diagnostics)?))?,
    }
    outcome.map(drop).map_err(|_| Failure::RefusedAndShown)
}

/// Compiles every rule against the configured streams, and looks whether those that uplinks name are there.
/// Returns how many there are, and what is taken with a warning.
fn check_rules(config: &Config, path: &Path) -> Result<(usize, Vec<Diagnostic>), Vec<Diagnostic>> {
    let schemas = SchemaStore::look(config);
    let catalog = catalog(config, &|stream| schemas.get(stream).cloned());
    let status = Arc::new(Status::default());
    let contracts = Contracts::from_config(config, &catalog, &status);
    let book = RuleBook::new(catalog, 1, status).governed_by(&contracts).quiet();
    let mut tables = TableFiles::new(config);
    let (book, _) =
        RulesDir::load(&config.rules.dir, &mut tables, book).map_err(|diagnostic| vec![diagnostic])?;
    let mut wrong = config::check_uplink_rules(path, &book.names().collect::<Vec<_>>())
        .map_err(|diagnostic| vec![diagnostic])?;
    wrong.extend(tables.wrong().cloned());
    wrong.extend(book.wrong());
    let unchecked = book.waiting().map(|(rule, inputs)| {
        let file = book.file(rule).unwrap_or(rule).to_owned();
        let what =
            format!("the rule could not be checked: the columns of `{}` are not known", inputs.join("`, `"));
        let help = "those of a stream without `fields` are known after its first data, those of a table \
            when its file is right";
        Diagnostic::new(file, what).help(help.to_owned()).warning()
    });
    let warnings: Vec<_> = config
        .warnings
        .iter()
        .cloned()
        .chain(unchecked)
        .chain(book.warnings())
        .chain(strays(&config.rules.dir))
        .collect();
    if wrong.is_empty() {
        return Ok((book.len(), warnings));
    }
    wrong.extend(warnings);
    Err(wrong)
}

fn summary(config: &Config, rules: usize, warnings: usize) -> String {
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let warnings = if warnings == 0 { String::new() } else { format!("; {}", counted(warnings, "warning")) };
    format!(
        "ok: {}, {}, {}, {}{warnings}",
        counted(config.connections.len(), "connection"),
        counted(config.streams.len(), "stream"),
        counted(config.outputs.len(), "output"),
        counted(rules, "rule")
    )
}
