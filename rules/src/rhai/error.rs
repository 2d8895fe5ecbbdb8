//! What Rhai says, in the words of those who write rules.

use rhai::{EvalAltResult, LexError, ParseError, ParseErrorType, Position};
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{Diagnostic, Place};

use super::engine::{ARRAY_SIZE, CALL_LEVELS, EXPRESSION_DEPTH, MAP_SIZE, OPERATIONS, STRING_SIZE};
use super::text::{is_behind_or, is_map_without_mark, unclosed};
use super::value::shown;

/// What ends a script from outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// it computes for ever
    Operations,
    /// the engine has raised the fence
    Fence,
}

impl Stop {
    /// As a script's error carries it.
    pub(super) const fn token(self) -> i64 {
        match self {
            Self::Operations => 1,
            Self::Fence => 2,
        }
    }
}

/// Why a script could not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// what is wrong, after the place
    pub text: String,
    /// whether a limit was reached: then it is the script, and not the row
    pub is_limit: bool,
    /// whether the fence stopped it
    pub is_fence: bool,
}

impl Failure {
    /// A row cannot be taken, since `text`.
    pub(super) fn row(text: String) -> Self {
        Self { text, is_limit: false, is_fence: false }
    }

    /// A limit was reached, as `text` says.
    pub(super) fn limit(text: String) -> Self {
        Self { text, is_limit: true, is_fence: false }
    }

    /// What a script of `file` says.
    pub(super) fn new(file: &str, mut error: Box<EvalAltResult>) -> Self {
        let mut callers = Vec::new();
        while let EvalAltResult::ErrorInFunctionCall(name, _, inner, at) = *error {
            if let Some(Place { line, .. }) = place(at) {
                callers.push(format!(", in `{name}`, called in line {line}"));
            }
            error = inner;
        }
        let at = error.take_position();
        let (is_fence, is_limit) = match &*error {
            EvalAltResult::ErrorTerminated(token, _) => match token.as_int() {
                Ok(token) if token == Stop::Fence.token() => (true, false),
                _ => (false, true),
            },
            EvalAltResult::ErrorStackOverflow(_)
            | EvalAltResult::ErrorDataTooLarge(..)
            | EvalAltResult::ErrorTooManyOperations(_)
            | EvalAltResult::ErrorTooManyVariables(_) => (false, true),
            _ => (false, false),
        };
        let place = place(at).map_or_else(String::new, |Place { line, column }| format!(":{line}:{column}"));
        callers.reverse();
        let text = format!("{file}{place}: {}{}", message(&error), callers.concat());
        Self { text, is_limit, is_fence }
    }
}

/// The place that Rhai means.
pub(super) fn place(position: Position) -> Option<Place> {
    let line = u32::try_from(position.line()?).ok()?;
    let column = position.position().and_then(|column| u32::try_from(column).ok()).unwrap_or(1);
    Some(Place { line, column })
}

/// What is wrong, without its place.
pub(super) fn message(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorFunctionNotFound(signature, _) => no_function(signature),
        EvalAltResult::ErrorTerminated(token, _)
            if token.as_int().is_ok_and(|t| t == Stop::Fence.token()) =>
        {
            "it took too long and was stopped".to_owned()
        }
        EvalAltResult::ErrorTerminated(..) | EvalAltResult::ErrorTooManyOperations(_) => {
            format!(
                "it has done {OPERATIONS} operations for one row, and may do no more: does a loop not end?"
            )
        }
        EvalAltResult::ErrorStackOverflow(_) => {
            format!("functions call each other {CALL_LEVELS} deep, and may no deeper: does one call itself?")
        }
        EvalAltResult::ErrorDataTooLarge(what, _) => too_large(what),
        EvalAltResult::ErrorRuntime(value, _) => match value.as_immutable_string_ref() {
            Ok(text) => text.to_string(),
            Err(_) => shown(value, 200),
        },
        EvalAltResult::ErrorMismatchDataType(wanted, found, _) => {
            let advice = match (wanted.as_str(), found.as_str()) {
                ("bool", "()") => ", a missing value; say what it is then: `x ?? false`",
                (_, "()") => ", a missing value",
                ("bool", "i64" | "f64") => "; to give a value to what is missing, write `x ?? 5.0`",
                _ => "",
            };
            format!("this must be {}, and is {}{advice}", word(wanted), word(found))
        }
        EvalAltResult::ErrorUnboundThis(_) => {
            "`this` is the state only in a function that is called as `state.name(..)`".to_owned()
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => format!("there is no `{name}`"),
        EvalAltResult::ErrorVariableNotFound(name, _) => format!("there is no variable `{name}`"),
        EvalAltResult::ErrorIndexingType(what, _) => {
            format!(
                "{} has nothing inside that has a number or a name",
                word(what.split(" [").next().unwrap_or(what))
            )
        }
        EvalAltResult::ErrorDotExpr(what, _) if !what.is_empty() => no_property(what),
        EvalAltResult::ErrorFor(_) => "`for` goes through lists, texts and ranges such as `0..10`".to_owned(),
        EvalAltResult::ErrorDataRace(what, _) => format!("{what} is in use: write it to a variable first"),
        other => lower(&other.to_string()),
    }
}

/// `Unknown property 'x' - a getter is not registered for type 'y'`
fn no_property(what: &str) -> String {
    let mut parts = what.split('\'');
    match (parts.nth(1), parts.nth(1)) {
        (Some(name), Some(of)) if what.contains("setter") => {
            format!("`{name}` of {} cannot be changed", word(of))
        }
        (Some(name), Some("()")) => format!("there is no `{name}` in a missing value, `()`"),
        (Some(name), Some(of)) => format!("there is no `{name}` in {}", word(of)),
        _ => lower(what),
    }
}

/// The signature is `name (type, type)`.
fn no_function(signature: &str) -> String {
    let (name, arguments) = signature.split_once(" (").unwrap_or((signature, ")"));
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    let types: Vec<&str> = split(arguments);
    let name = name.trim();
    let words = types.iter().map(|one| word(one)).collect::<Vec<_>>();
    let is_operator = !name.chars().any(|c| c.is_alphanumeric() || c == '_');
    if is_operator && types.contains(&"()") {
        let give = "give it a value: `x ?? 0.0`";
        return format!(
            "`{name}` cannot take a missing value, `()`; ask first whether it is there: `x != ()`, or {give}"
        );
    }
    if is_operator {
        return format!("`{name}` cannot take {}", words.join(" and "));
    }
    if types.contains(&"()") {
        return format!("`{name}` cannot take ({}): a value is missing", words.join(", "));
    }
    format!("there is no function `{name}` for ({})", words.join(", "))
}

/// At the commas that are not within the names of types.
fn split(arguments: &str) -> Vec<&str> {
    arguments.split(", ").map(str::trim).filter(|one| !one.is_empty()).collect()
}

/// A type of Rhai.
fn word(name: &str) -> &str {
    match name {
        "i64" => "int64",
        "f64" => "float64",
        "string" | "&str | ImmutableString | String" => "utf8",
        "blob" => "bytes",
        "array" => "a list",
        "map" => "a map",
        "char" => "a character",
        other => other,
    }
}

fn too_large(what: &str) -> String {
    if what.starts_with("Length") {
        format!("a text would be longer than {STRING_SIZE} bytes")
    } else if what.contains("map") {
        format!("a map, with all that is in it, would have more than {MAP_SIZE} entries")
    } else {
        format!("a list, with all that is in it, would have more than {ARRAY_SIZE} elements")
    }
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// What those want who write `x || 5.0`.
pub(super) const OR_ELSE: &str = "`x ?? 5.0` gives a value to what is missing";

/// Why `text` of `file` is no script.
pub(super) fn parse_error(file: &str, text: &str, error: &ParseError) -> Diagnostic {
    let (what, help) = match error.err_type() {
        ParseErrorType::VariableUndefined(name) => (
            format!("there is no variable `{name}`"),
            Some("a function sees its parameters, what it defines with `let`, and `const` at the top of the file".to_owned()),
        ),
        ParseErrorType::Reserved(name)
        | ParseErrorType::BadInput(LexError::ImproperSymbol(name, _) | LexError::UnexpectedInput(name))
            if forbidden(name).is_some() =>
        {
            (format!("`{name}` is not for rules"), forbidden(name).map(str::to_owned))
        }
        ParseErrorType::UnknownOperator(name) if name == "**" => {
            ("there is no `**`".to_owned(), forbidden("**").map(str::to_owned))
        }
        ParseErrorType::ExprTooDeep => {
            (format!("an expression is more than {EXPRESSION_DEPTH} levels deep"), Some("break it up with `let`".to_owned()))
        }
        ParseErrorType::AssignmentToConstant(name) if !name.is_empty() => {
            (format!("`{name}` is a constant"), Some("keep what changes in `state`".to_owned()))
        }
        ParseErrorType::FnDuplicatedDefinition(name, parameters) => {
            (format!("there are two functions `{name}` with {parameters} parameters"), None)
        }
        ParseErrorType::MismatchedType(wanted, found) if wanted == "a boolean expression" => (
            format!("expecting a condition, and not {found}"),
            is_behind_or(text, error.position()).then(|| OR_ELSE.to_owned()),
        ),
        ParseErrorType::BadInput(LexError::MalformedChar(found)) => (
            format!("`'{found}'` is not one character"),
            Some("texts stand between double quotes: `\"text\"`".to_owned()),
        ),
        ParseErrorType::MissingToken(token, what) if token == "}" => {
            (format!("expecting `}}` {what}"), unclosed(text))
        }
        ParseErrorType::WrongFnDefinition => (
            "a function begins here, and the one before it has not ended".to_owned(),
            unclosed(text),
        ),
        other if is_map_without_mark(text, error.position()) => {
            (lower(&other.to_string().replace('\'', "`")), Some("a map begins with `#{`".to_owned()))
        }
        other => (lower(&other.to_string().replace('\'', "`")), None),
    };
    Diagnostic::new(file, what).at(place(error.position())).help(help)
}

/// What to write instead of what rules cannot have.
fn forbidden(name: &str) -> Option<&'static str> {
    Some(match name {
        "|" | "||" => "write a loop: `for x in list { .. }`",
        "Fn" | "call" | "curry" => "call functions by their names",
        "eval" => "write the code itself",
        "import" | "export" => "a rule is one file",
        "--" => "a comment begins with `//`, and `x -= 1` counts down",
        "**" | "**=" => "write `pow(x, y)`",
        _ => return None,
    })
}

/// A name that is not known, and the one that may be meant.
pub(super) fn unknown(file: &str, what: String, name: &str, known: &[&str]) -> Diagnostic {
    Diagnostic::new(file, what).help(did_you_mean(name, known))
}
