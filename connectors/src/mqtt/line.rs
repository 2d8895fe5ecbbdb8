//! The task that owns a connection: it drives the client, and everything else waits for it.
//!
//! The client's event loop is polled whatever happens downstream, so that pings are answered and
//! acknowledgements go out. When the engine does not take rows, they wait in the decoders up to a limit;
//! after that QoS 0 messages are dropped and counted. With QoS 1 the broker holds back by itself, since it
//! sends no more than `in_flight` messages without an acknowledgement (MQTT 5). When it sends more than can
//! be held all the same (3.1.1, or mosquitto after it has resumed a session), what is too much is refused:
//! the rows that are held are dealt with and acknowledged, and then a new connection brings the rest again,
//! in order.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, pending};
use tidegate_core::Clock;
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use super::acks::Acks;
use super::client::{self, Event, EventLoop, Plan, Requests, Welcome};
use super::config::Qos;
use super::listening::Listening;
use super::losses::Losses;
use super::publisher::{Outbox, Session};
use super::pulse::Pulse;
use super::streams::Streams;
use super::subscriptions::Subscriptions;
use crate::line::backoff::Backoff;
use crate::status::{LineStatus, add};
use crate::{Arrival, Inlet, Keep, Source};

/// How long what is in flight may take to be confirmed when the box shuts down.
const GOODBYE: Duration = Duration::from_secs(3);

/// A connection with a broker, before it runs.
pub(super) struct Line {
    pub(super) name: Arc<str>,
    pub(super) plan: Plan,
    pub(super) subscriptions: Subscriptions,
    pub(super) streams: Streams,
    /// Whether an earlier process took messages, so that the broker should have a session.
    pub(super) has_earlier: bool,
    /// Whether outputs or an uplink publish with QoS 1.
    pub(super) confirms: bool,
    pub(super) outbox: Outbox,
    pub(super) session: watch::Sender<Option<Session>>,
    pub(super) status: Arc<LineStatus>,
    pub(super) backoff: Backoff,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) keep: Option<Keep>,
}

impl Source for Line {
    fn run(self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let span = info_span!("mqtt", connection = %self.name);
        let losses = Losses::new(&self.plan);
        let running = Running {
            line: *self,
            asked: inlet.asked.clone(),
            inlet: Some(inlet),
            shutdown,
            generation: 0,
            was_up: false,
            losses,
            said: Said::default(),
            saving: None,
            listening: Listening::new(time::Instant::now()),
        };
        running.run().instrument(span).boxed()
    }
}

struct Running {
    line: Line,
    /// absent once the box shuts down
    inlet: Option<Inlet>,
    shutdown: CancellationToken,
    generation: u64,
    /// Whether there was a connection before.
    was_up: bool,
    losses: Losses,
    said: Said,
    /// What a stream remembers is on its way to the disk.
    saving: Option<BoxFuture<'static, std::io::Result<()>>>,
    listening: Listening,
    /// see [`Inlet::asked`]
    asked: watch::Receiver<i64>,
}

/// What the log has about the broker, so that it is not said at every connection.
#[derive(Default)]
struct Said {
    session_expiry_s: Option<u32>,
    max_qos: bool,
}

/// The state of one connection.
struct Connection {
    requests: Requests,
    acks: Acks,
    up_since: Option<Instant>,
    pulse: Pulse,
    /// answers that it owes
    owed: u32,
    /// How many of them come before that to the question whether the line listens.
    owed_before: u32,
}

impl Connection {
    fn new(requests: Requests) -> Self {
        let (acks, pulse) = (Acks::default(), Pulse::new());
        Self { requests, acks, up_since: None, pulse, owed: 0, owed_before: 0 }
    }

    /// Asks the broker for an answer.
    fn ask(&mut self) -> Result<(), String> {
        self.requests.ask()?;
        self.owed += 1;
        Ok(())
    }

    /// An answer has come. Whether it is not that to an earlier question.
    fn is_answered(&mut self) -> bool {
        self.owed = self.owed.saturating_sub(1);
        let newest = self.owed_before == 0;
        self.owed_before = self.owed_before.saturating_sub(1);
        newest
    }
}

/// Why a connection is over.
enum End {
    Lost(String),
    /// The box shuts down and nobody needs the connection any more.
    Finished,
}

impl Running {
    async fn run(mut self) {
        self.run_connections().await;
        let remembered = tokio::time::timeout(GOODBYE, async {
            while let Some(saving) = self.saving.take().or_else(|| self.save(true).ok()) {
                self.is_saved(saving.await);
            }
        });
        if remembered.await.is_err() {
            warn!("the disk is slow: retained messages may make their rows again at the next start");
        }
    }

    async fn run_connections(&mut self) {
        loop {
            self.generation += 1;
            let (requests, mut event_loop) = client::connect(&self.line.plan);
            let mut connection = Connection::new(requests);
            let end = self.drive(&mut connection, &mut event_loop).await;
            if event_loop.has_hung_up() {
                add(&self.line.status.hang_ups, 1);
            }
            self.line.status.is_down(if let End::Lost(reason) = &end { Some(reason.clone()) } else { None });
            self.line.session.send_replace(None);
            self.listening.lost();
            // What the engine has no room for belongs to messages that only this connection could have
            // acknowledged.
            self.hand_over();
            self.line.streams.forget();
            self.tell();
            match end {
                End::Finished => {
                    if connection.up_since.is_some() {
                        goodbye(&connection.requests, &mut event_loop).await;
                    }
                    return;
                }
                End::Lost(reason) => {
                    let up = connection.up_since.map(|since| since.elapsed());
                    if let Some(up) = up {
                        self.line.backoff.was_up(up);
                    }
                    self.losses.lost(reason, up);
                }
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
            let handled = event.and_then(|event| self.handle(connection, event));
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
            self.listen(connection);
            if let Some(refused) = connection.acks.only_refused() {
                return Err(End::Lost(format!(
                    "{refused} messages were not taken; the broker is asked for them again"
                )));
            }
            if self.inlet.is_none() && self.line.outbox.is_closed() && connection.acks.len() == 0 {
                return Err(End::Finished);
            }
            let due = [self.ask(connection).map_err(End::Lost)?, self.remember()].into_iter().flatten().min();
            let saved = async {
                match &mut self.saving {
                    Some(saving) => saving.await,
                    None => pending().await,
                }
            };
            let room = room(
                self.inlet
                    .as_ref()
                    .filter(|_| self.line.streams.held() > 0 || self.listening.news().is_some()),
            );
            let read_by = self.listening.deadline();
            tokio::select! {
                // What has come counts before the time that has passed.
                biased;
                event = &mut poll => return Ok(event),
                () = self.shutdown.cancelled(), if self.inlet.is_some() => self.stop_reading(),
                Ok(()) = self.asked.changed() => {}
                () = time::sleep_until(read_by.unwrap_or_else(time::Instant::now)), if read_by.is_some() => {}
                () = self.line.outbox.changed(), if self.line.outbox.can_change() => {}
                () = decided.notified() => {}
                saved = saved => self.is_saved(saved),
                () = tokio::time::sleep_until(due.unwrap_or(connection.pulse.heard).into()), if due.is_some() => {}
                open = room => if !open {
                    // The engine is gone; the shutdown is on its way.
                    self.stop_reading();
                },
            }
        }
    }

    fn stop_reading(&mut self) {
        self.listening.lost();
        self.hand_over();
        self.inlet = None;
        self.line.streams.forget();
    }

    /// Asks the broker for what is due: subscriptions, and an answer if it has said nothing for too long.
    /// Returns when there is more to do; none while there is no connection, which the client looks after.
    fn ask(&mut self, connection: &mut Connection) -> Result<Option<Instant>, String> {
        if connection.up_since.is_none() {
            return Ok(None);
        }
        let (now, plan, subscriptions) = (Instant::now(), &self.line.plan, &mut self.line.subscriptions);
        if self.inlet.is_some()
            && let Some(filters) = subscriptions.due(now)
        {
            connection.requests.subscribe(&filters)?;
        }
        if subscriptions.is_unanswered(now, plan.patience()) {
            return Err("the broker did not answer SUBSCRIBE within two keep_alive".into());
        }
        let mut pulse = connection.pulse;
        pulse.look(plan, || connection.ask())?;
        connection.pulse = pulse;
        let silence = pulse.due(plan);
        Ok(Some(subscriptions.deadline(plan.patience()).map_or(silence, |deadline| deadline.min(silence))))
    }

    /// Writes down what streams remember. Returns when there is more to write.
    fn remember(&mut self) -> Option<Instant> {
        if self.saving.is_some() {
            return None;
        }
        match self.save(false) {
            Ok(saving) => self.saving = Some(saving),
            Err(due) => return due,
        }
        None
    }

    fn save(&mut self, at_the_end: bool) -> Result<BoxFuture<'static, std::io::Result<()>>, Option<Instant>> {
        let Some(keep) = &self.line.keep else { return Err(None) };
        let (stream, file) = self.line.streams.unsaved(at_the_end)?;
        Ok(keep(&stream, file))
    }

    fn is_saved(&mut self, saved: std::io::Result<()>) {
        self.saving = None;
        if let Err(error) = saved {
            warn!(%error, "what streams remember cannot be written: retained messages may make their rows \
                again at the next start");
        }
    }

    fn handle(&mut self, connection: &mut Connection, event: Event) -> Result<(), String> {
        if !matches!(event, Event::Other) {
            connection.pulse.beats();
            self.listening.heard(time::Instant::now());
        }
        match event {
            Event::Message(message) => {
                self.listening.message();
                if self.inlet.is_some() {
                    self.line.streams.take(&message, &mut connection.acks, self.line.clock.wall_ns());
                }
            }
            Event::Connected(welcome) => {
                self.connected(connection, welcome);
                self.ask(connection)?;
            }
            Event::Subscribed(answers) => {
                self.line.subscriptions.answered(answers, connection.pulse.heard);
                self.listening.connected(time::Instant::now());
            }
            Event::Answered if connection.is_answered() => {
                self.listening.answered(*self.asked.borrow(), time::Instant::now());
            }
            Event::Answered | Event::Heard | Event::Other => {}
        }
        Ok(())
    }

    fn connected(&mut self, connection: &mut Connection, welcome: Welcome) {
        let Welcome { present, max_packet, max_qos, .. } = welcome;
        self.line.streams.connected(present);
        self.line.subscriptions.connected();
        self.losses.connected(present);
        let plan = &self.line.plan;
        if plan.persistent && !present && (self.was_up || self.line.has_earlier) {
            self.line.status.counter("sessions_lost").add(1);
            warn!(
                client_id = plan.client_id,
                "the broker has no session of this box: what it had queued while the line was down is lost; \
                let it keep sessions on disk, and longer than the worst outage"
            );
        }
        self.said.about(&welcome, plan, self.line.confirms);
        if std::mem::replace(&mut self.was_up, true) {
            add(&self.line.status.reconnects, 1);
        }
        connection.up_since = Some(connection.pulse.heard);
        self.line.status.is_up();
        let max_packet = plan.max_packet.min(max_packet.unwrap_or(u32::MAX));
        self.line.session.send_replace(Some(Session {
            generation: self.generation,
            present,
            max_packet,
            max_qos,
        }));
    }

    /// Hands rows to the engine as long as it has room.
    fn hand_over(&mut self) {
        let Some(inlet) = &self.inlet else { return };
        while self.line.streams.held() > 0 {
            let Ok(permit) = inlet.queue.try_reserve() else { return };
            let Some(batch) = self.line.streams.next_batch() else { return };
            permit.send(Arrival::Rows(batch));
        }
        self.tell();
    }

    /// Tells the engine whether the line listens, behind the rows that were read.
    fn tell(&mut self) {
        let news = self.listening.news().filter(|_| self.line.streams.held() == 0);
        let Some((inlet, news)) = self.inlet.as_ref().zip(news) else { return };
        if let Ok(permit) = inlet.queue.try_reserve() {
            permit.send(inlet.news(news));
            self.listening.told();
        }
    }

    /// Nothing more is there to be read: looks whether that is so at the broker, too, if somebody wants to
    /// know.
    fn listen(&mut self, connection: &mut Connection) {
        if self.inlet.is_none() {
            return;
        }
        let (asked, now) = (*self.asked.borrow_and_update(), time::Instant::now());
        self.listening.look(asked, now);
        let owed = connection.owed;
        if self.listening.wants_to_ask(connection.acks.len(), asked) && connection.ask().is_ok() {
            connection.owed_before = owed;
            self.listening.asks(asked, now);
        }
        self.tell();
    }

    /// Sends acknowledgements that are due, and messages that publishers want to send.
    fn serve(&mut self, connection: &mut Connection) {
        let Connection { requests, acks, up_since, .. } = connection;
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
        self.line.outbox.send(requests, self.generation);
    }

    /// Answers publishers while the line is down: nothing is kept to be sent late.
    fn turn_down(&mut self) {
        self.line.outbox.turn_down(&self.line.name, &self.line.status);
    }

    /// Waits before the next attempt, and turns publishers down meanwhile. Break: the box shuts down and
    /// nobody needs the line.
    async fn pause(&mut self) -> std::ops::ControlFlow<()> {
        let pause = self.line.backoff.pause();
        self.line.status.waits(pause);
        let mut timer = pin!(time::sleep(pause));
        loop {
            self.turn_down();
            self.tell();
            if self.shutdown.is_cancelled() {
                self.inlet = None;
            }
            if self.inlet.is_none() && self.line.outbox.is_closed() {
                return std::ops::ControlFlow::Break(());
            }
            let room = room(self.inlet.as_ref().filter(|_| self.listening.news().is_some()));
            tokio::select! {
                () = &mut timer, if self.inlet.is_some() => return std::ops::ControlFlow::Continue(()),
                () = self.line.outbox.changed(), if self.line.outbox.can_change() => {}
                true = room => {}
                () = self.shutdown.cancelled(), if self.inlet.is_some() => {}
            }
        }
    }
}

impl Said {
    /// Says what the broker does not do as it was asked to.
    fn about(&mut self, welcome: &Welcome, plan: &Plan, confirms: bool) {
        let granted =
            welcome.session_expiry_s.filter(|granted| plan.persistent && *granted < plan.session_expiry_s);
        if granted.is_some() && self.session_expiry_s != granted {
            warn!(
                asked_s = plan.session_expiry_s,
                granted_s = granted,
                "the broker keeps the session for less than session_expiry: after a longer outage what it \
                had queued is lost"
            );
        }
        self.session_expiry_s = granted;
        let too_low = confirms && welcome.max_qos < Qos::AtLeastOnce;
        if too_low && !self.max_qos {
            error!(
                "the broker takes QoS 0 only: outputs with qos = 1 and uplinks cannot write to it; let it \
                take QoS 1, or set qos = 0"
            );
        }
        self.max_qos = too_low;
    }
}

/// Resolves when the engine has room, if somebody waits for that; with `false` when it is gone.
async fn room(inlet: Option<&Inlet>) -> bool {
    match inlet {
        Some(inlet) => inlet.queue.reserve().await.is_ok(),
        None => pending().await,
    }
}

/// Ends the session in order.
pub(super) async fn goodbye(requests: &Requests, event_loop: &mut EventLoop) {
    requests.disconnect(GOODBYE);
    // The client reports the end as an error.
    let _ = time::timeout(2 * GOODBYE, async { while event_loop.poll().await.is_ok() {} }).await;
    info!("disconnected");
}
