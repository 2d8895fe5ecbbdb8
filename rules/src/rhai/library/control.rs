//! What controllers are made of.

use rhai::{Dynamic, Engine, Map};
use tidegate_core::diagnostic::did_you_mean;

use super::{Kept, Outcome, condition, number, reading, seconds, span};
use crate::rhai::call::Calls;
use crate::rhai::compare;
use crate::rhai::value::kind;

pub(super) fn register(engine: &mut Engine, calls: &Calls) {
    edges(engine);
    delays(engine, calls);
    engine.register_fn(
        "hysteresis",
        |state: &mut Map, name: &str, x: Dynamic, low: Dynamic, high: Dynamic| -> Outcome<bool> {
            let (low, high) = thresholds(&low, &high)?;
            let kept = Kept::new(state, "hysteresis", name);
            let before = kept.get().and_then(|kept| kept.as_bool().ok()).unwrap_or(false);
            let Some(x) = reading("hysteresis", &x)? else { return Ok(before) };
            let now = if before { x > low } else { x >= high };
            kept.set(now);
            Ok(now)
        },
    );
    engine.register_fn(
        "deadband",
        |state: &mut Map, name: &str, x: Dynamic, band: Dynamic| -> Outcome<Dynamic> {
            let band = number("deadband", "the band", &band)?;
            let kept = Kept::new(state, "deadband", name);
            let before = kept.number();
            let let_through =
                reading("deadband", &x)?.filter(|x| before.is_none_or(|b| (x - b).abs() > band));
            if let Some(x) = let_through {
                kept.set(x);
            }
            Ok(let_through.or(before).map_or(Dynamic::UNIT, Dynamic::from_float))
        },
    );
    let of = calls.clone();
    engine.register_fn(
        "ramp",
        move |state: &mut Map, name: &str, to: Dynamic, per_second: Dynamic| -> Outcome<Dynamic> {
            let most = number("ramp", "the change per second", &per_second)?.abs();
            let (kept, at) = (Kept::new(state, "ramp", name), of.lock().time());
            let before = kept.field("value");
            let Some(to) = reading("ramp", &to)? else {
                return Ok(before.map_or(Dynamic::UNIT, Dynamic::from_float));
            };
            let elapsed = kept.int("at").and_then(|from| seconds(from, at)).unwrap_or(0.0);
            let step = most * elapsed;
            let value = before.map_or(to, |before| to.max(before - step).min(before + step));
            kept.set_fields([("value", value.into()), ("at", at.into())]);
            Ok(value.into())
        },
    );
    let of = calls.clone();
    engine.register_fn(
        "pid",
        move |state: &mut Map, name: &str, setpoint: Dynamic, value: Dynamic, settings: Map| {
            let at = of.lock().time();
            pid(Kept::new(state, "pid", name), &setpoint, &value, &settings, at)
        },
    );
    engine.register_fn(
        "pid",
        |state: &mut Map, name: &str, setpoint: Dynamic, value: Dynamic, settings: Map, at: i64| {
            pid(Kept::new(state, "pid", name), &setpoint, &value, &settings, at)
        },
    );
}

fn edges(engine: &mut Engine) {
    engine.register_fn("rising", |state: &mut Map, name: &str, on: Dynamic| -> Outcome<bool> {
        let Some(on) = condition("rising", &on)? else { return Ok(false) };
        let kept = Kept::new(state, "rising", name);
        let before = kept.get().and_then(|kept| kept.as_bool().ok()).unwrap_or(false);
        kept.set(on);
        Ok(on && !before)
    });
    engine.register_fn("falling", |state: &mut Map, name: &str, on: Dynamic| -> Outcome<bool> {
        let Some(on) = condition("falling", &on)? else { return Ok(false) };
        let kept = Kept::new(state, "falling", name);
        let before = kept.get().and_then(|kept| kept.as_bool().ok()).unwrap_or(false);
        kept.set(on);
        Ok(before && !on)
    });
    engine.register_fn("changed", |state: &mut Map, name: &str, x: Dynamic| -> Outcome<bool> {
        let is_reading = !x.is_unit() && x.as_float().is_ok_and(f64::is_finite) | !x.is_float();
        if !is_reading {
            return Ok(false);
        }
        let kept = Kept::new(state, "changed", name);
        let differs = kept.get().is_none_or(|before| compare::order(before, &x).is_none_or(|o| o.is_ne()));
        if differs {
            if x.is_array() || x.is_map() {
                return Err(format!(
                    "`changed` takes numbers, texts and conditions, and was given {}",
                    kind(&x)
                )
                .into());
            }
            kept.set(x);
        }
        Ok(differs)
    });
    engine.register_fn(
        "changed",
        |state: &mut Map, name: &str, x: Dynamic, tolerance: Dynamic| -> Outcome<bool> {
            let tolerance = number("changed", "the tolerance", &tolerance)?;
            let Some(x) = reading("changed", &x)? else { return Ok(false) };
            let kept = Kept::new(state, "changed", name);
            let differs = kept.number().is_none_or(|before| (x - before).abs() > tolerance);
            kept.set(x);
            Ok(differs)
        },
    );
}

fn delays(engine: &mut Engine, calls: &Calls) {
    let of = calls.clone();
    engine.register_fn(
        "held",
        move |state: &mut Map, name: &str, on: Dynamic, time: &str| -> Outcome<bool> {
            let (time, at) = (span(time)?, of.lock().time());
            let kept = Kept::new(state, "held", name);
            let since = kept.get().and_then(|kept| kept.as_int().ok());
            let since = match condition("held", &on)? {
                Some(true) => Some(since.unwrap_or(at)),
                Some(false) => None,
                None => since,
            };
            kept.set(since.map_or(Dynamic::UNIT, Dynamic::from_int));
            Ok(since.is_some_and(|since| at.saturating_sub(since) >= time))
        },
    );
    let of = calls.clone();
    engine.register_fn("since", move |state: &mut Map, name: &str, on: Dynamic| -> Outcome<Dynamic> {
        let at = of.lock().time();
        let kept = Kept::new(state, "since", name);
        let last = kept.get().and_then(|kept| kept.as_int().ok());
        if condition("since", &on)? == Some(true) {
            kept.set(at);
            return Ok(0.0.into());
        }
        Ok(last.map_or(Dynamic::UNIT, |last| seconds(last, at).unwrap_or(0.0).into()))
    });
    let of = calls.clone();
    engine.register_fn(
        "debounce",
        move |state: &mut Map, name: &str, on: Dynamic, time: &str| -> Outcome<bool> {
            let (time, at) = (span(time)?, of.lock().time());
            let kept = Kept::new(state, "debounce", name);
            let settled = kept.flag("settled").unwrap_or(false);
            let Some(on) = condition("debounce", &on)? else { return Ok(settled) };
            if on == settled {
                kept.set_fields([("settled", settled.into()), ("since", Dynamic::UNIT)]);
                return Ok(settled);
            }
            let since = kept.int("since").unwrap_or(at);
            if at.saturating_sub(since) < time {
                kept.set_fields([("settled", settled.into()), ("since", since.into())]);
                return Ok(settled);
            }
            kept.set_fields([("settled", on.into()), ("since", Dynamic::UNIT)]);
            Ok(on)
        },
    );
}

/// The settings of a PID controller.
const PID: [&str; 5] = ["kp", "ki", "kd", "min", "max"];

/// What a PID controller is set to.
pub(super) struct PidSettings {
    kp: f64,
    ki: f64,
    kd: f64,
    min: f64,
    max: f64,
}

impl PidSettings {
    pub(super) fn new(settings: &Map) -> Outcome<Self> {
        if let Some(other) = settings.keys().find(|name| !PID.contains(&name.as_str())) {
            let help = did_you_mean(other, &PID).unwrap_or_default();
            return Err(format!("`pid` has no setting `{other}`; {help}").into());
        }
        let setting = |name: &str, default: f64| {
            settings.get(name).map_or(Ok(default), |value| number("pid", &format!("`{name}`"), value))
        };
        let Some(kp) = settings.get("kp") else { return Err("`pid` needs the setting `kp`".into()) };
        let (kp, ki, kd) = (number("pid", "`kp`", kp)?, setting("ki", 0.0)?, setting("kd", 0.0)?);
        let (min, max) = (setting("min", f64::NEG_INFINITY)?, setting("max", f64::INFINITY)?);
        if min > max || min.is_nan() || max.is_nan() {
            return Err(format!("`min` of `pid` is {min}, and greater than `max`, {max}").into());
        }
        Ok(Self { kp, ki, kd, min, max })
    }
}

/// Where `hysteresis` switches.
pub(super) fn thresholds(low: &Dynamic, high: &Dynamic) -> Outcome<(f64, f64)> {
    let (low, high) = (number("hysteresis", "`low`", low)?, number("hysteresis", "`high`", high)?);
    if low > high {
        return Err(format!("`low` of `hysteresis` is {low}, and greater than `high`, {high}").into());
    }
    Ok((low, high))
}

/// `kp * error + ki * integral of the error + kd * change of the error`, in its parallel form.
///
/// The derivative is of the value, not of the error, so that a new setpoint gives no kick. The integral stands
/// still while the output is at a limit and the error would drive it further: it does not wind up.
fn pid(kept: Kept<'_>, setpoint: &Dynamic, value: &Dynamic, settings: &Map, at: i64) -> Outcome<Dynamic> {
    let PidSettings { kp, ki, kd, min, max } = PidSettings::new(settings)?;
    let (Some(setpoint), Some(value)) = (reading("pid", setpoint)?, reading("pid", value)?) else {
        return Ok(kept.field("output").map_or(Dynamic::UNIT, Dynamic::from_float));
    };
    let error = setpoint - value;
    let elapsed = kept.int("at").and_then(|from| seconds(from, at));
    let integral = kept.field("integral").unwrap_or(0.0);
    let (step, change) = match elapsed {
        Some(elapsed) => {
            let before = kept.field("value").unwrap_or(value);
            (ki * error * elapsed, (value - before) / elapsed)
        }
        None => (0.0, 0.0),
    };
    let rest = kp * error - kd * change;
    let wanted = rest + integral + step;
    let winds_up = (wanted > max && step > 0.0) || (wanted < min && step < 0.0);
    let integral = if winds_up { integral } else { integral + step };
    let output = (rest + integral).max(min).min(max);
    kept.set_fields([
        ("integral", integral.into()),
        ("value", value.into()),
        ("output", output.into()),
        ("at", at.into()),
    ]);
    Ok(output.into())
}
