//! `value = content * scale + offset`.

/// A scale that is one over a whole number is applied by dividing: 3 times 0.1 is 0.30000000000000004, 3
/// divided by 10 is 0.3, which is what the display of the device shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scaling {
    factor: f64,
    divisor: Option<f64>,
    offset: f64,
}

impl Scaling {
    /// `scale` must be finite and not zero, `offset` finite.
    pub(crate) fn new(scale: f64, offset: f64) -> Self {
        let divisor = (1.0 / scale).round();
        let exact = divisor.is_finite() && divisor.abs() > 1.0 && (1.0 / divisor).total_cmp(&scale).is_eq();
        Self { factor: scale, divisor: exact.then_some(divisor), offset }
    }

    pub(crate) fn apply(self, content: f64) -> f64 {
        let scaled = match self.divisor {
            Some(divisor) => content / divisor,
            None => content * self.factor,
        };
        // Adding 0.0 would turn -0.0 around.
        if self.offset == 0.0 { scaled } else { scaled + self.offset }
    }

    /// The content that gives `value`.
    pub(crate) fn invert(self, value: f64) -> f64 {
        let scaled = value - self.offset;
        match self.divisor {
            Some(divisor) => scaled * divisor,
            None => scaled / self.factor,
        }
    }
}
