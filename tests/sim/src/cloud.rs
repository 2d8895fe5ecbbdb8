//! The cloud: it takes messages, confirms them at once, late, out of order or never, refuses them for a
//! while, and goes away.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tidegate::status::UplinkStatus;
use tidegate_connectors::DeliveryError;
use tidegate_connectors::uplink::{Confirmation, Parcel, Uplink};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::broker::Weather;
use crate::dice::Dice;
use crate::record::Record;

/// What arrived.
#[derive(Clone, Default)]
pub struct Cloud(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// by id: the message
    messages: BTreeMap<String, Value>,
    /// ids in the order of their first arrival
    order: Vec<String>,
    arrivals: u64,
    generation: u64,
    /// until then nothing is taken
    busy_until: Option<Instant>,
}

impl Cloud {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages of `rule`, each once, in the order of their first arrival: id and row.
    #[must_use]
    pub fn rows(&self, rule: &str) -> Vec<(String, Value)> {
        let state = self.lock();
        let messages = state.order.iter().filter_map(|id| Some((id, state.messages.get(id)?)));
        let of_rule =
            messages.filter(|(_, message)| message.get("rule").and_then(Value::as_str) == Some(rule));
        of_rule.filter_map(|(id, message)| Some((id.clone(), message.get("row")?.clone()))).collect()
    }

    /// Rows that are missing, as gap records say; of one rule, or of all. Nobody knows how many: one.
    #[must_use]
    pub fn dropped(&self, rule: Option<&str>) -> u64 {
        let state = self.lock();
        let gaps = state
            .messages
            .values()
            .filter(|message| rule.is_none() || message.get("rule").and_then(Value::as_str) == rule);
        gaps.filter_map(|message| message.get("gap")?.get("rows")?.as_u64()).map(|rows| rows.max(1)).sum()
    }

    /// How often something arrived, repeats included.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.lock().arrivals
    }

    fn take(&self, payload: &[u8], record: &Record) {
        let mut state = self.lock();
        state.arrivals += 1;
        let Ok(mut message) = serde_json::from_slice::<Value>(payload) else {
            record.wrong(format!("the cloud got what is no JSON: {}", String::from_utf8_lossy(payload)));
            return;
        };
        let id = message.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        record.note(format_args!("cloud: {message}"));
        // How far the clock was off may become known between two deliveries.
        message.as_object_mut().and_then(|message| message.remove("clock"));
        match state.messages.get(&id) {
            Some(before) if *before != message => {
                record.wrong(format!("id {id} has two contents: {before} and {message}"))
            }
            Some(_) => {}
            None => {
                state.order.push(id.clone());
                state.messages.insert(id, message);
            }
        }
    }
}

/// The box's way to the cloud.
pub struct CloudLine {
    cloud: Cloud,
    dice: Dice,
    record: Record,
    calm: bool,
    generation: watch::Receiver<Option<u64>>,
}

impl CloudLine {
    /// The line, and what makes it come and go. `calm`: it never does wrong.
    #[must_use]
    pub fn new(
        cloud: &Cloud,
        dice: &Dice,
        record: &Record,
        weather: Weather,
        calm: bool,
        status: Arc<UplinkStatus>,
        stop: CancellationToken,
    ) -> (Self, BoxFuture<'static, ()>) {
        let (tell, generation) = watch::channel(None);
        // Each round has a clock of its own.
        cloud.lock().busy_until = None;
        let line =
            Self { cloud: cloud.clone(), dice: dice.others(), record: record.clone(), calm, generation };
        let (cloud, dice, record) = (cloud.clone(), dice.others(), record.clone());
        let comes_and_goes = async move {
            while !stop.is_cancelled() {
                let most = u64::try_from(weather.lasts.as_millis()).unwrap_or(u64::MAX);
                let (away, lasts) =
                    (dice.delay(weather.away), Duration::from_millis(dice.between(most / 8, most)));
                tokio::select! { biased; () = stop.cancelled() => break, () = sleep(away) => {} }
                let generation = {
                    let mut state = cloud.lock();
                    state.generation += 1;
                    state.generation
                };
                record.note(format_args!("cloud: connected"));
                status.far_side.connected.store(true, Ordering::Relaxed);
                tell.send_replace(Some(generation));
                tokio::select! { biased; () = stop.cancelled() => break, () = sleep(lasts) => {} }
                record.note(format_args!("cloud: connection lost"));
                status.far_side.connected.store(false, Ordering::Relaxed);
                tell.send_replace(None);
            }
            // The contract: the line stays as long as somebody has something to send.
            tell.closed().await;
        };
        (line, Box::pin(comes_and_goes))
    }
}

fn gone() -> DeliveryError {
    DeliveryError::Transient("the connection is lost".into())
}

impl Uplink for CloudLine {
    fn batch(&self) -> usize {
        1
    }

    fn send(&mut self, parcel: Parcel) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        Box::pin(async move {
            let Some(generation) = *self.generation.borrow() else { return Err(gone()) };
            if !self.calm {
                let busy_until = self.cloud.lock().busy_until;
                if busy_until.is_some_and(|until| Instant::now() < until) {
                    return Err(DeliveryError::Transient("busy".into()));
                }
                if self.dice.one_in(150) {
                    self.cloud.lock().busy_until =
                        Some(Instant::now() + self.dice.delay(Duration::from_secs(5)));
                    return Err(DeliveryError::Transient("busy".into()));
                }
                // The next messages are not sent before this one has left.
                if self.dice.one_in(30) {
                    sleep(self.dice.delay(Duration::from_millis(100))).await;
                }
            }
            let (arrives, confirmed) =
                if self.calm { (true, true) } else { (!self.dice.one_in(20), !self.dice.one_in(20)) };
            if arrives {
                parcel.messages.iter().for_each(|message| self.cloud.take(message, &self.record));
            }
            let refused = !self.calm && self.dice.one_in(100);
            let after = self.dice.delay(if self.dice.one_in(10) {
                Duration::from_secs(3)
            } else {
                Duration::from_millis(50)
            });
            let mut line = self.generation.clone();
            Ok(Box::pin(async move {
                let lost = async {
                    while *line.borrow_and_update() == Some(generation) && line.changed().await.is_ok() {}
                };
                let answer = async {
                    sleep(after).await;
                    if !(arrives && confirmed) {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    biased;
                    () = lost => Err(gone()),
                    () = answer => if refused { Err(DeliveryError::Transient("try again".into())) } else { Ok(()) },
                }
            }) as Confirmation)
        })
    }

    fn generation(&self) -> watch::Receiver<Option<u64>> {
        self.generation.clone()
    }
}
