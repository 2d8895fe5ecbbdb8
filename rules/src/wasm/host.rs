//! What a plugin may ask for: the interface `host` of `wasm-plugins/wit/rule.wit`.
//!
//! A call is a transaction: what it keeps, writes, says and has fired later is noted in [`Call`], and only
//! what went well is carried out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::Seqs;
use wasmtime::component::{ComponentType, Lift, Linker};
use wasmtime::{Engine, ResourceLimiter, StoreContextMut};

use super::columns::WrittenOut;
use super::kept::{Changes, Kept, bytes_of};
use super::manifest::Limits;
use super::targets::{Targets, Write};
use crate::rule::{LogLevel, LogLine};
use crate::timers::MOST_TIMERS;

/// What a plugin's interface is called; components say so when they ask for it.
pub(super) const INTERFACE: &str = "tidegate:rule/host@1.0.0";
/// Rows that one call may write.
const MOST_ROWS: usize = 100_000;
/// Bytes that one call may write, and that may cross to the host at a time.
pub(super) const MOST_BYTES: usize = 32 << 20;
/// Bytes of a key or a tag.
const MOST_NAME: usize = 1024;
/// Lines that one call may log.
pub(super) const MOST_LINES: usize = 100;
/// Characters of a line of the log.
const MOST_LINE: usize = 2000;

/// What stands behind a plugin while it runs.
pub(super) struct Host {
    pub kept: Arc<Mutex<Kept>>,
    pub targets: Arc<Targets>,
    /// bytes of state that the plugin may keep
    pub max_state: usize,
    pub call: Call,
    pub room: Room,
}

/// What a call may do, and what it has done so far.
#[derive(Default)]
pub(super) struct Call {
    /// the sequence's time; `None`: it is the call of `configure`, which must do the same whenever it comes
    now: Option<i64>,
    /// the numbers of its rows
    seqs: Option<Seqs>,
    /// how many rows there are
    pub rows: u32,
    pub changes: Changes,
    pub writes: Vec<Write>,
    written_rows: usize,
    written_bytes: usize,
    pub log: Vec<LogLine>,
    /// lines that were dropped
    pub unsaid: u64,
}

impl Call {
    /// One for `rows` rows that have the numbers `seqs`.
    pub(super) fn new(now: i64, seqs: Seqs, rows: u32) -> Self {
        Self { now: Some(now), seqs: Some(seqs), rows, ..Self::default() }
    }
}

/// A plugin asked for what it must not have: the words for it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub String);

type Answer<T> = Result<T, Refused>;

fn refuse<T>(what: impl Into<String>) -> Answer<T> {
    Err(Refused(what.into()))
}

pub(super) fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // Nothing that holds it panics half-way.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `level` of rule.wit.
#[allow(dead_code, reason = "wasmtime makes them of what plugins hand over")]
#[derive(ComponentType, Lift, Debug, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl Host {
    fn now(&self) -> Answer<i64> {
        self.call.now.map_or_else(
            || refuse("it asked for the time in `configure`, which must do the same at any time"),
            Ok,
        )
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        if let Some(changed) = self.call.changes.entries.get(key) {
            return changed.as_ref().map(|value| value.to_vec());
        }
        lock(&self.kept).get(key).map(|value| value.to_vec())
    }

    fn put(&mut self, key: String, value: Option<Vec<u8>>) -> Answer<()> {
        self.check_not_init("keep anything")?;
        check_name("key", &key)?;
        let changes = &mut self.call.changes;
        if let Some(old) = changes.entries.get(key.as_str()) {
            changes.bytes -= bytes_of(&key, old.as_deref().unwrap_or_default());
        }
        changes.bytes += bytes_of(&key, value.as_deref().unwrap_or_default());
        if changes.bytes > self.max_state {
            return refuse(format!("it would keep more than {} bytes (`max_state`)", self.max_state));
        }
        changes.entries.insert(key.into(), value.map(Arc::from));
        Ok(())
    }

    fn write(&mut self, target: u32, causes: &[u32], columns: Vec<WrittenOut>) -> Answer<()> {
        self.check_not_init("write")?;
        let call = &mut self.call;
        call.written_rows += causes.len();
        call.written_bytes += columns.iter().map(|column| column.column.bytes()).sum::<usize>();
        if call.written_rows > MOST_ROWS || call.written_bytes > MOST_BYTES {
            return refuse(format!(
                "it wrote more than {MOST_ROWS} rows, or {} MiB, at a time",
                MOST_BYTES >> 20
            ));
        }
        let seqs = call.seqs.clone().unwrap_or(Seqs::One { seq: 0 });
        let write = self.targets.write(target, causes, columns, (&seqs, call.rows)).map_err(Refused)?;
        if !write.is_empty() {
            call.writes.push(write);
        }
        Ok(())
    }

    fn after(&mut self, nanoseconds: u64, tag: String) -> Answer<()> {
        const LEAST: u64 = 1_000_000;
        self.check_not_init("set timers")?;
        check_name("timer", &tag)?;
        let now = self.now()?;
        let at = now.saturating_add(i64::try_from(nanoseconds.max(LEAST)).unwrap_or(i64::MAX));
        let timers = &mut self.call.changes.timers;
        timers.insert(tag.into(), Some(at));
        // Most calls set few, and are not made to count.
        let kept = lock(&self.kept);
        if timers.len() + kept.timers.len() > MOST_TIMERS {
            let new = timers.iter().filter(|(tag, at)| at.is_some() && !kept.timers.contains(tag)).count();
            let gone = timers.iter().filter(|(tag, at)| at.is_none() && kept.timers.contains(tag)).count();
            if kept.timers.len() + new - gone > MOST_TIMERS {
                return refuse(format!(
                    "it has {MOST_TIMERS} timers already: use one tag again and again, or cancel those that are \
                    not needed"
                ));
            }
        }
        Ok(())
    }

    fn cancel(&mut self, tag: String) -> Answer<()> {
        self.check_not_init("cancel timers")?;
        check_name("timer", &tag)?;
        let timers = &mut self.call.changes.timers;
        timers.insert(tag.into(), None);
        if timers.len() > 2 * MOST_TIMERS {
            return refuse(format!("it cancelled more than {MOST_TIMERS} timers at a time"));
        }
        Ok(())
    }

    fn log(&mut self, level: Level, text: &str) {
        let level = match level {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        let mut text: String = text.chars().take(MOST_LINE + 1).collect();
        if text.chars().count() > MOST_LINE {
            text.pop();
            text.push('…');
        }
        // The last words of a plugin that panics say why.
        if self.call.log.len() > MOST_LINES {
            self.call.log.pop();
            self.call.unsaid += 1;
        }
        self.call.log.push(LogLine { level, text });
    }

    fn check_not_init(&self, what: &str) -> Answer<()> {
        match self.call.now {
            Some(_) => Ok(()),
            None => refuse(format!("`configure` cannot {what}")),
        }
    }
}

fn check_name(what: &str, name: &str) -> Answer<()> {
    if name.len() > MOST_NAME {
        return refuse(format!("the name of a {what} has {} bytes, and may have {MOST_NAME}", name.len()));
    }
    Ok(())
}

/// The interface, for components of `engine`.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker: Linker<Host> = Linker::new(engine);
    let mut host = linker.instance(INTERFACE)?;
    host.func_wrap("now", |store: StoreContextMut<'_, Host>, (): ()| Ok((store.data().now()?,)))?;
    host.func_wrap("get", |store: StoreContextMut<'_, Host>, (key,): (String,)| {
        Ok((store.data().get(&key),))
    })?;
    host.func_wrap("set", |mut store: StoreContextMut<'_, Host>, (key, value): (String, Vec<u8>)| {
        Ok(store.data_mut().put(key, Some(value))?)
    })?;
    host.func_wrap("remove", |mut store: StoreContextMut<'_, Host>, (key,): (String,)| {
        Ok(store.data_mut().put(key, None)?)
    })?;
    type Writing = (u32, Vec<u32>, Vec<WrittenOut>);
    host.func_wrap("write", |mut store: StoreContextMut<'_, Host>, (target, causes, columns): Writing| {
        Ok(store.data_mut().write(target, &causes, columns)?)
    })?;
    host.func_wrap("after", |mut store: StoreContextMut<'_, Host>, (nanoseconds, tag): (u64, String)| {
        Ok(store.data_mut().after(nanoseconds, tag)?)
    })?;
    host.func_wrap("cancel", |mut store: StoreContextMut<'_, Host>, (tag,): (String,)| {
        Ok(store.data_mut().cancel(tag)?)
    })?;
    host.func_wrap("log", |mut store: StoreContextMut<'_, Host>, (level, text): (Level, String)| {
        store.data_mut().log(level, &text);
        Ok(())
    })?;
    Ok(linker)
}

/// How much memory a plugin may have.
pub(super) struct Room {
    limits: Limits,
    memory: usize,
    table_entries: usize,
    /// which limit it asked to go beyond, in vain, and how
    pub refused: Option<(&'static str, String)>,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), memory: 0, table_entries: 0, refused: None }
    }
}

impl ResourceLimiter for Room {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let all = self.memory.saturating_add(desired.saturating_sub(current));
        if all as u64 > self.limits.memory.0 {
            let most = self.limits.memory;
            self.refused = Some(("memory", format!("it needs more than {most} of memory (`limits.memory`)")));
            return Ok(false);
        }
        self.memory = all;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let all = self.table_entries.saturating_add(desired.saturating_sub(current));
        if all > self.limits.table_entries {
            let most = self.limits.table_entries;
            let why = format!("it needs tables of more than {most} entries (`limits.table_entries`)");
            self.refused = Some(("table_entries", why));
            return Ok(false);
        }
        self.table_entries = all;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    fn tables(&self) -> usize {
        self.limits.instances
    }

    fn memories(&self) -> usize {
        self.limits.instances
    }
}
