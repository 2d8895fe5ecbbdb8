//! What a rule does: it writes, sets timers, says something.

use rhai::{Array, Dynamic, Engine, Map, NativeCallContext};
use tidegate_core::Span;

use super::{Outcome, span};
use crate::rhai::call::{Call, Calls, LINE, TimerChange};
use crate::rhai::meter::{charge, size_of_map};
use crate::rhai::row::Row;
use crate::rhai::value::shown;
use crate::rule::LogLevel;

/// Functions that say something, and how much it matters.
const LOG: [(&str, LogLevel); 3] =
    [("log", LogLevel::Info), ("log_warning", LogLevel::Warn), ("log_error", LogLevel::Error)];

/// The shortest time that a timer can be set for.
const SHORTEST_TIMER: i64 = 1_000_000;

pub(super) fn register(engine: &mut Engine, calls: &Calls) {
    let of = calls.clone();
    engine.register_fn(
        "write",
        move |context: NativeCallContext<'_>, target: &str, row: Map| -> Outcome<()> {
            charge(&context, size_of_map(&row))?;
            write(&mut of.lock(), target, &row)
        },
    );
    let of = calls.clone();
    engine.register_fn("write", move |target: &str, row: Row| -> Outcome<()> {
        let row = row.to_map()?;
        write(&mut of.lock(), target, &row)
    });
    let of = calls.clone();
    engine.register_fn("after", move |duration: &str, tag: &str| -> Outcome<()> {
        let after = timer(duration)?;
        Ok(of.lock().change_timer(TimerChange::After(tag.to_owned(), after))?)
    });
    let of = calls.clone();
    engine.register_fn("cancel", move |tag: &str| -> Outcome<()> {
        Ok(of.lock().change_timer(TimerChange::Cancel(tag.to_owned()))?)
    });
    let of = calls.clone();
    engine.register_fn("now", move || of.lock().wall_ns);
    engine.register_fn("duration", |text: &str| span(text));
    engine.register_fn("duration_text", |ns: i64| {
        let text = Span(std::time::Duration::from_nanos(ns.unsigned_abs())).to_string();
        if ns < 0 { format!("-{text}") } else { text }
    });
    engine.register_fn("time_text", |ns: i64| {
        let time = chrono::DateTime::from_timestamp_nanos(ns);
        time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
    });
    engine.register_fn("parse_json", |context: NativeCallContext<'_>, text: &str| -> Outcome<Dynamic> {
        charge(&context, text.len() / 4)?;
        let value = serde_json::from_str(text).map_err(|error| format!("this is no JSON: {error}"))?;
        Ok(of_json(value))
    });
    for (name, level) in LOG {
        let of = calls.clone();
        engine.register_fn(name, move |value: Dynamic| of.lock().say(level, line(&value)));
    }
    let of = calls.clone();
    engine.on_print(move |text| of.lock().say(LogLevel::Info, text.chars().take(LINE).collect()));
    let of = calls.clone();
    engine.on_debug(move |text, _, _| of.lock().say(LogLevel::Debug, text.chars().take(LINE).collect()));
}

/// How long a timer is set for.
pub(super) fn timer(duration: &str) -> Outcome<i64> {
    let after = span(duration)?;
    if after < SHORTEST_TIMER {
        return Err(format!("a timer is set for \"1ms\" at least, and not for \"{duration}\"").into());
    }
    Ok(after)
}

fn write(call: &mut Call, target: &str, row: &Map) -> Outcome<()> {
    let (seq, ts) = (call.seq, call.time());
    let written = call.outlets.fit(target, row, seq, ts)?;
    Ok(call.write(written)?)
}

fn line(value: &Dynamic) -> String {
    match value.as_immutable_string_ref() {
        Ok(text) => text.chars().take(LINE).collect(),
        Err(_) => shown(value, LINE),
    }
}

fn of_json(value: serde_json::Value) -> Dynamic {
    match value {
        serde_json::Value::Null => Dynamic::UNIT,
        serde_json::Value::Bool(value) => value.into(),
        serde_json::Value::Number(value) => match value.as_i64() {
            Some(value) => value.into(),
            None => value.as_f64().map_or(Dynamic::UNIT, Dynamic::from_float),
        },
        serde_json::Value::String(value) => value.into(),
        serde_json::Value::Array(values) => {
            Dynamic::from_array(values.into_iter().map(of_json).collect::<Array>())
        }
        serde_json::Value::Object(values) => {
            let entries = values.into_iter().map(|(name, value)| (name.as_str().into(), of_json(value)));
            Dynamic::from_map(entries.collect::<Map>())
        }
    }
}
