//! What a stream takes from the bus: which frames, and what its columns are made of.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{FieldType, Span, TS};

use super::check::find;
use super::config::{ConnectionConfig, IsoTpConfig, StreamConfig};
use super::database::Database;
use super::id::{Id, IdRange, MOST_EXTENDED, MOST_PGN};
use super::isotp::Request;
use super::message::{self, Message};
use super::polls::Asked;
use crate::codec::{Format, PayloadConfig};
use crate::line::limits::check_interval;
use crate::quality::{FAULT, QUALITY};
use crate::rows::with_quality;
use crate::table::{At, Problem, Review, tell};

/// As long as testers wait for a node (ISO 15765-4: 50 ms), and some more for gateways in between.
const DEFAULT_ISOTP_TIMEOUT: Duration = Duration::from_millis(200);

/// Stands for all ids, and all signals.
const ALL: &str = "*";

/// Messages, and which of their signals.
type Chosen = Vec<(Arc<Message>, Vec<usize>)>;

/// What the rows of a stream are made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reception {
    /// the signals of a message; of those of J1939 from this source, or from any, which is a column then
    Message { message: Arc<Message>, source: Option<u8> },
    /// a row a signal
    Signals(Chosen),
    /// frames as they come
    Frames(Vec<IdRange>),
    /// a parameter group as it comes
    Group { pgn: u32, source: Option<u8> },
    /// error frames
    Errors,
    /// values in a node's answers
    Asked(Asked),
}

impl Reception {
    /// The columns between `ts` and `quality`.
    pub(super) fn columns(&self, labels: bool) -> Vec<(String, FieldType)> {
        use FieldType::{Bool, Bytes, Float64, Int64, Utf8};
        let fixed = |columns: &[(&str, FieldType)]| {
            columns.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect::<Vec<_>>()
        };
        match self {
            Self::Message { message, source } => {
                let source = has_source(message, *source).then(|| (SOURCE.to_owned(), Int64));
                let signals = message.signals.iter();
                let signals = signals.map(|signal| (signal.name.to_string(), signal.field_type(labels)));
                source.into_iter().chain(signals).collect()
            }
            Self::Signals(_) => fixed(&[
                ("message", Utf8),
                ("signal", Utf8),
                ("value", Float64),
                ("text", Utf8),
                ("unit", Utf8),
            ]),
            Self::Frames(_) => fixed(&[
                ("id", Int64),
                ("extended", Bool),
                ("fd", Bool),
                ("remote", Bool),
                ("length", Int64),
                ("data", Bytes),
            ]),
            Self::Group { .. } => fixed(&[
                ("pgn", Int64),
                (SOURCE, Int64),
                ("destination", Int64),
                ("priority", Int64),
                ("data", Bytes),
            ]),
            Self::Asked(asked) => {
                asked.fields.iter().map(|(name, field)| (name.clone(), field.field_type())).collect()
            }
            Self::Errors => fixed(&[
                ("error", Utf8),
                ("class", Int64),
                ("tx_errors", Int64),
                ("rx_errors", Int64),
                ("data", Bytes),
            ]),
        }
    }
}

/// The column of the sender's address.
pub(super) const SOURCE: &str = "source";

/// Whether rows of a message say whose it is.
pub(super) fn has_source(message: &Message, source: Option<u8>) -> bool {
    message.format == message::Format::J1939 && source.is_none()
}

impl StreamConfig {
    /// Says what is wrong with it, and works out its columns. `connection`: the one that feeds it, if that
    /// is known.
    pub(crate) fn check(&mut self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        tell(self.problems(connection), review);
        let said = review.remarks.len();
        if self.isotp.is_some() && !self.fields.is_empty() {
            let layout = self.layout();
            layout.check_fields(review);
            layout.check_format(review);
            layout.check_times(review);
        }
        if review.remarks.len() > said {
            return;
        }
        // Without a database that can be read, that is said of the connection.
        let Some(database) = connection.and_then(|connection| connection.database.as_deref()) else { return };
        if self.forms().len() != 1 {
            return;
        }
        match self.reception(database) {
            Ok(reception) => {
                tell(self.check_columns(&reception), review);
                self.columns = with_quality(reception.columns(self.labels), self.quality);
                self.check_left_out(database, review);
            }
            Err(problem) => tell(vec![problem], review),
        }
    }

    /// What is wrong with it, whatever the databases say.
    pub(super) fn problems(&self, connection: Option<&ConnectionConfig>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let forms = self.forms();
        if let Some(why) =
            connection.and_then(ConnectionConfig::refuses_requests).filter(|_| self.isotp.is_some())
        {
            problems.push(Problem::new(&["isotp"], why));
        }
        match forms.as_slice() {
            [] => problems.push(
                Problem::absent(
                    &[],
                    "it says none of `message`, `signals`, `ids`, `pgn`, `errors` and `isotp`",
                )
                .help("add message = \"..\", or ids = [\"*\"] for all frames as they come"),
            ),
            [_] => {}
            [one, other, ..] => problems.push(
                Problem::new(&[other], format!("it says `{one}` and `{other}`"))
                    .help("keep one of them, and make another stream for the other"),
            ),
        }
        let has = |key| forms.contains(&key);
        let of_signals = has("message") || has("signals");
        for (key, is_said, fits, whose) in [
            ("source", self.source.is_some(), has("message") || has("pgn"), "`message` and `pgn`"),
            ("labels", self.labels, has("message"), "`message`; with `signals` both are columns"),
            ("quality", self.quality, of_signals || has("isotp"), "`message`, `signals` and `isotp`"),
            ("stale_after", self.stale_after.is_some(), of_signals, "`message` and `signals`"),
            ("request", self.request.is_some(), has("isotp"), "`isotp`"),
            ("every", self.every.is_some(), has("isotp"), "`isotp`"),
            ("timeout", self.timeout.is_some(), has("isotp"), "`isotp`"),
            ("fields", !self.fields.is_empty(), has("isotp"), "`isotp`; with `message` signals are columns"),
        ] {
            if is_said && !fits && !forms.is_empty() {
                problems.push(
                    Problem::new(&[key], format!("`{key}` is for streams with {whose}")).help("leave it out"),
                );
            }
        }
        problems.extend(self.stale_after.and_then(|after| check_interval(&["stale_after"], after)));
        if let Some(pgn) = self.pgn.filter(|pgn| *pgn > MOST_PGN) {
            problems.push(
                Problem::new(&["pgn"], format!("{pgn} is no parameter group"))
                    .help(format!("they have the numbers 0 to {MOST_PGN}; the whole id goes into `ids`")),
            );
        }
        problems
    }

    /// The keys that say what it has.
    fn forms(&self) -> Vec<&'static str> {
        let said = [
            ("message", self.message.is_some()),
            ("signals", self.signals.is_some()),
            ("ids", self.ids.is_some()),
            ("pgn", self.pgn.is_some()),
            ("errors", self.errors),
            ("isotp", self.isotp.is_some()),
        ];
        said.into_iter().filter(|(_, is_said)| *is_said).map(|(key, _)| key).collect()
    }

    /// What its rows are made of.
    ///
    /// # Errors
    /// The first name that leads to nothing.
    pub(super) fn reception(&self, database: &Database) -> Result<Reception, Problem> {
        if let Some(name) = &self.message {
            let message = find(database, database.message(name), &["message"])?;
            if self.source.is_some() && message.format != message::Format::J1939 {
                let what = format!("`{name}` is no message of J1939, and has no source address");
                return Err(Problem::new(&["source"], what).help("leave `source` out"));
            }
            return Ok(Reception::Message { message: Arc::new(message.clone()), source: self.source });
        }
        if let Some(names) = &self.signals {
            return signals(database, names).map(Reception::Signals);
        }
        if let Some(ids) = &self.ids {
            return ranges(ids).map(Reception::Frames);
        }
        match (self.pgn, self.isotp) {
            (Some(pgn), _) => Ok(Reception::Group { pgn, source: self.source }),
            (None, Some(node)) => self.asked(node).map(Reception::Asked),
            (None, None) => Ok(Reception::Errors),
        }
    }

    /// Where the values of an answer are.
    fn layout(&self) -> PayloadConfig {
        let fields = Some(self.fields.clone());
        PayloadConfig { format: Format::Layout, fields, ..PayloadConfig::default() }
    }

    fn asked(&self, node: IsoTpConfig) -> Result<Asked, Problem> {
        for (key, id) in [("tx", node.tx), ("rx", node.rx)] {
            if id > MOST_EXTENDED {
                return Err(Problem::new(&["isotp", key], format!("{id:#x} has more than 29 bits")));
            }
        }
        if node.tx == node.rx {
            return Err(Problem::new(&["isotp", "rx"], "requests and answers have one id")
                .help("the node's description says both, such as tx = 0x7e0 and rx = 0x7e8"));
        }
        let Some(request) = &self.request else {
            return Err(Problem::absent(&["isotp"], "it does not say what is asked")
                .help("add its bytes, such as request = \"01 0C\""));
        };
        let Some(every) = self.every else {
            return Err(Problem::absent(&["isotp"], "it does not say how often the node is asked")
                .help("add every = \"1s\""));
        };
        let patience = self.timeout.unwrap_or(Span(DEFAULT_ISOTP_TIMEOUT));
        for (key, time) in [("every", every), ("timeout", patience)] {
            if let Some(problem) = check_interval(&[key], time) {
                return Err(problem);
            }
        }
        if self.fields.is_empty() {
            return Err(Problem::absent(&["fields"], "it has no fields")
                .help("add some, such as rpm = { at = 2, type = \"uint16\", scale = 0.25 }"));
        }
        let fields = self.layout().binary_fields().map_err(|why| Problem::new(&["fields"], why))?;
        let reserved = [Some(TS), self.quality.then_some(QUALITY), self.quality.then_some(FAULT)];
        if let Some(name) = reserved.into_iter().flatten().find(|name| self.fields.contains_key(*name)) {
            return Err(Problem::new(
                &["fields", name],
                format!("the stream has the column `{name}` already"),
            )
            .help("choose another name"));
        }
        Ok(Asked { node, request: Request::parse(request)?, every: every.0, patience: patience.0, fields })
    }

    /// Says which signals are not there, because their messages cannot be used.
    fn check_left_out(&self, database: &Database, review: &mut Review<'_>) {
        for name in self.signals.iter().flatten() {
            let messages = database.left_out(Some(name.as_str()).filter(|name| *name != ALL));
            if messages.is_empty() {
                continue;
            }
            let what =
                format!("\"{name}\" is without the signals of {}, which cannot be used", messages.join(", "));
            review.warning(At::value(&["signals"]), what, "`dbc` of the connection says why".to_owned());
        }
    }

    /// Names that mean two columns.
    pub(super) fn check_columns(&self, reception: &Reception) -> Vec<Problem> {
        let Reception::Message { message, source } = reception else { return Vec::new() };
        let source = has_source(message, *source).then_some(SOURCE);
        let reserved = [Some(TS), source, self.quality.then_some(QUALITY), self.quality.then_some(FAULT)];
        let is_double = |name: &&str| message.signals.iter().any(|signal| &*signal.name == *name);
        let told = reserved.into_iter().flatten().filter(is_double).map(|name| {
            let what =
                format!("the message `{}` has a signal `{name}`, and so is called a column", message.name);
            Problem::new(&["message"], what).help("use `signals`, where signals are no columns")
        });
        told.collect()
    }
}

fn ranges(ids: &[String]) -> Result<Vec<IdRange>, Problem> {
    if ids.is_empty() {
        return Err(Problem::absent(&["ids"], "it names no id").help("write ids = [\"*\"] for all frames"));
    }
    let mut ranges = Vec::new();
    for id in ids {
        if id == ALL {
            let all = [
                Id::standard(0).zip(Id::standard(super::id::MOST_STANDARD)),
                Id::extended(0).zip(Id::extended(MOST_EXTENDED)),
            ];
            ranges.extend(all.into_iter().flatten().filter_map(|(first, last)| IdRange::new(first, last)));
        } else {
            ranges.push(id.parse().map_err(|error| Problem::new(&["ids"], format!("{error}")))?);
        }
    }
    Ok(ranges)
}

fn signals(database: &Database, names: &[String]) -> Result<Chosen, Problem> {
    if names.is_empty() {
        return Err(Problem::absent(&["signals"], "it names no signal").help("write [\"*\"] for all"));
    }
    let mut chosen: Chosen = Vec::new();
    for name in names {
        if name == ALL {
            let all = database.messages().iter();
            chosen = all.map(|of| (Arc::new(of.clone()), (0..of.signals.len()).collect())).collect();
            if chosen.is_empty() {
                return find(database, database.message(name), &["signals"]).map(|_| Vec::new());
            }
            break;
        }
        for (message, signal) in find(database, database.signal(name), &["signals"])? {
            match chosen.iter_mut().find(|(known, _)| known.id == message.id) {
                Some((_, signals)) if signals.contains(&signal) => {}
                Some((_, signals)) => signals.push(signal),
                None => chosen.push((Arc::new(message.clone()), vec![signal])),
            }
        }
    }
    Ok(chosen)
}
