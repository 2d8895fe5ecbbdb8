//! Management by a broker: a session of its own, in which messages are neither rows nor held back by them.
//!
//! A message with QoS 1 is acknowledged, in the order of receipt, when its guard is dropped: whoever takes it
//! has written down by then what it asks for. Repeats are handed on; whoever takes them knows commands by their
//! ids.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, pending};
use tidegate_core::Ack;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use super::acks::{Acks, Fate};
use super::client::{self, Event, EventLoop, Expiry, Incoming, Outgoing, Plan, Requests, Welcome};
use super::config::{ConnectionConfig, LastWillConfig, Qos, Retained};
use super::line::goodbye;
use super::losses::Losses;
use super::plan;
use super::publisher::{Outbox, Publisher, Session};
use super::pulse::Pulse;
use super::subscriptions::Subscriptions;
use crate::DeliveryError;
use crate::connection::OpenError;
use crate::line::backoff::Backoff;
use crate::remote::{LARGEST, Message, News, Post, Publication, Remote, Request};
use crate::status::{LineStatus, add};
use crate::uplink::Confirmation;

/// Packets of MQTT 5 that are larger stay with the broker. It is far above [`LARGEST`], so that a command that
/// is too large is refused in words.
const LARGEST_PACKET: u32 = 8 << 20;
/// Messages that wait to be taken, 16 MiB at most. While there are so many, nothing is read.
const HELD: usize = 256;
/// News that whoever listens has not taken yet.
const QUEUED: usize = 16;

/// Prepares a way to the box.
pub(crate) fn open_remote(config: &ConnectionConfig, request: Request<'_>) -> Result<Remote, OpenError> {
    let Request { name, box_name, filters, will, status, stop } = request;
    let mut config = config.clone();
    // Two sessions with one client id would throw each other out.
    config.client_id = config.client_id.map(|id| format!("{id}-management"));
    config.last_will = Some(LastWillConfig {
        topic: will.topic,
        payload: will.payload,
        qos: Qos::AtLeastOnce,
        retain: true,
    });
    let mut plan = plan(&config, format!("tidegate-{box_name}-management"), true)?;
    plan.will_delay_s = u32::try_from(will.delay.as_secs()).unwrap_or(u32::MAX);
    plan.max_packet = plan.max_packet.max(LARGEST_PACKET);
    let backoff = || Backoff::new(config.backoff.min.0, config.backoff.max.0);
    let mut subscriptions = Subscriptions::new(backoff(), Arc::clone(&status));
    filters.iter().for_each(|filter| subscriptions.add(filter, Qos::AtLeastOnce, Retained::Always));
    let (outbox, requests) = Outbox::new();
    let (session, sessions) = watch::channel(None);
    let (tell, news) = mpsc::channel(QUEUED);
    let connection: Arc<str> = name.into();
    let publisher = Publisher {
        connection: Arc::clone(&connection),
        version: config.version,
        requests,
        session: sessions,
        status: Arc::clone(&status),
        expiry: None,
    };
    let losses = Losses::new(&plan);
    let running = Running {
        name: connection,
        plan,
        subscriptions,
        outbox,
        session,
        status,
        backoff: backoff(),
        losses,
        generation: 0,
        tell,
        held: VecDeque::new(),
        decided: Arc::default(),
        listens: false,
        stop,
    };
    let span = info_span!("mqtt", connection = name, of = "management");
    Ok(Remote { news, post: Arc::new(publisher), task: running.run().instrument(span).boxed() })
}

impl Post for Publisher {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        let Publication { topic, payload, keep, confirmed, expiry, correlation } = publication;
        let qos = if confirmed { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let expiry = expiry.map(Expiry::from);
        let message = Outgoing { topic, payload, qos, retain: keep, expiry, correlation };
        async move { Ok(self.send(message).await?.boxed()) }.boxed()
    }
}

/// The session, from one connection to the next.
struct Running {
    name: Arc<str>,
    plan: Plan,
    subscriptions: Subscriptions,
    outbox: Outbox,
    session: watch::Sender<Option<Session>>,
    status: Arc<LineStatus>,
    backoff: Backoff,
    losses: Losses,
    generation: u64,
    tell: mpsc::Sender<News>,
    /// news that wait to be taken, oldest first
    held: VecDeque<News>,
    /// wakes when a guard was dropped
    decided: Arc<Notify>,
    /// Whether it was told that all topics are listened to on this connection.
    listens: bool,
    stop: CancellationToken,
}

/// One connection.
struct Connection {
    requests: Requests,
    acks: Acks,
    pulse: Pulse,
    up_since: Option<Instant>,
}

/// Why a connection is over.
enum End {
    Lost(String),
    /// The box stops.
    Stopped,
}

impl Running {
    async fn run(mut self) {
        loop {
            self.generation += 1;
            let (requests, mut event_loop) = client::connect(&self.plan);
            let (acks, pulse) = (Acks::default(), Pulse::new());
            let mut connection = Connection { requests, acks, pulse, up_since: None };
            let end = self.drive(&mut connection, &mut event_loop).await;
            self.session.send_replace(None);
            let up = connection.up_since.map(|since| since.elapsed());
            let reason = match end {
                End::Stopped => {
                    self.status.is_down(None);
                    if up.is_some() {
                        goodbye(&connection.requests, &mut event_loop).await;
                    }
                    return;
                }
                End::Lost(reason) => reason,
            };
            if event_loop.has_hung_up() {
                add(&self.status.hang_ups, 1);
            }
            self.status.is_down(Some(reason.clone()));
            if let Some(up) = up {
                self.backoff.was_up(up);
                self.lost();
            }
            self.losses.lost(reason, up);
            drop((connection, event_loop));
            if !self.pause().await {
                return;
            }
        }
    }

    /// What has not been taken comes again on the next connection, or was not meant to.
    fn lost(&mut self) {
        self.held.clear();
        self.listens = false;
        self.held.push_back(News::Lost);
    }

    async fn drive(&mut self, connection: &mut Connection, event_loop: &mut EventLoop) -> End {
        loop {
            // The future must not be dropped before it is ready: it may be in the middle of a packet.
            let mut poll = pin!(event_loop.poll());
            let event = loop {
                match self.attend(connection, &mut poll).await {
                    Ok(Some(event)) => break event,
                    Ok(None) => {}
                    Err(end) => return end,
                }
            };
            if let Err(reason) = event.and_then(|event| self.handle(connection, event)) {
                return End::Lost(reason);
            }
        }
    }

    /// Does what is due, and waits for what is next: an event, or anything else.
    async fn attend(
        &mut self,
        connection: &mut Connection,
        poll: &mut (impl Future<Output = Result<Event, String>> + Unpin),
    ) -> Result<Option<Result<Event, String>>, End> {
        self.hand_over();
        let Connection { requests, acks, pulse, up_since } = connection;
        acks.send(|packet_id| requests.ack(packet_id));
        if let Some(refused) = acks.only_refused() {
            let reason = format!("{refused} messages were not taken; the broker is asked for them again");
            return Err(End::Lost(reason));
        }
        let due = if up_since.is_some() {
            self.outbox.send(requests, self.generation);
            Some(self.ask(requests, pulse).map_err(End::Lost)?)
        } else {
            self.outbox.turn_down(&self.name, &self.status);
            None
        };
        let decided = Arc::clone(&self.decided);
        let room = room(&self.tell, !self.held.is_empty());
        let due = async {
            match due {
                Some(due) => time::sleep_until(due.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // What has come counts before the time that has passed.
            biased;
            // What there is no room for stays with the broker; refused, it would come again in the same order.
            event = poll, if self.held.len() < HELD => return Ok(Some(event)),
            () = self.stop.cancelled() => return Err(End::Stopped),
            () = decided.notified() => {}
            () = self.outbox.changed(), if self.outbox.can_change() => {}
            () = room => {}
            () = due => {}
        }
        Ok(None)
    }

    /// Asks the broker for what is due. Returns when there is more to do.
    fn ask(&mut self, requests: &Requests, pulse: &mut Pulse) -> Result<Instant, String> {
        let (now, patience) = (Instant::now(), self.plan.patience());
        if let Some(filters) = self.subscriptions.due(now) {
            requests.subscribe(&filters)?;
        }
        if self.subscriptions.is_unanswered(now, patience) {
            return Err("the broker did not answer SUBSCRIBE within two keep_alive".into());
        }
        pulse.look(&self.plan, || requests.ask())?;
        let due = pulse.due(&self.plan);
        Ok(self.subscriptions.deadline(patience).map_or(due, |deadline| deadline.min(due)))
    }

    fn handle(&mut self, connection: &mut Connection, event: Event) -> Result<(), String> {
        if !matches!(event, Event::Other) {
            connection.pulse.beats();
        }
        match event {
            Event::Connected(welcome) => self.connected(connection, &welcome),
            Event::Message(message) => self.take(message, &mut connection.acks),
            Event::Subscribed(answers) => {
                self.subscriptions.answered(answers, connection.pulse.heard);
                if self.subscriptions.are_granted() && !std::mem::replace(&mut self.listens, true) {
                    self.held.push_back(News::Listens);
                }
            }
            Event::Answered | Event::Heard | Event::Other => {}
        }
        Ok(())
    }

    fn connected(&mut self, connection: &mut Connection, welcome: &Welcome) {
        self.subscriptions.connected();
        self.losses.connected(welcome.present);
        if self.generation > 1 {
            add(&self.status.reconnects, 1);
        }
        connection.up_since = Some(connection.pulse.heard);
        self.status.is_up();
        self.session.send_replace(Some(Session {
            generation: self.generation,
            present: welcome.present,
            max_packet: self.plan.max_packet.min(welcome.max_packet.unwrap_or(u32::MAX)),
            max_qos: welcome.max_qos,
        }));
    }

    fn take(&mut self, message: Incoming, acks: &mut Acks) {
        add(&self.status.messages, 1);
        let Incoming { topic, payload, packet_id, retained: kept, reply, .. } = message;
        let Ok(topic) = std::str::from_utf8(&topic).map(str::to_owned) else {
            // MQTT 5.0, section 1.5.4: a broker that sends such a topic is broken, and would send it again.
            add(&self.status.malformed, 1);
            return packet_id.into_iter().for_each(|packet_id| acks.push(packet_id, std::iter::empty()));
        };
        let ack = packet_id.map_or_else(Ack::none, |packet_id| {
            let fate = Arc::new(Fate::default());
            let guard = fate.guard(&self.decided);
            acks.push(packet_id, std::iter::once(fate));
            guard
        });
        // What is too large is gone before it waits for anybody.
        let payload = if payload.len() > LARGEST { Err(payload.len()) } else { Ok(payload) };
        let reply = reply.map(|reply| *reply);
        self.held.push_back(News::Message(Message { topic, payload, kept, reply, ack }));
    }

    fn hand_over(&mut self) {
        while !self.held.is_empty() {
            let Ok(permit) = self.tell.try_reserve() else { return };
            if let Some(news) = self.held.pop_front() {
                permit.send(news);
            }
        }
    }

    /// Waits before the next attempt, and turns publishers down meanwhile. False: the box stops.
    async fn pause(&mut self) -> bool {
        let pause: Duration = self.backoff.pause();
        self.status.waits(pause);
        let mut timer = pin!(time::sleep(pause));
        loop {
            self.hand_over();
            self.outbox.turn_down(&self.name, &self.status);
            let room = room(&self.tell, !self.held.is_empty());
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = &mut timer => return true,
                () = self.outbox.changed(), if self.outbox.can_change() => {}
                () = room => {}
            }
        }
    }
}

/// Resolves when whoever listens has room, if something waits for that.
async fn room(tell: &mpsc::Sender<News>, waits: bool) {
    // Nobody listens any more: the box is about to stop.
    if !waits || tell.reserve().await.is_err() {
        pending().await
    }
}
