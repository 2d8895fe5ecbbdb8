//! The other side: bare MQTT 5 clients, each on a thread with a runtime of its own.
//!
//! * [`Listener`] subscribes and calls a function for each message: the smallest program that does.
//! * [`echo`] subscribes and publishes the same payload: the smallest program that does what a rule with an
//!   output does.
//! * [`Publisher`] floods, with no more messages under way than a window allows, or sends at the times that
//!   its caller chooses.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rumqttc_v5 as mqtt;
use tokio::sync::{oneshot, watch};

use crate::plant::{self, FIRST};
use crate::subject::cpu_of;
use crate::{PATIENCE, STALL};

/// QoS 1 messages that may be unconfirmed, in each direction: the box's default.
const IN_FLIGHT: u16 = 1_000;
/// Progress is published as often as the box lets a message through.
const NEWS_EVERY: u64 = 1_000;

/// A level as MQTT writes it.
pub const fn level(qos: u8) -> mqtt::QoS {
    if qos == 0 { mqtt::QoS::AtMostOnce } else { mqtt::QoS::AtLeastOnce }
}

fn connect(port: u16, id: &str, capacity: usize) -> (mqtt::AsyncClient, mqtt::EventLoop) {
    let mut options = mqtt::MqttOptions::new(id, ("127.0.0.1", port));
    options.set_receive_maximum(Some(IN_FLIGHT)).set_outgoing_inflight_upper_limit(IN_FLIGHT);
    options.set_max_packet_size(Some(1 << 20)).set_max_request_batch(usize::from(IN_FLIGHT));
    let mut network = mqtt::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    mqtt::AsyncClient::builder(options).capacity(capacity).build()
}

/// A thread for one end of connections; it ends when this is dropped.
#[derive(Debug)]
pub struct Driver {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Runs `work` on a runtime of its own.
    pub fn spawn<F: Future<Output = ()>>(
        name: &str,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work() => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

/// Polls, subscribes, and calls `on_message` for each message until the connection is lost.
async fn listen(
    client: mqtt::AsyncClient,
    mut events: mqtt::EventLoop,
    qos: u8,
    topic: String,
    ready: SyncSender<()>,
    mut on_message: impl FnMut(&[u8]),
) {
    loop {
        match events.poll().await {
            Ok(mqtt::Event::Incoming(mqtt::Incoming::Publish(publish))) => on_message(&publish.payload),
            Ok(mqtt::Event::Incoming(mqtt::Incoming::ConnAck(_))) => {
                if client.try_subscribe(topic.as_str(), level(qos)).is_err() {
                    return;
                }
            }
            // Nobody may wait any more.
            Ok(mqtt::Event::Incoming(mqtt::Incoming::SubAck(_))) => drop(ready.try_send(())),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// A bare subscriber.
#[derive(Debug)]
pub struct Listener(#[allow(dead_code, reason = "held: it ends when it is dropped")] Driver);

impl Listener {
    /// Subscribes to `topic`; returns when the broker has confirmed it.
    pub fn start(
        port: u16,
        topic: &str,
        qos: u8,
        on_message: impl FnMut(&[u8]) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (ready, is_ready) = sync_channel(1);
        let (id, topic) = (format!("listener-{}", topic.replace('/', "-")), topic.to_owned());
        let driver = Driver::spawn("listener", move || async move {
            let (client, events) = connect(port, &id, 10);
            listen(client, events, qos, topic, ready, on_message).await;
        })?;
        is_ready.recv_timeout(PATIENCE).map_err(|_| anyhow!("the broker does not take a subscriber"))?;
        Ok(Self(driver))
    }
}

/// A bare client that publishes each message of topic `from` on topic `to`, with these levels.
pub fn echo(
    port: u16,
    (from, qos): (&'static str, u8),
    (to, out_qos): (&'static str, u8),
) -> anyhow::Result<Listener> {
    let (ready, is_ready) = sync_channel(1);
    let driver = Driver::spawn("echo", move || async move {
        let (client, events) = connect(port, "echo", 100_000);
        let publisher = client.clone();
        listen(client, events, qos, from.to_owned(), ready, |payload| {
            // The queue is longer than any window of the publisher.
            drop(publisher.try_publish(to, payload, mqtt::PublishOptions::new(level(out_qos))));
        })
        .await;
    })?;
    is_ready.recv_timeout(PATIENCE).map_err(|_| anyhow!("the broker does not take the echo"))?;
    Ok(Listener(driver))
}

/// Something to publish: the numbers of the rows, and the payload.
pub type Payloads = Box<dyn Iterator<Item = (std::ops::Range<u64>, Vec<u8>)> + Send>;

/// A bare publisher.
#[derive(Debug)]
pub struct Publisher {
    client: mqtt::AsyncClient,
    topic: &'static str,
    qos: u8,
    _driver: Driver,
}

impl Publisher {
    /// Connects.
    pub fn start(port: u16, topic: &'static str, qos: u8) -> anyhow::Result<Self> {
        let (ready, is_ready) = sync_channel(1);
        let (give, take) = sync_channel(1);
        let driver = Driver::spawn("publisher", move || async move {
            let (client, mut events) = connect(port, "publisher", usize::from(IN_FLIGHT));
            drop(give.try_send(client));
            loop {
                match events.poll().await {
                    Ok(mqtt::Event::Incoming(mqtt::Incoming::ConnAck(_))) => drop(ready.try_send(())),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        })?;
        let client = take.recv_timeout(PATIENCE).map_err(|_| anyhow!("there is no publisher"))?;
        is_ready.recv_timeout(PATIENCE).map_err(|_| anyhow!("the broker does not take a publisher"))?;
        Ok(Self { client, topic, qos, _driver: driver })
    }

    /// Publishes one message now.
    pub fn send(&self, payload: Vec<u8>, retain: bool) -> anyhow::Result<()> {
        let options = mqtt::PublishOptions::new(level(self.qos)).retain(retain);
        self.client
            .try_publish(self.topic, payload, options)
            .map_err(|error| anyhow!("cannot publish: {error}"))
    }

    /// Publishes everything, with at most `window` rows that `arrived` does not know of. Returns when it
    /// began, when the last message has been given to the client.
    pub fn flood(
        &self,
        payloads: Payloads,
        window: u64,
        arrived: &watch::Receiver<u64>,
    ) -> anyhow::Result<Instant> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut arrived = arrived.clone();
        let options = mqtt::PublishOptions::new(level(self.qos));
        runtime.block_on(async {
            let begin = Instant::now();
            for (rows, payload) in payloads {
                if *arrived.borrow() + window < rows.end - FIRST {
                    let room = arrived.wait_for(|arrived| arrived + window >= rows.end - FIRST);
                    if tokio::time::timeout(STALL, room).await.is_err() {
                        bail!(
                            "nothing arrives any more after {} of {} rows",
                            *arrived.borrow(),
                            rows.start - FIRST
                        );
                    }
                }
                self.client
                    .publish(self.topic, payload, options.clone())
                    .await
                    .map_err(|error| anyhow!("cannot publish: {error}"))?;
            }
            Ok(begin)
        })
    }
}

/// The messages `FIRST .. FIRST + count`, one by one.
pub fn singly(count: u64) -> Payloads {
    Box::new((FIRST..FIRST + count).map(|n| (n..n + 1, plant::message(n))))
}

/// The same in arrays of `rows`.
pub fn in_arrays(count: u64, rows: u64) -> Payloads {
    Box::new((FIRST..FIRST + count).step_by(usize::try_from(rows).unwrap_or(1)).map(move |n| {
        let rows = rows.min(FIRST + count - n);
        (n..n + rows, plant::array(n, rows))
    }))
}

/// What has arrived of a flood of `count` rows.
#[derive(Debug, Clone)]
pub struct Arrivals {
    /// rows up to the newest that has arrived
    pub news: watch::Receiver<u64>,
    last: watch::Receiver<Option<Last>>,
}

/// The end of a flood.
#[derive(Debug, Clone, Copy)]
pub struct Last {
    /// when the first message came
    pub first: Instant,
    /// when the last message came
    pub at: Instant,
    /// messages that came, each counted once
    pub messages: u64,
    /// messages that came again, or after a later one
    pub repeated: u64,
    /// processor time that the listener needed
    pub cpu: Duration,
}

impl Arrivals {
    /// Counts what comes on `topic` until row `FIRST + count - 1` has come.
    pub fn count(port: u16, topic: &str, qos: u8, count: u64) -> anyhow::Result<(Self, Listener)> {
        let (tell_news, news) = watch::channel(0);
        let (tell_last, last) = watch::channel(None);
        let (mut messages, mut repeated, mut newest) = (0, 0, 0);
        let (mut first, mut cpu) = (None, Duration::ZERO);
        let listener = Listener::start(port, topic, qos, move |payload| {
            let Some(arrived) = plant::number(payload).filter(|n| *n >= FIRST).map(|n| n + 1 - FIRST) else {
                return;
            };
            // One publisher's messages keep their order, so that a number that is not the newest has been
            // seen.
            if arrived > newest {
                (newest, messages) = (arrived, messages + 1);
            } else {
                repeated += 1;
            }
            if first.is_none() {
                (first, cpu) = (Some(Instant::now()), own_cpu());
            }
            if arrived == count {
                let at = Instant::now();
                let cpu = own_cpu().saturating_sub(cpu);
                tell_last.send_replace(Some(Last {
                    first: first.unwrap_or(at),
                    at,
                    messages,
                    repeated,
                    cpu,
                }));
            }
            if arrived == count || arrived >= *tell_news.borrow() + NEWS_EVERY {
                tell_news.send_replace(arrived);
            }
        })?;
        Ok((Self { news, last }, listener))
    }

    /// Waits for the last row.
    pub fn finish(&self) -> anyhow::Result<Last> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (mut last, mut news) = (self.last.clone(), self.news.clone());
        runtime.block_on(async {
            loop {
                let progress = tokio::time::timeout(STALL, async {
                    tokio::select! {
                        _ = last.wait_for(Option::is_some) => {}
                        _ = news.changed() => {}
                    }
                });
                if progress.await.is_err() {
                    bail!("the last row does not arrive; {} rows have", *news.borrow());
                }
                if let Some(last) = *last.borrow() {
                    return Ok(last);
                }
            }
        })
    }
}

/// Processor time of this thread.
fn own_cpu() -> Duration {
    let stat =
        std::fs::read_to_string("/proc/thread-self/stat").context("cannot read /proc/thread-self/stat");
    stat.and_then(|stat| cpu_of(&stat)).unwrap_or_default()
}
