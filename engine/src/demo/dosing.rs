//! The simulated dosing station: a barrel of disinfectant on a scale, and a pump whose drive is on a CAN bus,
//! as a pure model that is stepped from outside.
//!
//! The drive turns as fast as it was last told, as long as it is told so again and again. When the barrel is
//! empty somebody puts a full one on the scale.

use super::noise::Noise;

/// What is in a full barrel, and below what somebody sees that it is empty, kg.
const FULL_KG: f64 = 25.0;
const EMPTY_KG: f64 = 0.7;
/// What the pump moves at its full speed: a barrel lasts for one to two minutes, so that there is something to
/// see.
const FULL_RPM: f64 = 3_000.0;
const KG_PER_S: f64 = 0.4;
/// How fast the drive follows its setpoint.
const RAMP_RPM_PER_S: f64 = 4_000.0;
/// How long the drive waits for the next command before it stops.
const WATCHDOG_S: f64 = 1.0;
/// How long it takes until somebody has brought a barrel.
const REPLACE_S: f64 = 8.0;
/// What the drive is warmed up to at full speed, and in what time by two thirds.
const COOL_C: f64 = 24.0;
const WARM_C: f64 = 36.0;
const WARMING_S: f64 = 60.0;

/// The station as it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dosing {
    /// whether the drive was told to run
    pub(super) enabled: bool,
    /// the speed that it was told, 1/min
    pub(super) setpoint: f64,
    /// 1/min
    pub(super) speed: f64,
    /// degrees Celsius
    pub(super) temperature: f64,
    /// what is in the barrel, kg
    pub(super) weight: f64,
    /// kg, as the scale sees it
    pub(super) measured_weight: f64,
    /// seconds since it was last told anything
    silent_s: f64,
    /// seconds since the barrel was empty
    empty_s: f64,
    noise: Noise,
}

impl Dosing {
    /// A station at rest, with a barrel that is half full.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            enabled: false,
            setpoint: 0.0,
            speed: 0.0,
            temperature: COOL_C,
            weight: FULL_KG / 2.0,
            measured_weight: FULL_KG / 2.0,
            silent_s: 0.0,
            empty_s: 0.0,
            noise: Noise::new(seed),
        }
    }

    /// Tells the drive what to do.
    pub(super) fn command(&mut self, enabled: bool, setpoint: f64) {
        self.enabled = enabled;
        self.setpoint = setpoint.clamp(0.0, FULL_RPM);
        self.silent_s = 0.0;
    }

    /// Whether the barrel is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.weight < EMPTY_KG
    }

    /// Whether the weight does not change.
    pub(super) fn is_stable(&self) -> bool {
        self.speed == 0.0 && !self.is_empty()
    }

    /// Lets `seconds` pass.
    pub(super) fn step(&mut self, seconds: f64) {
        self.silent_s += seconds;
        if self.silent_s > WATCHDOG_S {
            self.enabled = false;
        }
        let wanted = if self.enabled { self.setpoint } else { 0.0 };
        let ramp = RAMP_RPM_PER_S * seconds;
        self.speed += (wanted - self.speed).clamp(-ramp, ramp);
        let share = self.speed / FULL_RPM;
        self.weight = (self.weight - KG_PER_S * share * seconds).max(0.0);
        self.temperature += (COOL_C + WARM_C * share - self.temperature) * seconds / WARMING_S;
        self.empty_s = if self.is_empty() { self.empty_s + seconds } else { 0.0 };
        if self.empty_s > REPLACE_S {
            self.weight = FULL_KG;
        }
        let noise = if self.is_stable() { 0.002 } else { 0.02 };
        self.measured_weight = (self.weight + noise * self.noise.around_zero()).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_S: f64 = 0.1;

    #[test]
    fn everything_stays_within_physical_bounds_whatever_is_commanded() {
        let mut dosing = Dosing::new(7);
        for n in 0..80_000_u32 {
            if n % 7 == 0 {
                dosing.command(n % 5 != 0, f64::from(n % 6_001) - 1_000.0);
            }
            dosing.step(STEP_S);
            assert!((0.0..=FULL_KG).contains(&dosing.weight), "{dosing:?}");
            assert!((0.0..=FULL_RPM).contains(&dosing.speed), "{dosing:?}");
            assert!((COOL_C..=COOL_C + WARM_C).contains(&dosing.temperature), "{dosing:?}");
            assert!((dosing.measured_weight - dosing.weight).abs() <= 0.02, "{dosing:?}");
        }
    }

    #[test]
    fn a_drive_that_is_not_told_again_stops() {
        let mut dosing = Dosing::new(1);
        dosing.command(true, 1_500.0);
        for _ in 0..9 {
            dosing.step(STEP_S);
        }
        assert_eq!(dosing.speed, 1_500.0);
        for _ in 0..8 {
            dosing.step(STEP_S);
        }
        assert_eq!((dosing.speed, dosing.enabled), (0.0, false));
    }

    #[test]
    fn an_empty_barrel_is_replaced() {
        let mut dosing = Dosing::new(1);
        let (mut emptied, mut filled) = (0, 0);
        for _ in 0..3_000 {
            let before = (dosing.is_empty(), dosing.weight);
            dosing.command(true, 3_000.0);
            dosing.step(STEP_S);
            emptied += u32::from(dosing.is_empty() && !before.0);
            filled += u32::from(dosing.weight > before.1);
        }
        assert!((3..=5).contains(&emptied) && (3..=5).contains(&filled), "{emptied} {filled}");
    }
}
