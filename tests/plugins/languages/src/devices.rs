//! Rules that look at each device alone.

use std::time::Duration;

use tidegate_plugin::prelude::*;

use crate::Case;
use crate::kept::{Kept, SECOND};

pub struct Threshold {
    above: f64,
    temperature: Column<f64>,
    alarms: Alarms,
}

/// The stream `alarms`.
struct Alarms {
    device: Column<str>,
    target: Target,
    ts: Field<Timestamp>,
    name: Field<str>,
    value: Field<f64>,
}

impl Alarms {
    fn new(schema: &Schema) -> Result<Self> {
        let target = schema.target("alarms")?;
        Ok(Self {
            device: schema.column("device")?,
            ts: target.field("ts")?,
            name: target.field("device")?,
            value: target.field("value")?,
            target,
        })
    }

    fn write(&self, row: Row<'_>, value: f64, out: &mut Out) {
        let said = [self.ts.is(row.ts()), self.name.is(row.get(&self.device)), self.value.is(value)];
        out.write(&self.target, &said);
    }
}

impl Threshold {
    pub fn new(schema: &Schema, above: f64) -> Result<Self> {
        Ok(Self { above, temperature: schema.column("temperature")?, alarms: Alarms::new(schema)? })
    }
}

impl Case for Threshold {
    fn on_row(&self, row: Row<'_>, _: &mut Kept, out: &mut Out) {
        if let Some(temperature) = row.get(&self.temperature).filter(|value| *value > self.above) {
            self.alarms.write(row, temperature, out);
        }
    }
}

/// The stream `states`: a condition, when it changes.
struct States {
    device: Column<str>,
    target: Target,
    ts: Field<Timestamp>,
    name: Field<str>,
    active: Field<bool>,
}

impl States {
    fn new(schema: &Schema) -> Result<Self> {
        let target = schema.target("states")?;
        Ok(Self {
            device: schema.column("device")?,
            ts: target.field("ts")?,
            name: target.field("device")?,
            active: target.field("active")?,
            target,
        })
    }

    fn write(&self, row: Row<'_>, active: bool, out: &mut Out) {
        let said = [self.ts.is(row.ts()), self.name.is(row.get(&self.device)), self.active.is(active)];
        out.write(&self.target, &said);
    }
}

pub struct Hysteresis {
    low: f64,
    high: f64,
    temperature: Column<f64>,
    states: States,
}

impl Hysteresis {
    pub fn new(schema: &Schema, low: f64, high: f64) -> Result<Self> {
        Ok(Self { low, high, temperature: schema.column("temperature")?, states: States::new(schema)? })
    }
}

impl Case for Hysteresis {
    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out) {
        let device = kept.device(row.get(&self.states.device).unwrap_or_default());
        let before = device.active.unwrap_or_default();
        let active = match row.get(&self.temperature) {
            Some(temperature) if before => temperature > self.low,
            Some(temperature) => temperature >= self.high,
            None => before,
        };
        if device.active.replace(active) != Some(active) {
            self.states.write(row, active, out);
        }
    }
}

pub struct Debounce {
    above: f64,
    seconds: u64,
    force: Column<f64>,
    alarms: Alarms,
}

impl Debounce {
    pub fn new(schema: &Schema, above: f64, seconds: u64) -> Result<Self> {
        Ok(Self { above, seconds, force: schema.column("force")?, alarms: Alarms::new(schema)? })
    }
}

impl Case for Debounce {
    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out) {
        let name = row.get(&self.alarms.device).unwrap_or_default();
        let Some(force) = row.get(&self.force).filter(|force| *force > self.above) else {
            kept.forget(name);
            out.cancel(name);
            return;
        };
        let device = kept.device(name);
        device.value = Some(force);
        if device.since.is_none() {
            device.since = row.ts().map(|ts| ts.0);
            out.after(Duration::from_secs(self.seconds), name);
        }
    }

    fn on_timer(&self, tag: &str, kept: &mut Kept, out: &mut Out) {
        let device = kept.device(tag);
        let at = device.since.map(|since| Timestamp(since + self.seconds as i64 * SECOND));
        let Alarms { target, ts, name, value, .. } = &self.alarms;
        out.write(target, &[ts.is(at), name.is(tag), value.is(device.value)]);
    }
}

pub struct Counter {
    device: Column<str>,
    count: Column<i64>,
    target: Target,
    ts: Field<Timestamp>,
    name: Field<str>,
    made: Field<i64>,
    total: Field<i64>,
}

impl Counter {
    pub fn new(schema: &Schema) -> Result<Self> {
        let target = schema.only_target()?;
        Ok(Self {
            device: schema.column("device")?,
            count: schema.column("count")?,
            ts: target.field("ts")?,
            name: target.field("device")?,
            made: target.field("made")?,
            total: target.field("total")?,
            target,
        })
    }
}

impl Case for Counter {
    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out) {
        let name = row.get(&self.device).unwrap_or_default();
        let Some(count) = row.get(&self.count) else { return };
        let device = kept.device(name);
        let made = match device.count.replace(count) {
            None => 0,
            Some(before) if count < before => count,
            Some(before) => count - before,
        };
        if made > 0 {
            device.total += made;
            let said =
                [self.ts.is(row.ts()), self.name.is(name), self.made.is(made), self.total.is(device.total)];
            out.write(&self.target, &said);
        }
    }
}

pub struct Seen {
    device: Column<str>,
    temperature: Column<f64>,
    target: Target,
    ts: Field<Timestamp>,
    name: Field<str>,
    n: Field<i64>,
    highest: Field<f64>,
    before: Field<Timestamp>,
}

impl Seen {
    pub fn new(schema: &Schema) -> Result<Self> {
        let target = schema.target("seen")?;
        Ok(Self {
            device: schema.column("device")?,
            temperature: schema.column("temperature")?,
            ts: target.field("ts")?,
            name: target.field("device")?,
            n: target.field("n")?,
            highest: target.field("highest")?,
            before: target.field("before")?,
            target,
        })
    }
}

impl Case for Seen {
    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out) {
        let name = row.get(&self.device).unwrap_or_default();
        let device = kept.device(name);
        device.rows += 1;
        let temperature = row.get(&self.temperature);
        if temperature.is_some_and(|value| device.value.is_none_or(|highest| value > highest)) {
            device.value = temperature;
        }
        let (highest, before) = (device.value, device.replace(row.ts()));
        let said = [
            self.ts.is(row.ts()),
            self.name.is(name),
            self.n.is(device.rows),
            self.highest.is(highest),
            self.before.is(before),
        ];
        out.write(&self.target, &said);
    }
}

/// Writes to several targets, in another order than the manifest names them.
pub struct Several {
    temperature: Column<f64>,
    count: Column<i64>,
    running: Column<bool>,
    alarms: Alarms,
    states: States,
    pump: Target,
    device: Field<str>,
    run: Field<bool>,
    seen: Seen,
}

impl Several {
    pub fn new(schema: &Schema) -> Result<Self> {
        let pump = schema.target("pump")?;
        Ok(Self {
            temperature: schema.column("temperature")?,
            count: schema.column("count")?,
            running: schema.column("running")?,
            alarms: Alarms::new(schema)?,
            states: States::new(schema)?,
            device: pump.field("device")?,
            run: pump.field("run")?,
            pump,
            seen: Seen::new(schema)?,
        })
    }
}

impl Case for Several {
    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out) {
        let name = row.get(&self.alarms.device).unwrap_or_default();
        let device = kept.device(name);
        device.rows += 1;
        let Seen { target, ts, name: field, n, .. } = &self.seen;
        out.write(target, &[n.is(device.rows), field.is(name), ts.is(row.ts())]);
        let running = row.get(&self.running);
        if running.is_some() && row.get(&self.count).is_some_and(|count| count % 4 == 0) {
            out.write(&self.pump, &[self.device.is(name), self.run.is(running)]);
        }
        if let Some(running) = running.filter(|running| device.active.replace(*running) != Some(*running)) {
            self.states.write(row, running, out);
        }
        if let Some(temperature) = row.get(&self.temperature).filter(|value| *value > 80.0) {
            self.alarms.write(row, temperature, out);
        }
    }
}
