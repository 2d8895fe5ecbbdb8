//! The functions that scripts call, beside those that come with Rhai.
//!
//! * [`host`]: what a rule does: it writes, sets timers, says something.
//! * [`control`]: what controllers are made of: edges, delays, hysteresis, PID.
//! * [`signal`]: means, rates and counters.
//! * [`math`]: functions of numbers, the same to the bit on every machine; and bits.
//! * [`units`]: degrees, pressures, flows.
//!
//! Functions that remember something keep it in the script's state, under their own name and one that the
//! script gives. What is no reading (a missing value, NaN, infinity) leaves it as it is, as in SQL.

mod control;
mod host;
mod math;
mod signal;
mod units;

use rhai::{Dynamic, Engine, EvalAltResult, Map};
use tidegate_core::Span;

use super::call::Calls;
use super::error::message;
use super::value::kind;

/// Functions whose first argument is the state.
pub(super) const REMEMBERING: [&str; 15] = [
    "changed",
    "deadband",
    "debounce",
    "ewma",
    "falling",
    "held",
    "hysteresis",
    "increase",
    "moving_average",
    "pid",
    "ramp",
    "rate",
    "rising",
    "since",
    "slope",
];

/// A function of one number, with its name.
type Named = (&'static str, fn(f64) -> f64);
type Outcome<T> = Result<T, Box<EvalAltResult>>;

/// Puts all of them into `engine`.
pub(super) fn register(engine: &mut Engine, calls: &Calls) {
    host::register(engine, calls);
    control::register(engine, calls);
    signal::register(engine, calls);
    math::register(engine);
    units::register(engine);
}

/// The names of all of them.
#[cfg(test)]
pub(super) fn names() -> std::collections::BTreeSet<String> {
    let calls = Calls::new(super::write::Outlets::new(&[], &crate::Catalog::default()));
    let mut engine = Engine::new_raw();
    register(&mut engine, &calls);
    let name = |info: rhai::FuncInfo<'_>| Some(info.metadata.name.to_string());
    engine.collect_fn_metadata(None, name, true).into_iter().collect()
}

/// What `function` would refuse in every call, and which of its values is meant. `given` are those from the
/// first, as far as they are known.
pub(super) fn refusal(function: &str, given: &[Option<Dynamic>]) -> Option<(usize, String)> {
    let given = |at: usize| given.get(at).and_then(Option::as_ref);
    let unfit =
        |at: usize, check: &dyn Fn(&Dynamic) -> Outcome<()>| Some((at, message(&*check(given(at)?).err()?)));
    let time = |value: &Dynamic, check: fn(&str) -> Outcome<i64>| match value.as_immutable_string_ref() {
        Ok(text) => check(&text).map(drop),
        Err(_) => {
            Err(format!("the time of `{function}` is text, such as \"10s\", and not {}", kind(value)).into())
        }
    };
    match function {
        "pid" => unfit(4, &|value| match value.as_map_ref() {
            Ok(settings) => control::PidSettings::new(&settings).map(drop),
            Err(_) => {
                let what = kind(value);
                Err(format!("the settings of `pid` are a map, `#{{ kp: 2.0 }}`, and not {what}").into())
            }
        }),
        "hysteresis" => {
            let (least, greatest) = (f64::NEG_INFINITY.into(), f64::INFINITY.into());
            let (low, high) = (given(3).unwrap_or(&least), given(4).unwrap_or(&greatest));
            Some((3, message(&*control::thresholds(low, high).err()?)))
        }
        "moving_average" => unfit(3, &|value| signal::length(value).map(drop)),
        "ewma" if given(3).is_some_and(Dynamic::is_string) => unfit(3, &|value| time(value, signal::memory)),
        "ewma" => unfit(3, &|value| signal::share(value).map(drop)),
        "deadband" => unfit(3, &|value| number(function, "the band", value).map(drop)),
        "ramp" => unfit(3, &|value| number(function, "the change per second", value).map(drop)),
        "changed" => unfit(3, &|value| number(function, "the tolerance", value).map(drop)),
        "held" | "debounce" => unfit(3, &|value| time(value, span)),
        "duration" => unfit(0, &|value| time(value, span)),
        "after" => unfit(0, &|value| time(value, host::timer)),
        _ => None,
    }
}

/// What `function` keeps in `state` under the name that the script gives.
struct Kept<'a> {
    state: &'a mut Map,
    key: String,
}

impl<'a> Kept<'a> {
    fn new(state: &'a mut Map, function: &str, name: &str) -> Self {
        Self { state, key: format!("{function} {name}") }
    }

    fn get(&self) -> Option<&Dynamic> {
        self.state.get(self.key.as_str())
    }

    fn number(&self) -> Option<f64> {
        self.get()?.as_float().ok()
    }

    /// A number that is kept together with others.
    fn field(&self, name: &str) -> Option<f64> {
        self.get()?.as_map_ref().ok()?.get(name)?.as_float().ok()
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.get()?.as_map_ref().ok()?.get(name)?.as_int().ok()
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.get()?.as_map_ref().ok()?.get(name)?.as_bool().ok()
    }

    fn set(self, value: impl Into<Dynamic>) {
        let value = value.into();
        match self.state.get_mut(self.key.as_str()) {
            Some(kept) => *kept = value,
            None => drop(self.state.insert(self.key.as_str().into(), value)),
        }
    }

    fn set_fields<const N: usize>(self, fields: [(&str, Dynamic); N]) {
        let Self { state, key } = self;
        if let Some(mut map) = state.get_mut(key.as_str()).and_then(|kept| kept.write_lock::<Map>()) {
            for (name, value) in fields {
                match map.get_mut(name) {
                    Some(kept) => *kept = value,
                    None => drop(map.insert(name.into(), value)),
                }
            }
            return;
        }
        let map: Map = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        state.insert(key.as_str().into(), map.into());
    }
}

/// A reading: a number that is there, and finite.
fn reading(function: &str, x: &Dynamic) -> Outcome<Option<f64>> {
    if x.is_unit() {
        return Ok(None);
    }
    let number = x.as_float().or_else(|_| x.as_int().map(|x| x as f64));
    let number = number.map_err(|_| format!("`{function}` takes a number, and was given {}", kind(x)))?;
    Ok(Some(number).filter(|number| number.is_finite()))
}

/// A number that must be there.
fn number(function: &str, what: &str, x: &Dynamic) -> Outcome<f64> {
    x.as_float()
        .or_else(|_| x.as_int().map(|x| x as f64))
        .map_err(|_| format!("{what} of `{function}` must be a number, and is {}", kind(x)).into())
}

/// A condition; `None`: it is missing.
fn condition(function: &str, x: &Dynamic) -> Outcome<Option<bool>> {
    if x.is_unit() {
        return Ok(None);
    }
    let known = x.as_bool();
    known.map(Some).map_err(|_| format!("`{function}` takes a condition, and was given {}", kind(x)).into())
}

/// Nanoseconds.
fn span(text: &str) -> Outcome<i64> {
    let span: Span = text.parse().map_err(|error: tidegate_core::units::UnitError| error.to_string())?;
    i64::try_from(span.0.as_nanos()).map_err(|_| format!("\"{text}\" is too long").into())
}

/// Seconds from one time to a later one; `None`: it is not later.
fn seconds(from: i64, to: i64) -> Option<f64> {
    to.checked_sub(from).filter(|ns| *ns > 0).map(|ns| ns as f64 / 1e9)
}
