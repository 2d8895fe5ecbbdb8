//! Diagnostics for people: `file:line:column: message`, the line with a caret under the column, and the
//! advice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;

use tidegate_core::diagnostic::Severity;
use tidegate_core::{Diagnostic, Place};

/// Whether to colour what goes to `stream`: on a terminal, unless `NO_COLOR` (no-color.org) is set or the
/// terminal is dumb.
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    let says = |name: &str, what: fn(&std::ffi::OsStr) -> bool| {
        std::env::var_os(name).is_some_and(|value| what(&value))
    };
    stream.is_terminal()
        && !says("NO_COLOR", |value| !value.is_empty())
        && !says("TERM", |value| value == "dumb")
}

/// All of `diagnostics`, each followed by an empty line but the last; the source lines are read from the
/// files that they name.
pub(super) fn text(diagnostics: &[Diagnostic], coloured: bool) -> String {
    let mut files = BTreeMap::new();
    let shown = diagnostics.iter().map(|diagnostic| {
        let source = files
            .entry(diagnostic.file.as_str())
            .or_insert_with_key(|file| std::fs::read_to_string(file).ok());
        one(diagnostic, source.as_deref(), coloured)
    });
    shown.collect::<Vec<_>>().join("\n")
}

fn one(diagnostic: &Diagnostic, source: Option<&str>, coloured: bool) -> String {
    let paint = |code: &str, text: &str| {
        if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let place =
        diagnostic.place.map_or_else(String::new, |Place { line, column }| format!(":{line}:{column}"));
    let (colour, prefix) = match diagnostic.severity {
        Severity::Error => ("1;31", ""),
        Severity::Warning => ("1;33", "warning: "),
    };
    let message = paint(colour, &format!("{prefix}{}", printable(&diagnostic.message)));
    let mut shown = format!("{}{place}: {message}\n", printable(&diagnostic.file));
    if let Some((place, line)) =
        diagnostic.place.zip(source).and_then(|(place, source)| Some((place, line_at(source, place)?)))
    {
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        let indent = " ".repeat((place.column as usize).saturating_sub(1));
        // Writing to a String cannot fail.
        let _ = writeln!(
            shown,
            "  {number} | {}\n  {gutter} | {indent}{}",
            printable(&mask_secret(line)),
            paint(colour, "^")
        );
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(shown, "{} {}", paint("1;36", "help:"), printable(help));
    }
    shown
}

fn line_at(source: &str, place: Place) -> Option<&str> {
    let line = source.split('\n').nth(usize::try_from(place.line).ok()?.checked_sub(1)?)?;
    Some(line.trim_end_matches('\r')).filter(|line| !line.is_empty())
}

/// A tab takes one column, and control characters must not reach the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Secrets do not belong into the configuration, but somebody will write one, and the terminal may be a log.
fn mask_secret(line: &str) -> String {
    let quoted_value = |at: usize| {
        let (head, tail) = line.split_at_checked(at + "password".len())?;
        let equals = tail.find('=')?;
        let start = equals + 1 + tail.get(equals + 1..)?.find(|c: char| !c.is_whitespace())?;
        let is_source = tail.get(start..)?.starts_with('{'); // `{ file = ".." }`
        (!is_source).then(|| format!("{head}{}\"...\"", tail.get(..start).unwrap_or_default()))
    };
    line.find("password").and_then(quoted_value).unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_column() {
        let diagnostic = Diagnostic::new("a.toml", "unknown key `hots`")
            .at(Place { line: 2, column: 3 })
            .help("did you mean `host`?".to_owned());
        let shown = one(&diagnostic, Some("x = 1\n\t hots = \"b\"\r\n"), false);
        assert_eq!(
            shown,
            "a.toml:2:3: unknown key `hots`\n  2 |   hots = \"b\"\n    |   ^\nhelp: did you mean `host`?\n"
        );
    }

    #[test]
    fn a_warning_says_that_it_is_one() {
        let diagnostic = Diagnostic::new("a.toml", "odd").at(Place { line: 1, column: 1 }).warning();
        assert_eq!(one(&diagnostic, Some("x"), false), "a.toml:1:1: warning: odd\n  1 | x\n    | ^\n");
    }

    #[test]
    fn colours_are_only_added() {
        let diagnostic = Diagnostic::new("a.toml", "wrong").at(Place { line: 1, column: 1 });
        let coloured = one(&diagnostic, Some("x"), true);
        assert_eq!(coloured, "a.toml:1:1: \x1b[1;31mwrong\x1b[0m\n  1 | x\n    | \x1b[1;31m^\x1b[0m\n");
    }

    #[test]
    fn a_place_past_the_end_shows_no_line() {
        let diagnostic = Diagnostic::new("a.toml", "wrong").at(Place { line: 9, column: 1 });
        assert_eq!(one(&diagnostic, Some("x"), false), "a.toml:9:1: wrong\n");
        assert_eq!(one(&diagnostic, None, false), "a.toml:9:1: wrong\n");
    }

    #[test]
    fn a_secret_in_the_line_is_not_repeated() {
        assert_eq!(mask_secret("password = \"hunter2\" # mine"), "password = \"...\"");
        assert_eq!(mask_secret("c = { password='hunter2', host = 3 }"), "c = { password=\"...\"");
        assert_eq!(mask_secret("password = hunter2"), "password = \"...\"");
        assert_eq!(mask_secret("password = { env = \"X\" }"), "password = { env = \"X\" }");
        assert_eq!(mask_secret("password ="), "password =");
    }
}
