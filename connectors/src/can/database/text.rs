//! A DBC file as text, and its statements with their lines.

use std::borrow::Cow;

use tidegate_core::Place;
use tidegate_core::diagnostic::nearest;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Far more than the databases of whole vehicles have.
pub(super) const MOST_BYTES: usize = 32 << 20;

/// Far more than the greatest message has.
const MOST_BYTES_OF_A_STATEMENT: usize = 1 << 20;

/// The text of a file: UTF-8, or else Windows-1252, which the editors of such files write.
pub(super) fn text(bytes: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16; save it as UTF-8");
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| windows_1252(*byte)).collect()),
    })
}

/// The characters of 0x80 to 0x9F (encoding.spec.whatwg.org, index windows-1252); all others are those of
/// Latin-1.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

fn windows_1252(byte: u8) -> char {
    let special = usize::from(byte).checked_sub(0x80).and_then(|at| WINDOWS_1252.get(at));
    special.copied().unwrap_or(char::from(byte))
}

/// One statement: the message with its signals, or a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement<'t> {
    /// `BO_`, `VAL_`, ..
    pub(super) keyword: &'t str,
    pub(super) text: &'t str,
    /// of its beginning, from 1
    pub(super) line: u32,
}

impl Statement<'_> {
    /// The place in the file of byte `offset` of the statement.
    pub(super) fn place(&self, offset: usize) -> Place {
        let place = Place::of_offset(self.text, offset);
        Place { line: self.line + place.line - 1, column: place.column }
    }
}

const MESSAGE: &str = "BO_";
const SIGNAL: &str = "SG_";
const NEW_SYMBOLS: &str = "NS_";
const NODES: &str = "BU_";

/// What statements begin with: those of the format's description ("DBC File Format Documentation", Vector).
const KEYWORDS: [&str; 34] = [
    MESSAGE,
    NEW_SYMBOLS,
    NODES,
    "VERSION",
    "BS_",
    "VAL_",
    "VAL_TABLE_",
    "CM_",
    "BA_",
    "BA_DEF_",
    "BA_DEF_DEF_",
    "SG_MUL_VAL_",
    "SIG_VALTYPE_",
    "SIG_GROUP_",
    "BO_TX_BU_",
    "EV_",
    "EV_DATA_",
    "ENVVAR_DATA_",
    "SGTYPE_",
    "SGTYPE_VAL_",
    "BA_DEF_SGTYPE_",
    "BA_SGTYPE_",
    "SIG_TYPE_REF_",
    "SIGTYPE_VALTYPE_",
    "BA_DEF_REL_",
    "BA_REL_",
    "BA_DEF_DEF_REL_",
    "BU_SG_REL_",
    "BU_EV_REL_",
    "BU_BO_REL_",
    "CAT_DEF_",
    "CAT_",
    "FILTER",
    "NS_DESC_",
];

/// The word that a line begins with.
fn first_word(line: &str) -> &str {
    let line = line.trim_start_matches([' ', '\t']);
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with("//")
}

/// Whether a line goes on with a statement that has several.
fn goes_on(keyword: &str, line: &str) -> bool {
    let word = first_word(line);
    match keyword {
        _ if is_blank(line) => true,
        MESSAGE => word == SIGNAL,
        // Symbols are keywords, too, but each stands alone.
        NEW_SYMBOLS => line.trim() == word,
        NODES => !KEYWORDS.contains(&word) && word != SIGNAL,
        _ => false,
    }
}

/// The statements of a file, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Statements<'t> {
    rest: &'t str,
    line: u32,
    failed: bool,
}

impl<'t> Statements<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { rest: text, line: 1, failed: false }
    }

    /// Takes `length` bytes.
    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        let lines = taken.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        taken
    }

    fn skip_blanks(&mut self) {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.take(blank);
            if !self.rest.starts_with("//") {
                return;
            }
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    fn statement(&mut self) -> Result<Statement<'t>, Flaw> {
        let (line, keyword) = (self.line, first_word(self.rest));
        let flaw = |offset, message: &str, help: Option<String>| Flaw {
            place: Statement { keyword, text: self.rest, line }.place(offset),
            message: message.into(),
            help,
        };
        if !KEYWORDS.contains(&keyword) {
            if keyword == SIGNAL {
                let help = "put it below the BO_ line of its message".to_owned();
                return Err(flaw(0, "this signal has no message", Some(help)));
            }
            let shown: String = self.rest.chars().take_while(|c| !c.is_whitespace()).take(40).collect();
            let is_short = keyword.len() <= 2 * "BA_DEF_DEF_REL_".len();
            let known = KEYWORDS.into_iter().chain([SIGNAL]).filter(|_| is_short);
            let help = match nearest(keyword, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "is it a DBC file, and whole?".into(),
            };
            return Err(flaw(0, &format!("no statement begins with `{shown}`"), Some(help)));
        }
        let end = end_of_statement(keyword, self.rest).map_err(|quote| {
            let help = "put a \" at its end".to_owned();
            flaw(quote, "this text has no end", Some(help))
        })?;
        if end > MOST_BYTES_OF_A_STATEMENT {
            return Err(flaw(0, "this statement has more than 1 MiB", None));
        }
        Ok(Statement { keyword, text: self.take(end), line })
    }
}

/// Where the statement that `text` begins with has its end. Err: a text in it has none; where that begins.
fn end_of_statement(keyword: &str, text: &str) -> Result<usize, usize> {
    let ends_with_semicolon = ![MESSAGE, NEW_SYMBOLS, NODES].contains(&keyword);
    let mut quote: Option<usize> = None;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match (byte, quote) {
            (b'\\', Some(_)) if bytes.peek().is_some_and(|(_, next)| *next == b'"') => drop(bytes.next()),
            (b'"', Some(_)) => quote = None,
            (_, Some(_)) => {}
            (b'"', None) => quote = Some(at),
            (b'/', None) if bytes.peek().is_some_and(|(_, next)| *next == b'/') => {
                while bytes.next_if(|(_, next)| *next != b'\n').is_some() {}
            }
            (b';', None) if ends_with_semicolon => return Ok(at + 1),
            (b'\n', None) => {
                let rest = text.get(at + 1..).unwrap_or_default();
                let next = rest.split('\n').next().unwrap_or_default();
                if !goes_on(keyword, next) || ends_with_semicolon {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
    }
    quote.map_or(Ok(text.len()), Err)
}

impl<'t> Iterator for Statements<'t> {
    type Item = Result<Statement<'t>, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        self.skip_blanks();
        if self.rest.is_empty() {
            return None;
        }
        let statement = self.statement();
        self.failed = statement.is_err();
        Some(statement)
    }
}
