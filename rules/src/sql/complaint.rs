//! A planner's error becomes a diagnostic with a place and advice.

use datafusion_common::{DataFusionError, SchemaError};
use tidegate_core::diagnostic::{did_you_mean, nearest};
use tidegate_core::{Diagnostic, Place};

use super::names::functions;
use super::text::lower_first;

pub(super) struct Complaints<'a> {
    pub file: &'a str,
    pub text: &'a str,
    /// start of the statement
    pub start: Option<Place>,
}

impl Complaints<'_> {
    pub(super) fn diagnostic(&self, error: &DataFusionError) -> Diagnostic {
        let place = span(error);
        let root = error.find_root();
        if let DataFusionError::SchemaError(schema, _) = root {
            return self.schema_error(schema, place);
        }
        let message = root.message();
        let message = message.trim();
        if let Some(name) = message.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()) {
            let known = functions();
            let help = nearest(name, known.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
            let place = place.or_else(|| self.find_word(name)).or(self.start);
            return Diagnostic::new(self.file, format!("there is no function `{name}`")).help(help).at(place);
        }
        if let Some((_, text)) = message.split_once("Invalid input syntax for type interval: ") {
            let text = text.trim_matches('"');
            return Diagnostic::new(self.file, format!("`{text}` is no length of time"))
                .help(Some("write INTERVAL '10' SECOND".to_owned()))
                .at(place.or_else(|| self.find_word(text)).or(self.start));
        }
        if let Some(rest) = message.strip_prefix("Cannot create filter with non-boolean predicate '") {
            let (predicate, found) = rest.split_once("' returning ").unwrap_or((rest, "no condition"));
            let bare = predicate.rsplit('.').next().unwrap_or(predicate);
            let place = place.or_else(|| self.find_word(bare)).or(self.start);
            return Diagnostic::new(self.file, format!("`{predicate}` is {found}, but WHERE and HAVING need a condition"))
                .help(Some(format!("compare it with something, such as `{bare} > 0`")))
                .at(place);
        }
        if message.to_lowercase().starts_with("window function calls cannot be nested") {
            return Diagnostic::new(self.file, "a function with OVER stands inside another".to_owned())
                .help(Some("compute the inner one in a step before: FROM (SELECT *, inner(..) OVER (..) AS x FROM ..) AS step".to_owned()))
                .at(place.or_else(|| self.find_word("OVER")).or(self.start));
        }
        if message.starts_with("FILTER clause can only be used with aggregate") {
            return Diagnostic::new(self.file, "only aggregates take FILTER".to_owned())
                .help(Some("use CASE in the argument: CASE WHEN condition THEN x END".to_owned()))
                .at(place.or_else(|| self.find_word("FILTER")).or(self.start));
        }
        // What one of our functions says about its arguments comes wrapped.
        let message = message
            .split_once("coercion failed with: Error during planning: ")
            .map_or(message, |(_, ours)| ours.split_once(". No function matches").map_or(ours, |(ours, _)| ours));
        // Our own refusals carry their advice behind the first "; ".
        let (what, help) = match message.split_once("; ") {
            Some((what, help)) => (what, Some(help.trim_end_matches("; ").to_owned()).filter(|help| !help.is_empty())),
            None => (message.trim_end_matches(';'), None),
        };
        let place = place.or_else(|| self.find_quoted(what)).or(self.start);
        Diagnostic::new(self.file, lower_first(what)).help(help).at(place)
    }

    fn schema_error(&self, error: &SchemaError, place: Option<Place>) -> Diagnostic {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
                let help = nearest(&field.name, names.iter().copied())
                    .map(|name| format!("did you mean `{name}`?"))
                    .or_else(|| did_you_mean(&field.name, &names))
                    .map(|help| if names.is_empty() { help } else { help.replace("known names", "known columns") });
                let place =
                    place.or_else(|| field.spans().first().and_then(of_span)).or_else(|| self.find_word(&field.name)).or(self.start);
                Diagnostic::new(self.file, format!("there is no column `{}`", field.flat_name())).help(help).at(place)
            }
            SchemaError::AmbiguousReference { field } => {
                Diagnostic::new(self.file, format!("`{}` could be more than one column", field.name))
                    .help(Some("write the stream's name before it, or name one of them with AS".to_owned()))
                    .at(place.or_else(|| self.find_word(&field.name)).or(self.start))
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                Diagnostic::new(self.file, format!("two columns are called `{name}`"))
                    .help(Some("name one of them with AS".to_owned()))
                    .at(place.or(self.start))
            }
        }
    }

    /// The place of the first word in quotes of `message`, if the statement contains it as a word; `'x'` within backticks is a literal.
    fn find_quoted(&self, message: &str) -> Option<Place> {
        let quoted = message.split(if message.contains("`'") { &['`'][..] } else { &['`', '\''] }).nth(1)?;
        self.find_word(quoted.trim_end_matches("()")).or_else(|| self.find_word(quoted.trim_matches('\'')))
    }

    fn find_word(&self, word: &str) -> Option<Place> {
        let from = self.start.map_or(0, |start| offset_of(self.text, start));
        let rest = self.text.get(from..)?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        rest.match_indices(word)
            .find(|(at, found)| {
                let before = rest.get(..*at).and_then(|text| text.chars().next_back());
                let after = rest.get(at + found.len()..).and_then(|text| text.chars().next());
                !word.is_empty() && !before.is_some_and(is_word) && !after.is_some_and(is_word)
            })
            .map(|(at, _)| Place::of_offset(self.text, from + at))
    }
}

fn span(error: &DataFusionError) -> Option<Place> {
    error.diagnostic().and_then(|diagnostic| diagnostic.span.as_ref()).and_then(|span| of_span(*span))
}

fn of_span(span: datafusion_common::Span) -> Option<Place> {
    let (line, column) = (u32::try_from(span.start.line).ok()?, u32::try_from(span.start.column).ok()?);
    (line > 0).then_some(Place { line, column })
}

fn offset_of(text: &str, place: Place) -> usize {
    let line_start: usize = text.split_inclusive('\n').take(place.line.saturating_sub(1) as usize).map(str::len).sum();
    let column: usize =
        text.get(line_start..).unwrap_or("").chars().take(place.column.saturating_sub(1) as usize).map(char::len_utf8).sum();
    line_start + column
}
