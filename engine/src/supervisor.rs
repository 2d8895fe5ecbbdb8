//! Every task of a box is spawned here: it has a name, and the box knows when it ends.
//!
//! Tasks end because the box is told to stop and what feeds them ends; they are then waited for, and those
//! that take too long are named. A task that dies on its own, by a panic, takes the box down: what it owned
//! is lost, and the service manager starts a whole box again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Runs the parts of a box that may keep a processor busy or wait for the disk.
pub trait Threads: Send + Sync {
    /// Runs `work`. What is returned ends when that does, and says whether it panicked.
    ///
    /// # Errors
    /// When the system gives no thread.
    fn run(&self, name: &str, work: BoxFuture<'static, ()>) -> std::io::Result<BoxFuture<'static, bool>>;
}

/// A thread of its own for each.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemThreads;

impl Threads for SystemThreads {
    fn run(&self, name: &str, work: BoxFuture<'static, ()>) -> std::io::Result<BoxFuture<'static, bool>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (done, ended) = tokio::sync::oneshot::channel();
        // `done` is dropped without a word when `work` panics.
        let body = move || {
            runtime.block_on(work);
            let _ = done.send(());
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Box::pin(async move { ended.await.is_err() }))
    }
}

/// Owns the tasks and threads of one box.
pub struct Supervisor {
    threads: Arc<dyn Threads>,
    tasks: JoinSet<Ended>,
    running: Vec<String>,
    /// Cancelled when the box is to stop, by whoever wants it to.
    pub stop: CancellationToken,
}

struct Ended {
    name: String,
    panicked: bool,
}

impl Supervisor {
    /// A supervisor whose box stops when `stop` is cancelled.
    #[must_use]
    pub fn new(threads: Arc<dyn Threads>, stop: CancellationToken) -> Self {
        Self { threads, tasks: JoinSet::new(), running: Vec::new(), stop }
    }

    /// Runs `task` under `name`. When it panics, the box stops.
    pub fn spawn(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let span = tracing::info_span!("task", name);
        self.spawn_unnamed(name, task.instrument(span));
    }

    /// The same for a task whose log lines say by themselves what they are about.
    pub fn spawn_unnamed(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task);
        self.follow(name, async move { task.await.is_err_and(|error| error.is_panic()) });
    }

    /// Runs `work`, which may keep a processor busy or wait for the disk, under `name`. When it panics, the
    /// box stops.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn thread(
        &mut self,
        name: &str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let panicked = self.threads.run(name, Box::pin(work))?;
        self.follow(name, panicked);
        Ok(())
    }

    fn follow(&mut self, name: &str, panicked: impl Future<Output = bool> + Send + 'static) {
        let (name, stop) = (name.to_owned(), self.stop.clone());
        self.running.push(name.clone());
        self.tasks.spawn(async move {
            let panicked = panicked.await;
            if panicked {
                tracing::error!(task = name, "a part of the box has failed; the box stops");
                stop.cancel();
            }
            Ended { name, panicked }
        });
    }

    /// Waits until all tasks have ended, but not longer than `deadline`.
    ///
    /// # Errors
    /// Names the tasks that panicked, or that are still running at the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> Result<(), String> {
        let mut failed = Vec::new();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                let Ok(Ended { name, panicked }) = ended else { continue };
                if let Some(at) = self.running.iter().position(|running| *running == name) {
                    self.running.swap_remove(at);
                }
                if panicked {
                    failed.push(name);
                }
            }
        };
        let in_time = tokio::time::timeout(deadline, all).await.is_ok();
        match (in_time, failed.is_empty()) {
            (false, _) => Err(format!("still running after {deadline:?}: {}", self.running.join(", "))),
            (true, false) => Err(format!("failed: {}", failed.join(", "))),
            (true, true) => Ok(()),
        }
    }
}
