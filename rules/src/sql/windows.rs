//! The arithmetic of windows that are cut by the clock: `TUMBLE`, `HOP` and `CUMULATE`.
//!
//! Windows are `[start, end)` and aligned to 1970-01-01T00:00:00Z plus an offset. Each is made of whole
//! **panes**: pieces of equal length, the longest that fit, so that what is added up for a pane serves all
//! windows that it is part of.
//!
//! What would be before the first moment that there is (1677) or after the last (2262) is told as that.

/// Windows of equal length, or growing ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(super) struct TimeWindows {
    /// length of a window, nanoseconds, more than 0; of a growing one, its greatest
    size_ns: i64,
    /// from the start of a window to that of the next; of a growing one, from end to end
    step_ns: i64,
    offset_ns: i64,
    /// whether windows grow: they start together and end step by step
    grow: bool,
}

impl TimeWindows {
    pub(super) fn tumble(size_ns: i64, offset_ns: i64) -> Self {
        Self { size_ns, step_ns: size_ns, offset_ns, grow: false }
    }

    pub(super) fn hop(slide_ns: i64, size_ns: i64, offset_ns: i64) -> Self {
        Self { size_ns, step_ns: slide_ns, offset_ns, grow: false }
    }

    /// `size_ns` must be a multiple of `step_ns`.
    pub(super) fn cumulate(step_ns: i64, size_ns: i64) -> Self {
        Self { size_ns, step_ns, offset_ns: 0, grow: true }
    }

    /// These windows' panes, as windows of their own.
    pub(super) fn panes(&self) -> Self {
        Self::tumble(greatest_common_divisor(self.step_ns, self.size_ns), self.offset_ns)
    }

    /// Whether no two windows share a row and none is without its neighbours: then a pane is a window.
    pub(super) fn are_panes(&self) -> bool {
        self.step_ns == self.size_ns
    }

    pub(super) fn size_ns(&self) -> i64 {
        self.size_ns
    }

    pub(super) fn step_ns(&self) -> i64 {
        self.step_ns
    }

    pub(super) fn grow(&self) -> bool {
        self.grow
    }

    /// Whether all of them start and end at multiples of `unit_ns`.
    pub(super) fn end_with(&self, unit_ns: i64) -> bool {
        [self.size_ns, self.step_ns, self.offset_ns].iter().all(|length| length % unit_ns == 0)
    }

    /// How many windows a row can be in.
    pub(super) fn overlap(&self) -> i64 {
        self.size_ns.saturating_add(self.step_ns - 1) / self.step_ns
    }

    /// How many panes a window has.
    pub(super) fn panes_in_one(&self) -> i64 {
        self.size_ns / greatest_common_divisor(self.step_ns, self.size_ns)
    }

    /// The greatest multiple of `unit`, plus the offset, that is not after `ts`.
    fn floor(&self, ts: i128, unit: i64) -> i128 {
        ts - (ts - i128::from(self.offset_ns)).rem_euclid(i128::from(unit))
    }

    /// Numbers of the first and the last pane of `[start, end)`, counted from the epoch.
    pub(super) fn panes_between(&self, start: i64, end: i64, pane_ns: i64) -> (i64, i64) {
        let (offset, pane) = (i128::from(self.offset_ns), i128::from(pane_ns));
        let first = (i128::from(start) - offset).div_euclid(pane);
        let behind = (i128::from(end) - 1 - offset).div_euclid(pane);
        (clamped(first), clamped(behind))
    }

    /// Start and end of the panes with these numbers.
    pub(super) fn span_of_panes(&self, first: i64, last: i64, pane_ns: i64) -> (i64, i64) {
        let (offset, pane) = (i128::from(self.offset_ns), i128::from(pane_ns));
        (clamped(i128::from(first) * pane + offset), clamped((i128::from(last) + 1) * pane + offset))
    }

    /// Start of the window that ends at `end`; of those that end after the last moment, and so with it, the
    /// first.
    pub(super) fn start_of(&self, end: i64) -> i64 {
        let (end, size) = (i128::from(end), i128::from(self.size_ns));
        clamped(if self.grow { self.floor(end - 1, self.size_ns) } else { self.first_end(end) - size })
    }

    /// The least end of a window that is not before `ts`.
    fn first_end(&self, ts: i128) -> i128 {
        let before = ts - i128::from(self.offset_ns) - i128::from(self.size_ns);
        ts + (-before).rem_euclid(i128::from(self.step_ns))
    }

    /// The least end of a window that is not before `ts`.
    pub(super) fn end_from(&self, ts: i64) -> i64 {
        clamped(self.first_end(i128::from(ts)))
    }

    /// The end of the last window that holds rows with this `ts`, if any does.
    pub(super) fn last_end(&self, ts: i64) -> i64 {
        self.last(ts).1
    }

    /// Start and end of the last window that holds rows with this `ts`, if any does.
    pub(super) fn last(&self, ts: i64) -> (i64, i64) {
        let start = self.floor(i128::from(ts), if self.grow { self.size_ns } else { self.step_ns });
        (clamped(start), clamped(start + i128::from(self.size_ns)))
    }

    /// Start and end of each window that holds rows with this `ts`, in order.
    pub(super) fn of(&self, ts: i64) -> impl Iterator<Item = (i64, i64)> {
        let last = self.last_end(ts);
        let mut next = Some(clamped(self.first_end(i128::from(ts) + 1))).filter(|end| *end <= last);
        let windows = *self;
        std::iter::from_fn(move || {
            let end = next?;
            next = (end < last).then(|| end.saturating_add(windows.step_ns));
            Some((windows.start_of(end), end))
        })
    }

    /// What they are, for state and people.
    pub(super) fn describe(&self, data: &str) -> String {
        let offset =
            if self.offset_ns == 0 { String::new() } else { format!(", offset {}ns", self.offset_ns) };
        match (self.grow, self.are_panes()) {
            (true, _) => format!("CUMULATE({data}, {}ns, {}ns)", self.step_ns, self.size_ns),
            (false, true) => format!("TUMBLE({data}, {}ns{offset})", self.size_ns),
            (false, false) => format!("HOP({data}, {}ns, {}ns{offset})", self.step_ns, self.size_ns),
        }
    }
}

fn clamped(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(windows: TimeWindows, ts: i64) -> Vec<(i64, i64)> {
        windows.of(ts).collect()
    }

    #[test]
    fn a_row_is_in_every_window_that_covers_it() {
        assert_eq!(of(TimeWindows::tumble(10, 0), 10), [(10, 20)]);
        assert_eq!(of(TimeWindows::tumble(10, 0), -1), [(-10, 0)]);
        assert_eq!(of(TimeWindows::tumble(10, 3), 2), [(-7, 3)]);
        assert_eq!(of(TimeWindows::hop(5, 15, 0), 7), [(-5, 10), (0, 15), (5, 20)]);
        assert_eq!(of(TimeWindows::hop(5, 12, 0), 10), [(0, 12), (5, 17), (10, 22)]);
        assert_eq!(of(TimeWindows::hop(5, 12, 0), 13), [(5, 17), (10, 22)]);
        assert_eq!(of(TimeWindows::cumulate(5, 15), 7), [(0, 10), (0, 15)]);
        assert_eq!(of(TimeWindows::cumulate(5, 15), -15), [(-15, -10), (-15, -5), (-15, 0)]);
    }

    #[test]
    fn a_slide_longer_than_the_window_leaves_gaps() {
        let windows = TimeWindows::hop(10, 4, 1);
        assert_eq!(of(windows, 1), [(1, 5)]);
        assert_eq!(of(windows, 4), [(1, 5)]);
        assert_eq!(of(windows, 5), []);
        assert_eq!(of(windows, 10), []);
        assert_eq!(windows.panes(), TimeWindows::tumble(2, 1));
    }

    /// By the definition: window `k` is `[k * step + offset, k * step + offset + size)`.
    #[test]
    fn windows_are_those_of_the_definition() {
        for (step, size, offset) in [(1, 1, 0), (3, 7, 0), (7, 3, 2), (4, 8, -3), (6, 4, 5)] {
            let windows = TimeWindows::hop(step, size, offset);
            for ts in -30..30 {
                let expected: Vec<_> =
                    (-40..40).map(|k| k * step + offset).filter(|s| (*s..s + size).contains(&ts)).collect();
                assert_eq!(
                    of(windows, ts).iter().map(|(start, _)| *start).collect::<Vec<_>>(),
                    expected,
                    "{windows:?} at {ts}"
                );
                for end in of(windows, ts).iter().map(|(_, end)| *end) {
                    assert_eq!(windows.end_from(end), end);
                    assert_eq!(windows.end_from(end - step + 1), end);
                }
            }
        }
    }

    #[test]
    fn bounds_beyond_the_ends_of_time_are_told_as_those() {
        let (min, max) = (i64::MIN, i64::MAX);
        assert_eq!((min % 10, max % 10), (-8, 7));
        assert_eq!(of(TimeWindows::tumble(10, 0), min), [(min, min + 8)]);
        assert_eq!(of(TimeWindows::tumble(10, 0), max), [(max - 7, max)]);
        assert_eq!(of(TimeWindows::hop(5, 10, 0), max - 3), [(max - 12, max - 2), (max - 7, max)]);
        assert_eq!(of(TimeWindows::hop(5, 10, 0), min), [(min, min + 3), (min, min + 8)]);
        assert_eq!(of(TimeWindows::cumulate(5, 10), max - 3), [(max - 7, max - 2), (max - 7, max)]);
    }

    #[test]
    fn the_ends_of_time_end() {
        for windows in [TimeWindows::tumble(10, 0), TimeWindows::hop(3, 10, 1), TimeWindows::cumulate(5, 10)]
        {
            for ts in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
                assert!(windows.of(ts).count() <= 4, "{windows:?} {ts}");
                assert!(windows.of(ts).all(|(start, end)| start <= end));
            }
        }
    }
}
