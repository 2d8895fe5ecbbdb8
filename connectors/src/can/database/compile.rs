//! From what a file says to messages that can be decoded without looking anything up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Place;

use super::parse::{Attribute, MessageNotes, Multiplexing, Parsed, SignalNotes, Written, WrittenSignal};
use super::text::Flaw;
use super::{MOST_TOLD, near};
use crate::can::bits::Bits;
use crate::can::frame::{MOST_CLASSIC, MOST_FD};
use crate::can::id::Id;
use crate::can::message::{Format, Message};
use crate::can::signal::{Content, Labels, Ranges, Selector, Signal};
use crate::scaling::Scaling;

/// The message of signals that are in no message.
const NO_MESSAGE: &str = "VECTOR__INDEPENDENT_SIG_MSG";

/// The most that the transport protocol of J1939 carries.
const MOST_J1939: usize = 1785;

/// How deep multiplexors may be in each other.
const DEEPEST: usize = 16;

/// A message of a file, or why it cannot be used.
pub(super) struct Compiled {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) message: Result<Message, Vec<Flaw>>,
    /// its signals, if it cannot be used
    pub(super) left_out: Vec<Arc<str>>,
}

/// The messages of a file, and what is to be said of it although it can be used.
pub(super) fn compile(mut parsed: Parsed<'_>) -> (Vec<Compiled>, Vec<Flaw>) {
    let mut remarks = Vec::new();
    let mut compiled = Vec::new();
    for written in std::mem::take(&mut parsed.messages) {
        let notes = parsed.notes.remove(&written.id).unwrap_or_default();
        if written.name == NO_MESSAGE {
            continue;
        }
        let name = notes.long_name.unwrap_or(written.name).to_owned();
        let mut compiler =
            Compiler { parsed: &parsed, written: &written, flaws: Vec::new(), remarks: Vec::new() };
        let message = compiler.message(&name, notes);
        remarks.append(&mut compiler.remarks);
        let place = written.statement.place(0);
        compiled.push(if compiler.flaws.is_empty() {
            Compiled { name, place, message: Ok(message), left_out: Vec::new() }
        } else {
            let left_out = super::names(&message);
            Compiled { name, place, message: Err(compiler.flaws), left_out }
        });
    }
    remarks.extend(parsed.notes.into_values().flat_map(|notes| notes.signals).filter_map(unused));
    remarks.sort_by_key(|remark| remark.place);
    (compiled, remarks)
}

/// What is said of a signal that is not there.
fn unused((name, notes): (&str, SignalNotes<'_>)) -> Option<Flaw> {
    Some(Flaw {
        place: notes.place?,
        message: format!("this is said of a signal `{name}` that the message does not have"),
        help: Some("its id or its name may be wrong; the statement is left out".into()),
    })
}

/// Where in a file.
#[derive(Clone, Copy)]
enum Spot {
    Message,
    Signal(usize),
    Place(Place),
}

/// What the signals of one message are compiled with.
struct Compiler<'a> {
    parsed: &'a Parsed<'a>,
    written: &'a Written<'a>,
    /// for which the message is left out
    flaws: Vec<Flaw>,
    /// for which it is not
    remarks: Vec<Flaw>,
}

impl Compiler<'_> {
    fn flaw(&mut self, spot: Spot, message: String, help: &str) {
        self.flaw_with(spot, message, Some(help.into()));
    }

    /// Looking for a place takes time, and nobody reads more of them.
    fn flaw_with(&mut self, spot: Spot, message: String, help: Option<String>) {
        if self.flaws.len() < MOST_TOLD {
            self.flaws.push(Flaw { place: self.place(spot), message, help });
        }
    }

    fn remark(&mut self, spot: Spot, message: String, help: &str) {
        if self.remarks.len() < MOST_TOLD {
            self.remarks.push(Flaw { place: self.place(spot), message, help: Some(help.into()) });
        }
    }

    fn place(&self, spot: Spot) -> Place {
        match spot {
            Spot::Message => self.written.statement.place(0),
            Spot::Signal(at) => self.written.place_of(at),
            Spot::Place(place) => place,
        }
    }

    fn message(&mut self, name: &str, mut notes: MessageNotes<'_>) -> Message {
        let id = id(self.written.id).unwrap_or_else(|why| {
            self.flaw(Spot::Message, format!("the id {} {why}", self.written.id), ID_HELP);
            Id::Standard(0)
        });
        let length = self.length(id);
        let signals = &self.written.signals;
        let mut compiled: Vec<Signal> = Vec::with_capacity(signals.len());
        let mut by_name: HashMap<&str, usize> = HashMap::with_capacity(signals.len());
        let mut names: HashSet<Arc<str>> = HashSet::with_capacity(signals.len());
        let mut multiplexing = Vec::with_capacity(signals.len());
        for (at, signal) in signals.iter().enumerate() {
            let mut notes = notes.signals.remove(signal.name).unwrap_or_default();
            multiplexing.push(notes.multiplexing.take());
            let signal_compiled = self.signal(at, signal, notes, length);
            let is_new = names.insert(Arc::clone(&signal_compiled.name));
            if by_name.insert(signal.name, at).is_some() || !is_new {
                self.flaw(
                    Spot::Signal(at),
                    format!("there are two signals `{}`", signal.name),
                    "rename one of them",
                );
            }
            compiled.push(signal_compiled);
        }
        self.select(&mut compiled, &by_name, multiplexing);
        self.remarks.extend(notes.signals.into_iter().filter_map(unused));
        let by_default = || self.parsed.by_default("GenMsgCycleTime")?.number();
        let cycle_ms = notes.cycle_ms.or_else(by_default).unwrap_or_default();
        let cycle = Duration::try_from_secs_f64(cycle_ms / 1e3).ok().filter(|cycle| !cycle.is_zero());
        let format = self.format(id, length, notes.frame_format);
        Message { name: name.into(), id, length, format, cycle, signals: compiled }
    }

    fn length(&mut self, id: Id) -> usize {
        let most = if id.is_extended() { MOST_J1939 } else { MOST_FD };
        let length = usize::try_from(self.written.length).unwrap_or(usize::MAX);
        if length > most {
            let what = format!("a message has at most {most} bytes, and not {length}");
            self.flaw(
                Spot::Message,
                what,
                "8 bytes are the most of a classic frame, 64 of CAN FD, 1785 of J1939",
            );
        }
        length.min(most)
    }

    fn format(&self, id: Id, length: usize, written: Option<Attribute<'_>>) -> Format {
        let attribute = "VFrameFormat";
        let value = written.or_else(|| self.parsed.by_default(attribute));
        let name = value.and_then(|value| self.parsed.choice(attribute, value)).unwrap_or_default();
        let is_j1939 =
            name.contains("J1939") || written.is_none() && self.parsed.is_j1939 || length > MOST_FD;
        if id.is_extended() && is_j1939 {
            Format::J1939
        } else if name.ends_with("_FD") || length > MOST_CLASSIC {
            Format::Fd
        } else {
            Format::Classic
        }
    }

    fn signal(
        &mut self,
        at: usize,
        signal: &WrittenSignal<'_>,
        notes: SignalNotes<'_>,
        length: usize,
    ) -> Signal {
        let spot = Spot::Signal(at);
        let name = signal.name;
        let bits = self.bits(spot, signal, length);
        let width = bits.width();
        let whole = if signal.is_signed { Content::Signed } else { Content::Unsigned };
        let content = notes.content.unwrap_or(whole);
        let float_width = match content {
            Content::Float32 => 32,
            Content::Float64 => 64,
            _ => width,
        };
        if width != float_width {
            let what = format!("`{name}` is a float of {float_width} bits, and has {width}");
            self.flaw(notes.place.map_or(spot, Spot::Place), what, "correct its width, or its SIG_VALTYPE_");
        }
        let (factor, offset) = (signal.factor, signal.offset);
        let is_good = factor != 0.0 && factor.is_finite() && offset.is_finite();
        if !is_good {
            let what = format!("`{name}` has the factor {factor} and the offset {offset}");
            self.flaw(spot, what, "the factor must be finite and not 0, and the offset finite");
        }
        let is_scaled = is_good && (factor.to_bits() != 1_f64.to_bits() || offset != 0.0);
        let mut compiled = Signal {
            name: notes.long_name.unwrap_or(name).into(),
            unit: signal.unit.into(),
            bits,
            content,
            range: self.range(spot, signal),
            scaling: is_scaled.then(|| Scaling::new(factor, offset)),
            labels: Labels::new(notes.labels),
            start: 0,
            selector: None,
        };
        let by_default = || self.parsed.by_default("GenSigStartValue")?.number();
        if let Some(start) = notes.start.or_else(by_default) {
            match compiled.unscaled_bits(start) {
                Some(bits) => compiled.start = bits,
                None if notes.start.is_some() => {
                    let what = format!("the start value {start} of `{name}` does not fit its {width} bits");
                    self.remark(spot, what, "it starts with 0");
                }
                // The default of all signals, which need not fit each of them.
                None => {}
            }
        }
        compiled
    }

    fn bits(&mut self, spot: Spot, signal: &WrittenSignal<'_>, length: usize) -> Bits {
        let WrittenSignal { name, start, width, order, .. } = *signal;
        if !(1..=64).contains(&width) {
            let what = format!("`{name}` has {width} bits");
            self.flaw(spot, what, "a signal has 1 to 64 of them");
            return NO_BITS;
        }
        match Bits::new(start, width, order) {
            Some(bits) if bits.reach() <= length => bits,
            _ => {
                let what = format!(
                    "`{name}` is not in the frame: {width} bits from bit {start}, and it has {length} bytes"
                );
                self.flaw(spot, what, "correct the signal, or the length in the BO_ line");
                NO_BITS
            }
        }
    }

    /// `[0|0]` means that there is none.
    fn range(&mut self, spot: Spot, signal: &WrittenSignal<'_>) -> Option<(f64, f64)> {
        let (least, most) = signal.range;
        if least > most {
            let what = format!("the range of `{}` begins with {least} and ends with {most}", signal.name);
            self.remark(spot, what, "every value that its bits hold is taken");
        }
        (least <= most && (least, most) != (0.0, 0.0)).then_some((least, most))
    }

    /// Finds out which signal is in which frames.
    fn select(
        &mut self,
        signals: &mut [Signal],
        by_name: &HashMap<&str, usize>,
        multiplexing: Vec<Option<Multiplexing<'_>>>,
    ) {
        let written = &self.written.signals;
        let mut multiplexors = (0..)
            .zip(written)
            .filter(|(_, signal)| signal.is_multiplexor && signal.selected_by.is_none())
            .map(|(at, _)| at);
        let only = multiplexors.next().filter(|_| multiplexors.next().is_none());
        let mut selectors: Vec<Option<Selector>> = Vec::with_capacity(signals.len());
        for (at, (signal, multiplexing)) in written.iter().zip(multiplexing).enumerate() {
            let said = said(signal, multiplexing, by_name, only);
            let selector =
                said.and_then(|said| said.map(|said| held(signal.name, said, signals)).transpose());
            if let Err(wrong) = &selector
                && self.flaws.len() < MOST_TOLD
            {
                self.flaw_with(Spot::Signal(at), wrong.to_string(), wrong.help(by_name));
            }
            selectors.push(selector.ok().flatten());
        }
        for (signal, selector) in signals.iter_mut().zip(selectors) {
            signal.selector = selector;
        }
        self.check_depth(signals);
    }

    fn check_depth(&mut self, signals: &[Signal]) {
        let outer = |at: usize| signals.get(at)?.selector.as_ref().map(|selector| selector.multiplexor);
        let is_deep = |at: usize| std::iter::successors(outer(at), |at| outer(*at)).nth(DEEPEST).is_some();
        if let Some(at) = (0..signals.len()).find(|at| is_deep(*at)) {
            let name = self.written.signals.get(at).map_or("", |signal| signal.name);
            let what =
                format!("the multiplexors of `{name}` go round in a circle, or are more than {DEEPEST}");
            self.flaw(Spot::Signal(at), what, "correct their SG_MUL_VAL_ lines");
        }
    }
}

/// Why it cannot be told in which frames a signal is.
#[derive(Debug, thiserror::Error)]
enum Unselected {
    #[error("it cannot be told which multiplexor `{0}` belongs to")]
    NoMultiplexor(String),
    #[error("the multiplexor `{wanted}` of `{signal}` is not in the message")]
    UnknownMultiplexor { signal: String, wanted: String },
    #[error("`{signal}` is in frames in which its multiplexor is {values}, which it cannot be")]
    Never { signal: String, values: Ranges },
}

impl Unselected {
    fn help(&self, known: &HashMap<&str, usize>) -> Option<String> {
        match self {
            Self::NoMultiplexor(_) => {
                Some("mark one signal of the message with M, or add a SG_MUL_VAL_ line".into())
            }
            Self::UnknownMultiplexor { wanted, .. } => near(wanted, known.keys().copied()),
            Self::Never { .. } => Some("it has too few bits for that, or is a float".into()),
        }
    }
}

/// What the file says of the frames in which a signal is. None: it is in all of them. `only`: the multiplexor
/// that is marked as such, if it is only one.
fn said(
    signal: &WrittenSignal<'_>,
    multiplexing: Option<Multiplexing<'_>>,
    by_name: &HashMap<&str, usize>,
    only: Option<usize>,
) -> Result<Option<Selector>, Unselected> {
    let name = || signal.name.to_owned();
    if let Some(Multiplexing { multiplexor: wanted, ranges }) = multiplexing {
        let Some(multiplexor) = by_name.get(wanted).copied() else {
            return Err(Unselected::UnknownMultiplexor { signal: name(), wanted: wanted.to_owned() });
        };
        return Ok(Some(Selector { multiplexor, values: Ranges::new(ranges) }));
    }
    let Some(value) = signal.selected_by else { return Ok(None) };
    let multiplexor = only.ok_or_else(|| Unselected::NoMultiplexor(name()))?;
    Ok(Some(Selector { multiplexor, values: Ranges::new([(value, value)]) }))
}

/// The same with those values only that the multiplexor can have.
fn held(name: &str, said: Selector, signals: &[Signal]) -> Result<Selector, Unselected> {
    let most = signals.get(said.multiplexor).and_then(|multiplexor| match multiplexor.content {
        Content::Unsigned => Some(multiplexor.bits.mask()),
        Content::Signed => Some(multiplexor.bits.mask() >> 1),
        Content::Float32 | Content::Float64 => None,
    });
    let values = said.values.intersection(&Ranges::new(most.map(|most| (0, most))));
    if values.first().is_none() {
        return Err(Unselected::Never { signal: name.to_owned(), values: said.values });
    }
    Ok(Selector { values, ..said })
}

const ID_HELP: &str = "ids of 11 bits are 0 to 2047; of 29 bits, 2147483648 (2^31) is added to them";

/// Stands for those of a signal that cannot be used.
const NO_BITS: Bits = Bits::FIRST;

/// Bit 31 tells ids of 29 bits.
fn id(written: u64) -> Result<Id, &'static str> {
    let Ok(number) = u32::try_from(written) else { return Err("has more than 32 bits") };
    match number.checked_sub(1 << 31) {
        Some(number) => Id::extended(number).ok_or("has more than 29 bits"),
        None => Id::standard(number).ok_or("has more than 11 bits"),
    }
}
