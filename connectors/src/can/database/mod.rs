//! DBC files: what is on a bus. `text` cuts a file into statements, `parse` reads each of them with a
//! `reader`, `compile` makes messages that can be decoded.
//!
//! A file whose syntax is wrong is refused. A message that contradicts itself (a signal behind the end of its
//! frame, a factor of 0) is left out, and all others can be used: see [`Database::problems`].

mod compile;
mod parse;
mod reader;
mod text;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_core::Place;
use tidegate_core::diagnostic::{Diagnostic, did_you_mean, nearest};

use super::id::{GLOBAL, Id, J1939Id, NULL_ADDRESS};
use super::message::{Format, Message};
use compile::{Compiled, compile};
use parse::Parsed;
use text::{Flaw, MOST_BYTES, text};

/// How many errors or warnings of a file are told.
const MOST_TOLD: usize = 20;

/// A name that leads to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{}", if help.is_some() { "; " } else { "" }, help.as_deref().unwrap_or_default())]
pub struct Unresolved {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// The messages of one or several DBC files.
#[derive(Debug, Clone, Default)]
pub struct Database {
    messages: Vec<Message>,
    by_id: HashMap<Id, usize>,
    /// those of J1939
    by_pgn: HashMap<u32, Vec<usize>>,
    by_name: HashMap<Arc<str>, Vec<usize>>,
    by_signal: HashMap<Arc<str>, Vec<(usize, usize)>>,
    /// why messages cannot be used, by name
    left_out: HashMap<String, Diagnostic>,
    /// their signals, and whose they are
    left_out_signals: HashMap<Arc<str>, Vec<String>>,
    problems: Vec<Diagnostic>,
}

impl Database {
    /// Reads the files as one database.
    ///
    /// # Errors
    /// When one of them cannot be read at all: all that is wrong with them, with line and column.
    pub fn read(files: &[(PathBuf, Vec<u8>)]) -> Result<Self, Vec<Diagnostic>> {
        let mut joining = Joining::default();
        let mut errors = Vec::new();
        for (path, bytes) in files {
            let file = path.display().to_string();
            match read(bytes) {
                Ok((messages, remarks)) => joining.add(&file, messages, remarks),
                Err(Unread::Whole(message, help)) => {
                    errors.push(Diagnostic::new(&file, message).help(help));
                }
                Err(Unread::Parts(flaws)) => {
                    errors.extend(flaws.into_iter().map(|flaw| diagnostic(&file, flaw)));
                }
            }
        }
        if errors.is_empty() { Ok(joining.finish()) } else { Err(errors) }
    }

    /// What is wrong with the files although they can be used, as warnings: messages that are left out, and
    /// statements that concern nothing.
    #[must_use]
    pub fn problems(&self) -> &[Diagnostic] {
        &self.problems
    }

    /// All messages that can be used, in the order of the files.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The message of this name, or id (`0x18FEF100x`).
    ///
    /// # Errors
    /// When there is none that can be used, or several; the nearest name is offered.
    pub fn message(&self, name: &str) -> Result<&Message, Unresolved> {
        let of_name = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        if let [_, _, ..] = of_name {
            let ids: Vec<String> = self.named(of_name).map(|message| format!("\"{}\"", message.id)).collect();
            return Err(Unresolved {
                message: format!("there are {} messages `{name}`", ids.len()),
                help: Some(format!("write the id instead: {}", ids.join(" or "))),
            });
        }
        let by_id = || name.parse().ok().and_then(|id: Id| self.by_id(id));
        if let Some(message) = self.named(of_name).next().or_else(by_id) {
            return Ok(message);
        }
        if let Some(reason) = self.left_out.get(name) {
            return Err(Unresolved {
                message: format!("the message `{name}` cannot be used"),
                help: Some(reason.to_string()),
            });
        }
        let known = self.messages.iter().map(|message| &*message.name);
        Err(Unresolved { message: format!("there is no message `{name}`"), help: near(name, known) })
    }

    /// The messages that have a signal of this name, and which of theirs it is. With its message in front
    /// (`MotorStatus.Speed`) it is only one.
    ///
    /// # Errors
    /// When there is none; the nearest name is offered.
    pub fn signal(&self, name: &str) -> Result<Vec<(&Message, usize)>, Unresolved> {
        if let Some(found) = self.by_signal.get(name) {
            let places = found.iter().filter_map(|(message, at)| Some((self.messages.get(*message)?, *at)));
            return Ok(places.collect());
        }
        if let Some((message, signal)) = name.split_once('.') {
            let message = self.message(message)?;
            return Ok(vec![(message, message.signal(signal)?)]);
        }
        if let Some(message) = self.left_out(Some(name)).first()
            && let Some(reason) = self.left_out.get(*message)
        {
            return Err(Unresolved {
                message: format!("no message that can be used has a signal `{name}`"),
                help: Some(reason.to_string()),
            });
        }
        let known = self.by_signal.keys().map(AsRef::as_ref);
        Err(Unresolved { message: format!("no message has a signal `{name}`"), help: near(name, known) })
    }

    /// The names of the messages that have this signal, or any, and cannot be used.
    #[must_use]
    pub fn left_out(&self, signal: Option<&str>) -> Vec<&str> {
        let Some(signal) = signal else {
            let mut names: Vec<&str> = self.left_out.keys().map(String::as_str).collect();
            names.sort_unstable();
            return names;
        };
        self.left_out_signals.get(signal).into_iter().flatten().map(String::as_str).collect()
    }

    /// The message whose frames have this id.
    #[must_use]
    pub fn by_id(&self, id: Id) -> Option<&Message> {
        self.by_id.get(&id).and_then(|at| self.messages.get(*at))
    }

    /// The message of a parameter group, as J1939 has it: the id's priority and destination do not matter.
    /// Among those of one group the one with this source address is meant, or else the one with none (254 or
    /// 255), or else the only one.
    #[must_use]
    pub fn by_pgn(&self, pgn: u32, source: u8) -> Option<&Message> {
        let found = self.by_pgn.get(&pgn)?;
        let with = |wanted: &[u8]| {
            let is_meant =
                |message: &&Message| J1939Id::parse(message.id).is_some_and(|id| wanted.contains(&id.source));
            self.named(found).find(is_meant)
        };
        let only = || if let [only] = found.as_slice() { self.messages.get(*only) } else { None };
        with(&[source]).or_else(|| with(&[NULL_ADDRESS, GLOBAL])).or_else(only)
    }

    fn leave_out(&mut self, name: &str, signals: &[Arc<str>], reason: Option<Diagnostic>) {
        self.left_out.extend(reason.map(|reason| (name.to_owned(), reason)));
        for signal in signals {
            self.left_out_signals.entry(Arc::clone(signal)).or_default().push(name.to_owned());
        }
    }

    fn named<'a>(&'a self, places: &'a [usize]) -> impl Iterator<Item = &'a Message> {
        places.iter().filter_map(|at| self.messages.get(*at))
    }
}

/// Longer than any name in the field. How near two names are takes time by the product of their lengths.
const LONGEST_NAME: usize = 256;

/// The nearest name; all names if there are few.
pub(super) fn near<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if wanted.len() > LONGEST_NAME {
        return None;
    }
    let mut known: Vec<&str> = known.into_iter().filter(|name| name.len() <= LONGEST_NAME).collect();
    known.sort_unstable();
    if known.len() <= 20 {
        return did_you_mean(wanted, &known);
    }
    nearest(wanted, known).map(|name| format!("did you mean `{name}`?"))
}

/// Why there is nothing to be had from a file.
enum Unread {
    Whole(String, Option<String>),
    Parts(Vec<Flaw>),
}

fn read(bytes: &[u8]) -> Result<(Vec<Compiled>, Vec<Flaw>), Unread> {
    if bytes.len() > MOST_BYTES {
        return Err(Unread::Whole("the file has more than 32 MiB".into(), None));
    }
    let text = text(bytes).map_err(|why| Unread::Whole(format!("the file cannot be read: {why}"), None))?;
    let parsed = Parsed::read(&text, MOST_TOLD).map_err(Unread::Parts)?;
    if parsed.messages.is_empty() {
        let help = "is it a DBC file, and whole? Messages begin with BO_".to_owned();
        return Err(Unread::Whole("the file has no messages".into(), Some(help)));
    }
    Ok(compile(parsed))
}

fn names(message: &Message) -> Vec<Arc<str>> {
    message.signals.iter().map(|signal| Arc::clone(&signal.name)).collect()
}

fn diagnostic(file: &str, flaw: Flaw) -> Diagnostic {
    Diagnostic::new(file, flaw.message).at(flaw.place).help(flaw.help)
}

/// Messages of several files on their way into one database.
#[derive(Default)]
struct Joining {
    database: Database,
    /// file and place of each message
    places: Vec<(String, Place)>,
    /// those that have an id in common with another one
    doubles: HashMap<usize, Diagnostic>,
}

impl Joining {
    fn add(&mut self, file: &str, messages: Vec<Compiled>, remarks: Vec<Flaw>) {
        let mut problems: Vec<Diagnostic> = remarks.into_iter().map(|flaw| diagnostic(file, flaw)).collect();
        for compiled in messages {
            match compiled.message {
                Ok(message) => self.add_message(file, compiled.place, message),
                Err(flaws) => {
                    let flaws = flaws.into_iter().map(|flaw| Flaw {
                        message: format!("the message `{}` is left out: {}", compiled.name, flaw.message),
                        ..flaw
                    });
                    let told: Vec<Diagnostic> = flaws.map(|flaw| diagnostic(file, flaw)).collect();
                    let reason = told.first().cloned();
                    self.database.leave_out(&compiled.name, &compiled.left_out, reason);
                    problems.extend(told);
                }
            }
        }
        let more = problems.len().saturating_sub(MOST_TOLD);
        problems.truncate(MOST_TOLD);
        if more > 0 {
            problems.push(Diagnostic::new(file, format!("there are {more} more problems with this file")));
        }
        self.database.problems.extend(problems.into_iter().map(Diagnostic::warning));
    }

    fn add_message(&mut self, file: &str, place: Place, message: Message) {
        let at = self.database.messages.len();
        let Some(known) = self.database.by_id.get(&message.id).copied() else {
            self.database.by_id.insert(message.id, at);
            self.database.messages.push(message);
            self.places.push((file.to_owned(), place));
            return;
        };
        // Files of one bus may share messages.
        if self.database.messages.get(known) == Some(&message) {
            return;
        }
        let Some((other_file, other_place)) = self.places.get(known) else { return };
        let other = self.database.messages.get(known).map_or("", |other| &other.name);
        let what = format!(
            "the messages `{}` and `{other}` ({other_file}:{}) have the id {}, so that neither can be told \
             and both are left out",
            message.name, other_place.line, message.id
        );
        let help = "take one of them out, or name only one of the files".to_owned();
        let problem = Diagnostic::new(file, what).at(place).help(help);
        self.database.leave_out(&message.name, &names(&message), Some(problem.clone()));
        if self.database.problems.len() < MOST_TOLD {
            self.database.problems.push(problem.clone().warning());
        }
        self.doubles.insert(known, problem);
    }

    /// Leaves the doubles out, and makes everything else findable.
    fn finish(self) -> Database {
        let Self { mut database, doubles, .. } = self;
        let messages = std::mem::take(&mut database.messages);
        database.by_id.clear();
        for (at, message) in messages.into_iter().enumerate() {
            if let Some(problem) = doubles.get(&at) {
                database.leave_out(&message.name, &names(&message), Some(problem.clone()));
                continue;
            }
            let at = database.messages.len();
            database.by_id.insert(message.id, at);
            database.by_name.entry(Arc::clone(&message.name)).or_default().push(at);
            if message.format == Format::J1939
                && let Some(id) = J1939Id::parse(message.id)
            {
                database.by_pgn.entry(id.pgn).or_default().push(at);
            }
            for (signal, place) in message.signals.iter().zip(0..) {
                database.by_signal.entry(Arc::clone(&signal.name)).or_default().push((at, place));
            }
            database.messages.push(message);
        }
        database
    }
}

#[cfg(test)]
mod tests;
