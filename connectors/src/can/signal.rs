//! One signal: from its bits to a value, and back.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tidegate_core::FieldType;

use super::bits::Bits;
use super::database::near;
use crate::scaling::Scaling;

/// What a signal's bits are, before they are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// a whole number from 0
    Unsigned,
    /// a whole number, two's complement
    Signed,
    /// IEEE 754 binary32
    Float32,
    /// IEEE 754 binary64
    Float64,
}

/// A value of a signal: what was read, or shall be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// of [`FieldType::Bool`]
    Bool(bool),
    /// of [`FieldType::Int64`]
    Int(i64),
    /// of [`FieldType::Float64`]
    Float(f64),
    /// of [`FieldType::Utf8`]: a label of the value table; to be sent also a number beyond an int64
    Text(&'a str),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => write!(f, "\"{value}\""),
        }
    }
}

/// Why a signal has no value in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Absent {
    /// Its multiplexor says that other signals are there.
    #[error("it is not in this frame: its multiplexor has another value")]
    Multiplexed,
    /// The frame ends before it.
    #[error("the frame is too short for it")]
    CutOff,
    /// Its float is "not a number".
    #[error("it is not a number")]
    NotANumber,
    /// Its float is infinite, or is so when it is scaled.
    #[error("it is infinite")]
    Infinite,
    /// It is above the greatest int64.
    #[error("it is above the greatest int64; a scale other than 1 in the database makes it a float64")]
    TooGreat,
}

/// The part of a step that decimals may lose.
const ROOM: f64 = 1e-6;

/// Beyond this a float64 does not hold every whole number.
const MOST_EXACT: u64 = 1 << 53;

const INEXACT: &str = "beyond 9007199254740992 (2^53) a float64 does not hold every step, so that another \
    value would be sent; a signal without factor and offset takes whole numbers (BIGINT) up to its 64 bits";

/// A signal of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// As in the file; the long name where the file gives one.
    pub name: Arc<str>,
    /// As in the file; may be empty.
    pub unit: Arc<str>,
    /// Where it is.
    pub bits: Bits,
    /// What is there.
    pub content: Content,
    /// The values that the file allows, scaled.
    pub range: Option<(f64, f64)>,
    pub(super) scaling: Option<Scaling>,
    pub(super) labels: Labels,
    /// what its bits are in a frame for which it was not given
    pub(super) start: u64,
    /// in which frames it is; none: in all
    pub(super) selector: Option<Selector>,
}

impl Signal {
    /// The type of its column. `labels`: whether those of its value table are wanted.
    ///
    /// Labels are text; what is scaled, and floats, are float64; one unsigned bit is a bool; all else is
    /// int64.
    #[must_use]
    pub fn field_type(&self, labels: bool) -> FieldType {
        if labels && !self.labels.is_empty() {
            return FieldType::Utf8;
        }
        match self.content {
            Content::Unsigned | Content::Signed if self.scaling.is_some() => FieldType::Float64,
            Content::Unsigned if self.bits.width() == 1 => FieldType::Bool,
            Content::Unsigned | Content::Signed => FieldType::Int64,
            Content::Float32 | Content::Float64 => FieldType::Float64,
        }
    }

    /// The labels of its value table, by content.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What `raw` bits mean.
    ///
    /// # Errors
    /// When they mean nothing.
    pub fn value(&self, raw: u64) -> Result<Value<'static>, Absent> {
        let scaled = |content: f64| finite(self.scaling.map_or(content, |s| s.apply(content)));
        #[expect(clippy::cast_precision_loss, reason = "a float64 is what scaling gives")]
        #[expect(clippy::cast_possible_truncation, reason = "there are no more bits than that")]
        Ok(match self.content {
            Content::Unsigned if self.scaling.is_some() => scaled(raw as f64)?,
            Content::Unsigned if self.bits.width() == 1 => Value::Bool(raw == 1),
            Content::Unsigned => Value::Int(i64::try_from(raw).map_err(|_| Absent::TooGreat)?),
            Content::Signed if self.scaling.is_some() => scaled(self.extend_sign(raw) as f64)?,
            Content::Signed => Value::Int(self.extend_sign(raw)),
            Content::Float32 => scaled(f32::from_bits(raw as u32).into())?,
            Content::Float64 => scaled(f64::from_bits(raw))?,
        })
    }

    /// The label of `raw` bits, if the value table has one.
    #[must_use]
    pub fn label(&self, raw: u64) -> Option<&str> {
        if self.labels.is_empty() { None } else { self.labels.name(self.whole(raw)?) }
    }

    /// The content as a whole number, if it is one.
    pub(super) fn whole(&self, raw: u64) -> Option<i64> {
        match self.content {
            Content::Unsigned => i64::try_from(raw).ok(),
            Content::Signed => Some(self.extend_sign(raw)),
            #[expect(clippy::cast_possible_truncation, reason = "there are no more bits than that")]
            Content::Float32 => whole(f32::from_bits(raw as u32).into()),
            Content::Float64 => whole(f64::from_bits(raw)),
        }
    }

    fn extend_sign(&self, raw: u64) -> i64 {
        let unused = 64 - u32::from(self.bits.width());
        (raw << unused).cast_signed() >> unused
    }

    /// The least and the greatest value that it takes, scaled, as far as there are limits.
    pub(super) fn limits(&self) -> Option<(f64, f64)> {
        if matches!(self.content, Content::Float32 | Content::Float64) {
            return self.range;
        }
        let ordered = |one: f64, other: f64| (one.min(other), one.max(other));
        let (first, last) = self.holds().into_inner();
        let held = ordered(self.scaled(first), self.scaled(last));
        let Some((least, most)) = self.range else { return Some(held) };
        // What the table names is taken beside the range.
        let named = self.labels.iter().map(|(content, _)| self.scaled(content.into()));
        let allowed = named.fold((least, most), |(least, most), value| (least.min(value), most.max(value)));
        Some((allowed.0.max(held.0), allowed.1.min(held.1)))
    }

    /// The bits that mean `value`.
    ///
    /// # Errors
    /// When it does not fit: signal, value and range, in words for the user.
    pub fn encode(&self, value: Value<'_>) -> Result<u64, String> {
        let bits = match value {
            Value::Text(label) => self.labelled(label),
            value => self.numeric(value),
        };
        bits.map_err(|why| format!("{} cannot be {value}: {why}", self.name))
    }

    fn labelled(&self, label: &str) -> Result<u64, String> {
        let is_label = self.labels.contents(label).next().is_some();
        if let Some(number) = label.parse::<u64>().ok().filter(|_| !is_label) {
            let is_whole =
                matches!(self.content, Content::Unsigned | Content::Signed) && self.scaling.is_none();
            #[expect(clippy::cast_precision_loss, reason = "what is beyond is refused, but for floats")]
            return if is_whole {
                self.place(number.into(), None)
            } else {
                self.numeric(Value::Float(number as f64))
            };
        }
        if self.labels.is_empty() {
            return Err("it takes numbers, since the database has no value table for it".into());
        }
        let mut contents = self.labels.contents(label);
        match (contents.next(), contents.next()) {
            (Some(content), None) => self.place(content.into(), None),
            (Some(one), Some(other)) => {
                Err(format!("that is the label of {one} and of {other}; write the number instead"))
            }
            (None, _) => Err(near(label, self.labels.iter().map(|(_, name)| name))
                .unwrap_or_else(|| "no content has it".into())),
        }
    }

    fn numeric(&self, value: Value<'_>) -> Result<u64, String> {
        let is_float = matches!(self.content, Content::Float32 | Content::Float64);
        let is_whole = !is_float && self.scaling.is_none();
        let number = match value {
            Value::Int(number) if is_whole => return self.place(number.into(), None),
            Value::Bool(on) if self.field_type(false) == FieldType::Bool => return Ok(on.into()),
            Value::Bool(_) | Value::Text(_) => return Err("it takes a number".into()),
            Value::Float(number) if number.is_finite() => number,
            Value::Float(_) => return Err("that is not a number to send".into()),
            #[expect(clippy::cast_precision_loss, reason = "what is beyond is refused")]
            Value::Int(number) if number.unsigned_abs() <= MOST_EXACT => number as f64,
            Value::Int(_) => return Err(INEXACT.into()),
        };
        let content = self.scaling.map_or(number, |scaling| scaling.invert(number));
        if is_float {
            self.check_range(number, 0.0)?;
            return self.float_bits(content).ok_or_else(|| "it takes no number as great as that".into());
        }
        if is_whole && content.fract() != 0.0 {
            return Err("it takes whole numbers; use round()".into());
        }
        self.check_bits(content)?;
        #[expect(clippy::cast_precision_loss, reason = "it is a power of two")]
        if content.abs() > MOST_EXACT as f64 {
            return Err(INEXACT.into());
        }
        #[expect(clippy::cast_possible_truncation, reason = "its bits hold it")]
        self.place(content.round() as i128, Some(content))
    }

    /// The bits of a whole number, if they hold it and the file allows it. `content`: what was rounded to it.
    fn place(&self, whole: i128, content: Option<f64>) -> Result<u64, String> {
        #[expect(clippy::cast_precision_loss, reason = "labels of floats are small")]
        if let Content::Float32 | Content::Float64 = self.content {
            return self.float_bits(whole as f64).ok_or_else(|| "it takes no such number".into());
        }
        if !self.holds().contains(&whole) {
            return Err(self.too_few_bits());
        }
        #[expect(clippy::cast_precision_loss, reason = "it is the room of a step that counts")]
        let is_rounded = content.is_some_and(|content| (content - whole as f64).abs() > ROOM);
        // What the table names is meant, such as 255 for "not available" beside a range that ends at 250.
        let is_named = i64::try_from(whole).is_ok_and(|whole| self.labels.name(whole).is_some());
        if !is_named || is_rounded {
            let room = ROOM * (self.scaled(1) - self.scaled(0)).abs();
            let given = content.map_or_else(|| self.scaled(whole), |content| self.apply(content));
            self.check_range(given, room)?;
            let nearest = self.scaled(whole);
            self.check_range(nearest, room)
                .map_err(|why| format!("its nearest step is {nearest}, and {why}"))?;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the bits hold it")]
        Ok(whole as u64 & self.bits.mask())
    }

    /// Whether the bits hold it before it is rounded.
    #[expect(
        clippy::cast_precision_loss,
        reason = "for 64 bits it is one too many, which does not fit either"
    )]
    fn check_bits(&self, content: f64) -> Result<(), String> {
        let holds = self.holds();
        let (least, most) = (*holds.start() as f64 - ROOM, *holds.end() as f64 + ROOM);
        if (least..=most).contains(&content) { Ok(()) } else { Err(self.too_few_bits()) }
    }

    fn too_few_bits(&self) -> String {
        let (least, most) = self.holds().into_inner();
        let holds = match self.scaling {
            // A float64 would round those of 64 bits.
            None => format!("{least} to {most}"),
            Some(_) => in_words(self.scaled(least), self.scaled(most)),
        };
        format!("its {} bits hold {holds}", self.bits.width())
    }

    fn holds(&self) -> RangeInclusive<i128> {
        let bits = u32::from(self.bits.width());
        match self.content {
            Content::Signed => -(1 << (bits - 1))..=(1 << (bits - 1)) - 1,
            _ => 0..=(1 << bits) - 1,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "for a range that is written in decimals")]
    fn scaled(&self, content: i128) -> f64 {
        self.apply(content as f64)
    }

    fn apply(&self, content: f64) -> f64 {
        self.scaling.map_or(content, |scaling| scaling.apply(content))
    }

    /// `room`: what decimals may lose of a value that is a number of steps.
    fn check_range(&self, value: f64, room: f64) -> Result<(), String> {
        let Some((least, most)) = self.range else { return Ok(()) };
        if (least - room..=most + room).contains(&value) {
            return Ok(());
        }
        Err(format!("the database allows {}", in_words(least, most)))
    }

    /// None: it would be infinite.
    #[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
    fn float_bits(&self, content: f64) -> Option<u64> {
        match self.content {
            Content::Float32 => {
                let single = content as f32;
                single.is_finite().then(|| single.to_bits().into())
            }
            _ => content.is_finite().then(|| content.to_bits()),
        }
    }

    /// The bits of a content that is given unscaled, as start values are.
    pub(super) fn unscaled_bits(&self, content: f64) -> Option<u64> {
        match self.content {
            Content::Float32 | Content::Float64 => self.float_bits(content),
            _ => {
                let content = i128::from(whole(content)?);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the bits hold it"
                )]
                self.holds().contains(&content).then_some(content as u64 & self.bits.mask())
            }
        }
    }
}

fn finite(number: f64) -> Result<Value<'static>, Absent> {
    match number {
        _ if number.is_nan() => Err(Absent::NotANumber),
        _ if number.is_infinite() => Err(Absent::Infinite),
        _ => Ok(Value::Float(number)),
    }
}

/// None: it has a fraction, or is beyond an int64.
#[expect(clippy::cast_possible_truncation, reason = "it was looked at")]
fn whole(content: f64) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    (content.fract() == 0.0 && (-BEYOND..BEYOND).contains(&content)).then_some(content as i64)
}

fn in_words(one: f64, other: f64) -> String {
    let (least, most) = if one <= other { (one, other) } else { (other, one) };
    format!("{least} to {most}")
}

/// A value table: names of contents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(Box<[(i64, Arc<str>)]>);

impl Labels {
    /// Of several names of one content the last is taken.
    pub(super) fn new(mut named: Vec<(i64, Arc<str>)>) -> Self {
        named.reverse();
        named.sort_by_key(|(content, _)| *content);
        named.dedup_by_key(|(content, _)| *content);
        Self(named.into())
    }

    /// Whether there is no table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Contents and names, the least content first.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &str)> {
        self.0.iter().map(|(content, name)| (*content, name.as_ref()))
    }

    fn name(&self, content: i64) -> Option<&str> {
        let at = self.0.binary_search_by_key(&content, |(content, _)| *content).ok()?;
        self.0.get(at).map(|(_, name)| name.as_ref())
    }

    fn contents<'a>(&'a self, name: &'a str) -> impl Iterator<Item = i64> + 'a {
        self.iter().filter(move |(_, known)| *known == name).map(|(content, _)| content)
    }
}

/// The values of a multiplexor with which a signal is in the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Which signal of the message is the multiplexor.
    pub multiplexor: usize,
    /// The values, the least first.
    pub values: Ranges,
}

/// Ranges of whole numbers that neither touch nor overlap, the least first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges(Box<[(u64, u64)]>);

impl Ranges {
    /// Those of `ranges` that are not empty, joined where they meet.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, range| {
            let meets = next.0 <= range.1.saturating_add(1);
            if meets {
                range.1 = range.1.max(next.1);
            }
            meets
        });
        Self(ranges.into())
    }

    /// Whether the number is in one of them.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= number);
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| number <= *last)
    }

    /// The least number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|(first, _)| *first)
    }

    /// The greatest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, last)| *last)
    }

    /// The numbers that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            both.push((our.0.max(their.0), our.1.min(their.1)));
            if our.1 <= their.1 {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self::new(both)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if place > 0 { ", " } else { "" })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first} to {last}")? }
        }
        Ok(())
    }
}
