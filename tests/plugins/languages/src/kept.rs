//! What the rules know of earlier rows: each uses a part of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_plugin::Timestamp;

pub const SECOND: i64 = 1_000_000_000;

#[derive(Default, Serialize, Deserialize)]
pub struct Kept {
    devices: BTreeMap<String, Device>,
    /// the greatest time of a row
    pub newest: Option<i64>,
    /// those that are open, by their beginning: means in the order in which their devices came
    pub windows: BTreeMap<i64, Vec<Mean>>,
}

#[derive(Default, Serialize, Deserialize)]
pub struct Device {
    /// what its condition was
    pub active: Option<bool>,
    /// since when it has been so
    pub since: Option<i64>,
    pub value: Option<f64>,
    pub open: Option<bool>,
    pub count: Option<i64>,
    /// the time of its last row
    pub before: Option<i64>,
    pub rows: i64,
    pub total: i64,
}

#[derive(Serialize, Deserialize)]
pub struct Mean {
    pub device: String,
    pub sum: f64,
    pub n: i64,
}

impl Kept {
    pub fn device(&mut self, name: &str) -> &mut Device {
        self.devices.entry(name.to_owned()).or_default()
    }

    pub fn forget(&mut self, name: &str) {
        self.devices.remove(name);
    }

    /// That of a device, if there is one.
    pub fn known(&self, name: &str) -> Option<&Device> {
        self.devices.get(name)
    }

    /// Adds a value to a window.
    pub fn add(&mut self, start: i64, device: &str, value: f64) {
        let means = self.windows.entry(start).or_default();
        match means.iter_mut().find(|mean| mean.device == device) {
            Some(mean) => {
                mean.sum += value;
                mean.n += 1;
            }
            None => means.push(Mean { device: device.to_owned(), sum: value, n: 1 }),
        }
    }

    /// Takes the first window out that ends by `time`.
    pub fn close(&mut self, time: i64, length: i64) -> Option<(i64, Vec<Mean>)> {
        let first = self.windows.first_entry()?;
        (first.key() + length <= time).then(|| first.remove_entry())
    }
}

impl Device {
    /// The time of its last row, which this one is from now on.
    pub fn replace(&mut self, ts: Option<Timestamp>) -> Option<Timestamp> {
        std::mem::replace(&mut self.before, ts.map(|ts| ts.0)).map(Timestamp)
    }
}
