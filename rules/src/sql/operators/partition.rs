//! The windows of one key that wait for more rows.

use std::collections::VecDeque;
use std::fmt::Debug;

/// What is kept of the rows of a window.
pub(super) trait Content: Default + Debug + Send {
    /// Takes the next row.
    fn push(&mut self, row: u32);

    /// Lets go of the first row.
    fn drop_first(&mut self);

    /// Takes what is kept of another window, which is the same from now on.
    fn join(&mut self, other: Self);

    /// What is kept, where the window does not end with that.
    fn copy(&self) -> Self;
}

/// The windows of one key that wait for more.
#[derive(Debug)]
pub(super) struct Partition<C> {
    /// those that go by time, apart from each other, in order; else one at most
    pub open: VecDeque<Open<C>>,
    /// rows so far, where they are counted
    pub seen: u64,
    /// whether it is among those that were touched
    pub is_touched: bool,
}

impl<C> Default for Partition<C> {
    fn default() -> Self {
        Self { open: VecDeque::new(), seen: 0, is_touched: false }
    }
}

/// A window that waits for more rows.
#[derive(Debug)]
pub(super) struct Open<C> {
    /// least and greatest `ts`
    pub first: i64,
    pub last: i64,
    pub rows: usize,
    /// how many rows had arrived before its first
    pub born: u64,
    /// whether it may be the rest of a session that was given up
    pub in_doubt: bool,
    pub content: C,
}

/// A window that is complete.
pub(super) struct Done<C> {
    pub cause: u32,
    /// the number of its key
    pub key: usize,
    pub start: i64,
    pub end: i64,
    pub rows: usize,
    pub born: u64,
    pub in_doubt: bool,
    pub content: C,
}

/// Takes out what may be only the rest of a session.
pub(super) fn leave_out_rests<C>(done: &mut Vec<Done<C>>) -> Vec<Done<C>> {
    done.extract_if(.., |window| window.in_doubt).collect()
}

/// A row on its way into a window.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub number: Option<u32>,
    pub ts: i64,
    pub cause: u32,
    /// the number of its key
    pub key: usize,
}

impl<C: Content> Open<C> {
    pub(super) fn new(ts: i64, born: u64) -> Self {
        Self { first: ts, last: ts, rows: 0, born, in_doubt: false, content: C::default() }
    }

    /// Takes the next row; `row` is its number, if anything is to be kept of it.
    pub(super) fn push(&mut self, row: Option<u32>, ts: i64) {
        self.first = self.first.min(ts);
        self.last = self.last.max(ts);
        self.rows += 1;
        if let Some(row) = row {
            self.content.push(row);
        }
    }

    pub(super) fn done(self, cause: u32, key: usize, end: i64) -> Done<C> {
        Done {
            cause,
            key,
            start: self.first,
            end,
            rows: self.rows,
            born: self.born,
            in_doubt: self.in_doubt,
            content: self.content,
        }
    }
}

impl<C: Content> Partition<C> {
    /// Most keys have one window at a time: a list would make room for four.
    pub(super) fn make_room(&mut self) {
        if self.open.is_empty() {
            self.open.reserve_exact(1);
        }
    }

    /// Ends sessions, the first one first, for as long as `cause` says which row ends one with this last
    /// `ts`.
    pub(super) fn end_sessions(
        &mut self,
        gap: i64,
        key: usize,
        cause: &dyn Fn(i64) -> Option<u32>,
        done: &mut Vec<Done<C>>,
    ) {
        while let Some(cause) = self.open.front().and_then(|open| cause(open.last)) {
            let Some(open) = self.open.pop_front() else { return };
            let end = open.last.saturating_add(gap);
            done.push(open.done(cause, key, end));
        }
    }

    /// Adds a row to the session that it is in, to all of them as one if it joins several, or begins one.
    pub(super) fn extend_session(&mut self, gap: i64, row: Row, in_doubt: bool, born: u64) {
        // The end of a session is its last row plus the gap: a row at the end is not in it.
        let from = self.open.partition_point(|open| row.ts.saturating_sub(open.last) >= gap);
        let to = self.open.partition_point(|open| open.first.saturating_sub(row.ts) < gap).max(from);
        if from == to {
            self.make_room();
            self.open.insert(from, Open::new(row.ts, born));
        }
        let others: Vec<Open<C>> =
            if to > from + 1 { self.open.drain(from + 1..to).collect() } else { Vec::new() };
        let Some(session) = self.open.get_mut(from) else { return };
        for other in others {
            session.first = session.first.min(other.first);
            session.last = session.last.max(other.last);
            session.rows += other.rows;
            session.born = session.born.min(other.born);
            session.in_doubt |= other.in_doubt;
            session.content.join(other.content);
        }
        let begins = session.rows == 0 || row.ts < session.first;
        session.in_doubt |= begins && in_doubt;
        session.push(row.number, row.ts);
    }
}
