//! A script that Rhai cannot parse, as text.

use rhai::Position;

/// Whether what is wrong at `position` is the colon of `{ name: value }`, a map without its `#`.
pub(super) fn is_map_without_mark(text: &str, position: Position) -> bool {
    let Some((before, rest)) = split(text, position) else { return false };
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '"');
    let brace = before.trim_end().trim_end_matches(is_name).trim_end();
    rest.starts_with(':') && brace.ends_with('{') && !brace.ends_with("#{")
}

/// Whether what is wrong at `position` stands behind `||`.
pub(super) fn is_behind_or(text: &str, position: Position) -> bool {
    split(text, position).is_some_and(|(before, _)| before.trim_end().ends_with("||"))
}

fn split(text: &str, position: Position) -> Option<(&str, &str)> {
    let (line, column) = (position.line()?.checked_sub(1)?, position.position()?.checked_sub(1)?);
    let begin = text.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
    let (at, _) = text.get(begin..)?.char_indices().nth(column)?;
    text.split_at_checked(begin + at)
}

/// A brace that opens: the indentation of its line, and the line's number.
struct Brace {
    indent: usize,
    line: usize,
}

/// Which brace is not closed, as far as the indentation tells.
pub(super) fn unclosed(text: &str) -> Option<String> {
    let mut open: Vec<Brace> = Vec::new();
    let mut in_comment = false;
    for (line, content) in (1..).zip(text.lines()) {
        let indent = content.len() - content.trim_start().len();
        let code = braces(content, &mut in_comment);
        let is_outside = indent == 0 && content.starts_with("fn ");
        let closes = content.trim_start().starts_with('}');
        if let Some(last) = open.last().filter(|last| is_outside || closes && last.indent > indent) {
            return Some(unclosed_in(last.line));
        }
        for brace in code {
            if brace == '{' {
                open.push(Brace { indent, line });
            } else {
                open.pop();
            }
        }
    }
    open.last().map(|last| unclosed_in(last.line))
}

fn unclosed_in(line: usize) -> String {
    format!("the `{{` in line {line} seems to have none")
}

/// The braces of a line that are not in texts or comments.
fn braces(line: &str, in_comment: &mut bool) -> Vec<char> {
    let (mut found, mut quote) = (Vec::new(), None);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('*', None) if *in_comment && chars.peek() == Some(&'/') => *in_comment = false,
            _ if *in_comment => {}
            ('\\', Some(_)) => drop(chars.next()),
            (c, Some(open)) => quote = Some(open).filter(|open| *open != c),
            ('"' | '\'' | '`', None) => quote = Some(c),
            ('/', None) if chars.peek() == Some(&'/') => break,
            ('/', None) if chars.peek() == Some(&'*') => *in_comment = true,
            ('{' | '}', None) => found.push(c),
            _ => {}
        }
    }
    found
}
