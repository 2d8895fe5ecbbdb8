//! The plant: devices that publish, a broker that keeps what was not acknowledged, and the box's connection
//! to it.
//!
//! Messages of stream `tank` have QoS 1 and the numbers 1, 2, 3 and so on. The broker sends them in order, as
//! many as its window allows, and after a lost connection those that it has no acknowledgement of, with the
//! DUP mark; acknowledgements may be lost with the connection. Messages of stream `noise` have QoS 0: who is
//! not there does not get them.
//!
//! The connection does what `tidegate_connectors::mqtt` promises: it acknowledges in the order of receipt,
//! when the rows are dealt with, and knows a repeat by its mark, also after a restart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use futures::future::BoxFuture;
use tidegate_connectors::{Arrival, Inlet, LineNews, Source};
use tidegate_core::{Ack, Batch, Outcome};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::columns::Columns;
use crate::dice::Dice;
use crate::record::Record;

/// Event time of message 0: 2026-01-01T00:00:00Z.
const EPOCH_NS: i64 = 1_767_225_600_000_000_000;
/// Event time between two messages.
const STEP_NS: i64 = 130_000_000;
/// How far a message's event time may lie behind; rules have this much lateness.
pub const JITTER_NS: i64 = 1_500_000_000;
pub(crate) const DEVICES: [&str; 3] = ["a", "b", "c"];
/// What is read at once, at most.
const READ: usize = 40;

/// What message `n` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// its number
    pub n: i64,
    /// who sent it
    pub device: &'static str,
    /// event time
    pub ts_ns: i64,
    /// a value from 0 to 100
    pub v: i64,
}

impl Message {
    /// Message `n`. Those from `end` on are of another device, and of a time at which all windows of the
    /// others have closed.
    #[must_use]
    pub fn new(n: u64, end: u64) -> Self {
        let chance = Dice::new(n).roll();
        let part = |shift: u32, below: u64| i64::try_from((chance >> shift) % below).unwrap_or(0);
        let number = i64::try_from(n).unwrap_or(i64::MAX);
        if n >= end {
            return Self { n: number, device: "end", ts_ns: EPOCH_NS + (number + 100_000) * STEP_NS, v: 0 };
        }
        let device = DEVICES.get(usize::try_from(part(0, 3)).unwrap_or(0)).copied().unwrap_or_default();
        Self {
            n: number,
            device,
            ts_ns: EPOCH_NS + number * STEP_NS - part(8, JITTER_NS.unsigned_abs()),
            v: part(40, 101),
        }
    }
}

/// Devices and broker.
#[derive(Clone)]
pub struct Broker {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
}

struct State {
    /// the newest messages
    published: u64,
    noise: u64,
    /// from here on messages belong to the end
    end: u64,
    /// the newest message that was sent
    sent: u64,
    /// sent and not acknowledged, with packet ids
    unacknowledged: BTreeMap<u64, u16>,
    packet_id: u16,
    window: usize,
    /// how often the box took a message as new
    taken: BTreeMap<u64, u32>,
    /// how often rows were refused while the box was not about to stop
    refused: u64,
    /// the process that the box is
    epoch: u64,
    /// the columns of the noise that the box has taken in this round
    columns: Columns,
    /// when `tank` last was published to, or the box started
    spoke: Option<Instant>,
    /// the longest time between two such moments
    silence: Duration,
}

impl Broker {
    /// A broker that sends `window` messages ahead.
    #[must_use]
    pub fn new(window: usize) -> Self {
        let state = State {
            published: 0,
            noise: 0,
            end: u64::MAX,
            sent: 0,
            unacknowledged: BTreeMap::new(),
            packet_id: 0,
            window,
            taken: BTreeMap::new(),
            refused: 0,
            epoch: 0,
            columns: Columns::default(),
            spoke: None,
            silence: Duration::ZERO,
        };
        Self { state: Arc::new(Mutex::new(state)), news: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Devices publish `tank` messages and `noise`.
    pub fn publish(&self, tank: u64, noise: u64) {
        let mut state = self.lock();
        if tank > 0 {
            state.speak();
        }
        state.published += tank;
        state.noise += noise;
        self.news.notify_one();
    }

    /// The last message, after which all windows of those before have closed.
    pub fn publish_end(&self) {
        let mut state = self.lock();
        state.speak();
        // What the devices say after that, or do not, is of no account.
        state.spoke = None;
        state.published += 1;
        state.end = state.published;
        self.news.notify_one();
    }

    /// A box starts.
    pub fn speak(&self) {
        self.lock().speak();
    }

    /// A round is over.
    pub fn fall_silent(&self) {
        let mut state = self.lock();
        if state.spoke.is_some() {
            state.speak();
        }
        state.spoke = None;
    }

    /// The longest time for which nothing was published to `tank` while a box ran.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        self.lock().silence
    }

    /// Messages that count: the one that ends it all does not.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        let state = self.lock();
        (1..=state.published).filter(|n| *n < state.end).map(|n| Message::new(n, state.end)).collect()
    }

    /// Noise that was published.
    #[must_use]
    pub fn noise(&self) -> u64 {
        self.lock().noise
    }

    /// How often the box took message `n` as new.
    #[must_use]
    pub fn taken(&self, n: u64) -> u32 {
        self.lock().taken.get(&n).copied().unwrap_or(0)
    }

    /// How often rows were refused although the box was not about to stop.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// Whether everything was acknowledged.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let state = self.lock();
        state.sent == state.published && state.unacknowledged.is_empty()
    }

    /// Whether any message was acknowledged.
    #[must_use]
    pub fn has_acknowledgements(&self) -> bool {
        let state = self.lock();
        state.sent > state.unacknowledged.len() as u64
    }

    /// What the process before did counts for nothing any more. Returns the columns of the noise that it has
    /// taken.
    pub fn forget_box(&self) -> Columns {
        let mut state = self.lock();
        state.epoch += 1;
        std::mem::take(&mut state.columns)
    }
}

/// What became of a message's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Done,
    Refused,
}

/// Fates by message; acknowledgement guards write, the connection reads.
#[derive(Default)]
struct Fates {
    of: Mutex<BTreeMap<u64, Fate>>,
    decided: Notify,
}

impl Fates {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Fate>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How well the connection works.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// how long it lasts, about
    pub lasts: Duration,
    /// how long it takes to come back, at most
    pub away: Duration,
    /// nothing is late or lost on the way
    pub calm: bool,
}

/// The box's connection to the plant.
pub struct PlantLine {
    broker: Broker,
    dice: Dice,
    record: Record,
    weather: Weather,
    epoch: u64,
    /// of stream `tank`
    schema: SchemaRef,
    /// of stream `noise`
    columns: Columns,
    /// marks that the process before left in the journal
    known: BTreeSet<u64>,
    fates: Arc<Fates>,
    /// received on this connection and not acknowledged, in order
    received: VecDeque<u64>,
    /// the newest noise that was received
    noise: u64,
    /// whether the engine was told that nothing is left to be read
    listens: bool,
    /// what it has asked last, as far as that was answered
    answered: i64,
    /// when the broker was heard last
    heard: Instant,
}

/// A message on its way in.
struct Delivered {
    n: u64,
    packet_id: u16,
    dup: bool,
}

impl Delivered {
    fn mark(&self) -> u64 {
        u64::from(self.packet_id) << 48 | self.n
    }
}

impl PlantLine {
    /// A connection for streams `tank` and `noise` with these columns.
    #[must_use]
    pub fn new(
        broker: &Broker,
        dice: Dice,
        record: &Record,
        weather: Weather,
        (schema, columns): (SchemaRef, Columns),
        known: &[u64],
    ) -> Self {
        let epoch = broker.lock().epoch;
        let noise = broker.noise();
        Self {
            broker: broker.clone(),
            dice,
            record: record.clone(),
            weather,
            epoch,
            schema,
            columns,
            known: known.iter().copied().collect(),
            fates: Arc::default(),
            received: VecDeque::new(),
            noise,
            listens: false,
            answered: i64::MIN,
            heard: Instant::now(),
        }
    }

    async fn drive(mut self, inlet: Inlet, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = sleep(self.dice.delay(self.weather.away)) => {}
            }
            let most = u64::try_from(self.weather.lasts.as_millis()).unwrap_or(u64::MAX);
            let until = Instant::now() + Duration::from_millis(self.dice.between(most / 8, most));
            self.record.note(format_args!("plant: connected"));
            self.session(&inlet, &shutdown, until).await;
            if self.listens {
                self.tell(&inlet, LineNews::Ends { heard: self.heard }).await;
            }
            if !shutdown.is_cancelled() {
                self.record.note(format_args!("plant: connection lost"));
            }
        }
        drop(inlet);
        // The contract: what is still under way is acknowledged.
        loop {
            let fates = Arc::clone(&self.fates);
            let decided = fates.decided.notified();
            self.acknowledge();
            if !fates.lock().values().any(|fate| *fate == Fate::Open) {
                break;
            }
            decided.await;
        }
        self.record.note(format_args!("plant: closed"));
    }

    async fn session(&mut self, inlet: &Inlet, shutdown: &CancellationToken, until: Instant) {
        let mut repeats: VecDeque<Delivered> = self
            .broker
            .lock()
            .unacknowledged
            .iter()
            .map(|(n, packet_id)| Delivered { n: *n, packet_id: *packet_id, dup: true })
            .collect();
        self.received.clear();
        self.listens = false;
        self.noise = self.broker.noise();
        let fates = Arc::clone(&self.fates);
        let broker = self.broker.clone();
        let mute = !self.weather.calm && self.dice.one_in(4);
        while Instant::now() < until && !shutdown.is_cancelled() {
            let (decided, news) = (fates.decided.notified(), broker.news.notified());
            // Acknowledgements that are late may be lost with the connection; on some connections all are.
            let late = !self.weather.calm && self.dice.one_in(3);
            if !late && !mute {
                self.acknowledge();
            }
            if self.received.iter().any(|n| fates.lock().get(n) == Some(&Fate::Refused)) {
                if !shutdown.is_cancelled() {
                    self.broker.lock().refused += 1;
                }
                return;
            }
            let mut batches = Vec::new();
            batches.extend(self.read(&mut repeats));
            batches.extend(self.read_noise());
            let idle = batches.is_empty();
            for batch in batches {
                // What was decoded and does not get in has to come again.
                tokio::select! {
                    biased;
                    room = inlet.queue.reserve() => match room {
                        Ok(room) => {
                            self.note_columns(&batch);
                            room.send(Arrival::Rows(batch));
                        }
                        Err(_) => batch.ack.refuse(),
                    },
                    () = shutdown.cancelled() => batch.ack.refuse(),
                }
            }
            if idle {
                let is_read = self.listen(inlet, repeats.is_empty()).await;
                let mut asked = inlet.asked.clone();
                let answered = self.answered;
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    Ok(_) = asked.wait_for(|asked| *asked > answered), if self.listens && is_read => {}
                    () = decided => {}
                    () = news => {}
                    () = sleep(self.dice.delay(Duration::from_secs(2))), if late => {}
                    () = sleep_until(until) => {}
                }
            } else {
                sleep(self.dice.delay(Duration::from_millis(60))).await;
            }
        }
    }

    /// Nothing more is there to be read: tells the engine if that is so at the broker, too, and returns
    /// whether it is.
    async fn listen(&mut self, inlet: &Inlet, no_repeats: bool) -> bool {
        let is_read = {
            let broker = self.broker.lock();
            no_repeats && broker.sent == broker.published && broker.unacknowledged.is_empty()
        };
        let asked = *inlet.asked.borrow();
        if !self.listens {
            if is_read {
                (self.listens, self.answered, self.heard) = (true, asked, Instant::now());
                self.tell(inlet, LineNews::Begins).await;
            }
        } else if asked > self.answered && is_read {
            (self.answered, self.heard) = (asked, Instant::now());
            self.tell(inlet, LineNews::Heard { asked }).await;
        }
        is_read
    }

    async fn tell(&self, inlet: &Inlet, news: LineNews) {
        self.record.note(format_args!("plant: {}", said(news)));
        // The engine is gone when nobody takes it.
        drop(inlet.queue.send(inlet.news(news)).await);
    }

    /// Acknowledges what is due, in the order of receipt.
    fn acknowledge(&mut self) {
        let mut broker = self.broker.lock();
        if broker.epoch != self.epoch {
            return;
        }
        while let Some(n) = self.received.front().copied()
            && self.fates.lock().get(&n) == Some(&Fate::Done)
        {
            self.received.pop_front();
            broker.unacknowledged.remove(&n);
            self.record.note(format_args!("plant: acknowledged {n}"));
        }
    }

    /// What the broker sends next, up to a random number of messages.
    fn read(&mut self, repeats: &mut VecDeque<Delivered>) -> Option<Batch> {
        let limit = usize::try_from(self.dice.between(1, READ as u64)).unwrap_or(1);
        let mut taken = Vec::new();
        let mut marks = Vec::new();
        let mut broker = self.broker.lock();
        if broker.epoch != self.epoch {
            return None;
        }
        let mut fates = self.fates.lock();
        while taken.len() < limit {
            let Some(arrival) = repeats.pop_front().or_else(|| broker.next()) else { break };
            self.received.push_back(arrival.n);
            let known = match fates.get(&arrival.n) {
                Some(Fate::Open | Fate::Done) if arrival.dup => true,
                _ if arrival.dup && self.known.contains(&arrival.mark()) => {
                    fates.insert(arrival.n, Fate::Done);
                    true
                }
                _ => false,
            };
            self.record.note(format_args!(
                "plant: received {}{}",
                arrival.n,
                if known { ", known" } else { "" }
            ));
            if !known {
                fates.insert(arrival.n, Fate::Open);
                *broker.taken.entry(arrival.n).or_default() += 1;
                marks.push(arrival.mark());
                taken.push(Message::new(arrival.n, broker.end));
            }
        }
        drop(fates);
        drop(broker);
        if taken.is_empty() {
            return None;
        }
        let numbers: Vec<u64> = taken.iter().filter_map(|message| u64::try_from(message.n).ok()).collect();
        let fates = Arc::clone(&self.fates);
        let ack = Ack::new(move |outcome| {
            let fate = if outcome == Outcome::Done { Fate::Done } else { Fate::Refused };
            fates.lock().extend(numbers.into_iter().map(|n| (n, fate)));
            fates.decided.notify_one();
        });
        Some(Batch { stream: "tank".into(), rows: rows(&self.schema, &taken), marks, ack })
    }

    /// The box will see this batch before it ends.
    fn note_columns(&self, batch: &Batch) {
        let mut broker = self.broker.lock();
        if &*batch.stream == "noise" && broker.epoch == self.epoch {
            broker.columns = self.columns.clone();
        }
    }

    fn read_noise(&mut self) -> Option<Batch> {
        let published = self.broker.noise();
        let new = self.noise + 1..published + 1;
        self.noise = published;
        let taken: Vec<Message> = new.map(|n| Message::new(n, u64::MAX)).collect();
        if taken.is_empty() {
            return None;
        }
        self.columns.grow(&self.dice);
        Some(Batch {
            stream: "noise".into(),
            rows: rows(&self.columns.schema(), &taken),
            marks: Vec::new(),
            ack: Ack::none(),
        })
    }
}

impl State {
    fn speak(&mut self) {
        let now = Instant::now();
        let silence = self.spoke.replace(now).map_or(Duration::ZERO, |spoke| now - spoke);
        self.silence = self.silence.max(silence);
    }

    /// A message that was not sent yet, if the window allows it.
    fn next(&mut self) -> Option<Delivered> {
        if self.unacknowledged.len() >= self.window || self.sent >= self.published {
            return None;
        }
        self.sent += 1;
        self.packet_id = self.packet_id % u16::MAX + 1;
        self.unacknowledged.insert(self.sent, self.packet_id);
        Some(Delivered { n: self.sent, packet_id: self.packet_id, dup: false })
    }
}

fn rows(schema: &SchemaRef, messages: &[Message]) -> RecordBatch {
    let column = |field: &Field| -> ArrayRef {
        match field.name().as_str() {
            "ts" => Arc::new(
                TimestampNanosecondArray::from_iter_values(messages.iter().map(|message| message.ts_ns))
                    .with_timezone("UTC"),
            ),
            "device" => {
                Arc::new(StringArray::from_iter_values(messages.iter().map(|message| message.device)))
            }
            "n" => Arc::new(Int64Array::from_iter_values(messages.iter().map(|message| message.n))),
            _ if *field.data_type() == DataType::Float64 => {
                Arc::new(Float64Array::from(vec![0.5; messages.len()]))
            }
            _ => Arc::new(Int64Array::from_iter_values(messages.iter().map(|message| message.v))),
        }
    };
    let columns = schema.fields().iter().map(|field| column(field)).collect();
    RecordBatch::try_new(Arc::clone(schema), columns)
        .unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(schema)))
}

impl Source for PlantLine {
    fn run(self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(self.drive(inlet, shutdown))
    }
}

/// Without its time, which is another each time.
fn said(news: LineNews) -> &'static str {
    match news {
        LineNews::Begins => "begins to listen",
        LineNews::Heard { .. } => "listens",
        LineNews::Ends { .. } => "listens no more",
    }
}
