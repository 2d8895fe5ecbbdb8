//! How much a rule may keep, and what happens when it is more.
//!
//! What a rule keeps is measured after each batch, so what it forgets depends on how batches were cut; what
//! it writes is whole all the same: a window is forgotten with all of its rows, and those that come for it
//! later count as late. See [`Operator::shed`](super::operators::Operator::shed).

use tidegate_core::ByteSize;

use super::statement::Statement;
use crate::rule::{Emissions, RuleError};
use crate::{Options, WhenStateFull};

/// The limit of one rule.
#[derive(Debug)]
pub(super) struct StateLimit {
    most: ByteSize,
    when_full: WhenStateFull,
}

impl StateLimit {
    pub(super) fn new(options: &Options) -> Self {
        Self { most: options.max_state, when_full: options.when_state_full }
    }

    /// Has `statements` keep no more than they may.
    ///
    /// # Errors
    /// When they keep more and must not, or cannot, forget any of it.
    pub(super) fn enforce(&self, statements: &mut [Statement], out: &mut Emissions) -> Result<(), RuleError> {
        let mut held = bytes(statements);
        while held as u64 > self.most.0 {
            let forgotten = match self.when_full {
                WhenStateFull::Stop => 0,
                WhenStateFull::Forget => shed(statements)?,
            };
            let before = std::mem::replace(&mut held, bytes(statements));
            if forgotten == 0 && held >= before {
                return Err(self.full(held, statements));
            }
            out.forgotten += forgotten as u64;
        }
        out.state_bytes = held as u64;
        Ok(())
    }

    fn full(&self, held: usize, statements: &[Statement]) -> RuleError {
        let largest = statements.iter().map(Statement::largest).max_by_key(|(_, kept)| kept.bytes);
        let (operator, kept) = largest.unwrap_or_default();
        RuleError(format!(
            "it keeps {:.1} MiB, and may keep {}: most of it is {} entries of `{operator}`; use shorter \
            windows or fewer keys, raise `--! max_state`, or let it forget what is oldest with `--! \
            when_state_full = \"forget\"`",
            held as f64 / f64::from(1 << 20),
            self.most,
            kept.entries,
        ))
    }
}

fn bytes(statements: &[Statement]) -> usize {
    statements.iter().map(Statement::held_bytes).sum()
}

/// The statement that keeps most, of those that can forget, gives up its oldest. Returns how many entries
/// that were; 0: none can.
fn shed(statements: &mut [Statement]) -> Result<usize, RuleError> {
    let mut largest_first: Vec<&mut Statement> = statements.iter_mut().collect();
    largest_first.sort_by_cached_key(|statement| std::cmp::Reverse(statement.held_bytes()));
    for statement in largest_first {
        let forgotten = statement.shed()?;
        if forgotten > 0 {
            return Ok(forgotten);
        }
    }
    Ok(0)
}
