//! What makes the models uneven, and the same at every start.

/// SplitMix64 (Steele, Lea, Flood, 2014): enough for a demo, and the same everywhere.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Noise(u64);

impl Noise {
    /// The same seed gives the same noise.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to 1
    pub(super) fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    /// -1 to 1, more often near 0
    pub(super) fn around_zero(&mut self) -> f64 {
        self.fraction() - self.fraction()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_is_splitmix64() {
        // First outputs for seed 1234567, from the reference implementation
        // <https://prng.di.unimi.it/splitmix64.c>.
        let mut noise = Noise::new(1_234_567);
        assert_eq!(
            [noise.next(), noise.next(), noise.next()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }
}
