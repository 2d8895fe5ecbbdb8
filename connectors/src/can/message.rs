//! One message: its signals in the payload of a frame, and back. Compiled once; decoding allocates nothing.

use std::sync::Arc;
use std::time::Duration;

use super::database::{Unresolved, near};
use super::id::Id;
use super::signal::{Absent, Ranges, Selector, Signal, Value};

/// What frames of a message are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// up to 8 bytes
    Classic,
    /// CAN FD
    Fd,
    /// a parameter group of J1939: the id's priority does not matter, and neither may its source; what is
    /// longer than 8 bytes comes by the transport protocol
    J1939,
}

/// A message of a database.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// As in the file; the long name where the file gives one.
    pub name: Arc<str>,
    /// Whose frames it is in.
    pub id: Id,
    /// How many bytes it has.
    pub length: usize,
    /// What its frames are.
    pub format: Format,
    /// How often it is sent, if it is sent again and again (`GenMsgCycleTime`).
    pub cycle: Option<Duration>,
    /// As in the file.
    pub signals: Vec<Signal>,
}

impl Message {
    /// Which of its signals has this name.
    ///
    /// # Errors
    /// When none has; the nearest name is offered.
    pub fn signal(&self, name: &str) -> Result<usize, Unresolved> {
        self.signals.iter().position(|signal| &*signal.name == name).ok_or_else(|| {
            let known = self.signals.iter().map(|signal| &*signal.name);
            let what = format!("the message `{}` has no signal `{name}`", self.name);
            Unresolved { message: what, help: near(name, known) }
        })
    }

    /// The signals in the payload of a frame; nothing is looked at before it is asked for.
    #[must_use]
    pub fn decode<'a>(&'a self, payload: &'a [u8]) -> Decoded<'a> {
        Decoded { message: self, payload }
    }

    /// The payload in which the signals of `given` have these values, by their place in [`Self::signals`].
    ///
    /// Signals that are not given have their start value (`GenSigStartValue`), or 0. A multiplexor that is
    /// not given has the value with which the signals that are given are in the frame.
    ///
    /// # Errors
    /// When a value does not fit its signal, or two of them are not in one frame; in words for the user.
    pub fn encode(&self, given: &[(usize, Value<'_>)]) -> Result<Vec<u8>, String> {
        let mut raws: Vec<Option<u64>> = vec![None; self.signals.len()];
        for (at, value) in given {
            let (Some(signal), Some(raw)) = (self.signals.get(*at), raws.get_mut(*at)) else {
                return Err(format!("{} has no signal number {at}", self.name));
            };
            *raw = Some(signal.encode(*value)?);
        }
        self.set_multiplexors(&mut raws)?;
        self.check_overlaps(&raws)?;
        let mut payload = vec![0; self.length];
        // What was given is written last: where signals overlap, it stays.
        for (at, signal) in self.signals.iter().enumerate() {
            if self.is_present(at, &raws) {
                signal.bits.write(&mut payload, signal.start);
            }
        }
        for (signal, raw) in self.signals.iter().zip(raws) {
            if let Some(raw) = raw {
                signal.bits.write(&mut payload, raw);
            }
        }
        Ok(payload)
    }

    /// Gives the multiplexors that were not given the values that the given signals need, the innermost
    /// first.
    fn set_multiplexors(&self, raws: &mut [Option<u64>]) -> Result<(), String> {
        let mut by_depth: Vec<usize> = (0..self.signals.len()).collect();
        by_depth.sort_by_key(|at| std::cmp::Reverse(self.selectors(*at).count()));
        // What is needed of each multiplexor, and by which signal.
        let mut needs: Vec<Option<(Ranges, usize)>> = vec![None; self.signals.len()];
        for at in by_depth {
            let (Some(signal), Some(raw)) = (self.signals.get(at), raws.get_mut(at)) else { continue };
            if let Some((values, needed_by)) = needs.get(at).and_then(Option::as_ref) {
                match raw {
                    Some(raw) if !signal.selects(*raw, values) => {
                        return Err(format!(
                            "{} is only in frames in which {} is {values}, and not {raw}: leave one out",
                            self.signal_name(*needed_by),
                            signal.name,
                        ));
                    }
                    Some(_) => {}
                    None if signal.selects(signal.start, values) => *raw = Some(signal.start),
                    None => *raw = values.first(),
                }
            }
            let (Some(_), Some(selector)) = (*raw, &signal.selector) else { continue };
            let Some(need) = needs.get_mut(selector.multiplexor) else { continue };
            match need {
                None => *need = Some((selector.values.clone(), at)),
                Some((values, needed_by)) => {
                    let both = values.intersection(&selector.values);
                    if both.first().is_none() {
                        return Err(format!(
                            "{} and {} are never in the same frame: one needs {} to be {values}, one {}",
                            self.signal_name(*needed_by),
                            signal.name,
                            self.signal_name(selector.multiplexor),
                            selector.values,
                        ));
                    }
                    *values = both;
                }
            }
        }
        Ok(())
    }

    fn check_overlaps(&self, raws: &[Option<u64>]) -> Result<(), String> {
        let mut taken: Vec<u8> = vec![0; self.length];
        let given =
            || self.signals.iter().zip(raws).filter(|(_, raw)| raw.is_some()).map(|(signal, _)| signal);
        for signal in given() {
            for (byte, mask) in signal.bits.bytes() {
                let Some(taken) = taken.get_mut(byte) else { continue };
                if *taken & mask != 0 {
                    let shares = |other: &&Signal| {
                        other.name != signal.name
                            && other.bits.bytes().any(|(at, other)| at == byte && other & mask != 0)
                    };
                    let other = given().find(shares).map_or("another one", |other| &other.name);
                    return Err(format!(
                        "{other} and {} have bits in common, so that only one of them can be sent",
                        signal.name
                    ));
                }
                *taken |= mask;
            }
        }
        Ok(())
    }

    /// Whether the signal is in a frame whose multiplexors are as in `raws`.
    fn is_present(&self, at: usize, raws: &[Option<u64>]) -> bool {
        self.selectors(at).all(|selector| {
            let Some(multiplexor) = self.signals.get(selector.multiplexor) else { return false };
            let raw = raws.get(selector.multiplexor).copied().flatten().unwrap_or(multiplexor.start);
            multiplexor.selects(raw, &selector.values)
        })
    }

    /// What selects the signal, what selects its multiplexor, and so on. Databases are checked for circles.
    fn selectors(&self, at: usize) -> impl Iterator<Item = &Selector> {
        let selector = move |at: usize| self.signals.get(at).and_then(|signal| signal.selector.as_ref());
        std::iter::successors(selector(at), move |inner| selector(inner.multiplexor))
    }

    fn signal_name(&self, at: usize) -> &str {
        self.signals.get(at).map_or("", |signal| &signal.name)
    }
}

impl Signal {
    /// Whether `raw` bits of this multiplexor are one of `values`.
    fn selects(&self, raw: u64, values: &Ranges) -> bool {
        // Multiplexors are whole numbers; of those with a sign, what is below zero selects nothing.
        self.whole(raw).map_or(self.content == super::signal::Content::Unsigned, |whole| whole >= 0)
            && values.contains(raw)
    }
}

/// The signals in a payload.
#[derive(Debug, Clone, Copy)]
pub struct Decoded<'a> {
    message: &'a Message,
    payload: &'a [u8],
}

impl<'a> Decoded<'a> {
    /// The bits of a signal, by its place in [`Message::signals`].
    ///
    /// # Errors
    /// When it is not in this frame.
    pub fn raw(self, at: usize) -> Result<u64, Absent> {
        self.signal(at).map(|(_, raw)| raw)
    }

    /// The value of a signal. `labels`: its label; what has none in the value table is its number.
    ///
    /// # Errors
    /// When it has none in this frame.
    pub fn value(self, at: usize, labels: bool) -> Result<Value<'a>, Absent> {
        let (signal, raw) = self.signal(at)?;
        if !labels || signal.labels.is_empty() {
            return signal.value(raw);
        }
        match (signal.label(raw), signal.value(raw)?) {
            (Some(label), _) => Ok(Value::Text(label)),
            (None, Value::Bool(on)) => Ok(Value::Int(on.into())),
            (None, value) => Ok(value),
        }
    }

    /// For how many signals the payload is too short.
    #[must_use]
    pub fn cut_off(self) -> usize {
        self.message.signals.iter().filter(|signal| signal.bits.reach() > self.payload.len()).count()
    }

    fn signal(self, at: usize) -> Result<(&'a Signal, u64), Absent> {
        let signal = self.message.signals.get(at).ok_or(Absent::Multiplexed)?;
        if let Some(selector) = &signal.selector {
            let (multiplexor, raw) = self.signal(selector.multiplexor)?;
            if !multiplexor.selects(raw, &selector.values) {
                return Err(Absent::Multiplexed);
            }
        }
        Ok((signal, signal.bits.read(self.payload).ok_or(Absent::CutOff)?))
    }
}

#[cfg(test)]
mod tests;
