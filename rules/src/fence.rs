//! What stops a rule in the middle of a call.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// The last fence around rules that are programs: whoever calls one, and finds that it takes too long, raises
/// it from another thread. The rule looks at it while it runs, gives up, and says at which row.
///
/// How long a call takes is no function of the sequence, and neither is how much stack it needs. So a rule
/// raises it also by itself, when something stopped it that need not stop it again: its caller must keep such
/// a verdict in the sequence.
#[derive(Default)]
pub struct Fence {
    raised: AtomicBool,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Fence {
    /// One at which the rule looks by itself.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One at which the rule looks when `wake` is called.
    #[must_use]
    pub fn waking(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { wake: Some(Box::new(wake)), ..Self::default() }
    }

    /// Stops the rule. It stays stopped.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        if let Some(wake) = &self.wake {
            wake();
        }
    }

    /// Whether it is to stop.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("raised", &self.is_raised()).finish_non_exhaustive()
    }
}
