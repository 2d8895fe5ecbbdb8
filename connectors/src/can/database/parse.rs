//! From statements to what they say of each message and signal. Nothing is checked yet but the syntax.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_core::Place;

use super::reader::Reader;
use super::text::{Flaw, Statement, Statements};
use crate::can::bits::ByteOrder;
use crate::can::signal::Content;

/// Far more than the databases of whole vehicles have, and some 100 MB.
const MOST_SIGNALS: usize = 200_000;

/// A message, and where it is.
#[derive(Debug)]
pub(super) struct Written<'t> {
    /// with the bit that tells ids of 29 bits
    pub(super) id: u64,
    pub(super) name: &'t str,
    pub(super) length: u64,
    pub(super) signals: Vec<WrittenSignal<'t>>,
    pub(super) statement: Statement<'t>,
}

/// An `SG_` line.
#[derive(Debug)]
pub(super) struct WrittenSignal<'t> {
    pub(super) name: &'t str,
    pub(super) is_multiplexor: bool,
    /// the value of the multiplexor with which it is in a frame
    pub(super) selected_by: Option<u64>,
    pub(super) start: u64,
    pub(super) width: u64,
    pub(super) order: ByteOrder,
    pub(super) is_signed: bool,
    pub(super) factor: f64,
    pub(super) offset: f64,
    pub(super) range: (f64, f64),
    pub(super) unit: &'t str,
    /// where its line begins in the statement
    at: usize,
}

impl Written<'_> {
    /// The place of signal number `at`.
    pub(super) fn place_of(&self, at: usize) -> Place {
        self.statement.place(self.signals.get(at).map_or(0, |signal| signal.at))
    }
}

/// What is said of a message elsewhere than at its signals.
#[derive(Debug, Default)]
pub(super) struct MessageNotes<'t> {
    pub(super) long_name: Option<&'t str>,
    pub(super) cycle_ms: Option<f64>,
    pub(super) frame_format: Option<Attribute<'t>>,
    pub(super) signals: HashMap<&'t str, SignalNotes<'t>>,
}

/// What is said of a signal elsewhere than at itself.
#[derive(Debug, Default)]
pub(super) struct SignalNotes<'t> {
    pub(super) long_name: Option<&'t str>,
    pub(super) start: Option<f64>,
    pub(super) labels: Vec<(i64, Arc<str>)>,
    /// if it is a float
    pub(super) content: Option<Content>,
    pub(super) multiplexing: Option<Multiplexing<'t>>,
    /// the last statement that concerns frames
    pub(super) place: Option<Place>,
}

/// `SG_MUL_VAL_`
#[derive(Debug)]
pub(super) struct Multiplexing<'t> {
    pub(super) multiplexor: &'t str,
    pub(super) ranges: Vec<(u64, u64)>,
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attribute<'t> {
    Number(f64),
    Text(&'t str),
}

impl<'t> Attribute<'t> {
    pub(super) fn number(self) -> Option<f64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    fn name(self) -> Option<&'t str> {
        if let Self::Text(name) = self { Some(name).filter(|name| !name.is_empty()) } else { None }
    }
}

/// A file.
#[derive(Debug, Default)]
pub(super) struct Parsed<'t> {
    pub(super) messages: Vec<Written<'t>>,
    /// by the message's id
    pub(super) notes: HashMap<u64, MessageNotes<'t>>,
    defaults: HashMap<&'t str, Attribute<'t>>,
    /// the names that values of attributes stand for
    choices: HashMap<&'t str, Vec<&'t str>>,
    /// whether all of the file is J1939
    pub(super) is_j1939: bool,
    signals: usize,
}

/// The attributes that matter here.
const ATTRIBUTES: [&str; 7] = [
    "GenMsgCycleTime",
    "VFrameFormat",
    "SystemMessageLongSymbol",
    "SystemSignalLongSymbol",
    "GenSigStartValue",
    "ProtocolType",
    "BusType",
];

const ID: &str = "the message's id, a whole number";
const SIGNAL: &str = "the name of a signal";

impl<'t> Parsed<'t> {
    /// # Errors
    /// All statements that are wrong, up to `most`.
    pub(super) fn read(text: &'t str, most: usize) -> Result<Self, Vec<Flaw>> {
        let mut parsed = Self::default();
        let mut flaws = Vec::new();
        for statement in Statements::new(text) {
            let said = statement.and_then(|statement| parsed.take(statement));
            flaws.extend(said.err());
            if flaws.len() >= most || parsed.signals > MOST_SIGNALS {
                break;
            }
        }
        if parsed.signals > MOST_SIGNALS {
            flaws.push(Flaw {
                place: Place { line: 1, column: 1 },
                message: format!("the file has more than {MOST_SIGNALS} signals"),
                help: Some("leave out the messages that nobody needs".into()),
            });
        }
        if flaws.is_empty() { Ok(parsed) } else { Err(flaws) }
    }

    fn take(&mut self, statement: Statement<'t>) -> Result<(), Flaw> {
        let place = Some(statement.place(0));
        if statement.keyword == "BO_" {
            return self.message(statement);
        }
        let mut reader = Reader::new(statement);
        match statement.keyword {
            "VAL_" => self.labels(&mut reader, place),
            "SG_MUL_VAL_" => self.multiplexing(&mut reader, place),
            "SIG_VALTYPE_" => self.content(&mut reader, place),
            "BA_" => self.attribute(&mut reader),
            "BA_DEF_" => self.choices(&mut reader),
            "BA_DEF_DEF_" => {
                let name = reader.text(NAME)?;
                if ATTRIBUTES.contains(&name) {
                    self.defaults.insert(name, value(&mut reader)?);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn message(&mut self, statement: Statement<'t>) -> Result<(), Flaw> {
        let mut ends = statement.text.match_indices('\n').map(|(at, _)| at + 1).peekable();
        let mut begin = ends.next().unwrap_or(statement.text.len());
        let mut reader = Reader::part(statement, 0..begin);
        let id = reader.whole(ID)?;
        let name = reader.word("the message's name")?;
        reader.sign(':', "behind the message's name")?;
        let length = reader.whole("the message's length in bytes")?;
        reader.word("the name of the node that sends it (Vector__XXX if there is none)")?;
        if !reader.is_over() {
            return Err(reader.expected("the end of the line"));
        }
        let mut signals = Vec::new();
        while begin < statement.text.len() {
            let end = ends.next().unwrap_or(statement.text.len());
            let reader = Reader::part(statement, begin..end);
            if !reader.keyword().is_empty() {
                signals.push(signal(reader)?);
            }
            begin = end;
        }
        self.signals += signals.len();
        self.messages.push(Written { id, name, length, signals, statement });
        Ok(())
    }

    fn labels(&mut self, reader: &mut Reader<'t>, place: Option<Place>) -> Result<(), Flaw> {
        // What environment variables mean is of no use here.
        if !reader.coming_word().starts_with(|c: char| c.is_ascii_digit()) {
            return reader.word(ID).map(drop);
        }
        let (id, signal) = (reader.whole(ID)?, reader.word(SIGNAL)?);
        let mut labels = Vec::new();
        while !reader.is_over() {
            let content = reader.integer("a whole number of 64 bits, or `;` at the end")?;
            labels.push((content, unescaped(reader.text("its label in quotes")?)));
        }
        let notes = self.signal(id, signal);
        (notes.labels, notes.place) = (labels, place);
        Ok(())
    }

    fn multiplexing(&mut self, reader: &mut Reader<'t>, place: Option<Place>) -> Result<(), Flaw> {
        let (id, signal) = (reader.whole(ID)?, reader.word(SIGNAL)?);
        let multiplexor = reader.word("the name of its multiplexor")?;
        let mut ranges = Vec::new();
        loop {
            let first = reader.whole("a range of the multiplexor's values, such as 0-3")?;
            reader.sign('-', "in the range")?;
            ranges.push((first, reader.whole("the last value of the range")?));
            if !reader.takes(',') {
                break;
            }
        }
        if !reader.is_over() {
            return Err(reader.expected("`,` or `;` behind the range"));
        }
        let notes = self.signal(id, signal);
        (notes.multiplexing, notes.place) = (Some(Multiplexing { multiplexor, ranges }), place);
        Ok(())
    }

    fn content(&mut self, reader: &mut Reader<'t>, place: Option<Place>) -> Result<(), Flaw> {
        let (id, signal) = (reader.whole(ID)?, reader.word(SIGNAL)?);
        reader.takes(':');
        let before = reader.clone();
        let content = match reader.word("0, 1 or 2")? {
            "0" => None,
            "1" => Some(Content::Float32),
            "2" => Some(Content::Float64),
            _ => return Err(before.expected("0, 1 or 2")),
        };
        let notes = self.signal(id, signal);
        (notes.content, notes.place) = (content, place);
        Ok(())
    }

    fn attribute(&mut self, reader: &mut Reader<'t>) -> Result<(), Flaw> {
        let name = reader.text(NAME)?;
        if !ATTRIBUTES.contains(&name) {
            return Ok(());
        }
        match reader.coming_word() {
            "BO_" => {
                reader.word("")?;
                let id = reader.whole(ID)?;
                let value = value(reader)?;
                let notes = self.notes.entry(id).or_default();
                match name {
                    "GenMsgCycleTime" => notes.cycle_ms = value.number(),
                    "VFrameFormat" => notes.frame_format = Some(value),
                    "SystemMessageLongSymbol" => notes.long_name = value.name(),
                    _ => {}
                }
            }
            "SG_" => {
                reader.word("")?;
                let (id, signal) = (reader.whole(ID)?, reader.word(SIGNAL)?);
                let value = value(reader)?;
                let notes = self.signal(id, signal);
                match name {
                    "GenSigStartValue" => notes.start = value.number(),
                    "SystemSignalLongSymbol" => notes.long_name = value.name(),
                    _ => {}
                }
            }
            "BU_" | "EV_" => {}
            _ => self.is_j1939 |= value(reader)?.name().is_some_and(|name| name.contains("J1939")),
        }
        Ok(())
    }

    /// The names of an attribute's values, if it has some.
    fn choices(&mut self, reader: &mut Reader<'t>) -> Result<(), Flaw> {
        if !reader.has_text() {
            reader.word("what it is of, or its name in quotes")?;
        }
        let name = reader.text(NAME)?;
        if !ATTRIBUTES.contains(&name) || reader.word("its type, such as INT or ENUM")? != "ENUM" {
            return Ok(());
        }
        let mut names = vec![reader.text("a name in quotes")?];
        while reader.takes(',') {
            names.push(reader.text("a name in quotes")?);
        }
        self.choices.insert(name, names);
        Ok(())
    }

    fn signal(&mut self, id: u64, name: &'t str) -> &mut SignalNotes<'t> {
        self.notes.entry(id).or_default().signals.entry(name).or_default()
    }

    /// What the file says by default.
    pub(super) fn by_default(&self, attribute: &str) -> Option<Attribute<'t>> {
        self.defaults.get(attribute).copied()
    }

    /// The name of a choice: files have it, or its number.
    pub(super) fn choice(&self, attribute: &str, value: Attribute<'t>) -> Option<&'t str> {
        let number = match value {
            Attribute::Text(name) => return Some(name),
            Attribute::Number(number) => number,
        };
        let is_place = number.fract() == 0.0 && (0.0..1e6).contains(&number);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was looked at")]
        let place = is_place.then_some(number as usize)?;
        self.choices.get(attribute)?.get(place).copied()
    }
}

const NAME: &str = "the attribute's name in quotes";

fn value<'t>(reader: &mut Reader<'t>) -> Result<Attribute<'t>, Flaw> {
    let what = "the attribute's value, a number or a text in quotes";
    let value = if reader.has_text() {
        Attribute::Text(reader.text(what)?)
    } else {
        Attribute::Number(reader.number(what)?)
    };
    if reader.is_over() { Ok(value) } else { Err(reader.expected("`;` behind the attribute's value")) }
}

fn signal(mut reader: Reader<'_>) -> Result<WrittenSignal<'_>, Flaw> {
    let at = reader.offset() - reader.keyword().len();
    let name = reader.word("the signal's name")?;
    let (is_multiplexor, selected_by) = multiplexed(&mut reader)?;
    reader.sign(':', "behind the signal's name")?;
    let start = reader.whole("the signal's first bit")?;
    reader.sign('|', "behind the first bit")?;
    let width = reader.whole("how many bits the signal has")?;
    reader.sign('@', "behind the number of bits")?;
    let before = reader.clone();
    let order = match reader.whole("the order of its bytes: 0 for Motorola, 1 for Intel")? {
        0 => ByteOrder::Big,
        1 => ByteOrder::Little,
        _ => return Err(before.expected("the order of its bytes: 0 for Motorola, 1 for Intel")),
    };
    let is_signed = reader.takes('-');
    if !is_signed && !reader.takes('+') {
        return Err(reader.expected("`+` for a signal without sign, or `-` for one with a sign"));
    }
    reader.sign('(', "in front of factor and offset")?;
    let factor = reader.number("the factor")?;
    reader.sign(',', "between factor and offset")?;
    let offset = reader.number("the offset")?;
    reader.sign(')', "behind factor and offset")?;
    reader.sign('[', "in front of minimum and maximum")?;
    let least = reader.number("the minimum")?;
    reader.sign('|', "between minimum and maximum")?;
    let most = reader.number("the maximum")?;
    reader.sign(']', "behind minimum and maximum")?;
    let unit = reader.text("the unit in quotes, such as \"rpm\"")?;
    loop {
        reader.word("the name of a node that receives it (Vector__XXX if there is none)")?;
        if reader.is_over() {
            break;
        }
        // Some tools leave the comma out.
        reader.takes(',');
    }
    let range = (least, most);
    Ok(WrittenSignal {
        name,
        is_multiplexor,
        selected_by,
        start,
        width,
        order,
        is_signed,
        factor,
        offset,
        range,
        unit,
        at,
    })
}

/// `M`, `m5`, `m5M`, or nothing: whether it is a multiplexor, and what selects it.
fn multiplexed(reader: &mut Reader<'_>) -> Result<(bool, Option<u64>), Flaw> {
    let before = reader.clone();
    let mark = reader.coming_word();
    if mark.is_empty() {
        return Ok((false, None));
    }
    reader.word("")?;
    let selected = mark.strip_suffix('M').unwrap_or(mark);
    let is_multiplexor = selected != mark;
    match (selected, selected.strip_prefix('m').map(str::parse)) {
        // Files of cars have an `m` alone, which says nothing.
        ("" | "m", _) => Ok((is_multiplexor, None)),
        (_, Some(Ok(value))) => Ok((is_multiplexor, Some(value))),
        _ => Err(before.expected("`:`, or how it is multiplexed: M, m5 or m5M")),
    }
}

/// `\"` is a quote.
fn unescaped(text: &str) -> Arc<str> {
    if text.contains('\\') { text.replace("\\\"", "\"").into() } else { text.into() }
}
