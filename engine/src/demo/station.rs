//! The simulated booster station: a pump that holds up the pressure in a water main, as a pure model that is
//! stepped from outside.
//!
//! Consumers draw from the main, now more and now less. While the pump runs it delivers more than they draw.
//! It does what it was last told, but for the seconds in which its motor protection has tripped.

use super::noise::Noise;

/// What the main and its air vessel take up for one bar more. Chosen so that a cycle between 4 and 5.5 bar
/// takes about half a minute, as those of the tanks do.
const LITRES_PER_BAR: f64 = 80.0;
/// What consumers draw: around this many litres a second, and between these bounds.
const DRAW: f64 = 8.0;
const LEAST_DRAW: f64 = 4.0;
const MOST_DRAW: f64 = 14.0;
/// The pump's curve at full speed: against this pressure it delivers nothing any more, and for each bar less
/// the root of it so many litres a second. The pressure goes with the square of the speed.
const SHUTOFF_BAR: f64 = 10.0;
const LITRES_PER_S_AND_ROOT_BAR: f64 = 17.0;
/// How fast the drive follows its setpoint.
const RAMP_PERCENT_PER_S: f64 = 40.0;
/// The motor's current without load, and what full speed adds to it.
const IDLE_A: f64 = 6.0;
const LOAD_A: f64 = 24.0;

/// The station as it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Station {
    /// whether the pump was told to run
    pub(super) run: bool,
    /// the speed that it was told, in % of the full one
    pub(super) setpoint: f64,
    /// bar, in truth
    pub(super) pressure: f64,
    /// bar, as the sensor sees it
    pub(super) measured_pressure: f64,
    /// % of the full speed
    pub(super) speed: f64,
    /// of the motor, in ampere
    pub(super) current: f64,
    /// for which the pump has run in its life
    pub(super) hours: f64,
    /// litres a second, at a pressure that fills every tap
    draw: f64,
    /// seconds until the motor protection resets itself
    tripped_s: f64,
    /// seconds of running until it trips again
    next_trip_s: f64,
    noise: Noise,
}

impl Station {
    /// A station at rest, with less pressure in the main than anybody wants.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            run: false,
            setpoint: 0.0,
            pressure: 3.2,
            measured_pressure: 3.2,
            speed: 0.0,
            current: 0.0,
            hours: 1234.5,
            draw: DRAW,
            tripped_s: 0.0,
            next_trip_s: 25.0,
            noise: Noise::new(seed),
        }
    }

    /// Whether the motor protection has tripped: the pump stands still, whatever it was told.
    pub(super) fn is_tripped(&self) -> bool {
        self.tripped_s > 0.0
    }

    /// Lets `seconds` pass.
    pub(super) fn step(&mut self, seconds: f64) {
        self.move_pump(seconds);
        let noise = &mut self.noise;
        self.draw += (DRAW - self.draw) * 0.1 * seconds + noise.around_zero() * 3.0 * seconds.sqrt();
        self.draw = self.draw.clamp(LEAST_DRAW, MOST_DRAW);
        // Below one bar less and less comes out of the taps.
        let drawn = self.draw * self.pressure.min(1.0);
        self.pressure += (self.delivered() - drawn) / LITRES_PER_BAR * seconds;
        self.pressure = self.pressure.max(0.0);
        let noise = &mut self.noise;
        self.measured_pressure = (self.pressure + 0.03 * noise.around_zero()).max(0.0);
        let load = (self.speed / 100.0).powi(3);
        self.current =
            if self.speed > 0.0 { IDLE_A + LOAD_A * load + 0.3 * noise.around_zero() } else { 0.0 };
    }

    fn move_pump(&mut self, seconds: f64) {
        self.tripped_s = (self.tripped_s - seconds).max(0.0);
        let wanted = if self.run && !self.is_tripped() { self.setpoint } else { 0.0 };
        let ramp = RAMP_PERCENT_PER_S * seconds;
        self.speed += (wanted - self.speed).clamp(-ramp, ramp);
        if self.speed > 0.0 {
            self.hours += seconds / 3600.0;
            self.next_trip_s -= seconds;
            if self.next_trip_s <= 0.0 {
                self.tripped_s = 3.0 + 2.0 * self.noise.fraction();
                self.next_trip_s = 40.0 + 40.0 * self.noise.fraction();
            }
        }
    }

    /// Litres a second. A check valve lets nothing flow back.
    fn delivered(&self) -> f64 {
        let share = self.speed / 100.0;
        LITRES_PER_S_AND_ROOT_BAR * (SHUTOFF_BAR * share * share - self.pressure).max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_S: f64 = 0.125;

    fn run(station: &mut Station, seconds: u32) {
        (0..seconds * 8).for_each(|_| station.step(STEP_S));
    }

    #[test]
    fn everything_stays_within_physical_bounds_whatever_is_commanded() {
        let mut station = Station::new(7);
        for n in 0..80_000_u32 {
            if n % 97 == 0 {
                station.run = n % 5 != 0;
                station.setpoint = f64::from(n % 101);
            }
            let before = station.hours;
            station.step(STEP_S);
            assert!((0.0..=SHUTOFF_BAR).contains(&station.pressure), "{station:?}");
            assert!((station.measured_pressure - station.pressure).abs() <= 0.03, "{station:?}");
            assert!((0.0..=100.0).contains(&station.speed), "{station:?}");
            assert!((0.0..=IDLE_A + LOAD_A + 0.3).contains(&station.current), "{station:?}");
            assert!(station.hours >= before, "{station:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_station_and_another_does_not() {
        let after = |seed| {
            let mut station = Station::new(seed);
            station.run = true;
            station.setpoint = 80.0;
            run(&mut station, 100);
            (station.pressure, station.current, station.hours)
        };
        assert_eq!(after(1), after(1));
        assert_ne!(after(1), after(2));
    }

    #[test]
    fn consumers_empty_the_main_and_the_pump_fills_it_as_far_as_its_speed_reaches() {
        let mut station = Station::new(1);
        run(&mut station, 120);
        assert!(station.pressure < 0.5 && station.current == 0.0, "{station:?}");
        let mut reached = |setpoint| {
            station.run = true;
            station.setpoint = setpoint;
            let mut most = 0.0_f64;
            for _ in 0..60 * 8 {
                station.step(STEP_S);
                most = most.max(station.pressure);
            }
            most
        };
        // The affinity law: the pressure goes with the square of the speed, 10 bar at the full one.
        assert!((2.0..3.6).contains(&reached(60.0)));
        assert!((5.5..6.4).contains(&reached(80.0)));
    }

    #[test]
    fn a_trip_stops_the_pump_for_seconds_and_then_it_goes_on_as_it_was_told() {
        let mut station = Station::new(1);
        (station.run, station.setpoint) = (true, 80.0);
        let mut tripped_for = 0.0;
        while !station.is_tripped() {
            station.step(STEP_S);
        }
        assert!((1234.5..1234.51).contains(&station.hours), "after 25 s of running: {}", station.hours);
        while station.is_tripped() {
            tripped_for += STEP_S;
            station.step(STEP_S);
        }
        assert!((3.0..=5.2).contains(&tripped_for), "{tripped_for}");
        assert!(station.speed < 10.0);
        run(&mut station, 3);
        assert!(station.run && station.speed == 80.0, "{station:?}");
    }
}
