//! Devices that do not answer are left alone for a while, so that they do not hold up the others on the line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::Span;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::status::LineStatus;
use crate::table::Problem;

/// How many timeouts lie between two writes that try a device which is left alone.
const TRY_EVERY: u32 = 4;

/// `park = { after = 3, for = "30s" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParkConfig {
    /// After how many polls without any answer.
    pub after: NonZeroU32,
    /// How long it is left alone before it is tried once more.
    #[serde(rename = "for")]
    pub time: Span,
}

impl Default for ParkConfig {
    fn default() -> Self {
        Self { after: NonZeroU32::MIN.saturating_add(2), time: Span(Duration::from_secs(30)) }
    }
}

impl ParkConfig {
    /// What is wrong with the table `park`.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let what = "a device is left alone for longer than nothing";
        let problem = || Problem::new(&["park", "for"], what).help("write a time such as \"30s\"");
        self.time.0.is_zero().then(problem)
    }
}

/// The devices of one line. Users read `K` in the log and in the status: `unit 3`.
#[derive(Debug)]
pub(crate) struct Parking<K> {
    devices: BTreeMap<K, Device>,
    config: ParkConfig,
    status: Arc<LineStatus>,
}

#[derive(Debug, Default)]
struct Device {
    /// polls without an answer, one after the other
    failures: u32,
    parked_until: Option<Instant>,
    /// when a write has tried it last while it is left alone
    tried: Option<Instant>,
}

/// Whether a device is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// as often as is useful
    Ask,
    /// once, to see whether it is back
    Try,
    /// not yet
    Leave,
}

impl<K: Ord + Display> Parking<K> {
    /// No device is known to be away.
    pub(crate) fn new(config: ParkConfig, status: Arc<LineStatus>) -> Self {
        Self { devices: BTreeMap::new(), config, status }
    }

    /// Whether a device is to be asked.
    pub(crate) fn turn(&self, device: &K, now: Instant) -> Turn {
        match self.devices.get(device).and_then(|device| device.parked_until) {
            None => Turn::Ask,
            Some(until) if until <= now => Turn::Try,
            Some(_) => Turn::Leave,
        }
    }

    /// Whether a write may take the line for a device. One that is left alone is tried now and then, since a
    /// command matters more than a value, and not each time, since it would hold up the others.
    pub(crate) fn may_write(&mut self, device: &K, timeout: Duration, now: Instant) -> bool {
        let Some(state) = self.devices.get_mut(device).filter(|state| state.parked_until.is_some()) else {
            return true;
        };
        let is_early = state.tried.is_some_and(|tried| now < tried + TRY_EVERY * timeout);
        if !is_early {
            state.tried = Some(now);
        }
        !is_early
    }

    /// A device has answered, or not at all.
    pub(crate) fn settle(&mut self, device: K, answered: bool, now: Instant) {
        let name = device.to_string();
        let state = self.devices.entry(device).or_default();
        if answered {
            state.failures = 0;
            if state.parked_until.take().is_some() {
                info!(device = name, "it answers again");
            }
        } else {
            state.failures = state.failures.saturating_add(1);
            if state.failures >= self.config.after.get() {
                if state.parked_until.replace(now + self.config.time.0).is_none() {
                    warn!(
                        device = name,
                        polls = state.failures,
                        again_in = %self.config.time,
                        "it does not answer and is left alone, so that it does not hold up the others"
                    );
                } else {
                    debug!(device = name, "it does not answer yet");
                }
            }
        }
        let parked = self.devices.iter().filter(|(_, state)| state.parked_until.is_some());
        self.status.leaves_alone(parked.map(|(device, _)| device.to_string()).collect());
    }
}
