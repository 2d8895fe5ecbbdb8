//! Where a box is asked and tells how it is: a thread and a runtime of its own, so that a box whose data plane
//! is busy, or stands still, can be asked.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::managed_box::{Heartbeat, ManagedBox};
use super::remote::RemoteManagement;
use super::service::Service;
use super::socket::Socket;

/// How often rates are taken.
const RATES_EVERY: Duration = Duration::from_secs(1);

/// The thread of a running box that answers. Dropping it ends it.
pub struct ManagementThread {
    closing: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl ManagementThread {
    /// Answers at the socket in `dir` from now on, and tells the service manager how the box is; `heartbeat` is
    /// what it wants to know. A box that cannot be asked runs all the same: that is said.
    #[must_use]
    pub fn open(managed: Arc<ManagedBox>, dir: &Path, heartbeat: Heartbeat) -> Self {
        let remote = RemoteManagement::open(&managed, dir)
            .map_err(|error| tracing::error!(%error, "the box runs, but cannot be managed from afar"))
            .unwrap_or_default();
        let socket = Socket::open(dir)
            .map_err(|error| tracing::error!(%error, "the box runs, but cannot be asked (`tidegate status`)"))
            .ok();
        let closing = CancellationToken::new();
        let token = closing.clone();
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    return tracing::error!(%error, "the box runs, but cannot be asked (`tidegate status`)");
                }
            };
            runtime.block_on(async {
                let stop = token.clone();
                let afar = async {
                    match remote {
                        Some(remote) => remote.run(&managed, stop).await,
                        None => stop.cancelled().await,
                    }
                };
                let near = async {
                    tokio::select! {
                        () = token.cancelled() => {}
                        () = serve(socket.as_ref(), &managed, heartbeat) => {}
                    }
                };
                tokio::join!(near, afar);
            });
        };
        let thread = std::thread::Builder::new().name("management".to_owned()).spawn(work);
        let thread = thread
            .map_err(|error| tracing::error!(%error, "the box runs, but cannot be asked (`tidegate status`)"))
            .ok();
        Self { closing, thread }
    }
}

impl Drop for ManagementThread {
    fn drop(&mut self) {
        self.closing.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// All that the box says about itself, side by side.
async fn serve(socket: Option<&Socket>, managed: &Arc<ManagedBox>, heartbeat: Heartbeat) {
    let rates = async {
        let mut second = interval(RATES_EVERY);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            second.tick().await;
            managed.note_rates();
        }
    };
    let service = async {
        if let Some(service) = Service::from_environment() {
            service.run(managed, heartbeat).await;
        }
    };
    let asked = async {
        if let Some(socket) = socket {
            socket.serve(managed).await;
        }
    };
    tokio::join!(rates, service, asked);
}
