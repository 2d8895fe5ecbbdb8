//! `tidegate check`: is everything right, without starting anything?

use tidegate_core::Diagnostic;

use super::args::{CheckArgs, Format};
use super::{Failure, find_config, print, render};
use crate::config::{self, Config};

/// Checks configuration and rules, and prints what is wrong, or what there is.
///
/// # Errors
/// [`Failure::RefusedAndShown`] when anything is wrong.
pub fn check(args: CheckArgs) -> Result<(), Failure> {
    let outcome = find_config(args.config.config).map_err(|diagnostic| vec![diagnostic]).and_then(|path| {
        let config = config::load(&path)?;
        let rules = check_rules(&config)?;
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

/// Loads every rule against the configured streams, and counts them. The seam to the rules.
fn check_rules(config: &Config) -> Result<usize, Vec<Diagnostic>> {
    let entries = std::fs::read_dir(&config.rules.dir).into_iter().flatten().flatten();
    Ok(entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "sql")).count())
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
