//! Writes: what a row becomes (pure), and how a device is brought to take it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_modbus::{Request, Response};

use super::config::ReadBack;
use super::fault::Fault;
use super::guard::Guard;
use super::plan::Span;
use super::points::{Encoded, Point};

/// Most registers of one write (Application Protocol V1.1b3, section 6.12); function 23 takes 121.
pub(super) const MOST_REGISTERS: u16 = 123;
const MOST_REGISTERS_OF_23: usize = 121;

/// Most coils of one write (section 6.11).
const MOST_COILS: usize = 1_968;

/// One write, and the points that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) address: u16,
    pub(super) content: Content,
    /// in words for the user
    pub(super) points: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Coils(Vec<bool>),
    Registers(Vec<u16>),
    /// some bits of one register
    Bits {
        mask: u16,
        bits: u16,
    },
}

/// Puts the values of a row into as few writes as there can be. Registers come first, then bits, then coils:
/// a drive has its setpoint before it is told to run.
pub(super) fn writes<'a>(values: impl IntoIterator<Item = (&'a Point, Encoded)>) -> Vec<Write> {
    let (mut registers, mut bits, mut coils) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (point, encoded) in values {
        match encoded {
            Encoded::Registers(words) => {
                registers.insert(point.address, (words, point));
            }
            Encoded::Bits { mask, bits: new } => {
                let (all, set, points): &mut (u16, u16, Vec<String>) = bits.entry(point.address).or_default();
                *all |= mask;
                *set |= new;
                points.push(point.to_string());
            }
            Encoded::Coil(on) => {
                coils.insert(point.address, (vec![on], point));
            }
        }
    }
    let registers = runs(registers, usize::from(MOST_REGISTERS));
    let bits = bits.into_iter().map(|(address, (mask, bits, points))| Write {
        address,
        content: Content::Bits { mask, bits },
        points,
    });
    let coils = runs(coils, MOST_COILS);
    let registers = registers.into_iter().map(|run| run.write(Content::Registers));
    registers.chain(bits).chain(coils.into_iter().map(|run| run.write(Content::Coils))).collect()
}

/// Contents that lie side by side.
struct Run<T> {
    address: u16,
    content: Vec<T>,
    points: Vec<String>,
}

impl<T> Run<T> {
    fn write(self, content: fn(Vec<T>) -> Content) -> Write {
        Write { address: self.address, content: content(self.content), points: self.points }
    }
}

fn runs<T>(values: BTreeMap<u16, (Vec<T>, &Point)>, most: usize) -> Vec<Run<T>> {
    let mut runs: Vec<Run<T>> = Vec::new();
    for (address, (content, point)) in values {
        let joins = |run: &&mut Run<T>| {
            usize::from(run.address) + run.content.len() == usize::from(address)
                && run.content.len() + content.len() <= most
        };
        if let Some(run) = runs.last_mut().filter(joins) {
            run.content.extend(content);
            run.points.push(point.to_string());
        } else {
            runs.push(Run { address, content, points: vec![point.to_string()] });
        }
    }
    runs
}

/// What a device has shown that it cannot do: it has refused it, and has done nothing then.
#[derive(Debug, Clone, Default)]
pub(super) struct Lacks {
    /// what it does not give at once
    pub(super) spans: BTreeSet<Span>,
    one_coil: bool,
    one_register: bool,
    mask: bool,
    read_write: bool,
}

/// Why a write failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WriteFault {
    Fault(Fault),
    /// It was confirmed, and is not there.
    NotTaken(String),
}

impl WriteFault {
    pub(super) fn fault(&self) -> Option<&Fault> {
        if let Self::Fault(fault) = self { Some(fault) } else { None }
    }
}

impl fmt::Display for WriteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault @ Fault::Silent { .. }) => {
                write!(f, "{fault}; whether it was written is not known")
            }
            Self::Fault(fault) => fault.fmt(f),
            Self::NotTaken(there) => write!(
                f,
                "the device has confirmed the write, and has {there}: is it in local mode, or does \
                something else write there?"
            ),
        }
    }
}

impl From<Fault> for WriteFault {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A device to write to.
pub(super) struct Device<'a, T> {
    pub(super) guard: &'a mut Guard<T>,
    pub(super) unit: u8,
    pub(super) timeout: Duration,
    pub(super) lacks: &'a mut Lacks,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Device<'_, T> {
    /// Writes, and looks afterwards whether it is there.
    pub(super) async fn write(&mut self, write: &Write, read_back: ReadBack) -> Result<(), WriteFault> {
        let address = write.address;
        match &write.content {
            Content::Coils(coils) => self.coils(address, coils).await?,
            Content::Bits { mask, bits } => self.bits(address, *mask, *bits).await?,
            Content::Registers(words) => {
                let at_once = read_back == ReadBack::SameRequest && words.len() <= MOST_REGISTERS_OF_23;
                if at_once && !self.lacks.read_write {
                    match self.read_write(address, words).await {
                        Err(WriteFault::Fault(fault)) if fault.is_unknown_function() => {
                            self.lacks.read_write = true;
                        }
                        result => return result,
                    }
                }
                self.registers(address, words).await?;
            }
        }
        if read_back == ReadBack::No { Ok(()) } else { self.compare(address, &write.content).await }
    }

    async fn coils(&mut self, address: u16, coils: &[bool]) -> Result<(), Fault> {
        if let [coil] = coils
            && !self.lacks.one_coil
        {
            match self.call(Request::WriteSingleCoil(address, *coil)).await {
                Err(fault) if fault.is_unknown_function() => self.lacks.one_coil = true,
                result => return result.map(drop),
            }
        }
        self.call(Request::WriteMultipleCoils(address, Cow::Borrowed(coils))).await.map(drop)
    }

    async fn registers(&mut self, address: u16, words: &[u16]) -> Result<(), Fault> {
        if let [word] = words
            && !self.lacks.one_register
        {
            match self.call(Request::WriteSingleRegister(address, *word)).await {
                Err(fault) if fault.is_unknown_function() => self.lacks.one_register = true,
                result => return result.map(drop),
            }
        }
        self.call(Request::WriteMultipleRegisters(address, Cow::Borrowed(words))).await.map(drop)
    }

    /// Changes bits of a register. Where the device has no function for it, the register is read, changed and
    /// written. Nothing of ours comes between; what the device itself changes meanwhile is lost.
    async fn bits(&mut self, address: u16, mask: u16, bits: u16) -> Result<(), Fault> {
        if !self.lacks.mask {
            match self.call(Request::MaskWriteRegister(address, !mask, bits)).await {
                Err(fault) if fault.is_unknown_function() => self.lacks.mask = true,
                result => return result.map(drop),
            }
        }
        let before = self.read(address, 1).await?;
        let after: Vec<u16> = before.iter().map(|word| word & !mask | bits).collect();
        self.registers(address, &after).await
    }

    async fn read_write(&mut self, address: u16, words: &[u16]) -> Result<(), WriteFault> {
        let count = u16::try_from(words.len()).unwrap_or(u16::MAX);
        let request = Request::ReadWriteMultipleRegisters(address, count, address, Cow::Borrowed(words));
        match self.call(request).await? {
            Response::ReadWriteMultipleRegisters(there) => same(words, &there),
            _ => Err(unlike().into()),
        }
    }

    async fn compare(&mut self, address: u16, content: &Content) -> Result<(), WriteFault> {
        match content {
            Content::Coils(coils) => {
                let count = u16::try_from(coils.len()).unwrap_or(u16::MAX);
                match self.call(Request::ReadCoils(address, count)).await? {
                    Response::ReadCoils(mut there) => {
                        // Bits come in whole bytes.
                        there.truncate(coils.len());
                        same(coils, &there)
                    }
                    _ => Err(unlike().into()),
                }
            }
            Content::Registers(words) => {
                let there = self.read(address, u16::try_from(words.len()).unwrap_or(u16::MAX)).await?;
                same(words, &there)
            }
            Content::Bits { mask, bits } => {
                let there: Vec<u16> = self.read(address, 1).await?.iter().map(|word| word & mask).collect();
                same(&[*bits], &there)
            }
        }
    }

    async fn read(&mut self, address: u16, count: u16) -> Result<Vec<u16>, Fault> {
        match self.call(Request::ReadHoldingRegisters(address, count)).await? {
            Response::ReadHoldingRegisters(words) => Ok(words),
            _ => Err(unlike()),
        }
    }

    async fn call(&mut self, request: Request<'_>) -> Result<Response, Fault> {
        self.guard.call(self.unit, request, self.timeout).await
    }
}

fn same<T: PartialEq + fmt::Debug>(wanted: &[T], there: &[T]) -> Result<(), WriteFault> {
    if wanted == there {
        Ok(())
    } else {
        Err(WriteFault::NotTaken(format!("{there:?} instead of {wanted:?}")))
    }
}

fn unlike() -> Fault {
    Fault::Garbled("it answers another question".into())
}

#[cfg(test)]
mod tests {
    use super::super::points::{Spelling, Value, config::PointConfig};
    use super::*;

    fn row(values: &[(&str, Value)]) -> Vec<(u16, Content)> {
        let points: Vec<(Point, Encoded)> = values
            .iter()
            .map(|(config, value)| {
                let config: PointConfig = serde_json::from_str(config).unwrap();
                let point = Point::parse("p", &config, Spelling::default()).unwrap();
                let encoded = point.encode(value).unwrap();
                (point, encoded)
            })
            .collect();
        let writes = writes(points.iter().map(|(point, encoded)| (point, encoded.clone())));
        writes.into_iter().map(|write| (write.address, write.content)).collect()
    }

    #[test]
    fn what_lies_side_by_side_is_one_write_and_setpoints_come_before_commands() {
        let written = row(&[
            (r#"{"coil": 5}"#, Value::Bool(true)),
            (r#"{"coil": 6}"#, Value::Bool(false)),
            (r#"{"coil": 8}"#, Value::Bool(true)),
            (r#"{"holding": 9, "bit": 0}"#, Value::Bool(true)),
            (r#"{"holding": 9, "bit": 4}"#, Value::Bool(false)),
            (r#"{"holding": 9, "type": "uint8", "byte": "high"}"#, Value::Int(7)),
            (r#"{"holding": 43, "type": "int32"}"#, Value::Int(-2)),
            (r#"{"holding": 42, "type": "uint16"}"#, Value::Int(7)),
        ]);
        assert_eq!(
            written,
            [
                (42, Content::Registers(vec![7, 0xffff, 0xfffe])),
                (9, Content::Bits { mask: 0xff11, bits: 0x0701 }),
                (5, Content::Coils(vec![true, false])),
                (8, Content::Coils(vec![true])),
            ]
        );
    }
}
