//! How much a rule may keep, and what happens when it is more: the same for all languages.
//!
//! What a rule keeps is measured after each batch, so what it forgets depends on how batches were cut; see
//! [`Keeping::forget`] for what that must not change.

use std::sync::Arc;

use tidegate_core::{ByteSize, Rows};

use crate::capability::{Indexed, Keeping, Lookups, Sharing, Silences, Starting};
use crate::fence::Fence;
use crate::rule::{Emissions, Explanation, Flow, Rule, RuleError, SealedState, When};
use crate::{Options, WhenStateFull};

/// A rule that keeps no more than it may.
pub(crate) struct Limited {
    rule: Box<dyn Rule>,
    most: ByteSize,
    when_full: WhenStateFull,
}

impl Limited {
    /// `rule`, as its `options` say.
    pub(crate) fn new(rule: Box<dyn Rule>, options: &Options) -> Self {
        Self { rule, most: options.max_state, when_full: options.when_state_full }
    }

    /// Has the rule keep no more than it may.
    ///
    /// # Errors
    /// When it keeps more and must not, or cannot, forget any of it.
    fn enforce(&mut self, out: &mut Emissions) -> Result<(), RuleError> {
        let Some(kept) = self.rule.keeping() else { return Ok(()) };
        let mut held = kept.bytes();
        while held as u64 > self.most.0 {
            let forgotten = match self.when_full {
                WhenStateFull::Stop => 0,
                WhenStateFull::Forget => kept.forget()?,
            };
            let before = std::mem::replace(&mut held, kept.bytes());
            if forgotten == 0 && held >= before {
                return Err(RuleError(format!(
                    "it keeps {:.1} MiB, and may keep {}: {}, raise the option `max_state`, or let it \
                    forget what is oldest with `when_state_full = \"forget\"`",
                    held as f64 / f64::from(1 << 20),
                    self.most,
                    kept.advice(),
                )));
            }
            out.forgotten += forgotten as u64;
        }
        out.state_bytes = held as u64;
        Ok(())
    }
}

impl Rule for Limited {
    fn flows(&self) -> &[Flow] {
        self.rule.flows()
    }

    fn on_batch(
        &mut self,
        stream: &str,
        rows: &Rows,
        when: When,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        self.rule.on_batch(stream, rows, when, out)?;
        self.enforce(out)
    }

    fn on_tick(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.rule.on_tick(seq, when, out)?;
        self.enforce(out)
    }

    fn wakes_at(&self) -> Option<i64> {
        self.rule.wakes_at()
    }

    fn on_end(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        self.rule.on_end(seq, when, out)?;
        self.enforce(out)
    }

    fn explain(&self) -> Explanation {
        self.rule.explain()
    }

    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError> {
        self.rule.seal()
    }

    fn restore(&mut self, state: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
        self.rule.restore(state)
    }

    fn fence(&self) -> Option<&Arc<Fence>> {
        self.rule.fence()
    }

    fn starting(&mut self) -> Option<&mut dyn Starting> {
        if self.rule.starting().is_some() { Some(self) } else { None }
    }

    fn indexed(&self) -> Option<&dyn Indexed> {
        self.rule.indexed()
    }

    fn keeping(&mut self) -> Option<&mut dyn Keeping> {
        self.rule.keeping()
    }

    fn lookups(&mut self) -> Option<&mut dyn Lookups> {
        self.rule.lookups()
    }

    fn silences(&mut self) -> Option<&mut dyn Silences> {
        self.rule.silences()
    }

    fn sharing(&mut self) -> Option<&mut dyn Sharing> {
        self.rule.sharing()
    }
}

impl Starting for Limited {
    fn start(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        if let Some(starting) = self.rule.starting() {
            starting.start(seq, when, out)?;
        }
        self.enforce(out)
    }
}
