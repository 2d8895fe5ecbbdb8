//! The JSON Schema (draft 2020-12) of the configuration file, for editors.
//!
//! Editors show each error of a schema at its place. Where a schema offers alternatives (`anyOf`, `oneOf`), a
//! value that is wrong in one way is wrong in all of them, and the whole table around it is marked with all
//! that could have been. So each choice says by what it is made: see [`decided`].

use std::collections::BTreeSet;

use schemars::Schema;
use serde_json::{Map, Value, json};

use super::names;

type Object = Map<String, Value>;

/// `generated`, which was made from the types, as it is given to editors.
pub(super) fn for_editors(mut generated: Value) -> Value {
    let definitions = generated.get("$defs").cloned().unwrap_or_default();
    simplify(&mut generated, &definitions);
    for (section, pattern) in [
        ("connections", names::IDENTIFIER),
        ("uplinks", names::IDENTIFIER),
        ("streams", names::TARGET),
        ("tables", names::TARGET),
        ("outputs", names::TARGET),
    ] {
        if let Some(table) =
            generated.pointer_mut(&format!("/properties/{section}")).and_then(Value::as_object_mut)
        {
            table.insert("propertyNames".into(), json!({ "pattern": pattern }));
        }
    }
    if let Some(name) = generated.pointer_mut("/properties/name").and_then(Value::as_object_mut) {
        name.insert("pattern".into(), names::BOX.into());
    }
    generated
}

/// The schema of a table that is one of these.
pub(super) fn one_of(kinds: Vec<Schema>) -> Schema {
    schemars::json_schema!({ "anyOf": kinds })
}

/// `kinds`, each with the keys of the table `keys` beside its own.
pub(super) fn with_keys(keys: &Schema, kinds: Vec<Schema>) -> Vec<Schema> {
    let properties = keys.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let with = |mut kind: Schema| {
        if let Some(own) = kind.get_mut("properties").and_then(Value::as_object_mut) {
            own.extend(properties.clone());
        }
        kind
    };
    kinds.into_iter().map(with).collect()
}

/// Takes the alternatives out of `schema` and all that is in it.
fn simplify(schema: &mut Value, definitions: &Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| simplify(item, definitions)),
        Value::Object(object) => {
            object.values_mut().for_each(|inner| simplify(inner, definitions));
            tidy(object);
            for key in ["anyOf", "oneOf"] {
                let Some(Value::Array(mut alternatives)) = object.remove(key) else { continue };
                // TOML has no null: an absent value is an absent key.
                alternatives.retain(|alternative| alternative.get("type") != Some(&json!("null")));
                match decided(&alternatives, definitions) {
                    Some(decided) => {
                        for (key, value) in decided {
                            object.entry(key).or_insert(value);
                        }
                    }
                    None => drop(object.insert(key.into(), alternatives.into())),
                }
            }
        }
        _ => {}
    }
}

/// Takes out what TOML does not have, and what is said twice.
fn tidy(object: &mut Object) {
    if object.get("const").is_some_and(Value::is_string) && object.contains_key("type") {
        // One error is enough.
        object.remove("type");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
}

/// One schema for all `alternatives`, by what tells them apart; `None`: nothing does.
fn decided(alternatives: &[Value], definitions: &Value) -> Option<Object> {
    if let [only] = alternatives {
        return only.as_object().cloned();
    }
    let resolved: Vec<Object> =
        alternatives.iter().filter_map(|alternative| resolve(alternative, definitions)).collect();
    words(&resolved)
        .or_else(|| keys(&resolved))
        .or_else(|| text_or_table(&resolved))
        .or_else(|| tagged(&resolved))
        .or_else(|| told_apart(&resolved))
        .or_else(|| tables(&resolved))
        .or_else(|| union(&resolved))
}

/// What `schema` refers to, without alternatives of its own.
fn resolve(schema: &Value, definitions: &Value) -> Option<Object> {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
    let mut found = name.and_then(|name| definitions.get(name)).unwrap_or(schema).clone();
    simplify(&mut found, definitions);
    found.as_object().cloned()
}

/// Words of which one is chosen.
fn words(alternatives: &[Object]) -> Option<Object> {
    let words: Option<Vec<Value>> = alternatives.iter().map(|word| word.get("const").cloned()).collect();
    let texts: Vec<Value> =
        alternatives.iter().map(|word| word.get("description").cloned().unwrap_or_default()).collect();
    // Taplo, which is behind TOML in most editors, shows what each word means.
    let shown = json!({ "docs": { "enumValues": texts } });
    Some(Object::from_iter([("enum".into(), words?.into()), ("x-taplo".into(), shown)]))
}

/// Tables with one key each, which is chosen.
fn keys(alternatives: &[Object]) -> Option<Object> {
    let mut properties = Object::new();
    for alternative in alternatives {
        let own = alternative.get("properties")?.as_object()?;
        let [key] = alternative.get("required")?.as_array()?.as_slice() else { return None };
        if own.len() != 1 || properties.contains_key(key.as_str()?) {
            return None;
        }
        properties.extend(own.clone());
    }
    let table = json!({
        "type": "object", "properties": properties, "additionalProperties": false,
        "minProperties": 1, "maxProperties": 1
    });
    table.as_object().cloned()
}

/// Text or a number, or a table: what is said of the one does not concern the other.
fn text_or_table(alternatives: &[Object]) -> Option<Object> {
    let [text, table] = alternatives else { return None };
    let scalar = match text.get("type").and_then(Value::as_str) {
        Some(scalar @ ("string" | "integer")) => scalar,
        None if text.contains_key("enum") => "string",
        _ => return None,
    };
    if table.get("type") != Some(&json!("object")) {
        return None;
    }
    let mut both = table.clone();
    for (key, value) in
        text.iter().filter(|(key, _)| !matches!(key.as_str(), "description" | "x-taplo" | "enum"))
    {
        both.insert(key.clone(), value.clone());
    }
    // A list of words would be about tables, too.
    if let Some(words) = text.get("enum").and_then(Value::as_array) {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        both.insert("pattern".into(), format!("^({})$", words.join("|")).into());
    }
    both.insert("type".into(), json!([scalar, "object"]));
    both.remove("description");
    Some(both)
}

/// Tables that a key tells apart, which is another word in each.
fn tagged(alternatives: &[Object]) -> Option<Object> {
    let properties = |table: &Object| table.get("properties").and_then(Value::as_object).cloned();
    let word = |table: &Object, tag: &str| properties(table)?.get(tag)?.get("const").cloned();
    let tag = properties(alternatives.first()?)?
        .keys()
        .find(|key| {
            let words: BTreeSet<String> =
                alternatives.iter().filter_map(|table| Some(word(table, key)?.to_string())).collect();
            words.len() == alternatives.len()
        })?
        .clone();
    let words: Vec<Value> = alternatives.iter().filter_map(|table| word(table, &tag)).collect();
    let kinds = alternatives.iter().zip(&words).map(|(table, word)| {
        let mut then = table.clone();
        then.remove("description");
        json!({ "if": { "properties": { &tag: { "const": word } } }, "then": then })
    });
    let table = json!({
        "type": "object", "properties": { &tag: { "enum": words } }, "required": [tag],
        "allOf": kinds.collect::<Vec<_>>(),
    });
    table.as_object().cloned()
}

/// Tables that only another table tells apart: what any of them may have, and what all of them need.
fn union(alternatives: &[Object]) -> Option<Object> {
    let mut properties = Object::new();
    let mut required: Option<Vec<Value>> = None;
    for table in alternatives {
        for (key, value) in table.get("properties")?.as_object()? {
            let known = properties.entry(key.clone()).or_insert_with(|| value.clone());
            if known != value {
                *known = true.into();
            }
        }
        let needed = table.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        required = Some(match required {
            None => needed,
            Some(before) => before.into_iter().filter(|key| needed.contains(key)).collect(),
        });
    }
    let table = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    });
    table.as_object().cloned()
}

/// Tables that each have keys which no other can have: one of them says which table it is.
fn told_apart(alternatives: &[Object]) -> Option<Object> {
    let properties = |table: &Object| table.get("properties").and_then(Value::as_object).cloned();
    let all: Vec<Object> = alternatives.iter().map(properties).collect::<Option<_>>()?;
    let mut table = union(alternatives)?;
    let kinds = alternatives.iter().zip(&all).enumerate().map(|(at, (own, keys))| {
        let others = || all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, keys)| keys);
        let never = |keys: Vec<&String>| -> Object {
            keys.into_iter().map(|key| (key.clone(), false.into())).collect()
        };
        let tells: Vec<&String> =
            keys.keys().filter(|key| others().all(|keys| !keys.contains_key(*key))).collect();
        if tells.is_empty() {
            return None;
        }
        let mut then = keys.clone();
        // What is the same in all of them is said once.
        then.retain(|key, value| others().any(|keys| keys.get(key).is_some_and(|other| other != value)));
        then.extend(never(others().flat_map(Object::keys).filter(|key| !keys.contains_key(*key)).collect()));
        let mut then = Object::from_iter([("properties".to_owned(), Value::from(then))]);
        then.extend(own.get("required").map(|required| ("required".to_owned(), required.clone())));
        // Where one of the keys is, not all of them are absent.
        Some(json!({ "if": { "not": { "properties": never(tells) } }, "then": then }))
    });
    table.insert("allOf".into(), kinds.collect::<Option<Vec<_>>>()?.into());
    Some(table)
}

/// Two tables, of which the first has a key that the other cannot have.
fn tables(alternatives: &[Object]) -> Option<Object> {
    let [first, second] = alternatives else { return None };
    let properties = |table: &Object| table.get("properties").and_then(Value::as_object).cloned();
    let required = |table: &Object| table.get("required").cloned().unwrap_or_else(|| json!([]));
    let (ours, theirs) = (properties(first)?, properties(second)?);
    let tells = required(first)
        .as_array()?
        .iter()
        .find(|key| key.as_str().is_some_and(|key| !theirs.contains_key(key)))
        .cloned()?;
    let (mut both, mut if_first, mut if_second) = (Object::new(), Object::new(), Object::new());
    for key in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        match (ours.get(key), theirs.get(key)) {
            (Some(one), Some(other)) if one != other => {
                both.insert(key.clone(), true.into());
                if_first.insert(key.clone(), one.clone());
                if_second.insert(key.clone(), other.clone());
            }
            (Some(one), Some(_)) => drop(both.insert(key.clone(), one.clone())),
            (Some(one), None) => {
                both.insert(key.clone(), one.clone());
                if_second.insert(key.clone(), false.into());
            }
            (None, other) => {
                both.insert(key.clone(), other.cloned().unwrap_or_default());
                if_first.insert(key.clone(), false.into());
            }
        }
    }
    let mut then = Object::from_iter([
        ("properties".to_owned(), if_first.into()),
        ("required".to_owned(), required(first)),
    ]);
    // Whatever tells apart what the first may be.
    then.extend(first.get("allOf").map(|kinds| ("allOf".to_owned(), kinds.clone())));
    let table = json!({
        "type": "object", "properties": both, "additionalProperties": false,
        "if": { "required": [tells] },
        "then": then,
        "else": { "properties": if_second, "required": required(second) },
    });
    table.as_object().cloned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use tidegate_connectors::connection::Kind;

    use super::*;

    fn alternatives(schema: &Value, path: &str, found: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                found.extend(
                    ["anyOf", "oneOf"]
                        .into_iter()
                        .filter(|key| object.contains_key(*key))
                        .map(|key| format!("{path}/{key}")),
                );
                object.iter().for_each(|(key, inner)| alternatives(inner, &format!("{path}/{key}"), found));
            }
            Value::Array(items) => items.iter().for_each(|item| alternatives(item, path, found)),
            _ => {}
        }
    }

    #[test]
    fn every_choice_says_by_what_it_is_made() {
        let mut found = Vec::new();
        alternatives(&crate::config::json_schema(), "", &mut found);
        assert_eq!(found, Vec::<String>::new(), "an editor would mark the whole table");
    }

    #[test]
    fn kinds_are_told_apart_by_a_word_or_not_at_all() {
        let table = |key: &str| {
            json!({ "type": "object", "required": ["kind", key], "properties": {
                "kind": { "const": key }, key: { "type": "string" }, "both": { "type": "integer" },
            } })
        };
        let mut tagged = json!({ "oneOf": [table("a"), table("b")] });
        simplify(&mut tagged, &json!({}));
        assert_eq!(tagged["properties"], json!({ "kind": { "enum": ["a", "b"] } }));
        assert_eq!(tagged["allOf"][1]["if"], json!({ "properties": { "kind": { "const": "b" } } }));
        assert_eq!(tagged["allOf"][1]["then"], table("b"));
        let other = json!({ "type": "object", "properties": { "both": { "type": "string" }, "c": true } });
        let third = json!({ "type": "object", "properties": { "d": true } });
        let united =
            union(&[&other, &third, &third].map(|table| table.as_object().unwrap().clone())).unwrap();
        assert_eq!(united["properties"], json!({ "both": { "type": "string" }, "c": true, "d": true }));
        assert_eq!(united["required"], json!([]));
    }

    #[test]
    fn what_tells_alternatives_apart_is_kept() {
        let schema = crate::config::json_schema();
        let defs = &schema["$defs"];
        assert_eq!(defs["Durability"]["enum"], json!(["full", "normal"]));
        assert_eq!(defs["SecretSource"]["maxProperties"], json!(1));
        assert_eq!(defs["FieldConfig"]["type"], json!(["string", "object"]));
        assert_eq!(defs["FieldConfig"]["pattern"], json!("^(bool|int64|float64|utf8|timestamp|bytes)$"));
        assert_eq!(defs["StreamTable"]["if"], json!({ "required": ["connection"] }));
        assert_eq!(defs["StreamTable"]["else"]["properties"]["topic"], json!(false));
        let kinds = json!(Kind::ALL.map(Kind::name));
        assert_eq!(defs["ConnectionConfig"]["properties"]["kind"]["enum"], kinds);
        for section in ["StreamTable", "OutputTable"] {
            let kinds = if section == "StreamTable" {
                &defs[section]["then"]["allOf"]
            } else {
                &defs[section]["allOf"]
            };
            let of_topics = |kind: &&Value| kind["if"]["not"]["properties"].get("topic").is_some();
            let (topics, others): (Vec<_>, Vec<_>) = kinds.as_array().unwrap().iter().partition(of_topics);
            assert_eq!((topics.len(), others.len()), (1, Kind::ALL.len() - 1), "{section}");
            assert!(others.iter().all(|kind| kind["then"]["properties"]["topic"] == json!(false)));
            assert_eq!(topics[0]["then"]["properties"]["message"], json!(false), "{section}");
        }
        assert_eq!(schema["properties"]["streams"]["propertyNames"]["pattern"], json!(names::TARGET));
    }
}
