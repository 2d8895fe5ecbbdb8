//! The task that owns a line: it opens it, waits, hands over rows, turns writes down while the line is down,
//! and opens it again. What is spoken on the line is a [`Protocol`].

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, info};

use super::backoff::{Backoff, BackoffConfig};
use super::handover::{HandOver, Pending};
use super::outage::Outages;
use super::writes::Waiting;
use crate::status::LineStatus;
use crate::{DeliveryError, Inlet, Source};

/// How long an answer is waited for when the box stops.
const GRACE: Duration = Duration::from_secs(1);

/// What is spoken on a line.
pub(crate) trait Protocol: Send + 'static {
    /// The open line.
    type Wire: Send;
    /// What an output asks of it.
    type Write: Send;
    type Rows: Pending + Sync;

    /// Reading begins.
    fn start(&mut self, inlet: Inlet);

    /// Opens the line; errors are in words for the user.
    fn open(&self) -> BoxFuture<'static, Result<Self::Wire, String>>;

    /// Uses an open line until it is lost or not needed.
    fn drive(&mut self, wire: Self::Wire, line: &mut Line<Self::Write>) -> impl Future<Output = End> + Send;

    /// What waits for the engine.
    fn rows(&mut self) -> &mut HandOver<Self::Rows>;

    /// The line is up.
    fn begins(&mut self);

    /// The line was up, and is down.
    fn ends(&mut self, reason: &str, line: &Line<Self::Write>);

    /// When a poll is due next, or something else that has to be said.
    fn next_due(&self) -> Option<Instant>;

    /// Passes by what is due while the line is down, and says why.
    fn pass_by(&mut self, fault: &str, now: Instant);
}

/// Why an open line is not used any more.
pub(crate) enum End {
    Lost(String),
    /// The far side has closed it while nothing was asked; what was to be asked is not.
    HungUp,
    /// Nothing is due, and the line is wanted only then.
    Idle,
    /// There is nothing more to come, ever.
    Over(String),
    Finished,
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self::Lost(reason)
    }
}

/// A line, whatever is spoken on it.
pub(crate) struct Line<W> {
    pub(crate) name: Arc<str>,
    pub(crate) status: Arc<LineStatus>,
    pub(crate) writes: Waiting<W>,
    pub(crate) shutdown: CancellationToken,
    backoff: Backoff,
    outages: Outages,
}

impl<W> Line<W> {
    pub(crate) fn new(
        name: &str,
        backoff: &BackoffConfig,
        writes: Waiting<W>,
        status: Arc<LineStatus>,
    ) -> Self {
        let backoff = Backoff::new(backoff.min.0, backoff.max.0);
        let (shutdown, outages) = (CancellationToken::new(), Outages::default());
        Self { name: name.into(), status, writes, shutdown, backoff, outages }
    }

    /// The line is up.
    pub(crate) fn connected<P: Protocol<Write = W>>(&mut self, protocol: &mut P) {
        if !self.status.is_connected() {
            if self.outages.connected() {
                self.status.reconnects.add(1);
            }
            self.status.is_up();
        }
        protocol.begins();
    }

    /// The line is down, and is opened again.
    pub(crate) fn lost<P: Protocol<Write = W>>(&mut self, protocol: &mut P, reason: String) {
        self.ends(protocol, &reason);
        self.outages.lost(reason);
    }

    /// The line is down.
    fn ends<P: Protocol<Write = W>>(&mut self, protocol: &mut P, reason: &str) {
        if self.status.is_connected() {
            protocol.ends(reason, self);
        }
        self.status.is_down(Some(reason.to_owned()));
    }

    /// What a write fails with while the line is down.
    pub(crate) fn is_down(&self, reason: &str) -> DeliveryError {
        DeliveryError::Transient(format!("connection {} is down: {reason}", self.name))
    }

    /// Hands over what waits. Whether nobody needs the line any more.
    pub(crate) fn is_finished<R: Pending>(&self, rows: &mut HandOver<R>) -> bool {
        // A line on which something is always due never comes to where it waits for this.
        if self.shutdown.is_cancelled() && rows.is_open() {
            rows.close();
        }
        rows.pass_on();
        !rows.is_open() && self.writes.is_over()
    }

    /// Waits for whatever comes next, until `due`.
    pub(crate) async fn wait<R: Pending>(&mut self, rows: &mut HandOver<R>, due: Option<Instant>) {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled(), if rows.is_open() => rows.close(),
            () = self.writes.arrive() => {}
            () = until(due) => {}
            open = rows.room() => if !open { rows.close(); },
        }
    }

    /// Resolves when the box stops, and has waited long enough for an answer.
    pub(crate) async fn grace(&self) {
        self.shutdown.cancelled().await;
        sleep(GRACE).await;
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// A protocol and the line on which it is spoken.
pub(crate) struct Task<P: Protocol> {
    pub(crate) line: Line<P::Write>,
    pub(crate) protocol: P,
    /// in which the log has it
    pub(crate) span: Span,
}

impl<P: Protocol> Source for Task<P> {
    fn run(mut self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let span = self.span.clone();
        self.line.shutdown = shutdown;
        async move {
            self.protocol.start(inlet);
            self.keep_open().await;
            if self.line.status.is_connected() {
                self.line.status.is_down(None);
            }
        }
        .instrument(span)
        .boxed()
    }
}

impl<P: Protocol> Task<P> {
    /// Opens the line again and again, until nobody needs it any more.
    async fn keep_open(&mut self) {
        loop {
            let opening = self.protocol.open();
            let end = match self.meanwhile(opening).await {
                None => return,
                Some(Err(reason)) => End::Lost(reason),
                Some(Ok(wire)) => {
                    let since = Instant::now();
                    self.line.connected(&mut self.protocol);
                    let end = self.protocol.drive(wire, &mut self.line).await;
                    if matches!(end, End::Lost(_)) {
                        self.line.backoff.was_up(since.elapsed());
                    }
                    end
                }
            };
            match end {
                End::Finished => return,
                End::HungUp => debug!("the far side has closed an idle connection; connecting again"),
                End::Idle => {
                    if !self.until_wanted().await {
                        return;
                    }
                }
                End::Over(reason) => {
                    info!(reason, "the line has come to its end, and is not opened again");
                    self.line.ends(&mut self.protocol, &reason);
                    self.meanwhile(pending::<()>()).await;
                    return;
                }
                End::Lost(reason) => {
                    self.line.lost(&mut self.protocol, reason);
                    let pause = self.line.backoff.pause();
                    self.line.status.waits(pause);
                    if self.meanwhile(sleep(pause)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for something while the line is down. None: the line is not needed any more.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let Self { line, protocol, .. } = self;
        loop {
            // Before it is known that the line is down, a write waits for the connection.
            let trouble = line.status.trouble();
            if let Some(reason) = &trouble {
                while let Some(write) = line.writes.next() {
                    let why = line.is_down(reason);
                    write.settle(Err(why));
                }
                protocol.pass_by(&format!("not connected: {reason}"), Instant::now());
            }
            if line.is_finished(protocol.rows()) {
                return None;
            }
            let due = protocol.next_due().filter(|_| trouble.is_some());
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                () = line.wait(protocol.rows(), due) => {}
            }
        }
    }

    /// Waits until something is due on a line that is closed in between. False: nothing will be.
    async fn until_wanted(&mut self) -> bool {
        let Self { line, protocol, .. } = self;
        loop {
            if line.is_finished(protocol.rows()) {
                return false;
            }
            let due = protocol.next_due();
            if line.writes.any() || due.is_some_and(|due| due <= Instant::now()) {
                return true;
            }
            line.wait(protocol.rows(), due).await;
        }
    }
}
