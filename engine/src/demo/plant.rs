//! The simulated plant: a pump house with three tanks, as a pure model that is stepped from outside.
//!
//! Each tank fills through an inlet that nobody controls and drains through an outlet gate. Its content heats
//! up by itself and is cooled while the cooling pump runs. Pump and gate do what they were last told. The
//! sensors are noisy and now and then faulty: what [`Plant::sample`] reports is not what [`Plant::tanks`]
//! knows to be true.

use super::noise::Noise;

/// The plant's site, a level of its topics.
pub(super) const SITE: &str = "north";

/// A tank's volume: it turns a level in % into litres.
const VOLUME_L: f64 = 600.0;
/// Where the temperature settles without and with the pump, and how fast (time constants). Chosen so that a
/// cycle between 70 and 80 degrees takes about half a minute: slow enough to follow, fast enough to wait for.
const HOT_C: f64 = 96.0;
const COOLED_C: f64 = 42.0;
const HEATING_S: f64 = 40.0;
const COOLING_S: f64 = 30.0;
/// What a fully open gate drains from a full tank, in % of the volume a second.
const DRAIN_PERCENT_PER_S: f64 = 5.0;

/// The true state of one tank.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tank {
    /// device name, a level of its topics
    pub(super) name: &'static str,
    /// degrees Celsius
    pub(super) temperature: f64,
    /// % of the volume
    pub(super) level: f64,
    /// litres a minute
    pub(super) inflow: f64,
    /// whether the cooling pump runs
    pub(super) pump_runs: bool,
    /// whether the outlet gate is open
    pub(super) gate_open: bool,
    /// what is wrong with its sensors, and for how many seconds more
    pub(super) fault: Option<(Fault, f64)>,
    /// the temperature that a stuck sensor keeps reporting
    stuck_at: f64,
}

/// What can be wrong with a tank's sensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// the temperature sensor repeats its last value
    Stuck,
    /// single values far out of range, as from a broken wire
    Spikes,
    /// the temperature is null
    Null,
    /// the device says nothing
    Silent,
    /// the device sends half a JSON document
    Malformed,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Stuck, Self::Spikes, Self::Null, Self::Silent, Self::Malformed];

    /// In words, for the view.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Stuck => "sensor stuck",
            Self::Spikes => "sensor spikes",
            Self::Null => "sensor says null",
            Self::Silent => "device silent",
            Self::Malformed => "malformed JSON",
        }
    }
}

/// What a device sends at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sample {
    /// a measurement
    Reading(Reading),
    /// nothing
    Silence,
    /// bytes that are no JSON
    Garbage,
}

/// A measurement as the sensors see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// degrees Celsius; absent when the sensor has no value
    pub(super) temperature: Option<f64>,
    /// % of the volume
    pub(super) level: f64,
    /// litres a minute
    pub(super) inflow: f64,
}

/// What a command wants of a tank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TankCommand {
    /// start or stop the cooling pump
    Pump(bool),
    /// open or shut the outlet gate
    Gate(bool),
}

/// The pump house. The same seed, steps and commands give the same samples.
#[derive(Debug, Clone)]
pub(super) struct Plant {
    tanks: [Tank; 3],
    noise: Noise,
    /// seconds until the next fault comes by itself
    next_fault_s: f64,
    faults_so_far: usize,
}

impl Plant {
    /// A plant at rest: pumps off, gates shut.
    pub(super) fn new(seed: u64) -> Self {
        let tank = |name, temperature, level, inflow| Tank {
            name,
            temperature,
            level,
            inflow,
            pump_runs: false,
            gate_open: false,
            fault: None,
            stuck_at: temperature,
        };
        Self {
            tanks: [
                tank("tank1", 76.0, 42.0, 420.0),
                tank("tank2", 66.0, 64.0, 360.0),
                tank("tank3", 58.0, 25.0, 300.0),
            ],
            noise: Noise::new(seed),
            next_fault_s: 25.0,
            faults_so_far: 0,
        }
    }

    /// The truth.
    pub(super) fn tanks(&self) -> &[Tank] {
        &self.tanks
    }

    /// Lets `seconds` pass.
    pub(super) fn step(&mut self, seconds: f64) {
        let Self { tanks, noise, .. } = self;
        for tank in tanks {
            let (settles_at, time_constant) =
                if tank.pump_runs { (COOLED_C, COOLING_S) } else { (HOT_C, HEATING_S) };
            tank.temperature += (settles_at - tank.temperature) * (1.0 - (-seconds / time_constant).exp());
            // The inlet wanders around 360 l/min and is drawn back to it.
            tank.inflow +=
                (360.0 - tank.inflow) * 0.05 * seconds + noise.around_zero() * 40.0 * seconds.sqrt();
            tank.inflow = tank.inflow.clamp(120.0, 600.0);
            let filled = tank.inflow / 60.0 / VOLUME_L * 100.0;
            let drained =
                if tank.gate_open { DRAIN_PERCENT_PER_S * (tank.level / 100.0).sqrt() } else { 0.0 };
            tank.level = (tank.level + (filled - drained) * seconds).clamp(0.0, 100.0);
            tank.fault =
                tank.fault.map(|(fault, left)| (fault, left - seconds)).filter(|(_, left)| *left > 0.0);
        }
        self.next_fault_s -= seconds;
        if self.next_fault_s <= 0.0 {
            self.cause_fault();
        }
    }

    /// Makes the next kind of fault happen on one of the tanks, for a few seconds.
    pub(super) fn cause_fault(&mut self) {
        self.next_fault_s = 20.0 + 20.0 * self.noise.fraction();
        let lasts = 4.0 + 4.0 * self.noise.fraction();
        // One after the other, so that somebody who watches for a while has seen them all.
        let fault = Fault::ALL.iter().cycle().nth(self.faults_so_far % Fault::ALL.len());
        let tank = self.faults_so_far % self.tanks.len();
        self.faults_so_far += 1;
        if let (Some(&fault), Some(tank)) = (fault, self.tanks.get_mut(tank)) {
            tank.stuck_at = tank.temperature;
            tank.fault = Some((fault, lasts));
        }
    }

    /// Carries out `command` on the tank called `name`; a name that does not exist is ignored, as a real bus
    /// would.
    pub(super) fn command(&mut self, name: &str, command: TankCommand) {
        for tank in self.tanks.iter_mut().filter(|tank| tank.name == name) {
            match command {
                TankCommand::Pump(run) => tank.pump_runs = run,
                TankCommand::Gate(open) => tank.gate_open = open,
            }
        }
    }

    /// What each device sends now.
    pub(super) fn sample(&mut self) -> Vec<(&'static str, Sample)> {
        let Self { tanks, noise, .. } = self;
        tanks.iter().map(|tank| (tank.name, tank.sample(noise))).collect()
    }
}

impl Tank {
    fn sample(&self, noise: &mut Noise) -> Sample {
        let mut temperature = Some(round(self.temperature + 0.4 * noise.around_zero()));
        match self.fault.map(|(fault, _)| fault) {
            Some(Fault::Silent) => return Sample::Silence,
            Some(Fault::Malformed) => return Sample::Garbage,
            Some(Fault::Stuck) => temperature = Some(round(self.stuck_at)),
            // A Pt100 with a broken wire reads full scale.
            Some(Fault::Spikes) if noise.fraction() < 0.2 => temperature = Some(850.0),
            Some(Fault::Null) => temperature = None,
            Some(Fault::Spikes) | None => {}
        }
        let level = round((self.level + 0.2 * noise.around_zero()).clamp(0.0, 100.0));
        Sample::Reading(Reading {
            temperature,
            level,
            inflow: round(self.inflow + 4.0 * noise.around_zero()),
        })
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    const STEP_S: f64 = 0.125;

    #[test]
    fn everything_stays_within_physical_bounds_whatever_is_commanded() {
        let mut plant = Plant::new(7);
        for n in 0..80_000_u32 {
            if n % 997 == 0 {
                let name = ["tank1", "tank2", "tank3", "tank4"][(n / 997 % 4) as usize];
                plant.command(name, TankCommand::Pump(n % 2 == 0));
                plant.command(name, TankCommand::Gate(n % 3 == 0));
            }
            plant.step(STEP_S);
            for tank in plant.tanks() {
                assert!((COOLED_C..=HOT_C).contains(&tank.temperature), "{tank:?}");
                assert!((0.0..=100.0).contains(&tank.level), "{tank:?}");
                assert!((120.0..=600.0).contains(&tank.inflow), "{tank:?}");
            }
            for (_, sample) in plant.sample() {
                if let Sample::Reading(reading) = sample {
                    assert!((0.0..=100.0).contains(&reading.level), "{reading:?}");
                }
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_plant_and_another_does_not() {
        let run = |seed| {
            let mut plant = Plant::new(seed);
            (0..1_000)
                .flat_map(|_| {
                    plant.step(STEP_S);
                    plant.sample()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn the_pump_cools_and_without_it_the_tank_heats_up_past_80_degrees() {
        let mut plant = Plant::new(1);
        let run = |plant: &mut Plant, seconds: u32| (0..seconds * 8).for_each(|_| plant.step(STEP_S));
        run(&mut plant, 60);
        assert!(plant.tanks().iter().all(|tank| tank.temperature > 80.0));
        plant.command("tank2", TankCommand::Pump(true));
        run(&mut plant, 30);
        assert!(plant.tanks()[1].temperature < 70.0 && plant.tanks()[0].temperature > 80.0);
    }

    #[test]
    fn an_open_gate_drains_faster_than_the_inlet_fills() {
        let mut plant = Plant::new(1);
        let run = |plant: &mut Plant, seconds: u32| (0..seconds * 8).for_each(|_| plant.step(STEP_S));
        run(&mut plant, 120);
        assert!(plant.tanks().iter().all(|tank| tank.level > 95.0));
        plant.command("tank1", TankCommand::Gate(true));
        run(&mut plant, 60);
        assert!(plant.tanks()[0].level < 30.0);
    }

    #[test]
    fn each_fault_shows_in_what_its_device_sends_and_passes() {
        let mut plant = Plant::new(3);
        for fault in Fault::ALL {
            plant.cause_fault();
            let (index, _) = plant.tanks().iter().enumerate().find(|(_, tank)| tank.fault.is_some()).unwrap();
            assert_eq!(plant.tanks()[index].fault.unwrap().0, fault);
            let mut samples = Vec::new();
            while plant.tanks()[index].fault.is_some() {
                samples.push(plant.sample().remove(index).1);
                plant.step(STEP_S);
            }
            let temperatures: Vec<_> = samples
                .iter()
                .filter_map(|sample| {
                    if let Sample::Reading(reading) = sample { Some(reading.temperature) } else { None }
                })
                .collect();
            match fault {
                Fault::Stuck => assert!(temperatures.windows(2).all(|pair| pair[0] == pair[1])),
                Fault::Spikes => assert!(
                    temperatures.contains(&Some(850.0)) && temperatures.iter().any(|t| *t < Some(100.0))
                ),
                Fault::Null => assert!(temperatures.iter().all(Option::is_none)),
                Fault::Silent => assert!(samples.iter().all(|sample| *sample == Sample::Silence)),
                Fault::Malformed => assert!(samples.iter().all(|sample| *sample == Sample::Garbage)),
            }
            assert!(samples.len() >= 32, "{fault:?} lasts at least 4 s");
        }
    }
}
