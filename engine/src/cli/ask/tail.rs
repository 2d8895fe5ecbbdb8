//! `tidegate tail`: rows as they pass.

use std::io::{self, Write};

use super::connect;
use crate::cli::Failure;
use crate::cli::args::TailArgs;
use crate::cli::render::printable;
use crate::management::command::tail::{Row, Tail};

/// Shows rows until there were enough, or nobody wants to see more.
///
/// # Errors
/// When no box answers, there is nothing of that name, or standard output cannot be written.
pub fn tail(args: TailArgs) -> Result<(), Failure> {
    let TailArgs { name, config, count, json } = args;
    let mut out = io::stdout().lock();
    let (mut failed, mut missed) = (None, 0);
    let part = |row: Row| {
        let (new, line) = (row.missed.saturating_sub(missed), if json { as_json(&row) } else { text(&row) });
        missed = row.missed;
        let written = writeln!(out, "{line}").and_then(|()| out.flush());
        failed = written.err();
        if new > 0 && failed.is_none() {
            tracing::warn!(rows = new, "rows came faster than they were shown, and passed by");
        }
        failed.is_none()
    };
    connect(config)?.ask(&Tail { name, count }, part)?;
    match failed {
        // `| head` has seen enough.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn as_json(row: &Row) -> String {
    serde_json::to_string(row).unwrap_or_default()
}

/// Time, number, who wrote it and where, the row, and what became of it.
fn text(row: &Row) -> String {
    let mut line = format!("{} {}", row.time, row.seq);
    let mut add = |text: String| {
        line.push(' ');
        line.push_str(&printable(&text));
    };
    if let Some(rule) = &row.rule {
        add(row.version.map_or_else(|| rule.clone(), |version| format!("{rule} v{version}")));
    }
    if let Some(target) = &row.target {
        add(format!("-> {target}"));
    }
    add(serde_json::to_string(&row.row).unwrap_or_default());
    match (row.written, &row.error) {
        (Some(true), _) => add("written".to_owned()),
        (Some(false), Some(error)) => add(format!("FAILED: {error}")),
        (Some(false), None) => add("FAILED".to_owned()),
        (None, _) => {}
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_an_output_says_why_it_was_written_and_what_became_of_it() {
        let json = concat!(
            r#"{"time":"2026-03-01T12:00:00.000Z","seq":42,"rule":"cooling","version":2,"#,
            r#""row":{"run":true,"device":"7"},"written":false,"error":"not authorized","missed":0}"#
        );
        let row: Row = serde_json::from_str(json).unwrap();
        let expected =
            r#"2026-03-01T12:00:00.000Z 42 cooling v2 {"run":true,"device":"7"} FAILED: not authorized"#;
        assert_eq!(text(&row), expected);
        assert_eq!(as_json(&row), json);
    }
}
