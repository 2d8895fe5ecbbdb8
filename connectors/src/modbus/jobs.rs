//! What outputs ask of a line: points are written, or looked at. It goes before the next request of a poll.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::time::Instant;
use tracing::warn;

use super::config::ReadBack;
use super::fault::Fault;
use super::guard::Guard;
use super::line::{Line, Master};
use super::plan::{self, Limits, Read};
use super::points::{Point, Value};
use super::polls::{Unit, raw};
use super::sink::{Job, What};
use super::write::{Device, Write, WriteFault};
use crate::DeliveryError;
use crate::line::parking::Turn;
use crate::line::task::End;
use crate::port::Wire;
use crate::rows::row;

/// Why a job was not done, or not all of it.
struct Undone {
    error: DeliveryError,
    fault: Option<Fault>,
    is_begun: bool,
}

impl Master {
    /// Carries out the jobs that wait.
    pub(super) async fn serve(&mut self, guard: &mut Guard<Wire>, line: &mut Line) -> Result<(), End> {
        while let Some(asked) = line.writes.next() {
            let Job { unit, timeout, what } = &asked.what;
            if matches!(what, What::Read(_)) && asked.is_given_up() {
                continue;
            }
            if !self.may_ask(&asked.what) {
                let why = format!("{unit} does not answer, and is left alone for a while (`park`)");
                asked.settle(Err(DeliveryError::Transient(why)));
                continue;
            }
            if let Err(fault) = guard.rest().await {
                self.count(&fault);
                let reason = fault.to_string();
                asked.settle(Err(line.is_down(&reason)));
                return Err(End::Lost(reason));
            }
            if asked.until <= Instant::now() {
                line.writes.drop_late(asked);
                continue;
            }
            let device = (*unit, *timeout);
            let done = match what {
                What::Write { read_back, writes } => {
                    self.carry_out(guard, device, *read_back, writes).await.map(|()| None)
                }
                What::Read(points) => self.look(guard, line, device, points).await.map(Some),
            };
            match done {
                Ok(None) => asked.settle(Ok(())),
                Ok(Some(row)) => asked.found(row),
                Err(Undone { fault: Some(Fault::ClosedBefore), is_begun: false, .. }) if self.answered => {
                    line.writes.put_back(asked);
                    return Err(End::HungUp);
                }
                Err(Undone { error, fault, .. }) => {
                    asked.settle(Err(error));
                    if let Some(fault) = fault.filter(Fault::ends_connection) {
                        return Err(End::Lost(fault.to_string()));
                    }
                    self.check_hope()?;
                }
            }
        }
        Ok(())
    }

    /// Whether a unit that did not answer is to be asked all the same.
    fn may_ask(&mut self, Job { unit, timeout, what }: &Job) -> bool {
        let (parking, now) = (&mut self.polls.asking.parking, Instant::now());
        match what {
            What::Write { .. } => parking.may_write(unit, *timeout, now),
            What::Read(_) => parking.turn(unit, now) != Turn::Leave,
        }
    }

    async fn carry_out(
        &mut self,
        guard: &mut Guard<Wire>,
        device: (Unit, Duration),
        read_back: ReadBack,
        writes: &[Write],
    ) -> Result<(), Undone> {
        for (done, write) in writes.iter().enumerate() {
            self.write(guard, device, read_back, write).await.map_err(|fault| Undone {
                error: explain(&fault, write, done, writes),
                fault: fault.fault().cloned(),
                is_begun: done > 0,
            })?;
        }
        Ok(())
    }

    async fn write(
        &mut self,
        guard: &mut Guard<Wire>,
        (unit, timeout): (Unit, Duration),
        read_back: ReadBack,
        write: &Write,
    ) -> Result<(), WriteFault> {
        let lacks = self.lacks.entry(unit).or_default();
        let mut device = Device { guard, unit: unit.0, timeout, lacks };
        let result = device.write(write, read_back).await;
        match result.as_ref().err().map(WriteFault::fault) {
            None | Some(None) => {
                self.answered = true;
                self.polls.asking.parking.settle(unit, true, Instant::now());
            }
            Some(Some(fault)) => self.count(fault),
        }
        result
    }

    /// Reads points as they are now: all of them, or it says why not.
    async fn look(
        &mut self,
        guard: &mut Guard<Wire>,
        line: &Line,
        (unit, timeout): (Unit, Duration),
        points: &[Point],
    ) -> Result<RecordBatch, Undone> {
        let looked = self.look_at_all(guard, line, (unit, timeout), points).await;
        let alive = match &looked {
            Err(Undone { is_begun: false, fault: Some(fault), .. }) => fault.tells_alive(),
            _ => Some(true),
        };
        if let Some(alive) = alive {
            self.polls.asking.parking.settle(unit, alive, Instant::now());
        }
        let values = looked?;
        let cells = points.iter().zip(&values);
        row(cells.map(|(point, value)| (&*point.name, point.field_type(), value))).ok_or_else(|| Undone {
            error: DeliveryError::Permanent("the values do not fit their columns".into()),
            fault: None,
            is_begun: true,
        })
    }

    async fn look_at_all(
        &mut self,
        guard: &mut Guard<Wire>,
        line: &Line,
        (unit, timeout): (Unit, Duration),
        points: &[Point],
    ) -> Result<Vec<Value>, Undone> {
        let tries = match self.polls.asking.parking.turn(&unit, Instant::now()) {
            Turn::Ask => 1 + u32::from(self.retries),
            Turn::Try | Turn::Leave => 1,
        };
        let mut values = vec![Value::Null; points.len()];
        let mut reads: VecDeque<Read> = self.requests_for(unit, points).into();
        let mut is_begun = false;
        while let Some(read) = reads.pop_front() {
            let result = self.read(guard, line, (unit, timeout), &read, tries).await;
            match result.as_ref().map_err(Fault::clone).and_then(raw) {
                Ok(raw) => {
                    for (place, offset) in &read.points {
                        let (Some(point), Some(value)) = (points.get(*place), values.get_mut(*place)) else {
                            continue;
                        };
                        *value = point.decode_at(raw, *offset).map_err(|why| Undone {
                            error: DeliveryError::Transient(format!("{point}: {why}")),
                            fault: None,
                            is_begun: true,
                        })?;
                    }
                }
                Err(Fault::Exception(2 | 3)) if read.points.len() > 1 => {
                    warn!(
                        unit = unit.0,
                        asked = %read.span,
                        "the device refuses a part of what an output is asked for at once: from now on its \
                        points are read one by one; correct the one that does not exist"
                    );
                    self.lacks.entry(unit).or_default().spans.insert(read.span);
                    for read in plan::apart(&read, points).into_iter().rev() {
                        reads.push_front(read);
                    }
                }
                Err(fault) => {
                    return Err(Undone {
                        error: unread(&fault, &read, points),
                        fault: Some(fault),
                        is_begun,
                    });
                }
            }
            is_begun = true;
        }
        Ok(values)
    }

    /// The requests that read points, apart where the device has refused them together.
    fn requests_for(&self, unit: Unit, points: &[Point]) -> Vec<Read> {
        let reads = plan::plan(points, Limits::default()).into_iter();
        let refused = self.lacks.get(&unit).map(|lacks| &lacks.spans);
        let is_refused = |read: &Read| refused.is_some_and(|spans| spans.contains(&read.span));
        reads
            .flat_map(|read| if is_refused(&read) { plan::apart(&read, points) } else { vec![read] })
            .collect()
    }
}

/// Why points were not read.
fn unread(fault: &Fault, read: &Read, points: &[Point]) -> DeliveryError {
    let names = read.points.iter().filter_map(|(place, _)| points.get(*place)).map(Point::to_string);
    let why = format!("{}: {fault}", names.collect::<Vec<_>>().join(", "));
    if fault.is_transient() { DeliveryError::Transient(why) } else { DeliveryError::Permanent(why) }
}

/// Why a row was not written, or not all of it.
fn explain(error: &WriteFault, write: &Write, done: usize, writes: &[Write]) -> DeliveryError {
    let mut why = format!("{}: {error}", write.points.join(", "));
    let others = |writes: Option<&[Write]>| {
        let points = writes.unwrap_or_default().iter().flat_map(|write| write.points.iter().cloned());
        points.collect::<Vec<_>>().join(", ")
    };
    if done > 0 {
        why += &format!("; written before: {}", others(writes.get(..done)));
    }
    if done + 1 < writes.len() {
        why += &format!("; not tried: {}", others(writes.get(done + 1..)));
    }
    match error.fault() {
        Some(fault) if fault.may_have_been_done() => DeliveryError::Unknown(why),
        Some(fault) if fault.is_transient() => DeliveryError::Transient(why),
        _ => DeliveryError::Permanent(why),
    }
}
