//! What must hold for the configuration beyond the types of its keys, and what it means.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::diagnostic::{Diagnostic, Severity};
use tidegate_core::{FieldType, Span, TS};

use super::config::{ConnectionConfig, IsoTpConfig, LogConfig, OutputConfig, SlcanConfig, StreamConfig};
use super::database::{Database, Unresolved};
use super::frame::{MOST_FD, fd_length};
use super::id::{Id, IdRange, J1939Id, MOST_EXTENDED, MOST_PGN, NULL_ADDRESS};
use super::isotp::{Field, Request};
use super::message::{Format, Message};
use super::polls::Asked;
use super::slcan::BIT_RATES;
use crate::line::limits::check_interval;
use crate::quality::{FAULT, QUALITY};
use crate::rows::with_quality;
use crate::table::{At, Problem, Remark, Review, tell};

/// What nobody waits for any longer.
const LONGEST_SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// As long as testers wait for a node (ISO 15765-4: 50 ms), and some more for gateways in between.
const DEFAULT_ISOTP_TIMEOUT: Duration = Duration::from_millis(200);

/// Stands for all ids, and all signals.
const ALL: &str = "*";

impl ConnectionConfig {
    /// Says what is wrong with it, and reads its databases.
    pub(crate) fn check(&mut self, review: &mut Review<'_>) {
        for path in self.dbc.iter_mut().chain(self.log.iter_mut().map(|log| &mut log.path)) {
            *path = review.base_dir.join(&*path);
        }
        tell(self.problems(), review);
        match self.read_databases() {
            Ok(database) => {
                for problem in database.problems() {
                    review.remarks.push(remark(problem, Severity::Warning));
                }
                self.database = Some(Arc::new(database));
            }
            Err(problems) => review.remarks.extend(problems.iter().map(|of| remark(of, Severity::Error))),
        }
    }

    /// What is wrong with it.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let ways = [
            ("interface", self.interface.is_some()),
            ("slcan", self.slcan.is_some()),
            ("log", self.log.is_some()),
        ];
        let mut said = ways.iter().filter(|(_, is_said)| *is_said).map(|(key, _)| *key);
        match (said.next(), said.next()) {
            (None, _) => problems.push(
                Problem::absent(&[], "it says none of `interface`, `slcan` and `log`")
                    .help("add interface = \"can0\"; list the interfaces with: ip link show type can"),
            ),
            (Some(one), Some(other)) => problems.push(
                Problem::new(&[other], format!("it says `{one}` and `{other}`")).help("keep one of them"),
            ),
            (Some(_), None) => {}
        }
        if let Some(name) = &self.interface
            && (name.is_empty() || name.len() > 15 || name.contains(|c: char| c.is_whitespace() || c == '/'))
        {
            problems.push(
                Problem::new(&["interface"], format!("\"{name}\" is no name of a network interface")).help(
                    "write one such as \"can0\"; an adapter on a serial port is slcan = { device = \
                     \"/dev/ttyACM0\", bitrate = 250000 }",
                ),
            );
        }
        problems.extend(self.slcan.as_ref().and_then(check_slcan));
        problems.extend(self.log.as_ref().and_then(check_log));
        if self.send_timeout.0 < Duration::from_millis(1) || self.send_timeout.0 > LONGEST_SEND_TIMEOUT {
            let what = format!(
                "`send_timeout` is from 1ms to {}, and not {}",
                Span(LONGEST_SEND_TIMEOUT),
                self.send_timeout
            );
            problems.push(Problem::new(&["send_timeout"], what));
        }
        problems.extend(self.park.problem());
        problems.extend(self.backoff.problems());
        problems
    }

    /// What the files of `dbc` say.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn read_databases(&self) -> Result<Database, Vec<Diagnostic>> {
        read_databases(&self.dbc)
    }

    /// Why nodes on it cannot be asked.
    fn refuses_requests(&self) -> Option<&'static str> {
        match self {
            Self { interface: None, .. } => {
                Some("ISO-TP is the kernel's, and needs `interface` in the connection")
            }
            Self { listen_only: true, .. } => {
                Some("who is asked is sent to, and the connection says listen_only = true")
            }
            _ => None,
        }
    }

    /// Why outputs cannot write to it.
    fn refuses_outputs(&self) -> Option<&'static str> {
        match self {
            Self { log: Some(_), .. } => Some("the connection is a recording, to which nothing can be sent"),
            Self { listen_only: true, .. } => Some("the connection says listen_only = true"),
            _ => None,
        }
    }
}

/// Reads DBC files as one database.
///
/// # Errors
/// What is wrong with them.
pub(super) fn read_databases(paths: &[PathBuf]) -> Result<Database, Vec<Diagnostic>> {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        match std::fs::read(path) {
            Ok(bytes) => files.push((path.clone(), bytes)),
            Err(error) => {
                let file = path.display().to_string();
                errors.push(Diagnostic::new(&file, format!("the file cannot be read: {error}")));
            }
        }
    }
    match Database::read(&files) {
        Ok(database) if errors.is_empty() => Ok(database),
        Ok(_) => Err(errors),
        Err(more) => Err(errors.into_iter().chain(more).collect()),
    }
}

/// Something about a file that `dbc` names.
fn remark(problem: &Diagnostic, severity: Severity) -> Remark {
    let message = problem.to_string();
    Remark { severity, at: At::value(&["dbc"]), message, help: None, is_absence: false }
}

fn check_slcan(slcan: &SlcanConfig) -> Option<Problem> {
    if let Err(problem) = super::link::port(&slcan.device, slcan.baud) {
        return Some(problem.inside("slcan"));
    }
    (!BIT_RATES.contains(&slcan.bitrate)).then(|| {
        let rates: Vec<String> = BIT_RATES.iter().map(ToString::to_string).collect();
        Problem::new(&["slcan", "bitrate"], format!("such adapters have no bit rate {}", slcan.bitrate))
            .help(format!("it is one of {}", rates.join(", ")))
    })
}

fn check_log(log: &LogConfig) -> Option<Problem> {
    let is_speed = log.speed.is_finite() && (1e-3..=1e6).contains(&log.speed);
    (!is_speed).then(|| {
        Problem::new(&["log", "speed"], format!("a log cannot be played {} times as fast", log.speed))
            .help("write 1.0 for the pace at which it was recorded, 10.0 for ten times that")
    })
}

/// Messages, and which of their signals.
type Chosen = Vec<(Arc<Message>, Vec<usize>)>;

/// What the rows of a stream are made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
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

impl Form {
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
                asked.fields.iter().map(|field| (field.name.clone(), field.field_type())).collect()
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
    message.format == Format::J1939 && source.is_none()
}

impl StreamConfig {
    /// Says what is wrong with it, and works out its columns. `connection`: the one that feeds it, if that
    /// is known.
    pub(crate) fn check(&mut self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        tell(self.problems(connection), review);
        // Without a database that can be read, that is said of the connection.
        let Some(database) = connection.and_then(|connection| connection.database.as_deref()) else { return };
        if self.forms().len() != 1 {
            return;
        }
        match self.form(database) {
            Ok(form) => {
                tell(self.check_columns(&form), review);
                self.columns = with_quality(form.columns(self.labels), self.quality);
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
    pub(super) fn form(&self, database: &Database) -> Result<Form, Problem> {
        if let Some(name) = &self.message {
            let message = find(database, database.message(name), &["message"])?;
            if self.source.is_some() && message.format != Format::J1939 {
                let what = format!("`{name}` is no message of J1939, and has no source address");
                return Err(Problem::new(&["source"], what).help("leave `source` out"));
            }
            return Ok(Form::Message { message: Arc::new(message.clone()), source: self.source });
        }
        if let Some(names) = &self.signals {
            return signals(database, names).map(Form::Signals);
        }
        if let Some(ids) = &self.ids {
            return ranges(ids).map(Form::Frames);
        }
        match (self.pgn, self.isotp) {
            (Some(pgn), _) => Ok(Form::Group { pgn, source: self.source }),
            (None, Some(node)) => self.asked(node).map(Form::Asked),
            (None, None) => Ok(Form::Errors),
        }
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
        let fields = self.fields.iter().map(|(name, config)| {
            Field::parse(name, config).map_err(|problem| problem.inside(name).inside("fields"))
        });
        let fields = fields.collect::<Result<Vec<_>, _>>()?;
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

    /// Names that mean two columns.
    pub(super) fn check_columns(&self, form: &Form) -> Vec<Problem> {
        let Form::Message { message, source } = form else { return Vec::new() };
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

/// What a name of the configuration means.
fn find<T>(database: &Database, found: Result<T, Unresolved>, at: &[&str]) -> Result<T, Problem> {
    found.map_err(|Unresolved { message, help }| {
        let problem = Problem::new(at, message);
        match help {
            _ if database.messages().is_empty() && database.problems().is_empty() => {
                problem.help("name the DBC file in the connection: dbc = [\"drive.dbc\"]")
            }
            Some(help) => problem.help(help),
            None => problem,
        }
    })
}

/// What an output sends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sending {
    /// a message, and the values of signals that a row need not name
    Message { message: Arc<Message>, labels: bool, defaults: Vec<(usize, f64)> },
    /// bytes under this id
    Frames { id: Id, fd: bool },
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
        match self.sending(database) {
            Ok(sending) => (self.columns, self.required) = columns(&sending),
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
    pub(super) fn sending(&self, database: &Database) -> Result<Sending, Problem> {
        if let Some(id) = self.id.as_ref().filter(|_| self.message.is_none()) {
            let id =
                id.parse().map_err(|error: super::id::IdError| Problem::new(&["id"], error.to_string()))?;
            return Ok(Sending::Frames { id, fd: self.fd });
        }
        let name = self.message.as_deref().unwrap_or_default();
        let message = find(database, database.message(name), &["message"])?;
        let most = fd_length(message.length).unwrap_or(usize::MAX);
        if message.format == Format::J1939 && message.length > super::frame::MOST_CLASSIC || most > MOST_FD {
            let what = format!("`{name}` has {} bytes, more than fit into one frame", message.length);
            return Err(Problem::new(&["message"], what));
        }
        let id = self.id_of(message)?;
        let mut defaults = Vec::new();
        for (signal, value) in &self.defaults {
            let at = ["defaults", signal];
            let place = find(database, message.signal(signal), &at)?;
            if let Some(Err(why)) =
                message.signals.get(place).map(|signal| signal.encode(super::signal::Value::Float(*value)))
            {
                return Err(Problem::new(&at, why));
            }
            defaults.push((place, *value));
        }
        let message = Arc::new(Message { id, ..message.clone() });
        Ok(Sending::Message { message, labels: self.labels, defaults })
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

/// The columns that a row may have, and the names of those that it must have.
pub(super) fn columns(sending: &Sending) -> (Vec<(String, FieldType)>, Vec<String>) {
    match sending {
        Sending::Frames { .. } => (vec![(DATA.to_owned(), FieldType::Bytes)], vec![DATA.to_owned()]),
        Sending::Message { message, labels, defaults } => {
            // A multiplexor follows from the signals that it selects.
            let follows = |place: usize| {
                let selects = |other: &&super::signal::Signal| {
                    other.selector.as_ref().is_some_and(|selector| selector.multiplexor == place)
                };
                message.signals.iter().any(|other| selects(&other))
            };
            let is_required = |(place, signal): &(usize, &super::signal::Signal)| {
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
