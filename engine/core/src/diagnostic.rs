//! Errors for people: what was tried, where, why it failed, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a text file; line and column count from 1, and columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// line, from 1
    pub line: u32,
    /// column, from 1
    pub column: u32,
}

impl Place {
    /// The place of byte `offset` in `text`.
    #[must_use]
    pub fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        Self {
            line: count(before.matches('\n').count()),
            column: count(before.get(line_start..).unwrap_or("").chars().count()),
        }
    }
}

/// Whether a file is refused for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is refused.
    #[default]
    Error,
    /// It is taken, and probably does not do what its author wants.
    Warning,
}

/// One thing that is wrong with a file that a user wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether the file is refused for it.
    #[serde(default)]
    pub severity: Severity,
    /// The file, as the user named it.
    pub file: String,
    /// Where in the file, if it can be told.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// What is wrong, in lower case, without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic for `file` as a whole.
    pub fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            place: None,
            message: message.into(),
            help: None,
        }
    }

    /// The same, as a warning: the file is taken all the same.
    #[must_use]
    pub fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// The same, at `place`.
    #[must_use]
    pub fn at(mut self, place: impl Into<Option<Place>>) -> Self {
        self.place = place.into();
        self
    }

    /// The same, with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// The name among `names` that `wanted` was most likely meant to be, if any is near enough: a third of its
/// letters may be wrong, or half of them where they stand in another order; one may begin with the other, or
/// have nearly all of its letters in order.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let letters = wanted.chars().count();
    // What is shorter is the beginning of too much.
    let least = 3;
    let scored = names.into_iter().filter_map(|name| {
        let known = name.to_lowercase();
        let length = known.chars().count();
        let wrong = strsim::damerau_levenshtein(&wanted, &known);
        let begins =
            letters.min(length) >= least && (known.starts_with(&wanted) || wanted.starts_with(&known));
        let longest = letters.max(length);
        let is_shuffled = 2 * wrong <= longest && 4 * in_common(&wanted, &known) >= 3 * longest;
        let is_misspelt = (wrong <= (longest / 3).max(1) || is_shuffled) && wrong < letters;
        let likeness = strsim::jaro_winkler(&wanted, &known);
        (is_misspelt || begins || likeness > 0.85).then_some((is_misspelt, likeness, name))
    });
    scored.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(.., name)| name)
}

/// How many letters are in both, wherever they stand.
fn in_common(one: &str, other: &str) -> usize {
    let mut left: Vec<char> = other.chars().collect();
    one.chars().filter(|c| left.iter().position(|l| l == c).map(|at| left.swap_remove(at)).is_some()).count()
}

/// "did you mean `x`?", or else the list of what there is, or else nothing.
#[must_use]
pub fn did_you_mean(wanted: &str, names: &[&str]) -> Option<String> {
    match nearest(wanted, names.iter().copied()) {
        Some(name) => Some(format!("did you mean `{name}`?")),
        None if names.is_empty() => None,
        None => Some(format!(
            "known names: {}",
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a\nbär = 1\n";
        assert_eq!(Place::of_offset(text, 0), Place { line: 1, column: 1 });
        assert_eq!(Place::of_offset(text, text.find('=').unwrap_or(0)), Place { line: 2, column: 5 });
        assert_eq!(Place::of_offset(text, 999), Place { line: 3, column: 1 });
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        assert_eq!(nearest("hots", ["host", "port"]), Some("host"));
        assert_eq!(nearest("zzz", ["host", "port"]), None);
        assert_eq!(nearest("mtqq", ["mqtt", "http"]), Some("mqtt"));
        assert_eq!(nearest("late", ["lamp", "hot"]), None);
        assert_eq!(nearest("temp", ["temperature", "count"]), Some("temperature"));
        assert_eq!(nearest("convert_tz", ["cot", "concat"]), None);
        assert_eq!(nearest("avrage", ["avg", "count"]), Some("avg"));
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(did_you_mean("zzz", &["host"]).as_deref(), Some("known names: `host`"));
    }
}
