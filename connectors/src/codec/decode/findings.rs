//! What was wrong with messages that were decoded all the same.

/// What a decoder has found since it was asked last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Values that do not fit their column, and are null.
    pub misfits: Tally,
    /// Rows without the time that their stream declares: left out, or given the time of arrival.
    pub untimed: Tally,
    /// Elements of the array of rows that are no objects, and so no rows.
    pub malformed_rows: Tally,
    /// Values of keys for which there was no column left; that there are any is one of the notes.
    pub not_taken: u64,
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
        self.counts() == [0; 4] && self.notes.is_empty()
    }

    pub(super) fn counts(&self) -> [u64; 4] {
        [self.misfits.count, self.untimed.count, self.malformed_rows.count, self.not_taken]
    }

    /// Forgets what was counted since there were so many: the same message is read once more.
    pub(super) fn count_again(&mut self, counts: [u64; 4]) {
        [self.misfits.count, self.untimed.count, self.malformed_rows.count, self.not_taken] = counts;
    }
}
