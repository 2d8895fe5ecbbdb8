//! Comparisons.
//!
//! Rhai's own are false without a word for values of different kinds (`() > 80.0`, `"90" > 80`), take floats
//! that are nearly equal for equal, and do not find infinity greater than 5. These are SQL's: numbers compare
//! exactly, NaN equals itself and is greater than all else, and what cannot be compared is an error.
//!
//! Rhai lets nobody replace its own operators where it is fast: so they are disabled, and custom ones are
//! made with the same names and precedences.

use std::any::TypeId;
use std::cmp::Ordering;

use rhai::{Dynamic, Engine, EvalAltResult};

use super::meter::{charge, size};
use super::value::kind;

/// How deep lists and maps are compared.
const DEPTH: usize = 64;

/// The comparisons, with Rhai's precedences.
pub(super) const OPERATORS: [(&str, u8); 6] =
    [("==", 90), ("!=", 90), (">", 130), (">=", 130), ("<", 130), ("<=", 130)];

/// Puts them into `engine`.
///
/// # Errors
/// When Rhai has changed.
pub(super) fn register(engine: &mut Engine) -> Result<(), String> {
    for (operator, precedence) in OPERATORS {
        engine.disable_symbol(operator);
        engine.register_custom_operator(operator, precedence)?;
        let any = [TypeId::of::<Dynamic>(), TypeId::of::<Dynamic>()];
        engine.register_raw_fn(operator, any, move |context, args| match args {
            [a, b] => {
                let cost = size(a).min(size(b));
                if cost > 0 {
                    charge(&context, cost)?;
                }
                compare(operator, a, b)
            }
            _ => Ok(false),
        });
    }
    Ok(())
}

/// `a operator b`.
fn compare(operator: &str, a: &Dynamic, b: &Dynamic) -> Result<bool, Box<EvalAltResult>> {
    match operator {
        "==" => equal(a, b, DEPTH),
        "!=" => equal(a, b, DEPTH).map(|equal| !equal),
        _ => {
            let Some(order) = order(a, b) else { return Err(incomparable(operator, a, b)) };
            Ok(match operator {
                ">" => order.is_gt(),
                ">=" => order.is_ge(),
                "<" => order.is_lt(),
                _ => order.is_le(),
            })
        }
    }
}

fn incomparable(operator: &str, a: &Dynamic, b: &Dynamic) -> Box<EvalAltResult> {
    let advice =
        match (a.is_unit() || b.is_unit(), is_number(a) && b.is_string() || is_number(b) && a.is_string()) {
            (true, _) => "; ask first whether it is there: `x != ()`, or give it a value: `x ?? 0.0`",
            (_, true) => "; make the text a number: `x.parse_float()`",
            _ => "",
        };
    format!("`{operator}` cannot compare {} with {}{advice}", side(a), side(b)).into()
}

fn side(value: &Dynamic) -> &'static str {
    if value.is_unit() { "a missing value, `()`," } else { kind(value) }
}

fn is_number(value: &Dynamic) -> bool {
    value.is_int() || value.is_float()
}

/// Which is greater; `None`: they cannot be compared.
pub(super) fn order(a: &Dynamic, b: &Dynamic) -> Option<Ordering> {
    if let (Ok(a), Ok(b)) = (a.as_int(), b.as_int()) {
        return Some(a.cmp(&b));
    }
    match (a.as_int(), a.as_float(), b.as_int(), b.as_float()) {
        (_, Ok(a), _, Ok(b)) => return Some(order_floats(a, b)),
        (Ok(a), _, _, Ok(b)) => return Some(order_mixed(a, b)),
        (_, Ok(a), Ok(b), _) => return Some(order_mixed(b, a).reverse()),
        _ => {}
    }
    if let (Ok(a), Ok(b)) = (a.as_bool(), b.as_bool()) {
        return Some(a.cmp(&b));
    }
    if let (Ok(a), Ok(b)) = (a.as_immutable_string_ref(), b.as_immutable_string_ref()) {
        return Some(a.as_str().cmp(b.as_str()));
    }
    if let (Ok(a), Ok(b)) = (a.as_char(), b.as_char()) {
        return Some(a.cmp(&b));
    }
    let mut buffer = [0; 4];
    if let (Ok(a), Ok(b)) = (a.as_char(), b.as_immutable_string_ref()) {
        return Some((*a.encode_utf8(&mut buffer)).cmp(b.as_str()));
    }
    if let (Ok(a), Ok(b)) = (a.as_immutable_string_ref(), b.as_char()) {
        return Some(a.as_str().cmp(b.encode_utf8(&mut buffer)));
    }
    None
}

/// A whole number beside a floating-point one, exactly.
fn order_mixed(a: i64, b: f64) -> Ordering {
    // 2^63, of which no whole number is the double.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if b.is_nan() || b >= END {
        return Ordering::Less;
    }
    if b < -END {
        return Ordering::Greater;
    }
    // It is between the two, and whole.
    let whole = b.trunc();
    a.cmp(&(whole as i64)).then_with(|| whole.partial_cmp(&b).unwrap_or(Ordering::Equal))
}

/// As in PostgreSQL.
pub(super) fn order_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Whether they are equal. A missing value equals itself, and nothing else.
fn equal(a: &Dynamic, b: &Dynamic, depth: usize) -> Result<bool, Box<EvalAltResult>> {
    if a.is_unit() || b.is_unit() {
        return Ok(a.is_unit() && b.is_unit());
    }
    if let Some(order) = order(a, b) {
        return Ok(order.is_eq());
    }
    if depth == 0 {
        return Err("`==` compares lists and maps that are at most 64 levels deep".into());
    }
    if let (Ok(a), Ok(b)) = (a.as_array_ref(), b.as_array_ref()) {
        if a.len() != b.len() {
            return Ok(false);
        }
        for (a, b) in a.iter().zip(b.iter()) {
            if !equal(a, b, depth - 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if let (Ok(a), Ok(b)) = (a.as_map_ref(), b.as_map_ref()) {
        if a.len() != b.len() {
            return Ok(false);
        }
        for ((key, a), (other, b)) in a.iter().zip(b.iter()) {
            if key != other || !equal(a, b, depth - 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if let (Ok(a), Ok(b)) = (a.as_blob_ref(), b.as_blob_ref()) {
        return Ok(*a == *b);
    }
    Err(incomparable("==", a, b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What an engine with these comparisons makes of `script`.
    fn value(script: &str) -> Result<bool, String> {
        let mut engine = Engine::new_raw();
        register(&mut engine).unwrap();
        engine.eval::<bool>(script).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_compare_exactly_and_nan_is_greatest() {
        for (script, expected) in [
            ("1 < 2", true),
            ("2 >= 2.0", true),
            ("70.00000000000001 > 70.0", true),
            ("70.00000000000001 == 70.0", false),
            ("1.0/0.0 > 5.0", true),
            ("-1.0/0.0 < 5", true),
            ("0.0/0.0 == 0.0/0.0", true),
            ("0.0/0.0 > 1.0/0.0", true),
            ("1.0 >= 0.0/0.0", false),
            ("-0.0 == 0.0", true),
            ("9007199254740993 > 9007199254740992", true),
            ("9007199254740993 == 9007199254740992.0", false),
            ("9007199254740993 > 9007199254740992.0", true),
            ("9007199254740992.0 < 9007199254740993", true),
            ("9223372036854775807 < 9223372036854775808.0", true),
            ("-9223372036854775807 - 1 == -9223372036854775808.0", true),
            ("2 > 1.5 && 1.5 > 1 && -1 > -1.5 && -2 < -1.5", true),
            ("5 < 0.0/0.0", true),
            ("1 + 1 == 2 && 3 * 2 > 5 || false", true),
            ("let x = 5; x != 5", false),
            ("\"b\" > \"a\"", true),
            ("'b' > \"abc\"", true),
            ("() == ()", true),
            ("() == 1", false),
            ("\"a\" != ()", true),
            ("true > false", true),
        ] {
            assert_eq!(value(script), Ok(expected), "{script}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        for (script, said) in [
            (
                "() > 80.0",
                "`>` cannot compare a missing value, `()`, with float64; ask first whether it is there",
            ),
            ("80 <= ()", "`<=` cannot compare int64 with a missing value"),
            ("\"90\" > 80", "`>` cannot compare utf8 with int64; make the text a number"),
            ("true > 80", "`>` cannot compare bool with int64"),
            ("\"1\" == 1", "`==` cannot compare utf8 with int64"),
            ("false != 0", "`==` cannot compare bool with int64"),
        ] {
            let error = value(script).unwrap_err();
            assert!(error.contains(said), "{script}: {error}");
        }
    }
}
