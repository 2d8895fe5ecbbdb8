//! Whether a broker is still there.

use std::time::Instant;

use super::client::{NO_PING, Plan};

/// When the broker was heard, and whether it was asked to say something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    /// when it said something
    pub(super) heard: Instant,
    asked: bool,
}

impl Pulse {
    /// A broker that was heard just now.
    pub(super) fn new() -> Self {
        Self { heard: Instant::now(), asked: false }
    }

    /// It has said something.
    pub(super) fn beats(&mut self) {
        *self = Self::new();
    }

    /// When it has to be looked at again.
    pub(super) fn due(&self, plan: &Plan) -> Instant {
        self.heard + if self.asked { plan.patience() } else { plan.keep_alive() }
    }

    /// Asks a broker that has said nothing for too long to say something.
    ///
    /// # Errors
    /// When it has been asked and says nothing all the same.
    pub(super) fn look(
        &mut self,
        plan: &Plan,
        ask: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        let now = Instant::now();
        if now >= self.heard + plan.patience() {
            return Err(NO_PING.into());
        }
        if now >= self.heard + plan.keep_alive() && !std::mem::replace(&mut self.asked, true) {
            ask()?;
        }
        Ok(())
    }
}
