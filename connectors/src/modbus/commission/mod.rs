//! For somebody who stands before the cabinet: which units are there, what is in their registers, and does
//! this coil move that valve. What comes back can be printed as a table or as JSON.

mod command;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate_core::FieldType;
use tokio_modbus::{Request, Response};

pub use command::{LineSettings, ModbusCommand, ReadArgs, ScanArgs, WriteArgs};

use super::config::{ConnectionConfig, PointConfig, ReadBack};
use super::fault::Fault;
use super::guard::Guard;
use super::link::Link;
use super::plan::{Limits, plan};
use super::points::{Point, Raw, Spelling, Value};
use super::polls::{raw, request};
use super::write::{Device, Lacks, WriteFault, writes};
use crate::port::Wire;
use crate::status::LineStatus;

/// Basic objects of a device's identification (Application Protocol V1.1b3, section 6.21).
const OBJECTS: [&str; 3] = ["vendor", "product", "version"];

/// A line that is used by hand.
pub struct Session {
    link: Link,
    status: Arc<LineStatus>,
    /// A port has to be closed before it is opened again.
    guard: Option<Guard<Wire>>,
    transaction: u16,
    timeout: Duration,
    retries: u8,
}

/// A unit that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// unit id
    pub unit: u8,
    /// What it has answered to a request for holding register 0.
    pub answer: String,
    /// Vendor, product and version, as far as it names them (function 43).
    pub identification: BTreeMap<&'static str, String>,
}

/// What a point has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// the column
    pub name: String,
    /// where it is, as on the wire
    pub place: String,
    /// the value; null: there is none
    pub value: serde_json::Value,
    /// the registers in hexadecimal, or the bits
    pub raw: Option<String>,
    /// why there is no value
    pub fault: Option<String>,
}

/// A point that was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Written {
    /// the column
    pub name: String,
    /// where it is, as on the wire
    pub place: String,
    /// the value that it has now, as far as it could take what was asked for
    pub value: serde_json::Value,
    /// whether the device was asked for it afterwards
    pub read_back: bool,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// In words for the user, when the configuration is wrong or the line cannot be opened.
    pub async fn open(config: &ConnectionConfig) -> Result<Self, String> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem.to_string());
        }
        let link = Link::new(config).ok_or("the connection says neither `host` nor `serial`")?;
        let status = Arc::new(LineStatus::default());
        let guard = link.dial(0, Arc::clone(&status)).await?;
        Ok(Self {
            link,
            status,
            guard: Some(guard),
            transaction: 0,
            timeout: config.timeout.0,
            retries: config.retries,
        })
    }

    /// Asks each unit for one register, and those that answer who they are. `found` is told of each at once:
    /// on a serial line 247 units take some minutes.
    ///
    /// # Errors
    /// In words for the user, when the line is lost and cannot be opened again.
    pub async fn scan(
        &mut self,
        units: RangeInclusive<u8>,
        mut found: impl FnMut(&Found),
    ) -> Result<Vec<Found>, String> {
        let mut all = Vec::new();
        for unit in units {
            let answer = match self.call(unit, Request::ReadHoldingRegisters(0, 1), 0).await? {
                Ok(Response::ReadHoldingRegisters(registers)) => {
                    format!("holding register 0 has {}", registers.first().copied().unwrap_or_default())
                }
                Ok(_) => continue,
                Err(fault) if fault.is_silence() => continue,
                Err(fault) => fault.to_string(),
            };
            let identification = self.identify(unit).await?;
            let unit = Found { unit, answer, identification };
            found(&unit);
            all.push(unit);
        }
        Ok(all)
    }

    async fn identify(&mut self, unit: u8) -> Result<BTreeMap<&'static str, String>, String> {
        let basic = tokio_modbus::prelude::ReadCode::Basic;
        let Ok(Response::ReadDeviceIdentification(answer)) =
            self.call(unit, Request::ReadDeviceIdentification(basic, 0), 0).await?
        else {
            return Ok(BTreeMap::new());
        };
        let named = answer.device_id_objects.iter().filter_map(|object| {
            let name = OBJECTS.get(usize::from(object.id))?;
            Some((*name, String::from_utf8_lossy(&object.value).trim().to_owned()))
        });
        Ok(named.collect())
    }

    /// Reads points.
    ///
    /// # Errors
    /// In words for the user, when the line is lost and cannot be opened again. What a device refuses is in
    /// the readings.
    pub async fn read(&mut self, unit: u8, points: &[Point], limits: Limits) -> Result<Vec<Reading>, String> {
        let mut readings: Vec<Reading> = points.iter().map(blank).collect();
        for read in plan(points, limits) {
            let result = self.call(unit, request(&read), self.retries).await?;
            let answer = result.as_ref().map_err(Fault::clone).and_then(raw);
            for (place, offset) in &read.points {
                let (Some(point), Some(reading)) = (points.get(*place), readings.get_mut(*place)) else {
                    continue;
                };
                match &answer {
                    Ok(answer) => reading.take(point, answer.part(*offset, usize::from(point.count))),
                    Err(fault) => reading.fault = Some(fault.to_string()),
                }
            }
        }
        Ok(readings)
    }

    /// Writes one point.
    ///
    /// # Errors
    /// In words for the user: the value does not fit, the device refuses it, or the line is lost.
    pub async fn write(
        &mut self,
        unit: u8,
        point: &Point,
        value: &str,
        read_back: bool,
    ) -> Result<Written, String> {
        if !point.table.is_writable() {
            return Err(format!("{point} can be read only; Modbus writes coils and holding registers"));
        }
        let value = value_of(point, value)?;
        let encoded = point.encode(&value)?;
        let value = point.written(&encoded).map_err(|why| format!("{point}: {why}"))?;
        let mut lacks = Lacks::default();
        for write in writes([(point, encoded)]) {
            let back = if read_back { ReadBack::After } else { ReadBack::No };
            let timeout = self.timeout;
            let mut device = Device { guard: self.guard().await?, unit, timeout, lacks: &mut lacks };
            let result = device.write(&write, back).await;
            if result.as_ref().err().and_then(WriteFault::fault).is_some_and(Fault::ends_connection) {
                self.guard = None;
            }
            result.map_err(|error: WriteFault| format!("{point}: {error}"))?;
        }
        let Reading { name, place, .. } = blank(point);
        Ok(Written { name, place, value: value.to_json(), read_back })
    }

    /// Asks, and asks again when nobody answers, on a new connection where the old one is of no more use.
    async fn call(
        &mut self,
        unit: u8,
        request: Request<'static>,
        retries: u8,
    ) -> Result<Result<Response, Fault>, String> {
        let mut tried = 0;
        loop {
            let timeout = self.timeout;
            let result = self.guard().await?.call(unit, request.clone(), timeout).await;
            let Err(fault) = &result else { return Ok(result) };
            if fault.ends_connection() {
                self.transaction = self.guard.take().map_or(0, |guard| guard.next_transaction());
            }
            let again = fault.ends_connection() || matches!(fault, Fault::Silent { .. });
            if !again || tried >= retries {
                return Ok(result);
            }
            tried += 1;
        }
    }

    async fn guard(&mut self) -> Result<&mut Guard<Wire>, String> {
        let guard = match self.guard.take() {
            Some(guard) => guard,
            None => self.link.dial(self.transaction, Arc::clone(&self.status)).await?,
        };
        Ok(self.guard.insert(guard))
    }
}

/// A point as users write it, under the name of the column.
///
/// # Errors
/// What is wrong with it, in words for the user.
pub fn point(name: &str, config: &PointConfig, spelling: Spelling) -> Result<Point, String> {
    Point::parse(name, config, spelling).map_err(|problem| problem.to_string())
}

fn blank(point: &Point) -> Reading {
    let place = match point.count {
        1 => format!("{} {}", point.table, point.address),
        _ => format!("{} {} to {}", point.table, point.address, point.end() - 1),
    };
    Reading { name: point.name.to_string(), place, value: serde_json::Value::Null, raw: None, fault: None }
}

impl Reading {
    fn take(&mut self, point: &Point, raw: Option<Raw<'_>>) {
        let Some(raw) = raw else { return };
        self.raw = Some(match raw {
            Raw::Bits(bits) => bits.iter().map(|bit| if *bit { '1' } else { '0' }).collect(),
            Raw::Registers(registers) => {
                registers.iter().map(|register| format!("{register:04x}")).collect::<Vec<_>>().join(" ")
            }
        });
        match point.decode(raw) {
            Ok(value) => self.value = value.to_json(),
            Err(why) => self.fault = Some(why),
        }
    }
}

/// What somebody has typed.
fn value_of(point: &Point, text: &str) -> Result<Value, String> {
    let fail = |takes: &str| format!("{point} cannot be \"{text}\": it takes {takes}");
    match point.field_type() {
        FieldType::Bool => match text.to_lowercase().as_str() {
            "true" | "on" | "1" => Ok(Value::Bool(true)),
            "false" | "off" | "0" => Ok(Value::Bool(false)),
            _ => Err(fail("true or false")),
        },
        FieldType::Int64 => text.parse().map(Value::Int).map_err(|_| fail("whole numbers")),
        FieldType::Float64 => text.parse().map(Value::Float).map_err(|_| fail("numbers")),
        _ => Ok(Value::Text(text.to_owned())),
    }
}
