//! A script's state at rest: bytes that say of each value what it is, so that it comes back as it was.
//!
//! A value is a byte that names its type, and then: nothing for `()`, `false` and `true`; 8 bytes for numbers
//! (little endian; of a float its bits); 4 bytes for a character; 4 bytes of length and so many bytes for a
//! text and for bytes; 4 bytes of count and so many values for a list, and so many keys (each as a text
//! without its type) with their values for a map; two numbers for a range.

use std::ops::{Range, RangeInclusive};

use rhai::{Array, Dynamic, Map};

use super::value::kind;

/// More levels than lists and maps of a script can have.
const DEPTH: usize = 12_000;

const UNIT: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const CHAR: u8 = 5;
const TEXT: u8 = 6;
const BYTES: u8 = 7;
const ARRAY: u8 = 8;
const MAP: u8 = 9;
const RANGE: u8 = 10;
const RANGE_INCLUSIVE: u8 = 11;

/// Appends `value` to `bytes`.
///
/// # Errors
/// The path to a value that cannot be kept, such as `.tank[3]`, and what it is.
pub(super) fn encode(value: &Dynamic, bytes: &mut Vec<u8>) -> Result<(), (String, &'static str)> {
    if value.is_unit() {
        bytes.push(UNIT);
    } else if let Ok(value) = value.as_bool() {
        bytes.push(if value { TRUE } else { FALSE });
    } else if let Ok(value) = value.as_int() {
        bytes.push(INT);
        bytes.extend(value.to_le_bytes());
    } else if let Ok(value) = value.as_float() {
        bytes.push(FLOAT);
        bytes.extend(value.to_bits().to_le_bytes());
    } else if let Ok(value) = value.as_char() {
        bytes.push(CHAR);
        bytes.extend(u32::from(value).to_le_bytes());
    } else if let Ok(value) = value.as_immutable_string_ref() {
        bytes.push(TEXT);
        put_bytes(value.as_bytes(), bytes);
    } else if let Ok(value) = value.as_blob_ref() {
        bytes.push(BYTES);
        put_bytes(&value, bytes);
    } else if let Ok(values) = value.as_array_ref() {
        bytes.push(ARRAY);
        bytes.extend((values.len() as u32).to_le_bytes());
        for (at, value) in values.iter().enumerate() {
            encode(value, bytes).map_err(|(path, what)| (format!("[{at}]{path}"), what))?;
        }
    } else if let Ok(values) = value.as_map_ref() {
        bytes.push(MAP);
        bytes.extend((values.len() as u32).to_le_bytes());
        for (key, value) in values.iter() {
            put_bytes(key.as_bytes(), bytes);
            encode(value, bytes).map_err(|(path, what)| (format!(".{key}{path}"), what))?;
        }
    } else if let Some(range) = value.read_lock::<Range<i64>>() {
        bytes.push(RANGE);
        bytes.extend(range.start.to_le_bytes());
        bytes.extend(range.end.to_le_bytes());
    } else if let Some(range) = value.read_lock::<RangeInclusive<i64>>() {
        bytes.push(RANGE_INCLUSIVE);
        bytes.extend(range.start().to_le_bytes());
        bytes.extend(range.end().to_le_bytes());
    } else {
        return Err((String::new(), kind(value)));
    }
    Ok(())
}

fn put_bytes(of: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend((of.len() as u32).to_le_bytes());
    bytes.extend(of);
}

/// The value that `bytes` hold, and no more; `None`: they hold none.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Dynamic> {
    let value = take_value(&mut bytes, DEPTH)?;
    bytes.is_empty().then_some(value)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_fixed<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    take(bytes, N)?.try_into().ok()
}

fn take_count(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(take_fixed(bytes)?)).ok()
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = take_count(bytes)?;
    std::str::from_utf8(take(bytes, len)?).ok()
}

fn take_int(bytes: &mut &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(take_fixed(bytes)?))
}

fn take_value(bytes: &mut &[u8], depth: usize) -> Option<Dynamic> {
    let depth = depth.checked_sub(1)?;
    let [kind] = take_fixed(bytes)?;
    Some(match kind {
        UNIT => Dynamic::UNIT,
        FALSE => Dynamic::FALSE,
        TRUE => Dynamic::TRUE,
        INT => Dynamic::from_int(take_int(bytes)?),
        FLOAT => Dynamic::from_float(f64::from_bits(u64::from_le_bytes(take_fixed(bytes)?))),
        CHAR => Dynamic::from_char(char::from_u32(u32::from_le_bytes(take_fixed(bytes)?))?),
        TEXT => take_text(bytes)?.into(),
        BYTES => {
            let len = take_count(bytes)?;
            Dynamic::from_blob(take(bytes, len)?.to_vec())
        }
        ARRAY => {
            let mut values = Array::new();
            for _ in 0..take_count(bytes)? {
                values.push(take_value(bytes, depth)?);
            }
            Dynamic::from_array(values)
        }
        MAP => {
            let mut values = Map::new();
            for _ in 0..take_count(bytes)? {
                let key = take_text(bytes)?;
                values.insert(key.into(), take_value(bytes, depth)?);
            }
            Dynamic::from_map(values)
        }
        RANGE => Dynamic::from(take_int(bytes)?..take_int(bytes)?),
        RANGE_INCLUSIVE => Dynamic::from(take_int(bytes)?..=take_int(bytes)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn encoded(value: &Dynamic) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).unwrap();
        bytes
    }

    fn values() -> impl Strategy<Value = Dynamic> {
        let leaf = prop_oneof![
            Just(Dynamic::UNIT),
            any::<bool>().prop_map(Dynamic::from_bool),
            any::<i64>().prop_map(Dynamic::from_int),
            any::<u64>().prop_map(|bits| Dynamic::from_float(f64::from_bits(bits))),
            any::<char>().prop_map(Dynamic::from_char),
            ".{0,8}".prop_map(Dynamic::from),
            prop::collection::vec(any::<u8>(), 0..8).prop_map(Dynamic::from_blob),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Dynamic::from_array),
                prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| {
                    let map = map.into_iter().map(|(key, value)| (key.into(), value));
                    Dynamic::from_map(map.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_comes_back_to_the_bit(value in values()) {
            let bytes = encoded(&value);
            let back = decode(&bytes).unwrap();
            prop_assert_eq!(encoded(&back), bytes);
        }

        #[test]
        fn any_bytes_are_a_value_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(value) = decode(&bytes) {
                prop_assert!(encoded(&value).len() <= bytes.len());
            }
        }
    }

    #[test]
    fn types_stay_apart() {
        for (value, is) in [
            (Dynamic::from_float(1.0), "f64"),
            (Dynamic::from_int(1), "i64"),
            (Dynamic::from_char('1'), "char"),
            (Dynamic::UNIT, "()"),
            (Dynamic::from(0..3_i64), "core::ops::range::Range<i64>"),
        ] {
            assert_eq!(decode(&encoded(&value)).unwrap().type_name(), is);
        }
        let nan = decode(&encoded(&Dynamic::from_float(f64::NAN))).unwrap();
        assert!(nan.as_float().unwrap().is_nan());
    }

    #[test]
    fn what_cannot_be_kept_is_named_by_its_path() {
        let mut inner = Map::new();
        inner.insert(
            "list".into(),
            Dynamic::from_array(vec![1.into(), Dynamic::from(std::time::Duration::ZERO)]),
        );
        let mut map = Map::new();
        map.insert("tank".into(), inner.into());
        let (path, what) = encode(&map.into(), &mut Vec::new()).unwrap_err();
        assert_eq!((path.as_str(), what), (".tank.list[1]", "of another type"));
    }
}
