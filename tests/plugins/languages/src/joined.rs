//! A rule that reads two streams.

use tidegate_plugin::prelude::*;

use crate::Case;
use crate::kept::Kept;

/// Each row of `tank` with the last one of `valve`.
pub struct LastRow {
    device: Column<str>,
    temperature: Column<f64>,
    position: Column<f64>,
    open: Column<bool>,
    target: Target,
    fields: Fields,
}

struct Fields {
    ts: Field<Timestamp>,
    device: Field<str>,
    temperature: Field<f64>,
    position: Field<f64>,
    open: Field<bool>,
}

impl LastRow {
    pub fn new(schema: &Schema) -> Result<Self> {
        let target = schema.only_target()?;
        Ok(Self {
            device: schema.column("device")?,
            temperature: schema.column("temperature")?,
            position: schema.column("position")?,
            open: schema.column("open")?,
            fields: Fields {
                ts: target.field("ts")?,
                device: target.field("device")?,
                temperature: target.field("temperature")?,
                position: target.field("position")?,
                open: target.field("open")?,
            },
            target,
        })
    }
}

impl Case for LastRow {
    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out) {
        let name = row.get(&self.device);
        if row.input().name() == "valve" {
            if let Some(name) = name {
                let valve = kept.device(name);
                (valve.value, valve.open) = (row.get(&self.position), row.get(&self.open));
            }
            return;
        }
        let valve = name.and_then(|name| kept.known(name));
        let Fields { ts, device, temperature, position, open } = &self.fields;
        let said = [
            ts.is(row.ts()),
            device.is(name),
            temperature.is(row.get(&self.temperature)),
            position.is(valve.and_then(|valve| valve.value)),
            open.is(valve.and_then(|valve| valve.open)),
        ];
        out.write(&self.target, &said);
    }
}
