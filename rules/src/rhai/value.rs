//! Values of scripts, in words.

use rhai::Dynamic;

use super::row::{Row, Rows};

/// What a value is, in the words of the configuration where it has one.
pub(super) fn kind(value: &Dynamic) -> &'static str {
    if value.is_unit() {
        "missing: `()`"
    } else if value.is_int() {
        "int64"
    } else if value.is_float() {
        "float64"
    } else if value.is_bool() {
        "bool"
    } else if value.is_string() {
        "utf8"
    } else if value.is_char() {
        "a character"
    } else if value.is_blob() {
        "bytes"
    } else if value.is_array() {
        "a list"
    } else if value.is_map() {
        "a map"
    } else if value.is::<Row>() {
        "a row"
    } else if value.is::<Rows>() {
        "rows"
    } else {
        "of another type"
    }
}

/// A value for people, in about `most` characters.
pub(super) fn shown(value: &Dynamic, most: usize) -> String {
    let mut text = String::new();
    show(value, most, 4, &mut text);
    if text.chars().count() > most {
        text = text.chars().take(most).collect();
        text.push_str("..");
    }
    text
}

/// Stops when there is enough, and `depth` levels down: a script can nest as it likes.
fn show(value: &Dynamic, most: usize, depth: usize, text: &mut String) {
    if text.len() > most {
        return;
    }
    if let Ok(array) = value.as_array_ref() {
        text.push('[');
        if depth == 0 {
            text.push_str("..");
        }
        for (at, item) in array.iter().enumerate().take(if depth == 0 { 0 } else { most }) {
            text.push_str(if at == 0 { "" } else { ", " });
            show(item, most, depth - 1, text);
        }
        text.push(']');
    } else if let Ok(map) = value.as_map_ref() {
        text.push_str("#{");
        if depth == 0 {
            text.push_str("..");
        }
        for (at, (name, item)) in map.iter().enumerate().take(if depth == 0 { 0 } else { most }) {
            text.push_str(if at == 0 { "" } else { ", " });
            text.push_str(name);
            text.push_str(": ");
            show(item, most, depth - 1, text);
        }
        text.push('}');
    } else if let Ok(string) = value.as_immutable_string_ref() {
        text.push('"');
        text.extend(string.chars().take(most));
        text.push('"');
    } else if let Ok(blob) = value.as_blob_ref() {
        text.push_str(&format!("{} bytes", blob.len()));
    } else if value.is_unit() {
        text.push_str("()");
    } else if value.is_int() || value.is_float() || value.is_bool() || value.is_char() {
        text.push_str(&value.to_string());
    } else {
        text.push_str(kind(value));
    }
}

#[cfg(test)]
mod tests {
    use rhai::{Array, Map};

    use super::*;

    #[test]
    fn what_is_shown_is_short() {
        let mut deep = Dynamic::UNIT;
        for _ in 0..50 {
            deep = Dynamic::from_array(vec![deep]);
        }
        assert_eq!(shown(&deep, 100), "[[[[[..]]]]]");
        let mut map = Map::new();
        map.insert("on".into(), true.into());
        map.insert("x".into(), 1.5.into());
        assert_eq!(shown(&Dynamic::from_map(map), 100), "#{on: true, x: 1.5}");
        let long: Array = (0..1_000_i64).map(Dynamic::from_int).collect();
        assert_eq!(shown(&Dynamic::from_array(long), 10), "[0, 1, 2, ..");
        assert_eq!(shown(&"ab".into(), 10), "\"ab\"");
    }
}
