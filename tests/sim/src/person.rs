//! Somebody who overrides outputs at any moment, releases them, and frees what has latched.

use std::time::Duration;

use tidegate::config::{Value, Values};
use tidegate::system::control::{ControlEvent, ControlEvents, ControlKind};

use crate::dice::Dice;
use crate::plc::OUTPUTS;
use crate::record::Record;

/// Speaks to outputs.
pub struct Person {
    /// chance
    pub dice: Dice,
    /// what happened
    pub record: Record,
}

impl Person {
    /// Says something of an output.
    pub fn interferes(&self, control: &ControlEvents) {
        let output = *self.dice.pick(&OUTPUTS).unwrap_or(&"pump");
        let (column, value) = if output != "pump" || self.dice.one_in(2) {
            ("run", Value::Bool(self.dice.one_in(2)))
        } else {
            ("speed", Value::Float(f64::from(u32::try_from(self.dice.below(80)).unwrap_or(0))))
        };
        let lease = Duration::from_millis(self.dice.between(500, 30_000));
        match self.dice.below(5) {
            0 => self.says(control, ControlKind::Release, output, Values::new(), None),
            1 => self.says(control, ControlKind::Reset, output, Values::new(), None),
            _ => {
                let values = Values::from([(column.into(), value)]);
                self.says(control, ControlKind::Override, output, values, Some(lease));
            }
        }
    }

    /// Lets all outputs do what rules want.
    pub fn frees(&self, control: &ControlEvents) {
        for output in OUTPUTS {
            self.says(control, ControlKind::Release, output, Values::new(), None);
            self.says(control, ControlKind::Reset, output, Values::new(), None);
        }
    }

    fn says(
        &self,
        control: &ControlEvents,
        event: ControlKind,
        output: &str,
        values: Values,
        lease: Option<Duration>,
    ) {
        self.record.note(format_args!("a person says {} of {output}: {values:?} {lease:?}", event.word()));
        let event = ControlEvent {
            event,
            output: Some(output.into()),
            values,
            lease,
            reason: Some("it is tried".into()),
            who: Some("ann".into()),
            ..ControlEvent::stop()
        };
        if let Err(error) = control.say(event) {
            self.record.note(format_args!("{error}"));
        }
    }
}
