//! Running what a rule says on a row: one of them may be more than the code of a function can take.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static EVALUATES: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread evaluates something: then a panic is an error of a row, which will be told, and need
/// not be told by the hook for panics.
#[must_use]
pub fn is_evaluating() -> bool {
    EVALUATES.get()
}

/// A function panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a function cannot take it and panicked: {0}")]
pub(crate) struct Panicked(String);

/// What `evaluate` gives, which only looks at what is outside of it.
pub(crate) fn unpanicked<T>(evaluate: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = EVALUATES.replace(true);
    // An expression keeps nothing, so that nothing is left half done.
    let outcome = catch_unwind(AssertUnwindSafe(evaluate));
    EVALUATES.set(outer);
    outcome.map_err(|panic| Panicked(text(&*panic).to_owned()))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why")
}
