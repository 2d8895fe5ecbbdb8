//! An output: rows become frames.

use arrow::array::RecordBatch;

use super::frame::{Frame, Payload, fd_length};
use super::id::Id;
use super::line::{FrameWrite, Repeat};
use super::message::{Format, Message};
use super::signal;
use super::transmission::{DATA, Transmission};
use crate::Takes;
use crate::line::writes::Encode;
use crate::rows::Value;

/// What an output sends: a frame for each row; with `repeat` the newest again and again.
pub(super) struct Frames {
    pub(super) transmission: Transmission,
    pub(super) required: Vec<String>,
    pub(super) repeat: Option<Repeat>,
}

impl Encode for Frames {
    type Write = FrameWrite;

    fn takes(&self) -> Takes {
        // Each row of a message that is sent once may mean an event.
        if self.repeat.is_some() { Takes::Newest } else { Takes::All }
    }

    fn encode(&self, output: &str, rows: &RecordBatch, row: usize) -> Result<Option<FrameWrite>, String> {
        let frame = self.frame(output, rows, row)?;
        Ok(Some(FrameWrite { frame, repeat: self.repeat }))
    }
}

impl Frames {
    fn frame(&self, output: &str, rows: &RecordBatch, row: usize) -> Result<Frame, String> {
        let mut values: Vec<(&str, Value)> = Vec::with_capacity(rows.num_columns());
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            match Value::read(column.as_ref(), row) {
                Some(Value::Null) => {}
                Some(value) => values.push((field.name(), value)),
                None => return Err(format!("`{}` cannot be sent from {}", field.name(), column.data_type())),
            }
        }
        let is_there = |name: &String| values.iter().any(|(given, _)| given == name);
        if let Some(missing) = self.required.iter().find(|name| !is_there(name)) {
            return Err(format!(
                "the row has no value for `{missing}`; give it one, or a default in `defaults` of \
                 output {output}"
            ));
        }
        match &self.transmission {
            Transmission::Frames { id, fd } => match values.iter().find(|(name, _)| *name == DATA) {
                Some((_, Value::Bytes(data))) => raw_frame(*id, *fd, data),
                _ => Err(format!("`{DATA}` takes bytes, such as X'0102'")),
            },
            Transmission::Message { message, defaults, .. } => message_frame(message, defaults, &values),
        }
    }
}

/// A frame with these bytes.
pub(super) fn raw_frame(id: Id, fd: bool, data: &[u8]) -> Result<Frame, String> {
    let too_long = |most: usize| format!("{} bytes do not fit into a frame, which has {most}", data.len());
    if !fd {
        let payload = Payload::new(data).filter(|_| data.len() <= super::frame::MOST_CLASSIC);
        let data = payload.ok_or_else(|| too_long(super::frame::MOST_CLASSIC) + "; `fd = true` has 64")?;
        return Ok(Frame::Data { id, data });
    }
    let length = fd_length(data.len()).ok_or_else(|| too_long(super::frame::MOST_FD))?;
    let mut bytes = data.to_vec();
    // Longer FD frames come in a few lengths only.
    bytes.resize(length, 0);
    let data = Payload::new(&bytes).ok_or_else(|| too_long(super::frame::MOST_FD))?;
    Ok(Frame::Fd { id, data, fast: true, passive: false })
}

/// A frame of a message with these signals; the others have their defaults.
pub(super) fn message_frame(
    message: &Message,
    defaults: &[(usize, f64)],
    values: &[(&str, Value)],
) -> Result<Frame, String> {
    let mut given: Vec<(usize, signal::Value<'_>)> = Vec::with_capacity(values.len() + defaults.len());
    for (name, value) in values {
        let place = message.signal(name).map_err(|error| error.to_string())?;
        given.push((place, borrowed(message, place, value)?));
    }
    for (place, value) in defaults {
        if !given.iter().any(|(known, _)| known == place) {
            given.push((*place, signal::Value::Float(*value)));
        }
    }
    raw_frame(message.id, message.format == Format::Fd, &message.encode(&given)?)
}

fn borrowed<'a>(message: &Message, place: usize, value: &'a Value) -> Result<signal::Value<'a>, String> {
    Ok(match value {
        Value::Bool(value) => signal::Value::Bool(*value),
        Value::Int(value) => signal::Value::Int(*value),
        Value::Float(value) => signal::Value::Float(*value),
        Value::Text(text) => {
            // Tables often name only some of the numbers.
            let labels = message.signals.get(place).map(signal::Signal::labels);
            let is_label = labels.is_some_and(|labels| labels.iter().any(|(_, name)| name == text));
            // A float64 would round it.
            let is_great = text.parse::<u64>().is_ok_and(|number| i64::try_from(number).is_err());
            match text.parse::<f64>() {
                Ok(number) if !is_label && !is_great => signal::Value::Float(number),
                _ => signal::Value::Text(text),
            }
        }
        Value::Bytes(_) | Value::Null => {
            let name = message.signals.get(place).map_or("", |signal| &signal.name);
            return Err(format!("{name} takes a number"));
        }
    })
}
