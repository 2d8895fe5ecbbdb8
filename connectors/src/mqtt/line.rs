//! The task that owns a connection: it drives the client, and everything else waits for it.
//!
//! The client's event loop is polled whatever happens downstream, so that pings are answered and acknowledgements go out. When the
//! engine does not take rows, they wait in the decoders up to a limit; after that QoS 0 messages are dropped and counted. With
//! QoS 1 the broker holds back by itself, since it sends no more than `in_flight` messages without an acknowledgement (MQTT 5). When it
//! sends more than can be held all the same (3.1.1, or mosquitto after it has resumed a session), what is too much is refused: the rows
//! that are held are dealt with and acknowledged, and then a new connection brings the rest again, in order.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, pending};
use tidegate_core::Clock;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::acks::Acks;
use super::backoff::Backoff;
use super::client::{self, Event, EventLoop, Plan, Refused, Requests, lost};
use super::config::Qos;
use super::publisher::{Command, Session, down};
use super::streams::Streams;
use crate::status::{LineStatus, add};
use crate::{Inlet, Source};

/// How long what is in flight may take to be confirmed when the box shuts down.
const GOODBYE: Duration = Duration::from_secs(3);

/// A connection with a broker, before it runs.
pub(super) struct Line {
    pub(super) name: Arc<str>,
    pub(super) plan: Plan,
    pub(super) subscriptions: Vec<(String, Qos)>,
    pub(super) streams: Streams,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) session: watch::Sender<Option<Session>>,
    pub(super) status: Arc<LineStatus>,
    pub(super) backoff: Backoff,
    pub(super) clock: Arc<dyn Clock>,
}

impl Source for Line {
    fn run(self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let span = info_span!("mqtt", connection = %self.name);
        let running = Running {
            line: *self,
            inlet: Some(inlet),
            shutdown,
            publishers_gone: false,
            waiting: None,
            generation: 0,
            subscribed: false,
            was_up: false,
            outage: None,
        };
        running.run().instrument(span).boxed()
    }
}

struct Running {
    line: Line,
    /// absent once the box shuts down
    inlet: Option<Inlet>,
    shutdown: CancellationToken,
    publishers_gone: bool,
    /// A message that the client's queue had no room for.
    waiting: Option<Command>,
    generation: u64,
    /// Whether this process has told the broker its subscriptions: an earlier one may have had others.
    subscribed: bool,
    /// Whether there was a connection before.
    was_up: bool,
    outage: Option<Outage>,
}

/// A time without a connection.
struct Outage {
    since: Instant,
    attempts: u64,
    /// the last reason that was logged
    reason: String,
}

/// The state of one connection.
struct Connection {
    requests: Requests,
    acks: Acks,
    up_since: Option<Instant>,
}

/// Why a connection is over.
enum End {
    Lost(String),
    /// The box shuts down and nobody needs the connection any more.
    Finished,
}

impl Running {
    async fn run(mut self) {
        loop {
            self.generation += 1;
            let (requests, mut event_loop) = client::connect(&self.line.plan);
            let mut connection = Connection { requests, acks: Acks::default(), up_since: None };
            let end = self.drive(&mut connection, &mut event_loop).await;
            self.line.status.is_down(if let End::Lost(reason) = &end { Some(reason.clone()) } else { None });
            self.line.session.send_replace(None);
            // What the engine has no room for belongs to messages that only this connection could have acknowledged.
            self.hand_over();
            self.line.streams.forget();
            match end {
                End::Finished => {
                    if connection.up_since.is_some() {
                        goodbye(&connection.requests, &mut event_loop).await;
                    }
                    return;
                }
                End::Lost(reason) => self.report_loss(reason, connection.up_since),
            }
            drop((connection, event_loop));
            if self.pause().await.is_break() {
                return;
            }
        }
    }

    /// Runs one connection until it is lost or no longer needed.
    async fn drive(&mut self, connection: &mut Connection, event_loop: &mut EventLoop) -> End {
        loop {
            // The future must not be dropped before it is ready: it may be in the middle of a packet.
            let mut poll = pin!(event_loop.poll());
            let event = match poll_fn(|context| Poll::Ready(poll.as_mut().poll(context))).await {
                Poll::Ready(event) => event,
                Poll::Pending => {
                    let ready = self.wait(connection, poll).await;
                    match ready {
                        Ok(event) => event,
                        Err(end) => return end,
                    }
                }
            };
            let handled = match event {
                Ok(event) => self.handle(connection, event),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = handled {
                return End::Lost(reason);
            }
            if self.line.streams.is_full() {
                self.hand_over();
            }
            self.serve(connection);
        }
    }

    /// Nothing has come in: hands over what there is, and waits for whatever is next.
    async fn wait(
        &mut self,
        connection: &mut Connection,
        mut poll: impl Future<Output = Result<Event, String>> + Unpin,
    ) -> Result<Result<Event, String>, End> {
        let decided = self.line.streams.decided();
        loop {
            self.hand_over();
            self.serve(connection);
            if let Some(refused) = connection.acks.only_refused() {
                return Err(End::Lost(format!("{refused} messages were not taken; the broker is asked for them again")));
            }
            if self.inlet.is_none() && self.publishers_gone && connection.acks.len() == 0 {
                return Err(End::Finished);
            }
            let room = async {
                match &self.inlet {
                    Some(inlet) if self.line.streams.held() > 0 => inlet.reserve().await.is_ok(),
                    _ => pending().await,
                }
            };
            tokio::select! {
                event = &mut poll => return Ok(event),
                command = self.line.commands.recv(), if self.waiting.is_none() && !self.publishers_gone => match command {
                    Some(command) => self.waiting = Some(command),
                    None => self.publishers_gone = true,
                },
                () = decided.notified() => {}
                open = room => if !open {
                    // The engine is gone; the shutdown is on its way.
                    self.stop_reading();
                },
                () = self.shutdown.cancelled(), if self.inlet.is_some() => self.stop_reading(),
            }
        }
    }

    fn stop_reading(&mut self) {
        self.hand_over();
        self.inlet = None;
        self.line.streams.forget();
    }

    fn handle(&mut self, connection: &mut Connection, event: Event) -> Result<(), String> {
        match event {
            Event::Message(message) => {
                if self.inlet.is_none() {
                    return Ok(());
                }
                self.line.streams.take(&message, &mut connection.acks, self.line.clock.wall_ns());
                Ok(())
            }
            Event::Connected { present, max_packet } => self.connected(connection, present, max_packet),
            Event::Subscribed(answers) => {
                for ((filter, _), refusal) in self.line.subscriptions.iter().zip(answers) {
                    if let Some(reason) = refusal {
                        error!(filter, reason, "the broker refused a subscription: its streams stay empty");
                    }
                }
                Ok(())
            }
            Event::Other => Ok(()),
        }
    }

    fn connected(&mut self, connection: &mut Connection, present: bool, max_packet: Option<u32>) -> Result<(), String> {
        self.line.streams.connected(present);
        // A session of an earlier process may have other subscriptions.
        let in_force = present && self.subscribed;
        if !in_force && !self.line.subscriptions.is_empty() {
            connection.requests.subscribe(&self.line.subscriptions)?;
            self.subscribed = true;
        }
        match self.outage.take() {
            Some(outage) => {
                let down_s = outage.since.elapsed().as_secs();
                info!(attempts = outage.attempts, down_s, session_present = present, "connected again");
            }
            None => info!(session_present = present, "connected"),
        }
        if std::mem::replace(&mut self.was_up, true) {
            add(&self.line.status.reconnects, 1);
        }
        connection.up_since = Some(Instant::now());
        self.line.status.is_up();
        let max_packet = self.line.plan.max_packet.min(max_packet.unwrap_or(u32::MAX));
        self.line.session.send_replace(Some(Session { generation: self.generation, present, max_packet }));
        Ok(())
    }

    /// Hands rows to the engine as long as it has room.
    fn hand_over(&mut self) {
        let Some(inlet) = &self.inlet else { return };
        while self.line.streams.held() > 0 {
            let Ok(permit) = inlet.try_reserve() else { return };
            let Some(batch) = self.line.streams.next_batch() else { return };
            permit.send(batch);
        }
    }

    /// Sends acknowledgements that are due, and messages that publishers want to send.
    fn serve(&mut self, connection: &mut Connection) {
        let Connection { requests, acks, up_since } = connection;
        acks.send(|packet_id| {
            let sent = requests.ack(packet_id);
            if sent {
                self.line.streams.acknowledged(packet_id);
            }
            sent
        });
        if up_since.is_none() {
            return self.turn_down();
        }
        while let Some(command) = self.waiting.take().or_else(|| self.line.commands.try_recv().ok()) {
            let Command { message, generation, taken } = command;
            if generation != self.generation {
                let _ = taken.send(Err(lost()));
                continue;
            }
            let answer = match requests.publish(message) {
                Ok(notice) => Ok(notice),
                Err(Refused::Error(error)) => Err(error),
                Err(Refused::Full(message)) => {
                    self.waiting = Some(Command { message, generation, taken });
                    return;
                }
            };
            // Whoever does not wait for the confirmation does not need one.
            let _ = taken.send(answer);
        }
    }

    /// Answers publishers while the line is down: nothing is kept to be sent late.
    fn turn_down(&mut self) {
        while let Some(command) = self.waiting.take().or_else(|| self.line.commands.try_recv().ok()) {
            let _ = command.taken.send(Err(down(&self.line.name, &self.line.status)));
        }
    }

    fn report_loss(&mut self, reason: String, up_since: Option<Instant>) {
        if let Some(up_since) = up_since {
            self.line.backoff.was_up(up_since.elapsed());
        }
        // Said once for each reason; a refusal needs a person.
        let known = self.outage.as_ref().is_some_and(|outage| outage.reason == reason);
        if reason.starts_with(client::REFUSED) && !known {
            error!(reason, "check username, password, certificates and client_id");
        }
        match &mut self.outage {
            Some(outage) => {
                outage.attempts += 1;
                if outage.reason == reason {
                    debug!(reason, attempts = outage.attempts, "still not connected");
                } else {
                    warn!(reason, attempts = outage.attempts, "still not connected, for another reason");
                    outage.reason = reason;
                }
            }
            None => {
                let (host, port) = (&self.line.plan.host, self.line.plan.port);
                warn!(reason, host, port, "not connected; trying again until it works");
                self.outage = Some(Outage { since: Instant::now(), attempts: 1, reason });
            }
        }
    }

    /// Waits before the next attempt, and turns publishers down meanwhile. Break: the box shuts down and nobody needs the line.
    async fn pause(&mut self) -> std::ops::ControlFlow<()> {
        let mut timer = pin!(tokio::time::sleep(self.line.backoff.pause()));
        loop {
            self.turn_down();
            if self.shutdown.is_cancelled() {
                self.inlet = None;
            }
            if self.inlet.is_none() && self.publishers_gone {
                return std::ops::ControlFlow::Break(());
            }
            tokio::select! {
                () = &mut timer, if self.inlet.is_some() => return std::ops::ControlFlow::Continue(()),
                command = self.line.commands.recv(), if !self.publishers_gone => match command {
                    Some(command) => self.waiting = Some(command),
                    None => self.publishers_gone = true,
                },
                () = self.shutdown.cancelled(), if self.inlet.is_some() => {}
            }
        }
    }
}

/// Ends the session in order.
async fn goodbye(requests: &Requests, event_loop: &mut EventLoop) {
    requests.disconnect(GOODBYE);
    // The client reports the end as an error.
    let _ = tokio::time::timeout(2 * GOODBYE, async { while event_loop.poll().await.is_ok() {} }).await;
    info!("disconnected");
}
