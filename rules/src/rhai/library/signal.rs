//! Means, rates and counters.

use rhai::{Dynamic, Engine, Map};

use super::{Kept, Outcome, number, reading, seconds, span};
use crate::rhai::call::Calls;

/// How many readings a moving average may be of.
const LONGEST: i64 = 1_000;

pub(super) fn register(engine: &mut Engine, calls: &Calls) {
    engine.register_fn("moving_average", moving_average);
    engine.register_fn("ewma", |state: &mut Map, name: &str, x: Dynamic, of: Dynamic| -> Outcome<Dynamic> {
        let share = share(&of)?;
        let kept = Kept::new(state, "ewma", name);
        let before = kept.field("mean");
        let Some(x) = reading("ewma", &x)? else { return Ok(float(before)) };
        let mean = before.map_or(x, |mean| share * x + (1.0 - share) * mean);
        kept.set_fields([("mean", mean.into())]);
        Ok(mean.into())
    });
    let of = calls.clone();
    engine.register_fn(
        "ewma",
        move |state: &mut Map, name: &str, x: Dynamic, time: &str| -> Outcome<Dynamic> {
            let (time, at) = (memory(time)?, of.lock().time());
            let kept = Kept::new(state, "ewma", name);
            let before = kept.field("mean");
            let Some(x) = reading("ewma", &x)? else { return Ok(float(before)) };
            let elapsed = kept.int("at").and_then(|from| seconds(from, at)).unwrap_or(0.0);
            let weight = libm::exp(-elapsed / (time as f64 / 1e9));
            let mean = before.map_or(x, |mean| x + (mean - x) * weight);
            kept.set_fields([("mean", mean.into()), ("at", at.into())]);
            Ok(mean.into())
        },
    );
    engine.register_fn("increase", |state: &mut Map, name: &str, x: Dynamic| -> Outcome<Dynamic> {
        let Some(x) = reading("increase", &x)? else { return Ok(Dynamic::UNIT) };
        let kept = Kept::new(state, "increase", name);
        let grown = kept.number().map(|before| grown(before, x));
        kept.set(x);
        Ok(float(grown))
    });
    for (function, change) in [("rate", grown as fn(f64, f64) -> f64), ("slope", |before, x| x - before)] {
        let of = calls.clone();
        engine.register_fn(function, move |state: &mut Map, name: &str, x: Dynamic| -> Outcome<Dynamic> {
            let at = of.lock().time();
            per_second(Kept::new(state, function, name), function, &x, at, change)
        });
        engine.register_fn(
            function,
            move |state: &mut Map, name: &str, x: Dynamic, at: i64| -> Outcome<Dynamic> {
                per_second(Kept::new(state, function, name), function, &x, at, change)
            },
        );
    }
}

/// How many readings a moving average is of.
pub(super) fn length(readings: &Dynamic) -> Outcome<i64> {
    let most = number("moving_average", "the number of readings", readings)? as i64;
    if !(1..=LONGEST).contains(&most) {
        return Err(format!("`moving_average` is of 1 to {LONGEST} readings, and not of {most}").into());
    }
    Ok(most)
}

/// The share of the newest reading.
pub(super) fn share(of: &Dynamic) -> Outcome<f64> {
    let share = number("ewma", "the share", of)?;
    if !(share > 0.0 && share <= 1.0) {
        return Err(format!("the share of `ewma` is over 0 and at most 1, and not {share}").into());
    }
    Ok(share)
}

/// The time after which a reading counts 1/e.
pub(super) fn memory(time: &str) -> Outcome<i64> {
    match span(time)? {
        0 => Err("the time of `ewma` is longer than \"0s\"".into()),
        time => Ok(time),
    }
}

fn float(value: Option<f64>) -> Dynamic {
    value.map_or(Dynamic::UNIT, Dynamic::from_float)
}

/// How much a counter has grown: one that is smaller than before has begun again from 0.
fn grown(before: f64, x: f64) -> f64 {
    if x < before { x } else { x - before }
}

fn per_second(
    kept: Kept<'_>,
    function: &str,
    x: &Dynamic,
    at: i64,
    change: fn(f64, f64) -> f64,
) -> Outcome<Dynamic> {
    let Some(x) = reading(function, x)? else { return Ok(Dynamic::UNIT) };
    let (before, elapsed) = (kept.field("value"), kept.int("at").map(|from| seconds(from, at)));
    if elapsed == Some(None) {
        // Not later than the one before.
        return Ok(Dynamic::UNIT);
    }
    kept.set_fields([("value", x.into()), ("at", at.into())]);
    Ok(float(before.zip(elapsed.flatten()).map(|(before, elapsed)| change(before, x) / elapsed)))
}

/// Each time added up anew: a broken sensor's 1e30 is forgotten when it has left.
fn moving_average(state: &mut Map, name: &str, x: Dynamic, readings: Dynamic) -> Outcome<Dynamic> {
    let most = length(&readings)?;
    let x = reading("moving_average", &x)?;
    let key = format!("moving_average {name}");
    let values = state.entry(key.as_str().into()).or_insert_with(|| Dynamic::from_array(Vec::new()));
    let Some(mut values) = values.write_lock::<rhai::Array>() else {
        return Err(format!("`{key}` in the state is not a list").into());
    };
    values.extend(x.map(Dynamic::from_float));
    let over = values.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
    values.drain(..over);
    let sum: f64 = values.iter().filter_map(|value| value.as_float().ok()).sum();
    Ok(if values.is_empty() { Dynamic::UNIT } else { (sum / values.len() as f64).into() })
}
