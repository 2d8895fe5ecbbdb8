//! Functions of numbers. Those that the machine's own library would compute, each a little differently, are
//! `libm`'s: rules give the same to the bit on every machine.

use rhai::{Dynamic, Engine};

use super::{Named, Outcome, number};
use crate::rhai::compare;
use crate::rhai::value::kind;

/// Of one number, which may be whole, to a `float64`.
const FUNCTIONS: [Named; 21] = [
    ("acos", libm::acos),
    ("asin", libm::asin),
    ("atan", libm::atan),
    ("ceiling", f64::ceil),
    ("cos", libm::cos),
    ("cosh", libm::cosh),
    ("exp", libm::exp),
    ("floor", f64::floor),
    ("fraction", f64::fract),
    ("ln", libm::log),
    ("log10", libm::log10),
    ("log2", libm::log2),
    ("round", f64::round),
    ("sin", libm::sin),
    ("sinh", libm::sinh),
    ("sqrt", f64::sqrt),
    ("tan", libm::tan),
    ("tanh", libm::tanh),
    ("to_degrees", f64::to_degrees),
    ("to_radians", f64::to_radians),
    ("truncate", f64::trunc),
];

pub(super) fn register(engine: &mut Engine) {
    for (name, function) in FUNCTIONS {
        engine.register_fn(name, function);
        engine.register_fn(name, move |x: i64| function(x as f64));
    }
    engine.register_fn("PI", || std::f64::consts::PI);
    engine.register_fn("pow", |x: Dynamic, y: Dynamic| -> Outcome<Dynamic> {
        if let (Ok(x), Ok(y)) = (x.as_int(), y.as_int())
            && let Ok(y) = u32::try_from(y)
        {
            return match x.checked_pow(y) {
                Some(power) => Ok(power.into()),
                None => Err(format!("{x} to the power of {y} is no int64").into()),
            };
        }
        Ok(libm::pow(number("pow", "the base", &x)?, number("pow", "the exponent", &y)?).into())
    });
    engine.register_fn("atan2", |y: Dynamic, x: Dynamic| -> Outcome<f64> {
        Ok(libm::atan2(number("atan2", "`y`", &y)?, number("atan2", "`x`", &x)?))
    });
    engine.register_fn("hypot", |x: Dynamic, y: Dynamic| -> Outcome<f64> {
        Ok(libm::hypot(number("hypot", "`x`", &x)?, number("hypot", "`y`", &y)?))
    });
    engine.register_fn("round", |x: f64, digits: i64| -> Outcome<f64> {
        if !(0..=15).contains(&digits) {
            return Err(format!("`round` is to 0 to 15 digits, and not to {digits}").into());
        }
        // Written and read again, so that 1.005 becomes what a person expects of its digits.
        let digits = usize::try_from(digits).unwrap_or(0);
        Ok(format!("{x:.digits$}").parse().unwrap_or(x))
    });
    engine.register_fn("is_nan", f64::is_nan);
    engine.register_fn("is_finite", f64::is_finite);
    conversions(engine);
    ranges(engine);
    bits(engine);
}

fn conversions(engine: &mut Engine) {
    engine.register_fn("to_float", |x: i64| x as f64);
    engine.register_fn("to_float", |x: f64| x);
    engine.register_fn("to_int", |x: i64| x);
    engine.register_fn("to_int", |x: f64| -> Outcome<i64> {
        // The first float behind the last int64.
        let end = 9_223_372_036_854_775_808.0;
        let whole = x.trunc();
        if whole >= -end && whole < end { Ok(whole as i64) } else { Err(format!("{x} is no int64").into()) }
    });
    engine.register_fn("to_int", |x: bool| i64::from(x));
    engine.register_fn("parse_int", |text: &str| -> Outcome<i64> {
        text.trim().parse().map_err(|_| format!("\"{text}\" is not a whole number").into())
    });
    engine.register_fn("parse_float", |text: &str| -> Outcome<f64> {
        text.trim().parse().map_err(|_| format!("\"{text}\" is not a number").into())
    });
}

fn ranges(engine: &mut Engine) {
    engine.register_fn("min", |a: Dynamic, b: Dynamic| extreme("min", a, b, |order| order.is_le()));
    engine.register_fn("max", |a: Dynamic, b: Dynamic| extreme("max", a, b, |order| order.is_ge()));
    engine.register_fn("clamp", |x: Dynamic, low: Dynamic, high: Dynamic| -> Outcome<Dynamic> {
        let at_least = extreme("clamp", x, low, |order| order.is_ge())?;
        extreme("clamp", at_least, high, |order| order.is_le())
    });
    engine.register_fn(
        "scale",
        |x: Dynamic,
         in_low: Dynamic,
         in_high: Dynamic,
         out_low: Dynamic,
         out_high: Dynamic|
         -> Outcome<f64> {
            let argument = |what, value| number("scale", what, value);
            let (x, from, to) =
                (argument("`x`", &x)?, argument("`in_low`", &in_low)?, argument("`in_high`", &in_high)?);
            let (low, high) = (argument("`out_low`", &out_low)?, argument("`out_high`", &out_high)?);
            if from == to {
                return Err(format!("`in_low` and `in_high` of `scale` are both {from}").into());
            }
            Ok(low + (x - from) / (to - from) * (high - low))
        },
    );
}

/// The one of two that is wanted.
fn extreme(
    function: &str,
    a: Dynamic,
    b: Dynamic,
    wanted: fn(std::cmp::Ordering) -> bool,
) -> Outcome<Dynamic> {
    match compare::order(&a, &b) {
        Some(order) => Ok(if wanted(order) { a } else { b }),
        None => Err(format!("`{function}` cannot compare {} with {}", kind(&a), kind(&b)).into()),
    }
}

fn bits(engine: &mut Engine) {
    engine.register_fn("bit", |x: i64, n: i64| -> Outcome<bool> { Ok(x >> place(n)? & 1 == 1) });
    engine.register_fn("set_bit", |x: i64, n: i64, on: bool| -> Outcome<i64> {
        let mask = 1_i64 << place(n)?;
        Ok(if on { x | mask } else { x & !mask })
    });
    engine.register_fn("bits", |x: i64, first: i64, count: i64| -> Outcome<i64> {
        let first = place(first)?;
        let count = u32::try_from(count).ok().filter(|count| (1..=64 - first).contains(count));
        let Some(count) = count else {
            return Err(format!("from bit {first} on there are 1 to {} bits", 64 - first).into());
        };
        Ok((x as u64 >> first & (u64::MAX >> (64 - count))) as i64)
    });
    engine.register_fn("signed", |x: i64, bits: i64| -> Outcome<i64> {
        let unused = 63 - place(bits - 1)?;
        Ok(x << unused >> unused)
    });
}

fn place(n: i64) -> Outcome<u32> {
    match u32::try_from(n) {
        Ok(n) if n < 64 => Ok(n),
        _ => Err(format!("bits are numbered from 0 to 63, and {n} is none").into()),
    }
}
