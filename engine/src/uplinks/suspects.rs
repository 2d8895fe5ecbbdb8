//! Which row a far side hangs up on. Pure: no I/O and no time.
//!
//! A far side may close the line over one row and not say so: it may have no way to say that a
//! message is larger than it takes, or goes where it is not allowed. All rows that are under way are
//! lost with it, and come again, with the same end. So after some such ends they are sent one by one, and a
//! row at which the line is closed again and again is set aside.

/// Times that the line is closed with rows under way before they are sent one by one.
const ENDS: u32 = 3;

/// Times that the line is closed with only this row under way before it is to blame.
const STRIKES: u32 = 3;

/// A row: its block, and where it is there.
type Row = (u64, usize);

#[derive(Debug, Default)]
pub(super) struct Suspects {
    ends: u32,
    /// the row that was alone under way at the newest ends, and at how many
    strikes: Option<(Row, u32)>,
}

impl Suspects {
    /// Whether rows that were not confirmed are sent one by one.
    pub(super) fn one_by_one(&self) -> bool {
        self.ends >= ENDS
    }

    /// All rows that were not confirmed have arrived since, or were set aside.
    pub(super) fn cleared(&mut self) {
        *self = Self::default();
    }

    /// The far side has closed the line while these were under way, first rows of parcels. Returns whether
    /// the only one is to blame.
    pub(super) fn hung_up(&mut self, under_way: &[Row]) -> bool {
        let [first, rest @ ..] = under_way else { return false };
        if !self.one_by_one() || !rest.is_empty() {
            self.ends = self.ends.saturating_add(1);
            return false;
        }
        let before = self.strikes.filter(|(row, _)| row == first).map_or(0, |(_, strikes)| strikes);
        self.strikes = Some((*first, before + 1));
        before + 1 >= STRIKES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_to_blame_when_the_line_is_closed_at_it_alone_and_again() {
        let mut suspects = Suspects::default();
        for _ in 0..ENDS {
            assert!(!suspects.one_by_one());
            assert!(!suspects.hung_up(&[(1, 0), (1, 1)]));
        }
        assert!(suspects.one_by_one());
        assert!(!suspects.hung_up(&[(1, 0)]));
        // Another one: the line is poor.
        let blamed: Vec<bool> = (0..STRIKES).map(|_| suspects.hung_up(&[(1, 1)])).collect();
        assert_eq!(blamed, [false, false, true]);
        suspects.cleared();
        assert!(!suspects.one_by_one());
    }

    #[test]
    fn a_line_that_is_closed_with_nothing_under_way_says_nothing() {
        let mut suspects = Suspects::default();
        assert!((0..100).all(|_| !suspects.hung_up(&[])) && !suspects.one_by_one());
    }
}
