//! Frames that are to be sent, and those that the controller has until it says that they are on the bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Span;
use tokio::time::Instant;
use tracing::debug;

use super::frame::Frame;
use crate::DeliveryError;
use crate::line::writes::Answer;

/// Frames that the controller may have at a time: one on its way, and one that follows it without a gap.
/// While nobody acknowledges they stay there, and are sent whenever somebody does: so there are no more.
const MOST: usize = 2;

/// After which silence a controller that has no errors has most likely dropped a frame.
const DROPPED: Duration = Duration::from_secs(10);

/// A frame that is to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) output: Arc<str>,
    pub(super) frame: Frame,
    pub(super) deadline: Instant,
    pub(super) answer: Option<Answer>,
}

impl Outgoing {
    pub(super) fn settle(self, outcome: Result<(), DeliveryError>) {
        let Self { output, answer, .. } = self;
        if let Err(error) = &outcome {
            debug!(%output, %error, "not sent, or not known to be");
        }
        if let Some(answer) = answer {
            answer.send(outcome);
        }
    }
}

/// What the controller has, in the order in which it got it.
#[derive(Debug, Default)]
pub(super) struct Aboard(VecDeque<Outgoing>);

impl Aboard {
    /// Whether it may have one more: not while it holds one back.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.0.len() < MOST && self.0.iter().all(|of| of.deadline > now)
    }

    pub(super) fn take(&mut self, outgoing: impl IntoIterator<Item = Outgoing>) {
        self.0.extend(outgoing);
    }

    /// A frame is on the bus.
    pub(super) fn left(&mut self, frame: &Frame) -> Option<Outgoing> {
        let place = self.0.iter().position(|of| of.frame == *frame)?;
        self.0.remove(place)
    }

    /// Tells of frames that should be on the bus by now that nobody knows; how many they are. They stay here.
    pub(super) fn tell_overdue(&mut self, now: Instant, send_timeout: Duration) -> u64 {
        let mut told = 0;
        for of in self.0.iter_mut().filter(|of| of.deadline <= now) {
            let Some(answer) = of.answer.take() else { continue };
            let why = format!(
                "the controller has it, and has not sent it within {}: no node acknowledges, or the bus is \
                 full, and it may be sent when that is over. Compare the bit rate with the other nodes', and \
                 look at wiring and termination",
                Span(send_timeout)
            );
            debug!(output = %of.output, why, "not known to be sent");
            answer.send(Err(DeliveryError::Unknown(why)));
            told += 1;
        }
        told
    }

    /// Gives up frames of which nothing will be heard any more. `is_failing`: whether the controller has
    /// errors, and so a reason to hold them back.
    pub(super) fn forget(&mut self, now: Instant, is_failing: impl FnOnce() -> bool) {
        if !self.0.iter().any(|of| of.deadline + DROPPED <= now) {
            return;
        }
        if is_failing() {
            self.0.iter_mut().filter(|of| of.deadline + DROPPED <= now).for_each(|of| of.deadline = now);
        } else {
            self.0.retain(|of| of.deadline + DROPPED > now);
        }
    }

    /// When something is to be told or given up.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |of: &Outgoing| if of.answer.is_some() { of.deadline } else { of.deadline + DROPPED };
        self.0.iter().map(due).min()
    }

    /// Whether an output waits for one of them.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.iter().any(|of| of.answer.is_some())
    }

    /// Nobody will hear of them any more.
    pub(super) fn abandon(&mut self, reason: &str) {
        for of in self.0.drain(..) {
            let why = format!("it was given to the controller, and may have been sent: {reason}");
            of.settle(Err(DeliveryError::Unknown(why)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::frame::Payload;
    use super::super::id::Id;
    use super::*;

    fn frame(data: u8) -> Frame {
        Frame::Data { id: Id::standard(0x100).unwrap(), data: Payload::new(&[data]).unwrap() }
    }

    #[test]
    fn a_controller_that_holds_a_frame_back_gets_no_other_one() {
        let (mut aboard, start) = (Aboard::default(), Instant::now());
        let timeout = Duration::from_millis(250);
        let at = |ms| start + Duration::from_millis(ms);
        let outgoing = |data, ms| {
            let deadline = at(ms) + timeout;
            Some(Outgoing { output: "o".into(), frame: frame(data), deadline, answer: None })
        };
        aboard.take(outgoing(1, 0));
        assert!(aboard.has_room(at(1)), "the next one follows without a gap");
        aboard.take(outgoing(2, 1));
        assert!(!aboard.has_room(at(2)));
        // Controllers with several buffers may send them in another order.
        assert_eq!(aboard.left(&frame(2)).unwrap().deadline, at(1) + timeout);
        assert!(aboard.left(&frame(2)).is_none());
        assert!(aboard.has_room(at(249)) && !aboard.has_room(at(250)), "it is held back");
        aboard.left(&frame(1)).unwrap();
        assert!(aboard.has_room(at(300)));
    }

    #[test]
    fn a_frame_that_a_controller_has_dropped_is_given_up_unless_the_controller_fails() {
        let (mut aboard, start) = (Aboard::default(), Instant::now());
        let first = Outgoing { output: "o".into(), frame: frame(1), deadline: start, answer: None };
        aboard.take([first]);
        let later = start + DROPPED;
        aboard.forget(later - Duration::from_millis(1), || unreachable!("it is too early to ask"));
        assert_eq!(aboard.next_due(), Some(later));
        aboard.forget(later, || true);
        assert!(!aboard.has_room(later));
        assert_eq!(aboard.next_due(), Some(later + DROPPED));
        aboard.forget(later + DROPPED, || false);
        assert!(aboard.has_room(later + DROPPED));
    }
}
