//! The box is managed from afar, by messages that can be trusted.
//!
//! A message on one of the box's topics goes through the gate ([`tidegate_trust::gate`]), is written down
//! ([`ledger`]), and only then acknowledged and begun ([`desk`]). [`session`] is the line, [`ops`] which of the
//! box's commands an operation is, [`presence`] what the box says of itself. The line has a session, a task and
//! a thread of its own: whatever becomes of rows, the box can be reached.

pub mod desk;
pub mod ledger;
pub mod ops;
pub mod presence;
pub mod session;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use tidegate_connectors::OpenError;
use tidegate_connectors::remote::{Remote, Request};
use tidegate_core::clock::SystemClock;
use tidegate_trust::WallTime;
use tidegate_trust::command::Identity;
use tidegate_trust::gate::Trust;
use tidegate_trust::key_set::KeySet;
use tokio_util::sync::CancellationToken;

use self::desk::{Deed, Desk, Settings};
use self::ledger::{Ledger, LedgerError};
use self::presence::Presence;
use self::session::Session;
use super::managed_box::ManagedBox;
use crate::disk::SystemDisk;

/// Key sets that count, in the data directory.
const KEY_SET: &str = "trust.json";

/// Why a box cannot be managed from afar.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// What it has to write down has no place.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The connection cannot be opened.
    #[error("connection `{name}`: {error}")]
    Connection {
        /// its name
        name: String,
        /// why
        error: OpenError,
    },
    /// Nothing would tell what is new.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The key set cannot be read.
    #[error("the key set {path} cannot be used: {why}; make it anew with `tidegate trust init`")]
    Trust {
        /// the file
        path: String,
        /// why
        why: String,
    },
}

/// The line by which a box is managed from afar, before it runs.
pub struct RemoteManagement {
    remote: Remote,
    desk: Desk,
    presence: Presence,
    deeds: Vec<Deed>,
    stop: CancellationToken,
}

impl RemoteManagement {
    /// What `[management]` of the box says; nothing, if it does not say anything. State is kept in `dir`.
    ///
    /// # Errors
    /// When a file cannot be used, or the connection is wrong in itself.
    pub fn open(managed: &Arc<ManagedBox>, dir: &Path) -> Result<Option<Self>, RemoteError> {
        let Some(management) = &managed.config.management else { return Ok(None) };
        let me = Identity { name: managed.config.name.clone(), groups: management.groups.clone() };
        let settings = Settings { me, prefix: management.prefix.clone(), no_clock: management.no_clock };
        let trust = Trust { keys: key_set(dir)?, unsigned: management.unsigned };
        let clock = Arc::new(SystemClock);
        let presence = Presence::new(&settings, &tidegate_core::Clock::boot(&*clock), random()?);
        let stop = CancellationToken::new();
        let Some(connection) = managed.config.connections.get(&management.connection) else {
            return Ok(None);
        };
        let label = format!("{} (management)", management.connection);
        let request = Request {
            name: &management.connection,
            box_name: &managed.config.name,
            filters: Presence::filters(&settings),
            will: presence.will(),
            status: managed.status.connections.of(&label),
            stop: stop.clone(),
        };
        let remote = connection
            .open_remote(request)
            .map_err(|error| RemoteError::Connection { name: management.connection.clone(), error })?;
        let ledger = Ledger::open(&SystemDisk, dir)?;
        let clocks = (clock as _, Arc::clone(&managed.time));
        let (desk, deeds) = Desk::open(settings, trust, ledger, built(), random()?, clocks)?;
        Ok(Some(Self { remote, desk, presence, deeds, stop }))
    }

    /// Runs until `closing` is cancelled, and says goodbye then.
    pub async fn run(self, managed: &Arc<ManagedBox>, closing: CancellationToken) {
        let Self { remote, desk, presence, deeds, stop } = self;
        let post = Arc::clone(&remote.post);
        let session = Session::new(desk, presence.clone(), Arc::clone(&post), Arc::clone(managed));
        let goodbye = async {
            closing.cancelled().await;
            session::say_goodbye(&presence, &*post).await;
            stop.cancel();
        };
        tokio::join!(session.run(remote, deeds), goodbye);
    }
}

/// Whom the box believes; nobody, until it is told.
fn key_set(dir: &Path) -> Result<Option<KeySet>, RemoteError> {
    let path = dir.join(KEY_SET);
    let wrong = |why: String| RemoteError::Trust { path: path.display().to_string(), why };
    match std::fs::read(&path) {
        Ok(bytes) => KeySet::first(&bytes).map(|(keys, _)| Some(keys)).map_err(|why| wrong(why.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// When this program was built, as far as it knows: no box is older than its program.
fn built() -> WallTime {
    // 2026-11-01T00:00:00Z: moved on with each release.
    WallTime::from_micros(1_793_491_200_000_000)
}

/// Random bytes, of which nobody can know the next ones.
fn random() -> Result<[u8; 16], RemoteError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(RemoteError::Random)?;
    Ok(bytes)
}
