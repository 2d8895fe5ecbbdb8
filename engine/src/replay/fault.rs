//! Why a recorded row cannot be read.

use serde_json::Value;
use tidegate_connectors::codec::DecodeError;
use tidegate_core::diagnostic::nearest;
use tidegate_core::{Diagnostic, TS};

use super::lines::place;

/// A row as a JSON object, and the number of its line.
pub(super) type Written<'a> = (u64, Result<&'a [u8], Fault>);

/// Why a row cannot be read, and where in its line.
pub(super) struct Fault {
    pub why: String,
    help: Option<String>,
    column: usize,
}

impl Fault {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), help: None, column: 1 }
    }

    pub(super) fn help(self, help: String) -> Self {
        Self { help: Some(help), ..self }
    }

    pub(super) fn into_diagnostic(self, file: &str, line: u64) -> Diagnostic {
        Diagnostic::new(file, self.why).at(place(line, self.column)).help(self.help)
    }

    pub(super) fn in_row(error: &DecodeError, json: &[u8]) -> Self {
        let (DecodeError::NotJson(inner) | DecodeError::Shape(inner)) = error else {
            return Self::new(error.to_string());
        };
        let said = error.to_string();
        // The parser's own place counts from the beginning of the line.
        let why = said.rfind(" at line ").and_then(|at| said.get(..at)).unwrap_or(&said);
        let other = Self { column: inner.column().max(1), ..Self::new(why) };
        let Ok(Value::Object(row)) = serde_json::from_slice::<Value>(json) else { return other };
        let help = "write RFC 3339 with its offset, such as \"2026-03-01T12:00:00Z\", or a number of ms or \
            ns since 1970";
        match row.get(TS) {
            None => no_time(&row.keys().map(String::as_str).collect::<Vec<_>>()),
            Some(Value::Null) => Self::new("`ts` is empty in this row").help(help.into()),
            Some(ts) if why.contains("`ts`") => {
                Self::new(format!("`ts` is {ts}, which is no time")).help(help.into())
            }
            Some(_) => other,
        }
    }
}

/// There is no `ts` among `names`.
pub(super) fn no_time(names: &[&str]) -> Fault {
    let usual = ["time", "timestamp", "datetime", "date", "t"];
    let meant = usual.iter().find_map(|usual| names.iter().find(|name| name.eq_ignore_ascii_case(usual)));
    let there = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let fault = Fault::new(format!("there is no `ts`, the event time, only {there}"));
    match meant.copied().or_else(|| nearest(TS, names.iter().copied())) {
        Some(name) => fault.help(format!("if `{name}` is the event time, call it `ts`")),
        None => fault,
    }
}
