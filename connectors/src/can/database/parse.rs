//! From statements to what they say of each message and signal. Nothing is checked yet but the syntax.

use std::collections::HashMap;
use std::sync::Arc;

use can_dbc::{
    AttributeValue, AttributeValueForSignal, Dbc, DbcError, SignalExtendedValueType, ValDescription,
    ValueDescription,
};
use tidegate_core::Place;

use super::text::{Flaw, Statement, Statements};

/// Far more than the databases of whole vehicles have, and some 100 MB.
const MOST_SIGNALS: usize = 200_000;

/// What is said of a message elsewhere than at its signals.
#[derive(Debug, Default)]
pub(super) struct MessageNotes {
    pub(super) long_name: Option<String>,
    pub(super) cycle_ms: Option<f64>,
    pub(super) frame_format: Option<AttributeValue>,
    pub(super) signals: HashMap<String, SignalNotes>,
}

/// What is said of a signal elsewhere than at itself.
#[derive(Debug, Default)]
pub(super) struct SignalNotes {
    pub(super) long_name: Option<String>,
    pub(super) start: Option<f64>,
    pub(super) labels: Vec<(i64, Arc<str>)>,
    pub(super) content: Option<SignalExtendedValueType>,
    pub(super) multiplexor: Option<Multiplexing>,
    /// the last statement that concerns frames
    pub(super) place: Option<Place>,
}

/// `SG_MUL_VAL_`
#[derive(Debug)]
pub(super) struct Multiplexing {
    pub(super) multiplexor: String,
    pub(super) ranges: Vec<(u64, u64)>,
}

/// A message, and where it is.
#[derive(Debug)]
pub(super) struct Written<'t> {
    /// with the bits that tell ids of 29 bits
    pub(super) id: u64,
    pub(super) message: can_dbc::Message,
    pub(super) statement: Statement<'t>,
}

/// A file.
#[derive(Debug, Default)]
pub(super) struct Parsed<'t> {
    pub(super) messages: Vec<Written<'t>>,
    /// by the message's id
    pub(super) notes: HashMap<u64, MessageNotes>,
    pub(super) defaults: HashMap<String, AttributeValue>,
    /// the names that values of attributes stand for
    pub(super) choices: HashMap<String, Vec<String>>,
    /// whether all of the file is J1939
    pub(super) is_j1939: bool,
    signals: usize,
}

/// The attributes that matter here; the first five are of messages and signals.
const ATTRIBUTES: [&str; 7] = [
    "GenMsgCycleTime",
    "VFrameFormat",
    "SystemMessageLongSymbol",
    "SystemSignalLongSymbol",
    "GenSigStartValue",
    "ProtocolType",
    "BusType",
];

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
        let concerns_frames = match statement.keyword {
            "BO_" | "BU_" | "VAL_" | "SG_MUL_VAL_" | "SIG_VALTYPE_" => true,
            "BA_" | "BA_DEF_" | "BA_DEF_DEF_" => {
                statement.text.split('"').nth(1).is_some_and(|name| ATTRIBUTES.contains(&name))
            }
            _ => false,
        };
        if !concerns_frames {
            return Ok(());
        }
        let dbc = Dbc::try_from(statement.text).map_err(|error| flaw(statement, &error))?;
        let id = raw_id(statement.text);
        if let Some(message) = dbc.messages.into_iter().next() {
            self.signals += message.signals.len();
            self.messages.push(Written { id, message, statement });
        }
        for definition in dbc.attribute_definitions {
            if let can_dbc::AttributeDefinition::Message(name, can_dbc::AttributeValueType::Enum(choices))
            | can_dbc::AttributeDefinition::Plain(name, can_dbc::AttributeValueType::Enum(choices)) =
                definition
            {
                self.choices.insert(name, choices);
            }
        }
        self.defaults.extend(dbc.attribute_defaults.into_iter().map(|default| (default.name, default.value)));
        for attribute in dbc.attribute_values_database {
            self.is_j1939 |=
                matches!(&attribute.value, AttributeValue::String(name) if name.contains("J1939"));
        }
        for attribute in dbc.attribute_values_message {
            self.message_attribute(id, &attribute.name, attribute.value);
        }
        for attribute in dbc.attribute_values_signal {
            self.signal_attribute(id, attribute);
        }
        self.signal_statements(
            id,
            statement,
            dbc.value_descriptions,
            dbc.extended_multiplex,
            dbc.signal_extended_value_type_list,
        );
        Ok(())
    }

    fn message_attribute(&mut self, id: u64, name: &str, value: AttributeValue) {
        let notes = self.notes.entry(id).or_default();
        match name {
            "GenMsgCycleTime" => notes.cycle_ms = number(&value),
            "VFrameFormat" => notes.frame_format = Some(value),
            "SystemMessageLongSymbol" => notes.long_name = name_in(value),
            _ => {}
        }
    }

    fn signal_attribute(&mut self, id: u64, attribute: AttributeValueForSignal) {
        let notes = self.signal(id, attribute.signal_name);
        match attribute.name.as_str() {
            "GenSigStartValue" => notes.start = number(&attribute.value),
            "SystemSignalLongSymbol" => notes.long_name = name_in(attribute.value),
            _ => {}
        }
    }

    fn signal_statements(
        &mut self,
        id: u64,
        statement: Statement<'_>,
        labels: Vec<ValueDescription>,
        multiplexing: Vec<can_dbc::ExtendedMultiplex>,
        contents: Vec<can_dbc::SignalExtendedValueTypeList>,
    ) {
        let place = Some(statement.place(0));
        for description in labels {
            if let ValueDescription::Signal { name, value_descriptions, .. } = description {
                let notes = self.signal(id, name);
                let named = |label: ValDescription| (label.id, unescaped(label.description));
                notes.labels = value_descriptions.into_iter().map(named).collect();
                notes.place = place;
            }
        }
        for multiplexed in multiplexing {
            let notes = self.signal(id, multiplexed.signal_name);
            let ranges =
                multiplexed.mappings.iter().map(|range| (range.min_value, range.max_value)).collect();
            notes.multiplexor =
                Some(Multiplexing { multiplexor: multiplexed.multiplexor_signal_name, ranges });
            notes.place = place;
        }
        for content in contents {
            let notes = self.signal(id, content.signal_name);
            notes.content = Some(content.signal_extended_value_type);
            notes.place = place;
        }
    }

    fn signal(&mut self, id: u64, name: String) -> &mut SignalNotes {
        self.notes.entry(id).or_default().signals.entry(name).or_default()
    }

    /// What the file says by default.
    pub(super) fn by_default(&self, attribute: &str) -> Option<&AttributeValue> {
        self.defaults.get(attribute)
    }

    /// The name of a choice: files have it, or its number.
    pub(super) fn choice<'a>(&'a self, attribute: &str, value: &'a AttributeValue) -> Option<&'a str> {
        if let AttributeValue::String(name) = value {
            return Some(name);
        }
        let choice = number(value).filter(|choice| choice.fract() == 0.0 && (0.0..1e6).contains(choice))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was looked at")]
        self.choices.get(attribute)?.get(choice as usize).map(String::as_str)
    }
}

/// `\"` is a quote.
fn unescaped(text: String) -> Arc<str> {
    if text.contains('\\') { text.replace("\\\"", "\"").into() } else { text.into() }
}

pub(super) fn number(value: &AttributeValue) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "start values and times")]
    match value {
        AttributeValue::Uint(number) => Some(*number as f64),
        AttributeValue::Int(number) => Some(*number as f64),
        AttributeValue::Double(number) => Some(*number),
        AttributeValue::String(_) => None,
    }
}

fn name_in(value: AttributeValue) -> Option<String> {
    match value {
        AttributeValue::String(name) if !name.is_empty() => Some(name),
        _ => None,
    }
}

/// The id as it is written: the parser keeps only the bits that ids may have. It is the first number behind
/// the keyword and an attribute's name.
fn raw_id(statement: &str) -> u64 {
    let behind_name = statement.split('"').nth(2).filter(|_| statement.starts_with("BA_"));
    let mut words = behind_name.unwrap_or(statement).split(|c: char| c.is_whitespace() || c == ';');
    words.find_map(|word| word.parse().ok()).unwrap_or(u64::MAX)
}

fn flaw(statement: Statement<'_>, error: &DbcError) -> Flaw {
    let help = match statement.keyword {
        "BO_" => {
            "a message is written BO_ 256 NAME: 8 SENDER, and each of its signals in a line below: \
             SG_ NAME : START|LENGTH@1+ (FACTOR,OFFSET) [MIN|MAX] \"UNIT\" RECEIVER"
        }
        "VAL_" => "a value table is written VAL_ 256 SIGNAL 0 \"off\" 1 \"on\" ;",
        "SG_MUL_VAL_" => "it is written SG_MUL_VAL_ 256 SIGNAL MULTIPLEXOR 0-3, 7-7;",
        "SIG_VALTYPE_" => "it is written SIG_VALTYPE_ 256 SIGNAL : 1; with 1 for float32, 2 for float64",
        _ => "compare it with the lines around it",
    };
    let (place, expected) = match error {
        DbcError::Pest(error) => place_and_expectation(&error.to_string()),
        error => (None, error.to_string()),
    };
    Flaw {
        place: place.map_or_else(|| statement.place(0), |place| statement.shifted(place)),
        message: format!("this `{}` statement cannot be read: {expected}", statement.keyword),
        help: Some(help.into()),
    }
}

/// The parser's words: the first line is ` --> LINE:COLUMN`, the last one ` = expected ..`. Its error has
/// both in types that it does not export.
fn place_and_expectation(words: &str) -> (Option<Place>, String) {
    let place = words.lines().next().and_then(|line| {
        let (line, column) = line.trim().strip_prefix("--> ")?.split_once(':')?;
        Some(Place { line: line.parse().ok()?, column: column.parse().ok()? })
    });
    let expectation = words.lines().last().unwrap_or_default().trim().trim_start_matches("= ");
    // It does not tell a missing sign from all else.
    let expectation = if expectation == "expected file" { "something is missing in it" } else { expectation };
    (place, expectation.to_owned())
}
