//! What an output sends: which frames, and the columns that become them.

use std::sync::Arc;

use tidegate_core::FieldType;

use super::check::find;
use super::config::{ConnectionConfig, OutputConfig};
use super::database::Database;
use super::frame::{MOST_CLASSIC, MOST_FD, fd_length};
use super::id::{Id, IdError, J1939Id, NULL_ADDRESS};
use super::message::{Format, Message};
use super::signal::{Signal, Value};
use crate::line::limits::check_interval;
use crate::table::{Problem, Review, tell};

/// What an output sends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Transmission {
    /// a message, and the values of signals that a row need not name
    Message { message: Arc<Message>, labels: bool, defaults: Vec<(usize, f64)> },
    /// bytes under this id
    Frames { id: Id, fd: bool },
}

impl Transmission {
    /// The columns that a row may have, and the names of those that it must have.
    pub(super) fn columns(&self) -> (Vec<(String, FieldType)>, Vec<String>) {
        match self {
            Transmission::Frames { .. } => (vec![(DATA.to_owned(), FieldType::Bytes)], vec![DATA.to_owned()]),
            Transmission::Message { message, labels, defaults } => {
                // A multiplexor follows from the signals that it selects.
                let follows = |place: usize| {
                    let selects = |other: &&Signal| {
                        other.selector.as_ref().is_some_and(|selector| selector.multiplexor == place)
                    };
                    message.signals.iter().any(|other| selects(&other))
                };
                let is_required = |(place, signal): &(usize, &Signal)| {
                    signal.selector.is_none()
                        && !follows(*place)
                        && !defaults.iter().any(|(default, _)| default == place)
                };
                let columns = message.signals.iter();
                let columns = columns.map(|signal| (signal.name.to_string(), signal.field_type(*labels)));
                let required = message.signals.iter().enumerate().filter(is_required);
                (columns.collect(), required.map(|(_, signal)| signal.name.to_string()).collect())
            }
        }
    }
}

impl Transmission {
    /// The id of its frames.
    pub(super) fn id(&self) -> Id {
        match self {
            Self::Message { message, .. } => message.id,
            Self::Frames { id, .. } => *id,
        }
    }
}

type Limits = (Vec<(String, f64, f64)>, Vec<(String, Vec<String>)>);

impl Transmission {
    /// The least and the greatest value of columns that take numbers, and the names that the others take.
    fn limits(&self) -> Limits {
        let (mut ranges, mut names) = (Vec::new(), Vec::new());
        let Self::Message { message, labels, .. } = self else { return (ranges, names) };
        for signal in &message.signals {
            let name = signal.name.to_string();
            match signal.field_type(*labels) {
                FieldType::Int64 | FieldType::Float64 => {
                    ranges.extend(signal.limits().map(|(least, most)| (name, least, most)));
                }
                FieldType::Utf8 => {
                    names.push((name, signal.labels().iter().map(|(_, label)| label.to_owned()).collect()));
                }
                FieldType::Bool | FieldType::Timestamp | FieldType::Bytes => {}
            }
        }
        (ranges, names)
    }
}

/// The column of a frame's bytes.
pub(super) const DATA: &str = "data";

impl OutputConfig {
    /// Says what is wrong with it, and works out its columns. `connection`: the one that it writes to, if
    /// that is known.
    pub(crate) fn check(&mut self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        tell(self.problems(connection), review);
        let Some(database) = connection.and_then(|connection| connection.database.as_deref()) else { return };
        if self.message.is_some() == self.id.is_some() {
            return;
        }
        match self.transmission(database) {
            Ok(transmission) => {
                (self.columns, self.required) = transmission.columns();
                (self.ranges, self.labels_of_columns) = transmission.limits();
            }
            Err(problem) => tell(vec![problem], review),
        }
    }

    /// What is wrong with it, whatever the databases say.
    pub(super) fn problems(&self, connection: Option<&ConnectionConfig>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(why) = connection.and_then(ConnectionConfig::refuses_outputs) {
            problems.push(
                Problem::new(&["connection"], why).help("name a connection that can send, or leave it out"),
            );
        }
        match (&self.message, &self.id) {
            (None, None) => problems.push(
                Problem::absent(&[], "it says neither `message` nor `id`")
                    .help("add message = \"..\" of the database, or id = \"0x123\" for bytes as they are"),
            ),
            (Some(_), Some(_)) => {
                problems.push(Problem::new(&["id"], "it says `message` and `id`").help("keep one of them"))
            }
            (Some(_), None) if self.fd => problems.push(
                Problem::new(&["fd"], "the database says whether a message is FD").help("leave `fd` out"),
            ),
            (None, Some(_)) if !self.defaults.is_empty() => problems.push(
                Problem::new(&["defaults"], "`defaults` are of signals, which `message` has")
                    .help("leave it out"),
            ),
            (None, Some(_)) if self.source.is_some() || self.destination.is_some() => problems.push(
                Problem::new(&["id"], "the addresses of J1939 are in the id already")
                    .help("leave `source` and `destination` out"),
            ),
            (None, Some(_)) if self.labels => problems.push(
                Problem::new(&["labels"], "`labels` are of signals, which `message` has")
                    .help("leave it out"),
            ),
            _ => {}
        }
        match (self.every, self.expiry) {
            (None, None) => {}
            (Some(_), None) => problems.push(
                Problem::absent(&["every"], "what is sent again and again must end some time")
                    .help("add expiry = \"1s\": it is sent no more when no newer row has come for so long"),
            ),
            (None, Some(_)) => problems.push(
                Problem::new(&["expiry"], "`expiry` is for what is sent again and again")
                    .help("add every = \"100ms\", or leave `expiry` out"),
            ),
            (Some(every), Some(expiry)) if expiry < every => {
                let what = format!("`expiry` ({expiry}) is shorter than `every` ({every})");
                problems.push(Problem::new(&["expiry"], what).help("make it several times as long"));
            }
            (Some(every), Some(_)) => problems.extend(check_interval(&["every"], every)),
        }
        problems
    }

    /// What it sends.
    ///
    /// # Errors
    /// The first name that leads to nothing.
    pub(super) fn transmission(&self, database: &Database) -> Result<Transmission, Problem> {
        if let Some(id) = self.id.as_ref().filter(|_| self.message.is_none()) {
            let id = id.parse().map_err(|error: IdError| Problem::new(&["id"], error.to_string()))?;
            return Ok(Transmission::Frames { id, fd: self.fd });
        }
        let name = self.message.as_deref().unwrap_or_default();
        let message = find(database, database.message(name), &["message"])?;
        let most = fd_length(message.length).unwrap_or(usize::MAX);
        if message.format == Format::J1939 && message.length > MOST_CLASSIC || most > MOST_FD {
            let what = format!("`{name}` has {} bytes, more than fit into one frame", message.length);
            return Err(Problem::new(&["message"], what));
        }
        let id = self.id_of(message)?;
        let mut defaults = Vec::new();
        for (signal, value) in &self.defaults {
            let at = ["defaults", signal];
            let place = find(database, message.signal(signal), &at)?;
            if let Some(Err(why)) =
                message.signals.get(place).map(|signal| signal.encode(Value::Float(*value)))
            {
                return Err(Problem::new(&at, why));
            }
            defaults.push((place, *value));
        }
        let message = Arc::new(Message { id, ..message.clone() });
        Ok(Transmission::Message { message, labels: self.labels, defaults })
    }

    /// Under which id a message is sent: one of J1939 from the box's own address.
    fn id_of(&self, message: &Message) -> Result<Id, Problem> {
        let addresses = [("source", self.source), ("destination", self.destination)];
        let Some(mut id) = J1939Id::parse(message.id).filter(|_| message.format == Format::J1939) else {
            let Some((key, _)) = addresses.iter().find(|(_, address)| address.is_some()) else {
                return Ok(message.id);
            };
            let what = format!("`{}` is no message of J1939, and has no addresses", message.name);
            return Err(Problem::new(&[key], what).help("leave it out"));
        };
        id.source = self.source.unwrap_or(id.source);
        if id.source >= NULL_ADDRESS {
            let what = format!("nothing says from which address `{}` is sent", message.name);
            return Err(Problem::absent(&["message"], what).help("add the box's own, such as source = 0x27"));
        }
        if self.destination.is_some() && id.destination.is_none() {
            let what = format!("`{}` goes to everybody", message.name);
            return Err(Problem::new(&["destination"], what).help("leave it out"));
        }
        id.destination = self.destination.or(id.destination);
        Ok(id.id())
    }
}
