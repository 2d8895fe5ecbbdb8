//! Windows by event time.

use tidegate_plugin::prelude::*;

use crate::Case;
use crate::kept::{Kept, SECOND};

/// Means of each device in windows that follow each other.
pub struct Means {
    length: i64,
    lateness: i64,
    device: Column<str>,
    temperature: Column<f64>,
    target: Target,
    ts: Field<Timestamp>,
    name: Field<str>,
    mean: Field<f64>,
    n: Field<i64>,
    late: Option<Late>,
}

/// Where rows go for whose window it is too late.
struct Late {
    count: Column<i64>,
    running: Column<bool>,
    target: Target,
    ts: Field<Timestamp>,
    device: Field<str>,
    temperature: Field<f64>,
    count_field: Field<i64>,
    running_field: Field<bool>,
}

impl Means {
    pub fn new(schema: &Schema, seconds: i64, lateness: Option<i64>) -> Result<Self> {
        let target = schema.target("means")?;
        Ok(Self {
            length: seconds * SECOND,
            lateness: lateness.unwrap_or_default() * SECOND,
            device: schema.column("device")?,
            temperature: schema.column("temperature")?,
            ts: target.field("ts")?,
            name: target.field("device")?,
            mean: target.field("mean")?,
            n: target.field("n")?,
            target,
            late: lateness.map(|_| Late::new(schema)).transpose()?,
        })
    }
}

impl Late {
    fn new(schema: &Schema) -> Result<Self> {
        let target = schema.target("late")?;
        Ok(Self {
            count: schema.column("count")?,
            running: schema.column("running")?,
            ts: target.field("ts")?,
            device: target.field("device")?,
            temperature: target.field("temperature")?,
            count_field: target.field("count")?,
            running_field: target.field("running")?,
            target,
        })
    }
}

impl Case for Means {
    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out) {
        let Some(Timestamp(ts)) = row.ts() else { return };
        let (device, temperature) = (row.get(&self.device), row.get(&self.temperature));
        let start = ts - ts.rem_euclid(self.length);
        let newest = kept.newest.unwrap_or(ts);
        if start + self.length <= newest - self.lateness {
            if let Some(late) = &self.late {
                let said = [
                    late.ts.is(row.ts()),
                    late.device.is(device),
                    late.temperature.is(temperature),
                    late.count_field.is(row.get(&late.count)),
                    late.running_field.is(row.get(&late.running)),
                ];
                out.write(&late.target, &said);
            }
            return;
        }
        let newest = newest.max(ts);
        kept.newest = Some(newest);
        while let Some((start, means)) = kept.close(newest - self.lateness, self.length) {
            for mean in means {
                let said = [
                    self.ts.is(Timestamp(start)),
                    self.name.is(mean.device.as_str()),
                    self.mean.is(mean.sum / mean.n as f64),
                    self.n.is(mean.n),
                ];
                out.write(&self.target, &said);
            }
        }
        if let Some(temperature) = temperature {
            kept.add(start, device.unwrap_or_default(), temperature);
        }
    }
}
