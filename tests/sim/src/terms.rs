//! Contracts of the outputs that move something: a seed decides what they say, and the judge goes by them.

use std::fmt::Write as _;

use tidegate::config::{Value, Values};

use crate::dice::Dice;

/// What all times here are in.
pub const MS: i64 = 1_000_000;

/// What an output promises. Times are nanoseconds.
#[derive(Debug, Clone)]
pub struct Terms {
    /// the output
    pub output: &'static str,
    /// how long a claim lives; none: for ever
    pub expiry: Option<i64>,
    /// where it goes when nobody claims anything; none: it stays
    pub failsafe: Option<Values>,
    /// for how long nobody may claim anything before that
    pub failsafe_after: i64,
    /// how old what rules read may be
    pub max_input_age: Option<i64>,
    /// what keeps it from doing what is wanted
    pub locks: Vec<Lock>,
    /// the other one of a pair
    pub never_with: Option<&'static str>,
    /// how long that must have been off
    pub dead_time: i64,
    /// how long it stays on
    pub min_on: i64,
    /// how long it stays off
    pub min_off: i64,
    /// of `speed`
    pub range: Option<(f64, f64)>,
    /// what is beyond is no claim
    pub refuses: bool,
    /// of `speed`, a second
    pub slew: Option<f64>,
    /// how often a ramp takes a step
    pub slew_every: i64,
    /// of `speed`
    pub deadband: Option<f64>,
    /// the shortest time between two writes
    pub rate: Option<i64>,
    /// whether the device is asked what it has
    pub reads_back: bool,
    /// whether it goes to failsafe when the device has something else
    pub gives_up: bool,
    /// how long it waits for rows of interlocks after a start
    pub startup_grace: i64,
    /// what else it says, which the judge need not know
    others: String,
}

/// An interlock.
#[derive(Debug, Clone)]
pub struct Lock {
    /// what must be true
    pub when: When,
    /// how old rows may be; none: as old as they like
    pub max_age: Option<i64>,
    /// for how long it must be true again
    pub clear_after: i64,
    /// whether only a person frees it
    pub latch: bool,
    /// whether it goes to its trip value by its slew
    pub ramps: bool,
}

/// A condition over rows of the simulated plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The level is high enough.
    Level,
    /// The gate is closed.
    Closed,
    /// Both.
    LevelAndClosed,
}

impl When {
    /// As interlocks say it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Level => "guard.level > 10",
            Self::Closed => "NOT gate.open",
            Self::LevelAndClosed => "guard.level > 10 AND NOT gate.open",
        }
    }

    /// What it looks at.
    #[must_use]
    pub fn streams(self) -> &'static [&'static str] {
        match self {
            Self::Level => &["guard"],
            Self::Closed => &["gate"],
            Self::LevelAndClosed => &["guard", "gate"],
        }
    }
}

impl Terms {
    /// Those of all outputs that move something.
    #[must_use]
    pub fn draw(dice: &Dice) -> Vec<Self> {
        let pump = Self::of_output("pump", dice);
        let (forward, reverse) = (Self::of_output("forward", dice), Self::of_output("reverse", dice));
        vec![
            pump,
            Self { never_with: Some("reverse"), ..forward },
            Self { never_with: Some("forward"), ..reverse },
        ]
    }

    fn of_output(output: &'static str, dice: &Dice) -> Self {
        let turns = output == "pump";
        let ms = |first, last| i64::try_from(dice.between(first, last)).unwrap_or(0) * MS;
        let sometimes = |times, first, last| if dice.one_in(times) { ms(first, last) } else { 0 };
        let failsafe = if dice.one_in(5) {
            None
        } else {
            let speed = if dice.one_in(3) { 15.0 } else { 0.0 };
            let mut values = Values::from([("run".into(), Value::Bool(false))]);
            values.extend(turns.then(|| ("speed".into(), Value::Float(speed))));
            Some(values)
        };
        let slew =
            (turns && dice.one_in(2)).then(|| f64::from(u32::try_from(dice.between(5, 30)).unwrap_or(5)));
        let locks = (0..dice.below(3)).map(|_| Lock::draw(dice, slew.is_some())).collect();
        let reads_back = dice.one_in(3);
        let mut terms = Self {
            output,
            expiry: (!dice.one_in(6)).then(|| ms(1_500, 15_000)),
            failsafe_after: if failsafe.is_some() { sometimes(3, 1, 4_000) } else { 0 },
            failsafe,
            max_input_age: dice.one_in(2).then(|| ms(500, 60_000)),
            locks,
            never_with: None,
            dead_time: sometimes(2, 1, 3_000),
            min_on: sometimes(2, 500, 8_000),
            min_off: sometimes(2, 500, 8_000),
            range: (turns && !dice.one_in(4)).then_some((0.0, 60.0)),
            refuses: dice.one_in(3),
            slew,
            slew_every: if dice.one_in(2) { 500 * MS } else { ms(200, 2_000) },
            deadband: (turns && dice.one_in(2))
                .then(|| f64::from(u32::try_from(dice.between(1, 4)).unwrap_or(1))),
            rate: dice.one_in(4).then(|| 1_000 * MS / i64::try_from(dice.between(1, 4)).unwrap_or(1)),
            reads_back,
            gives_up: reads_back && dice.one_in(2),
            startup_grace: if dice.one_in(2) { 30_000 * MS } else { ms(500, 5_000) },
            others: String::new(),
        };
        terms.others = terms.draw_others(dice);
        terms
    }

    fn draw_others(&self, dice: &Dice) -> String {
        let mut others = String::new();
        let mut say = |text: String| others.extend([text.as_str(), "\n"]);
        if self.failsafe.is_some() {
            if dice.one_in(3) {
                say("startup = \"failsafe\"".into());
            }
            if dice.one_in(3) {
                say(format!("on_stop = \"{}\"", if dice.one_in(2) { "hold" } else { "release" }));
            }
        }
        say(format!("retries = {}", dice.below(4)));
        say(format!("retry_after = \"{}ms\"", dice.between(100, 2_000)));
        if dice.one_in(4) {
            say(format!("refresh = \"{}ms\"", dice.between(500, 5_000)));
        }
        if self.reads_back {
            let settle = dice.below(500);
            let within = settle + dice.between(100, 2_000);
            let mismatch = if self.gives_up { "failsafe" } else { "alarm" };
            say(format!(
                "read_back = {{ settle = \"{settle}ms\", within = \"{within}ms\", retries = {}, on_mismatch = \
                \"{mismatch}\" }}",
                dice.below(3)
            ));
        }
        others
    }

    /// The output and its contract as a configuration has them.
    #[must_use]
    pub fn text(&self) -> String {
        let number = match self.output {
            "pump" => 1,
            "forward" => 2,
            _ => 3,
        };
        let speed = if self.turns() { ", speed = { holding = 10, type = \"float64\" }" } else { "" };
        let mut text = format!(
            "\n[outputs.{name}]\nconnection = \"plc\"\nunit = 1\nfields = {{ run = {{ coil = {number} }}{speed} \
            }}\n\n[outputs.{name}.contract]\n",
            name = self.output
        );
        let mut say = |line: String| text.extend([line.as_str(), "\n"]);
        say(match self.expiry {
            Some(expiry) => format!("expiry = \"{}ms\"", expiry / MS),
            None => "expiry = \"never\"".into(),
        });
        say(match &self.failsafe {
            None => "failsafe = \"hold\"".into(),
            Some(values) => format!("failsafe = {}", table(values)),
        });
        let mut span = |key: &str, ns: i64| {
            if ns > 0 {
                say(format!("{key} = \"{}ms\"", ns / MS));
            }
        };
        span("failsafe_after", self.failsafe_after);
        span("max_input_age", self.max_input_age.unwrap_or(0));
        span("dead_time", if self.never_with.is_some() { self.dead_time } else { 0 });
        span("min_on", self.min_on);
        span("min_off", self.min_off);
        span("startup_grace", self.startup_grace);
        if let Some((least, greatest)) = self.range {
            say(format!("range = {{ speed = [{least}, {greatest}] }}"));
            say(format!("out_of_range = \"{}\"", if self.refuses { "refuse" } else { "clamp" }));
        }
        if let Some(slew) = self.slew {
            say(format!("slew = {{ speed = \"{slew}/s\" }}\nslew_every = \"{}ms\"", self.slew_every / MS));
        }
        if let Some(deadband) = self.deadband {
            say(format!("deadband = {{ speed = {deadband} }}"));
        }
        if let Some(rate) = self.rate {
            say(format!("rate = \"{}/s\"", 1_000 * MS / rate));
        }
        // Named in one of them; it holds for both.
        if let ("forward", Some(other)) = (self.output, self.never_with) {
            say(format!("never_with = [\"{other}\"]"));
        }
        if !self.locks.is_empty() {
            let locks: Vec<String> = self.locks.iter().map(|lock| lock.text(self)).collect();
            say(format!("interlock = [{}]", locks.join(", ")));
        }
        text.push_str(&self.others);
        text
    }

    /// Whether it has a speed.
    #[must_use]
    pub fn turns(&self) -> bool {
        self.output == "pump"
    }

    /// Where an interlock sends it.
    #[must_use]
    pub fn trip(&self) -> Values {
        self.failsafe.clone().unwrap_or_else(|| Values::from([("run".into(), Value::Bool(false))]))
    }
}

impl Lock {
    fn draw(dice: &Dice, can_ramp: bool) -> Self {
        let ms = |first, last| i64::try_from(dice.between(first, last)).unwrap_or(0) * MS;
        Self {
            when: *dice.pick(&[When::Level, When::Closed, When::LevelAndClosed]).unwrap_or(&When::Level),
            max_age: (!dice.one_in(4)).then(|| ms(1_500, 6_000)),
            clear_after: if dice.one_in(2) { 0 } else { ms(1, 4_000) },
            latch: dice.one_in(6),
            ramps: can_ramp && dice.one_in(4),
        }
    }

    fn text(&self, terms: &Terms) -> String {
        let max_age = self.max_age.map_or("never".to_owned(), |age| format!("{}ms", age / MS));
        let mut text = format!("{{ when = \"{}\", max_age = \"{max_age}\"", self.when.text());
        if terms.failsafe.is_none() {
            let _ = write!(text, ", trip = {}", table(&terms.trip()));
        }
        if self.clear_after > 0 {
            let _ = write!(text, ", clear_after = \"{}ms\"", self.clear_after / MS);
        }
        if self.latch {
            text += ", latch = true";
        }
        if self.ramps {
            text += ", trip_ramp = true";
        }
        text + " }"
    }
}

fn table(values: &Values) -> String {
    let pairs: Vec<String> = values.iter().map(|(column, value)| format!("{column} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}
