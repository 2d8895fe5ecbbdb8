//! The leading `--!` lines of a rule file: TOML, one key a line.

use serde::Deserialize;
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{Diagnostic, Place, Span};

/// What the `--!` lines of a rule say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What the rule is for.
    pub description: Option<String>,
    /// Whether the rule runs.
    pub mode: Mode,
    /// How much later than the newest row a row may come and still count.
    pub lateness: Span,
}

/// Whether a rule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It runs.
    #[default]
    Active,
    /// It is evaluated and shown, but writes nothing.
    Shadow,
    /// It is checked, but does not run.
    Off,
}

const KEYS: &[&str] = &["description", "mode", "lateness"];
const MARK: &str = "--!";

impl Options {
    /// Reads the `--!` lines at the start of `text`; empty lines and other comments may stand between them.
    ///
    /// # Errors
    /// One diagnostic for each line that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut toml = String::new();
        let mut wrong = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let trimmed = line.trim_start();
            let Some(option) = trimmed.strip_prefix(MARK) else {
                if trimmed.is_empty() || trimmed.starts_with("--") {
                    continue;
                }
                break;
            };
            let column = line.chars().count() - option.chars().count() + 1;
            // Each line must be good TOML by itself, so that an error names its own line.
            match toml::from_str::<Self>(option) {
                Ok(_) => {
                    toml.push_str(option);
                    toml.push('\n');
                }
                Err(error) => {
                    let offset = error.span().map_or(0, |span| option.get(..span.start).map_or(0, |before| before.chars().count()));
                    let place = Place { line: number, column: u32::try_from(column + offset).unwrap_or(u32::MAX) };
                    let key = option.split('=').next().unwrap_or("").trim();
                    let diagnostic = if error.message().starts_with("unknown field") {
                        Diagnostic::new(file, format!("unknown option `{key}`")).help(did_you_mean(key, KEYS))
                    } else {
                        Diagnostic::new(file, format!("cannot read the option line: {}", error.message().trim_end()))
                            .help(Some("write one TOML key a line, such as `--! lateness = \"5s\"`".to_owned()))
                    };
                    wrong.push(diagnostic.at(place));
                }
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        toml::from_str(&toml)
            .map_err(|error| vec![Diagnostic::new(file, format!("the option lines contradict each other: {}", error.message().trim_end()))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn option_lines_are_toml() {
        let text = "--! description = \"x\"\n-- a comment\n\n  --! lateness = \"5s\"\nSELECT 1 --! mode = \"off\"";
        let options = Options::parse("a.sql", text);
        assert_eq!(options, Ok(Options { description: Some("x".into()), mode: Mode::Active, lateness: Span(Duration::from_secs(5)) }));
    }

    #[test]
    fn each_wrong_line_is_reported_with_its_place() {
        let text = "--! latness = \"5s\"\n--! lateness = 5\n--! mode = \"shadw\"\nSELECT 1";
        let wrong: Vec<String> = Options::parse("a.sql", text).err().into_iter().flatten().map(|d| d.to_string()).collect();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong.iter().any(|w| w.starts_with("a.sql:1:") && w.contains("did you mean `lateness`?")), "{wrong:?}");
        assert!(wrong.iter().any(|w| w.starts_with("a.sql:2:16")), "{wrong:?}");
        assert!(wrong.iter().any(|w| w.starts_with("a.sql:3:12")), "{wrong:?}");
    }
}
