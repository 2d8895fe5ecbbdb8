//! A plugin at work without a box, for `cargo test`.
//!
//! Whatever a plugin has in memory is gone after each call here, as may happen on a box. `tidegate plugin
//! test` runs the built plugin on recorded rows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use crate::Plugin;
use crate::columns::{Data, Kind, Table, Values, Written};
use crate::host::Level;
use crate::running::Running;
use crate::value::{Cell, Timestamp};

/// Where a plugin is tried out.
pub struct Bench<P> {
    config: String,
    inputs: Vec<Table>,
    targets: Vec<Table>,
    plugin: PhantomData<P>,
}

/// A row that the plugin has written.
#[derive(Debug, Clone)]
pub struct Line {
    /// the target's name
    pub target: String,
    /// the row of the batch that led to it
    pub cause: usize,
    /// the columns that were named, with their values as text; `None`: no value
    pub columns: Vec<(String, Option<String>)>,
}

impl Line {
    /// The text of a column.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.columns.iter().find(|(column, _)| column == name)?.1.as_deref()
    }

    /// The number in a column.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target)?;
        self.columns
            .iter()
            .try_for_each(|(name, value)| write!(f, " {name}={}", value.as_deref().unwrap_or("-")))
    }
}

#[derive(Default)]
struct Host {
    now: i64,
    kept: BTreeMap<String, Vec<u8>>,
    timers: BTreeMap<String, i64>,
    written: Vec<(u32, Vec<u32>, Vec<Written>)>,
    log: Vec<(Level, String)>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

fn with<T>(body: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with(|host| body(&mut host.borrow_mut()))
}

impl<P: Plugin> Bench<P> {
    /// With `config`, a JSON object. There is one bench a thread: an earlier one's state is gone.
    pub fn new(config: impl fmt::Display) -> Self {
        with(|host| *host = Host::default());
        Self { config: config.to_string(), inputs: Vec::new(), targets: Vec::new(), plugin: PhantomData }
    }

    /// Adds a stream that is read.
    #[must_use]
    pub fn input(mut self, name: &str, columns: &[(&str, Kind)]) -> Self {
        self.inputs.push(table(name, columns));
        self
    }

    /// Adds a target that is written to.
    #[must_use]
    pub fn target(mut self, name: &str, columns: &[(&str, Kind)]) -> Self {
        self.targets.push(table(name, columns));
        self
    }

    /// The same with the next version of the plugin, which finds what this one has kept.
    #[must_use]
    pub fn upgrade<Q: Plugin>(self) -> Bench<Q> {
        Bench { config: self.config, inputs: self.inputs, targets: self.targets, plugin: PhantomData }
    }

    /// Whether the plugin takes its configuration and the columns.
    ///
    /// # Errors
    /// What it says to them.
    pub fn check(&self) -> Result<(), String> {
        self.plugin().map(drop)
    }

    /// Hands over rows of `stream`: their columns by name; one that is left out has no value.
    ///
    /// # Errors
    /// What the plugin says; then it has written and kept nothing.
    ///
    /// # Panics
    /// When there is no such stream or column.
    pub fn batch(&mut self, stream: &str, rows: &[&[(&str, Cell<'_>)]]) -> Result<Vec<Line>, String> {
        let input = self.inputs.iter().position(|table| table.name == stream).expect("a stream of the bench");
        let fields = &self.inputs[input].fields;
        for (name, _) in rows.iter().copied().flatten() {
            assert!(fields.iter().any(|(field, _)| field == name), "`{stream}` has no column `{name}`");
        }
        let column = |(name, kind): &(String, Kind)| {
            let mut values = Values::empty(*kind);
            for (index, row) in rows.iter().enumerate() {
                values.push(index, row.iter().find(|(column, _)| column == name).map(|(_, cell)| *cell));
            }
            values
        };
        let columns: Vec<Values> = fields.iter().map(column).collect();
        self.call(|plugin| plugin.on_batch(input as u32, rows.len() as u32, &columns))
    }

    /// Lets time pass, with the timers that are due meanwhile.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn pass(&mut self, time: std::time::Duration) -> Result<Vec<Line>, String> {
        let until = with(|host| host.now) + time.as_nanos() as i64;
        let mut lines = Vec::new();
        loop {
            let due = with(|host| {
                let (at, tag) = host.timers.iter().map(|(tag, at)| (*at, tag.clone())).min()?;
                (at <= until).then(|| {
                    host.now = host.now.max(at);
                    host.timers.remove(&tag);
                    tag
                })
            });
            let Some(tag) = due else { break };
            lines.extend(self.call(|plugin| plugin.on_timer(&tag))?);
        }
        with(|host| host.now = until);
        Ok(lines)
    }

    /// Takes what the plugin has said so far.
    pub fn log(&mut self) -> Vec<(Level, String)> {
        with(|host| std::mem::take(&mut host.log))
    }

    fn plugin(&self) -> Result<Running<P>, String> {
        Running::new(&self.config, self.inputs.clone(), self.targets.clone())
    }

    fn call(&self, body: impl FnOnce(&Running<P>) -> Result<(), String>) -> Result<Vec<Line>, String> {
        let before = with(|host| (host.kept.clone(), host.timers.clone()));
        let outcome = self.plugin().and_then(|plugin| body(&plugin));
        let written = with(|host| std::mem::take(&mut host.written));
        if let Err(error) = outcome {
            with(|host| (host.kept, host.timers) = before);
            return Err(error);
        }
        let lines = written.into_iter().flat_map(|(target, causes, columns)| {
            let table = &self.targets[target as usize];
            causes.into_iter().enumerate().map(move |(row, cause)| Line {
                target: table.name.clone(),
                cause: cause as usize,
                columns: columns
                    .iter()
                    .map(|written| {
                        (table.fields[written.field as usize].0.clone(), shown(&written.values, row))
                    })
                    .collect(),
            })
        });
        Ok(lines.collect())
    }
}

fn table(name: &str, columns: &[(&str, Kind)]) -> Table {
    let fields = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    Table { name: name.to_owned(), fields }
}

fn shown(values: &Values, row: usize) -> Option<String> {
    values.has_value(row).then(|| match &values.data {
        Data::Boolean(bits) => crate::columns::bit(bits, row).to_string(),
        Data::Int64(numbers) | Data::Timestamp(numbers) => numbers[row].to_string(),
        Data::Float64(numbers) => numbers[row].to_string(),
        Data::Utf8(texts) => String::from_utf8_lossy(texts.get(row)).into_owned(),
        Data::Bytes(bytes) => format!("{:02x?}", bytes.get(row)),
    })
}

macro_rules! cell {
    ($($type:ty => $variant:ident),*) => {
        $(impl<'a> From<$type> for Cell<'a> {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        })*
    };
}

cell!(bool => Boolean, i64 => Int64, f64 => Float64);
cell!(Timestamp => Timestamp, &'a str => Utf8, &'a [u8] => Bytes);

pub(crate) mod host {
    use super::with;
    use crate::columns::Written;
    use crate::host::Level;

    pub(crate) fn now() -> i64 {
        with(|host| host.now)
    }

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        with(|host| host.kept.get(key).cloned())
    }

    pub(crate) fn set(key: &str, value: &[u8]) {
        with(|host| host.kept.insert(key.to_owned(), value.to_owned()));
    }

    pub(crate) fn remove(key: &str) {
        with(|host| host.kept.remove(key));
    }

    pub(crate) fn write(target: u32, causes: &[u32], columns: &[Written]) {
        with(|host| host.written.push((target, causes.to_owned(), columns.to_owned())));
    }

    pub(crate) fn after(nanoseconds: u64, tag: &str) {
        with(|host| {
            let at = host.now.saturating_add_unsigned(nanoseconds);
            host.timers.insert(tag.to_owned(), at);
        });
    }

    pub(crate) fn cancel(tag: &str) {
        with(|host| host.timers.remove(tag));
    }

    pub(crate) fn log(level: Level, text: &str) {
        with(|host| host.log.push((level, text.to_owned())));
    }
}
