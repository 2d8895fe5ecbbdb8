//! What commands can reach of a running box.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate_core::Diagnostic;
use tokio::sync::{mpsc, oneshot};

use super::rates::Rates;
use crate::config::{self, Config};
use crate::status::Status;
use crate::system::control::ControlEvents;
use crate::time::SequenceTime;

/// What a running box hands out, so that it can be asked.
#[derive(Clone)]
pub struct Handles {
    /// what flows
    pub status: Arc<Status>,
    /// takes what people say of outputs
    pub control: ControlEvents,
    /// the sequence's time
    pub time: Arc<SequenceTime>,
}

/// One running box, as commands see it.
pub struct ManagedBox {
    /// what it was started with
    pub config: Config,
    /// the file of that, as it was named
    pub config_path: PathBuf,
    /// what flows
    pub status: Arc<Status>,
    /// takes what people say of outputs
    pub control: ControlEvents,
    /// the sequence's time
    pub time: Arc<SequenceTime>,
    /// what is logged, if that can be changed
    pub log: Option<Arc<LogFilter>>,
    /// when it was started
    pub started: Instant,
    rates: Mutex<Rates>,
    stopping: AtomicBool,
}

impl ManagedBox {
    /// A box that was started just now with what is in `config_path`.
    #[must_use]
    pub fn new(config: Config, config_path: &Path, handles: Handles, log: Option<Arc<LogFilter>>) -> Self {
        let config_path = config_path.to_owned();
        let Handles { status, control, time } = handles;
        let (rates, stopping) = (Mutex::default(), AtomicBool::new(false));
        Self { config, config_path, status, control, time, log, started: Instant::now(), rates, stopping }
    }

    /// How much has flowed of late.
    pub fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of how much has flowed; call it every second.
    pub fn note_rates(&self) {
        self.rates().note(&self.status, Instant::now());
    }

    /// The box stops.
    pub fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the box stops.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The configuration file, for whoever asks from elsewhere.
    #[must_use]
    pub fn config_file(&self) -> String {
        let path = std::path::absolute(&self.config_path).unwrap_or_else(|_| self.config_path.clone());
        path.display().to_string()
    }

    /// Compares the configuration file with what the box was started with.
    #[must_use]
    pub fn compare(&self) -> Compared {
        let file = self.config_file();
        // By the same name as at the start: what is relative to it would differ otherwise.
        match config::load(&self.config_path) {
            Ok(now) => Compared { file, changed: self.config.differences(&now), wrong: Vec::new() },
            Err(wrong) => Compared { file, changed: Vec::new(), wrong },
        }
    }
}

#[cfg(test)]
impl Handles {
    /// Those of no box.
    pub(crate) fn unattached(status: Arc<Status>) -> Self {
        let clock = Arc::new(tidegate_core::clock::SystemClock);
        let time = SequenceTime::start(Arc::clone(&clock) as _, 0, &crate::time::Readings::default());
        Self { status, control: ControlEvents::new(clock), time: Arc::new(time) }
    }
}

/// What the configuration file says now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// the file
    pub file: String,
    /// the parts that differ from what runs, such as `streams.tank`; empty: nothing does
    pub changed: Vec<String>,
    /// What is wrong with it; it is not empty when a restart would end with it.
    pub wrong: Vec<Diagnostic>,
}

impl Compared {
    /// Says it in the log, too; `asked_by` names who wanted to know.
    pub fn say(&self, asked_by: &str) {
        let Self { file, changed, wrong } = self;
        for diagnostic in wrong {
            tracing::error!("{diagnostic} (the box goes on with the configuration that it has)");
        }
        match (wrong.is_empty(), changed.is_empty()) {
            (false, _) => {}
            (true, true) => tracing::info!(
                asked_by,
                file,
                "the configuration is the one that runs; there is nothing to do"
            ),
            (true, false) => {
                let changed = changed.join(", ");
                tracing::warn!(
                    asked_by,
                    file,
                    changed,
                    "the configuration differs from the one that runs; restart the box to use it"
                );
            }
        }
    }
}

/// Has these directives followed from now on, if they can be understood.
type SetFilter = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// What is logged. It can be changed while the box runs, also for a while.
pub struct LogFilter {
    started_with: String,
    set: Box<SetFilter>,
    /// counts the changes: one that lasts for a while is not taken back when there was another
    changes: Mutex<u64>,
}

impl LogFilter {
    /// What was logged at the start, and what changes it.
    pub fn new(
        started_with: &str,
        set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            started_with: started_with.to_owned(),
            set: Box::new(set),
            changes: Mutex::default(),
        })
    }

    /// What was logged at the start.
    #[must_use]
    pub fn started_with(&self) -> &str {
        &self.started_with
    }

    /// Logs by `directives` from now on, and after `lasting` as at the start again. Needs a runtime.
    ///
    /// # Errors
    /// When they cannot be understood.
    pub fn set(self: &Arc<Self>, directives: &str, lasting: Option<Duration>) -> Result<(), String> {
        let change = {
            let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            (self.set)(directives)?;
            *changes += 1;
            *changes
        };
        if let Some(lasting) = lasting {
            let log = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(lasting).await;
                log.give_back(change);
            });
        }
        Ok(())
    }

    fn give_back(&self, change: u64) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *changes == change && (self.set)(&self.started_with).is_ok() {
            tracing::info!(level = self.started_with, "the log level is again what the box was started with");
        }
    }
}

/// Asks the sequencer whether it still goes round.
pub type Heartbeat = mpsc::Sender<oneshot::Sender<()>>;
