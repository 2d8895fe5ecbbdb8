//! The discrete Fourier transform of as many values as a power of two.

use std::f64::consts::{PI, TAU};

/// Hann's window, which lets a block begin and end with nothing.
pub fn hann(count: usize) -> Vec<f64> {
    (0..count).map(|at| 0.5 - 0.5 * (TAU * at as f64 / count as f64).cos()).collect()
}

/// The transform of complex `values`.
pub fn transform(mut values: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let count = values.len();
    if count < 2 {
        return values;
    }
    let bits = count.trailing_zeros();
    for at in 0..count {
        let mirrored = at.reverse_bits() >> (usize::BITS - bits);
        if at < mirrored {
            values.swap(at, mirrored);
        }
    }
    let turns: Vec<(f64, f64)> = (0..count / 2)
        .map(|at| {
            let (sin, cos) = (-PI * at as f64 / (count / 2) as f64).sin_cos();
            (cos, sin)
        })
        .collect();
    let mut half = 1;
    while half < count {
        let step = count / (2 * half);
        for part in values.chunks_exact_mut(2 * half) {
            let (low, high) = part.split_at_mut(half);
            for ((low, high), (cos, sin)) in low.iter_mut().zip(high).zip(turns.iter().step_by(step)) {
                let turned = (high.0 * cos - high.1 * sin, high.0 * sin + high.1 * cos);
                *high = (low.0 - turned.0, low.1 - turned.1);
                *low = (low.0 + turned.0, low.1 + turned.1);
            }
        }
        half *= 2;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By its definition.
    fn slow(values: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let count = values.len() as f64;
        let at = |k: usize| {
            values.iter().enumerate().fold((0.0, 0.0), |sum, (n, value)| {
                let (sin, cos) = (-TAU * (k * n) as f64 / count).sin_cos();
                (sum.0 + value.0 * cos - value.1 * sin, sum.1 + value.0 * sin + value.1 * cos)
            })
        };
        (0..values.len()).map(at).collect()
    }

    #[test]
    fn it_is_what_its_definition_says() {
        for bits in 0..8 {
            let values: Vec<(f64, f64)> = (0..1 << bits)
                .map(|at| (f64::from(at * 37 % 101) - 50.0, f64::from(at * 53 % 89) - 44.0))
                .collect();
            for (fast, slow) in transform(values.clone()).into_iter().zip(slow(&values)) {
                assert!(
                    (fast.0 - slow.0).abs() < 1e-9 && (fast.1 - slow.1).abs() < 1e-9,
                    "{fast:?} {slow:?}"
                );
            }
        }
    }
}
