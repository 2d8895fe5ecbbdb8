//! The words, numbers and signs of a statement, and what is said when another one was expected.

use std::ops::Range;

use super::text::{Flaw, Statement};

/// What is shown of something that was not expected.
const MOST_SHOWN: usize = 24;

/// Reads a statement, or a line of it, from its beginning. Blanks and comments do not matter.
#[derive(Debug, Clone)]
pub(super) struct Reader<'t> {
    statement: Statement<'t>,
    /// its text, up to the end of what is read
    text: &'t str,
    at: usize,
    /// what it is written like
    form: &'static str,
    keyword: &'t str,
}

impl<'t> Reader<'t> {
    /// For a whole statement.
    pub(super) fn new(statement: Statement<'t>) -> Self {
        Self::part(statement, 0..statement.text.len())
    }

    /// For a part of it, whose first word is a keyword.
    pub(super) fn part(statement: Statement<'t>, part: Range<usize>) -> Self {
        let text = statement.text.get(..part.end).unwrap_or(statement.text);
        let mut reader = Self { statement, text, at: part.start, form: "", keyword: "" };
        reader.keyword = reader.next_word();
        reader.form = form(reader.keyword);
        reader
    }

    pub(super) fn keyword(&self) -> &'t str {
        self.keyword
    }

    /// Where in the statement it is.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// The characters that come next, as long as they are such.
    fn next_while(&mut self, is_part: impl Fn(char) -> bool) -> &'t str {
        self.skip_blanks();
        let rest = self.rest();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn next_word(&mut self) -> &'t str {
        self.next_while(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// The word that comes next; it is not taken.
    pub(super) fn coming_word(&self) -> &'t str {
        self.clone().next_word()
    }

    /// Whether this comes next; then it is taken.
    pub(super) fn takes(&mut self, sign: char) -> bool {
        self.skip_blanks();
        let is_there = self.rest().starts_with(sign);
        self.at += if is_there { sign.len_utf8() } else { 0 };
        is_there
    }

    /// Whether a text in quotes comes next.
    pub(super) fn has_text(&self) -> bool {
        self.clone().takes('"')
    }

    /// Whether nothing comes any more but the sign at the end of a statement.
    pub(super) fn is_over(&mut self) -> bool {
        self.takes(';');
        self.skip_blanks();
        self.rest().is_empty()
    }

    /// # Errors
    /// Something else comes. `what`: what is expected, as in all that follow.
    pub(super) fn sign(&mut self, sign: char, behind: &str) -> Result<(), Flaw> {
        if self.takes(sign) { Ok(()) } else { Err(self.expected(&format!("`{sign}` {behind}"))) }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'t str, Flaw> {
        let before = self.clone();
        let word = self.next_word();
        if word.is_empty() { Err(before.expected(what)) } else { Ok(word) }
    }

    /// Decimal digits.
    pub(super) fn whole(&mut self, what: &str) -> Result<u64, Flaw> {
        let before = self.clone();
        self.next_while(|c| c.is_ascii_digit()).parse().map_err(|_| before.expected(what))
    }

    /// The same, perhaps with a sign.
    pub(super) fn integer(&mut self, what: &str) -> Result<i64, Flaw> {
        let before = self.clone();
        let digits = self.next_while(|c| c.is_ascii_digit() || matches!(c, '+' | '-'));
        digits.parse().map_err(|_| before.expected(what))
    }

    /// As in `-1.5E-3`; infinite if it is too great.
    pub(super) fn number(&mut self, what: &str) -> Result<f64, Flaw> {
        let before = self.clone();
        let digits = self.next_while(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
        digits.parse().map_err(|_| before.expected(what))
    }

    /// What is in quotes, as it is written.
    pub(super) fn text(&mut self, what: &str) -> Result<&'t str, Flaw> {
        let before = self.clone();
        if !self.takes('"') {
            return Err(before.expected(what));
        }
        let rest = self.rest();
        let mut was_escape = false;
        for (at, byte) in rest.bytes().enumerate() {
            if byte == b'"' && !was_escape {
                self.at += at + 1;
                return Ok(rest.get(..at).unwrap_or_default());
            }
            was_escape = byte == b'\\' && !was_escape;
        }
        Err(before.expected(what))
    }

    /// That something else was expected here.
    pub(super) fn expected(&self, what: &str) -> Flaw {
        let mut here = self.clone();
        here.skip_blanks();
        let (rest, found) = (here.rest(), here.coming_word());
        let shown: String = match rest.chars().next() {
            Some('"') => rest.chars().take_while(|c| *c != '\n').take(MOST_SHOWN).collect(),
            Some(sign) if found.is_empty() => sign.into(),
            _ => found.chars().take(MOST_SHOWN).collect(),
        };
        let found = if shown.is_empty() { "found its end".to_owned() } else { format!("found `{shown}`") };
        Flaw {
            place: self.statement.place(if rest.is_empty() { self.at } else { here.at }),
            message: format!("this `{}` cannot be read: expected {what}, and {found}", self.keyword),
            help: Some(format!("it is written {}", self.form)),
        }
    }
}

/// What statements are written like.
fn form(keyword: &str) -> &'static str {
    match keyword {
        "BO_" => "BO_ 256 NAME: 8 SENDER, and each of its signals in a line below",
        "SG_" => "SG_ NAME : START|LENGTH@1+ (FACTOR,OFFSET) [MIN|MAX] \"UNIT\" RECEIVER",
        "VAL_" => "VAL_ 256 SIGNAL 0 \"off\" 1 \"on\" ;",
        "SG_MUL_VAL_" => "SG_MUL_VAL_ 256 SIGNAL MULTIPLEXOR 0-3, 7-7;",
        "SIG_VALTYPE_" => "SIG_VALTYPE_ 256 SIGNAL : 1; with 1 for float32, 2 for float64",
        "BA_" => "BA_ \"NAME\" BO_ 256 100; or BA_ \"NAME\" SG_ 256 SIGNAL 100;",
        "BA_DEF_" => "BA_DEF_ BO_ \"NAME\" INT 0 1000; or BA_DEF_ BO_ \"NAME\" ENUM \"a\",\"b\";",
        _ => "BA_DEF_DEF_ \"NAME\" 100;",
    }
}
