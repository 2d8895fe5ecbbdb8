//! What the engine takes from its caller: clock, disk, the far sides of its connections, and where rules come
//! from.
//!
//! A box gives it the machine's ([`crate::machine::Machine`]). A simulation gives it its own, on one thread
//! and with simulated time, so that a seed decides every delay, fault and crash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use tidegate_connectors::uplink::FarSide;
use tidegate_connectors::{Sink, Source};
use tidegate_core::{Clock, FieldType};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::disk::Disk;
use crate::error::RunError;
use crate::rules::book::{Compile, RuleBook};
use crate::rules::directory::RulesHandle;
use crate::sequence::edit::Edited;
use crate::status::Status;
use crate::supervisor::Threads;

/// Everything outside of the engine.
pub trait World {
    /// Where the engine reads time. Timers are tokio's.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Where it keeps what must last.
    fn disk(&self) -> Arc<dyn Disk>;

    /// What runs the parts that may keep a processor busy or wait for the disk.
    fn threads(&self) -> Arc<dyn Threads>;

    /// The connections that there is something to read from or to write to.
    ///
    /// # Errors
    /// When one cannot be prepared. That nobody is there is no error.
    fn lines(&mut self, config: &Config, known: &Known, status: &Status) -> Result<Vec<Line>, RunError>;

    /// The way to the cloud that is configured as `name`; it ends when `stop` is cancelled.
    ///
    /// # Errors
    /// When it cannot be prepared.
    fn uplink(
        &mut self,
        config: &Config,
        name: &str,
        uplink: &config::Uplink,
        status: &Status,
        stop: &CancellationToken,
    ) -> Result<FarSide, RunError>;

    /// What makes rules of their sources.
    fn compile(&self) -> Compile {
        tidegate_rules::compile
    }

    /// Where changes of the rules come from. It owns the rule book from now on.
    fn rules(&mut self, config: &Config, book: RuleBook) -> Rules;
}

/// What the box knew of its input streams when it ended.
#[derive(Debug, Default)]
pub struct Known {
    /// by stream: the columns that were inferred, besides `ts`
    pub columns: BTreeMap<String, Vec<(String, FieldType)>>,
    /// by stream: marks of the newest messages that are in the journal, oldest first
    pub marks: HashMap<Arc<str>, Vec<u64>>,
}

/// A connection that is ready to run, before it does.
pub struct Line {
    /// its name
    pub name: String,
    /// reads, and does all I/O
    pub source: Box<dyn Source>,
    /// by output
    pub sinks: BTreeMap<String, Box<dyn Sink>>,
}

/// Where changes of the rules come from.
pub struct Rules {
    /// asks for what only the owner of the rule book can do
    pub handle: RulesHandle,
    /// Sends the rules that there are, then says so, then sends what changes, until it is told to stop.
    pub run: RunRules,
}

/// Runs with the queue for changes, and whom to tell that the rules are loaded.
pub type RunRules =
    Box<dyn FnOnce(mpsc::Sender<Edited>, oneshot::Sender<()>) -> BoxFuture<'static, ()> + Send>;
