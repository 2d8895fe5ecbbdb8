//! Decimal numbers as they are written, to whole nanoseconds without a float in between, which has too few
//! digits for them.

/// A number as JSON writes it; text may also have a `+` or leading zeros.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// `None`: `text` is no decimal number.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let text = text.as_bytes();
        let (negative, text) = sign(text);
        let (whole, text) = digits(text);
        let (fraction, text) = match text {
            [b'.', rest @ ..] => digits(rest),
            _ => (&[][..], text),
        };
        let exponent = match text {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        let any = !whole.is_empty() || !fraction.is_empty();
        any.then_some(Self { negative, whole, fraction, exponent })
    }

    fn digit(&self, index: usize) -> Option<u8> {
        let digit = self.whole.iter().chain(self.fraction).nth(index)?;
        Some(digit - b'0')
    }

    fn leading_zeros(&self) -> usize {
        self.whole.iter().chain(self.fraction).take_while(|digit| **digit == b'0').count()
    }

    /// How many digits there are before the point of this number times 10^`shift`; zero or less when it is
    /// below one.
    fn whole_digits(&self, shift: u32) -> i64 {
        let point = i64::try_from(self.whole.len()).unwrap_or(i64::MAX).saturating_add(self.exponent);
        let zeros = i64::try_from(self.leading_zeros()).unwrap_or(i64::MAX);
        point.saturating_add(i64::from(shift)).saturating_sub(zeros)
    }

    /// Whether it has at least so many digits before its point.
    pub(super) fn has_digits(&self, count: i64) -> bool {
        self.whole_digits(0) >= count && self.digit(self.leading_zeros()).is_some()
    }

    /// The greatest whole number that is not above this one times 10^`shift`. `None`: it has more than 63
    /// bits.
    pub(super) fn floor(&self, shift: u32) -> Option<i64> {
        let zeros = self.leading_zeros();
        if self.digit(zeros).is_none() {
            return Some(0);
        }
        let whole_digits = self.whole_digits(shift);
        if whole_digits > 19 {
            return None; // more digits than the greatest i64 has
        }
        let count = usize::try_from(whole_digits).unwrap_or(0);
        let mut significant =
            self.whole.iter().chain(self.fraction).skip(zeros).map(|digit| i128::from(digit - b'0'));
        let mut value = 0;
        for _ in 0..count {
            value = value * 10 + significant.next().unwrap_or(0);
        }
        let rest = i128::from(significant.any(|digit| digit != 0));
        i64::try_from(if self.negative { -value - rest } else { value }).ok()
    }
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// The digits at the beginning, and what follows them.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Beyond any number of digits that fits a message, an exponent is as good as infinite.
const FARTHEST: i64 = 1 << 40;

fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, text) = sign(text);
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text.iter().fold(0, |value: i64, digit| (value * 10 + i64::from(digit - b'0')).min(FARTHEST));
    Some(if negative { -value } else { value })
}
