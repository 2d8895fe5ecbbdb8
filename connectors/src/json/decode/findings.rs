//! What was wrong with messages that were decoded all the same.

/// What a decoder has found since it was asked last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Values that do not fit their column, and are null.
    pub misfits: Tally,
    /// Rows without the time that their stream declares: left out, or given the time of arrival.
    pub untimed: Tally,
    /// What a decoder says once, however often it happens.
    pub notes: Vec<String>,
}

/// How often something happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// What was wrong the first time; `None`: it needs no words, since it is as the user wants it.
    pub first: Option<String>,
}

impl Tally {
    pub(super) fn add(&mut self, count: u64, describe: impl FnOnce() -> String) {
        self.count += count;
        self.first.get_or_insert_with(describe);
    }
}

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        self.misfits.count == 0 && self.untimed.count == 0 && self.notes.is_empty()
    }
}
