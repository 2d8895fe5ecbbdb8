//! A planner's error becomes a diagnostic with a place and advice.

use std::ops::ControlFlow;

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Diagnostic as PlannerDiagnostic, SchemaError, Span};
use datafusion_expr::{Distinct, Expr, LogicalPlan};
use datafusion_sql::sqlparser::ast::{Expr as AstExpr, FunctionArguments, Spanned, visit_expressions};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tidegate_core::diagnostic::{did_you_mean, nearest};
use tidegate_core::{Diagnostic, Place};

use super::spellings::of_column;
use super::text::{self, Body, lower_first};
use super::words;
use planner::theirs;

mod planner;

/// What somebody is told, and what to look for in the text where nothing says where it is.
struct Rewording {
    what: String,
    help: Option<String>,
    place: Option<Place>,
    word: Option<String>,
}

impl Rewording {
    fn new(what: impl Into<String>, help: impl Into<Option<String>>) -> Self {
        Self { what: what.into(), help: help.into(), place: None, word: None }
    }

    fn at(self, place: Option<Place>) -> Self {
        Self { place, ..self }
    }

    fn near(self, word: impl Into<String>) -> Self {
        Self { word: Some(word.into()), ..self }
    }
}

/// One of our own refusals: its advice stands behind the first `"; "`.
fn ours(message: &str) -> Rewording {
    match message.split_once("; ") {
        Some((what, help)) => {
            Rewording::new(what, Some(help.trim_end_matches("; ").to_owned()).filter(|help| !help.is_empty()))
        }
        None => Rewording::new(message.trim_end_matches(';'), None),
    }
}

pub(super) struct Complaints<'a> {
    pub file: &'a str,
    pub text: &'a str,
    /// start of the statement
    pub start: Option<Place>,
}

/// `error`, at the place of `part` of the text, unless it has a place.
pub(super) fn at(part: &impl Spanned, error: DataFusionError) -> DataFusionError {
    at_span(Span::try_from_sqlparser_span(part.span()), error)
}

/// `error`, at the first place in `exprs`, unless it has one. Only columns know where they stand.
pub(super) fn at_first<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    error: DataFusionError,
) -> DataFusionError {
    at_span(exprs.into_iter().find_map(first_span), error)
}

/// The same for an expression that has the fault in it: a word that the message quotes says better where.
pub(super) fn near_first<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    error: DataFusionError,
) -> DataFusionError {
    near_span(exprs.into_iter().find_map(first_span), error)
}

/// The same for a part of the text.
pub(super) fn near(part: &impl Spanned, error: DataFusionError) -> DataFusionError {
    near_span(Span::try_from_sqlparser_span(part.span()), error)
}

/// `error`, which `node` has, at the place of that, unless it has one.
pub(super) fn in_node(node: &LogicalPlan, error: DataFusionError) -> DataFusionError {
    if span(&error).is_some() || clause(&error).is_some() {
        return error;
    }
    let keyword = match node {
        LogicalPlan::Limit(_) => Some("LIMIT"),
        LogicalPlan::Sort(_) => Some("ORDER BY"),
        LogicalPlan::Aggregate(aggregate) if !aggregate.group_expr.is_empty() => Some("GROUP BY"),
        LogicalPlan::Distinct(Distinct::All(input)) if matches!(**input, LogicalPlan::Union(_)) => {
            Some("UNION")
        }
        LogicalPlan::Distinct(_) => Some("DISTINCT"),
        LogicalPlan::Union(_) => Some("UNION"),
        LogicalPlan::Unnest(_) => Some("UNNEST"),
        _ => None,
    };
    if let Some(keyword) = keyword {
        return in_clause(keyword, error);
    }
    let mut found = None;
    let searched = node.apply_expressions(|expr| {
        found = first_span(expr);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (node, found.filter(|_| searched.is_ok())) {
        (_, Some(place)) => near_span(Some(place), error),
        (LogicalPlan::Join(_), None) => in_clause("EXCEPT|INTERSECT|JOIN|EXISTS|IN (|( SELECT", error),
        (_, None) => error,
    }
}

/// `error`, at the words of `clause`: the first of several, with `|` between, that the text has. An option is
/// a clause with `--!`.
pub(super) fn in_clause(clause: &str, error: DataFusionError) -> DataFusionError {
    error.context(format!("{CLAUSE}{clause}"))
}

/// How a clause is carried to where its place is looked for.
const CLAUSE: &str = "in clause ";

fn clause(error: &DataFusionError) -> Option<&str> {
    match error {
        DataFusionError::Context(what, inner) => what.strip_prefix(CLAUSE).or_else(|| clause(inner)),
        DataFusionError::Diagnostic(_, inner) => clause(inner),
        _ => None,
    }
}

fn at_span(place: Option<Span>, error: DataFusionError) -> DataFusionError {
    match place {
        Some(place) if span(&error).is_none() => {
            error.with_diagnostic(PlannerDiagnostic::new_error("", Some(place)))
        }
        _ => error,
    }
}

fn near_span(place: Option<Span>, error: DataFusionError) -> DataFusionError {
    match place {
        Some(place) if error.diagnostic().is_none() => {
            error.with_diagnostic(PlannerDiagnostic::new_error(NEAR, Some(place)))
        }
        _ => error,
    }
}

/// What marks a place as not exact.
const NEAR: &str = "near";

fn first_span(expr: &Expr) -> Option<Span> {
    let mut found: Option<Span> = None;
    let searched = expr.apply(|expr| {
        let here = expr.spans().and_then(|spans| spans.first()).filter(|span| of_span(*span).is_some());
        found = match (found, here) {
            (Some(a), Some(b)) if (b.start.line, b.start.column) < (a.start.line, a.start.column) => Some(b),
            (a, b) => a.or(b),
        };
        Ok(TreeNodeRecursion::Continue)
    });
    found.filter(|_| searched.is_ok())
}

impl Complaints<'_> {
    pub(super) fn diagnostic(&self, error: &DataFusionError) -> Diagnostic {
        let place = span(error);
        let root = error.find_root();
        if let DataFusionError::SchemaError(schema, _) = root {
            return self.schema_error(schema, place);
        }
        let message = root.message();
        // Our own refusals are complete; what the planner says is not for people who write rules.
        let said = theirs(message.trim(), self).unwrap_or_else(|| ours(message.trim()));
        let place = place
            .or(said.place)
            .or_else(|| said.word.as_deref().and_then(|word| self.find_word(word)))
            .or_else(|| self.find_quoted(&said.what))
            .or_else(|| near_place(error))
            .or_else(|| clause(error).and_then(|clause| self.find_words(clause)))
            .or(self.start);
        Diagnostic::new(self.file, lower_first(&said.what)).help(said.help).at(place)
    }

    fn schema_error(&self, error: &SchemaError, place: Option<Place>) -> Diagnostic {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let place = place
                    .or_else(|| field.spans().first().and_then(of_span))
                    .or_else(|| self.find_word(&field.name))
                    .or(self.start);
                let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
                let help = self.instead_of_column(&field.name, &names, place);
                Diagnostic::new(self.file, format!("there is no column `{}`", field.flat_name()))
                    .help(help)
                    .at(place)
            }
            SchemaError::AmbiguousReference { field } => {
                Diagnostic::new(self.file, format!("`{}` could be more than one column", field.name))
                    .help(Some("write the stream's name before it, or name one of them with AS".to_owned()))
                    .at(place.or_else(|| self.find_word(&field.name)).or(self.start))
            }
            SchemaError::DuplicateQualifiedField { name, .. }
            | SchemaError::DuplicateUnqualifiedField { name } => {
                Diagnostic::new(self.file, format!("two columns are called `{name}`"))
                    .help(Some("name one of them with AS".to_owned()))
                    .at(place.or_else(|| self.find_second(name)).or(self.start))
            }
        }
    }

    /// What was meant by the column `name` at `place`, where there are `names`.
    fn instead_of_column(&self, name: &str, names: &[&str], place: Option<Place>) -> Option<String> {
        let written = place.and_then(|place| self.text.get(offset_of(self.text, place)..));
        let in_quotes = written.is_some_and(|text| text.starts_with('"'));
        if let Some(other) = names.iter().find(|known| **known != name && known.eq_ignore_ascii_case(name)) {
            let why = "names without quotes become lower case";
            return Some(format!("write `{}`: {why}", words::identifier(other)));
        }
        if in_quotes {
            let near = nearest(name, names.iter().copied())
                .map(|near| format!(", if not `{}`", words::identifier(near)));
            return Some(format!("text stands in single quotes: '{name}'{}", near.unwrap_or_default()));
        }
        of_column(name)
            .map(str::to_owned)
            .or_else(|| {
                nearest(name, names.iter().copied())
                    .map(|name| format!("did you mean `{}`?", words::identifier(name)))
            })
            .or_else(|| did_you_mean(name, names))
            .map(|help| if names.is_empty() { help } else { help.replace("known names", "known columns") })
    }

    /// The calls of the function `name` in the statement: where each stands, and its first argument.
    fn calls(&self, name: &str) -> Vec<(Option<Place>, Option<String>)> {
        let mut calls = Vec::new();
        let note = |expr: &AstExpr| {
            if let AstExpr::Function(call) = expr
                && call.name.to_string().eq_ignore_ascii_case(name)
            {
                let argument = match &call.args {
                    FunctionArguments::List(list) => list.args.first().map(ToString::to_string),
                    _ => None,
                };
                calls.push((text::place(call.name.span().start), argument));
            }
            ControlFlow::<()>::Continue(())
        };
        let _: ControlFlow<()> = match text::parse(self.file, self.text) {
            Ok(statements) => {
                let here = statements.into_iter().filter(|statement| statement.start == self.start);
                let queries = here.map(|statement| match statement.body {
                    Body::Insert { query, .. } | Body::View { query, .. } => query,
                });
                visit_expressions(&queries.collect::<Vec<_>>(), note)
            }
            Err(_) => match text::condition(self.file, self.text) {
                Ok(condition) => visit_expressions(&condition, note),
                Err(_) => return calls,
            },
        };
        calls
    }

    /// The place of the first of `clauses` that is there.
    fn find_words(&self, clauses: &str) -> Option<Place> {
        if let Some(option) = clauses.strip_prefix("--! ") {
            let says = |line: &str| {
                line.trim_start()
                    .strip_prefix("--!")
                    .is_some_and(|said| said.trim_start().starts_with(option))
            };
            return (1..)
                .zip(self.text.lines())
                .find(|(_, line)| says(line))
                .map(|(line, _)| Place { line, column: 1 });
        }
        let tokens: Vec<_> = text::tokens(self.text)
            .ok()?
            .into_iter()
            .filter(|token| !matches!(token.token, Token::Whitespace(_)))
            .filter(|token| text::place(token.span.start) >= self.start)
            .collect();
        let is = |token: &TokenWithSpan, wanted: &str| match &token.token {
            Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted),
            Token::LParen => wanted == "(",
            _ => false,
        };
        clauses.split('|').find_map(|clause| {
            let words: Vec<&str> = clause.split(' ').collect();
            let found = tokens
                .windows(words.len())
                .find(|tokens| tokens.iter().zip(&words).all(|(token, word)| is(token, word)));
            found.and_then(|tokens| text::place(tokens.first()?.span.start))
        })
    }

    /// The place of the first word in quotes of `message`, if the statement contains it as a word; `'x'`
    /// within backticks is a literal.
    fn find_quoted(&self, message: &str) -> Option<Place> {
        let quoted = message.split(if message.contains("`'") { &['`'][..] } else { &['`', '\''] }).nth(1)?;
        self.find_word(quoted.trim_end_matches("()")).or_else(|| self.find_word(quoted.trim_matches('\'')))
    }

    fn find_word(&self, word: &str) -> Option<Place> {
        let in_any_case = || {
            let (text, word) = (self.text.to_ascii_lowercase(), word.to_ascii_lowercase());
            Complaints { file: self.file, text: &text, start: self.start }.places_of(&word).next()
        };
        let is_keyword = word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        self.places_of(word).next().or_else(|| is_keyword.then(in_any_case)?)
    }

    fn find_second(&self, word: &str) -> Option<Place> {
        self.places_of(word).nth(1).or_else(|| self.find_word(word))
    }

    fn places_of(&self, word: &str) -> impl Iterator<Item = Place> {
        let from = self.start.map_or(0, |start| offset_of(self.text, start));
        let rest = self.text.get(from..).unwrap_or_default();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        rest.match_indices(word)
            .filter(move |(at, found)| {
                let before = rest.get(..*at).and_then(|text| text.chars().next_back());
                let after = rest.get(at + found.len()..).and_then(|text| text.chars().next());
                !found.is_empty() && !before.is_some_and(is_word) && !after.is_some_and(is_word)
            })
            .map(move |(at, _)| Place::of_offset(self.text, from + at))
    }
}

fn span(error: &DataFusionError) -> Option<Place> {
    error
        .diagnostic()
        .filter(|diagnostic| diagnostic.message != NEAR)
        .and_then(|diagnostic| of_span(diagnostic.span?))
}

fn near_place(error: &DataFusionError) -> Option<Place> {
    error.diagnostic().and_then(|diagnostic| of_span(diagnostic.span?))
}

fn of_span(span: Span) -> Option<Place> {
    let (line, column) = (u32::try_from(span.start.line).ok()?, u32::try_from(span.start.column).ok()?);
    (line > 0).then_some(Place { line, column })
}

/// The byte of `text` at `place`.
pub(super) fn offset_of(text: &str, place: Place) -> usize {
    let line_start: usize =
        text.split_inclusive('\n').take(place.line.saturating_sub(1) as usize).map(str::len).sum();
    let column: usize = text
        .get(line_start..)
        .unwrap_or("")
        .chars()
        .take(place.column.saturating_sub(1) as usize)
        .map(char::len_utf8)
        .sum();
    line_start + column
}
