//! Serde visitors that hand values to the decoder as they meet them.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Decoder, Place};
use crate::json::column::Scalar;
use crate::json::layout::ROW;

/// One object that is a row, or an array of them.
pub(super) struct Rows<'d> {
    pub(super) decoder: &'d mut Decoder,
    /// whether one object alone is a row, too
    pub(super) single: bool,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.single { "an object or an array of objects" } else { "an array of objects" })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.decoder.begin_row();
        Object { decoder: self.decoder, node: ROW }.visit_map(map)?;
        self.decoder.end_row()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Row(self.decoder))?.is_some() {}
        Ok(())
    }
}

/// One element of the array of rows.
struct Row<'d>(&'d mut Decoder);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.begin_row();
        Object { decoder: self.0, node: ROW }.deserialize(deserializer)?;
        self.0.end_row()
    }
}

/// Goes down the `rows` path; says whether there was an array at its end.
pub(super) struct Within<'p, 'd> {
    pub(super) path: &'p [String],
    pub(super) whole: &'p [String],
    pub(super) decoder: &'d mut Decoder,
    pub(super) start: usize,
}

impl<'de> DeserializeSeed<'de> for Within<'_, '_> {
    type Value = bool;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if self.path.is_empty() {
            // The last of several keys of the same name wins.
            self.decoder.truncate(self.start);
            Rows { decoder: self.decoder, single: false }.deserialize(deserializer)?;
            return Ok(true);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object on the way to the rows at \"{}\"", self.whole.join("."))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Some((name, path)) = self.path.split_first() else { return Ok(false) };
        let mut found = false;
        while let Some(matches) = map.next_key_seed(KeyIs(name))? {
            if matches {
                found = map.next_value_seed(Within {
                    path,
                    whole: self.whole,
                    decoder: &mut *self.decoder,
                    start: self.start,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let Some((name, path)) = self.path.split_first() else { return Ok(false) };
        let wanted = name.parse::<usize>().ok();
        let mut found = false;
        for index in 0.. {
            let element = if wanted == Some(index) {
                let seed = Within { path, whole: self.whole, decoder: &mut *self.decoder, start: self.start };
                seq.next_element_seed(seed)?.map(|inside| found = inside)
            } else {
                seq.next_element::<IgnoredAny>()?.map(|_| ())
            };
            if element.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

/// Whether a key is this one.
struct KeyIs<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// An object whose keys are those of a node.
pub(super) struct Object<'d> {
    pub(super) decoder: &'d mut Decoder,
    pub(super) node: usize,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // `deserialize_map` would take the elements of an array for something else.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { decoder, node } = self;
        if let Some(node) = decoder.nodes.get_mut(node) {
            node.next = 0;
        }
        while let Some(key) = map.next_key_seed(FindKey { decoder, node })? {
            match key {
                Some(key) => map.next_value_seed(Value { decoder, place: Place { node, key } })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// What paths find inside of a value that is also read as a whole.
struct Inside<'d> {
    decoder: &'d mut Decoder,
    node: usize,
}

impl<'de> DeserializeSeed<'de> for Inside<'_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inside<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Object { decoder: self.decoder, node: self.node }.visit_map(map)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        elements(self.decoder, self.node, seq)
    }
}

/// An array whose elements are keys of a node: nothing but what paths name is read.
fn elements<'de, A: SeqAccess<'de>>(decoder: &mut Decoder, node: usize, mut seq: A) -> Result<(), A::Error> {
    for index in 0.. {
        let key = decoder.nodes.get(node).and_then(|node| node.find_element(index));
        let element = match key {
            Some(key) => seq.next_element_seed(Value { decoder, place: Place { node, key } })?,
            None => seq.next_element::<IgnoredAny>()?.map(|_| ()),
        };
        if element.is_none() {
            break;
        }
    }
    Ok(())
}

/// Looks a key up in a node.
struct FindKey<'d> {
    decoder: &'d mut Decoder,
    node: usize,
}

impl<'de> DeserializeSeed<'de> for FindKey<'_> {
    type Value = Option<usize>;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FindKey<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        self.decoder.find(self.node, name)
    }
}

/// The value of a key.
struct Value<'d> {
    decoder: &'d mut Decoder,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.decoder.put(self.place, Scalar::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.decoder.put(self.place, Scalar::Int(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.decoder.put(self.place, i64::try_from(value).map_or(Scalar::Big(value), Scalar::Int))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.decoder.put(self.place, Scalar::Float(value))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.decoder.put(self.place, Scalar::Text(value))
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.decoder.put(self.place, Scalar::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Self { decoder, place } = self;
        let child = decoder.child(place);
        if let Some(node) = child.filter(|_| !decoder.is_read_as_a_whole(place)) {
            return Object { decoder, node }.visit_map(map);
        }
        let mut copy = Copied { out: (child.is_some() || decoder.takes_json(place)).then(String::new) };
        copy.visit_map(map)?;
        if let (Some(node), Some(json)) = (child, &copy.out) {
            let inside = Inside { decoder: &mut *decoder, node };
            inside.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(de::Error::custom)?;
        }
        put_copy(decoder, place, copy, "an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let Self { decoder, place } = self;
        // What was inferred from objects does not say what an array's elements are.
        let child = decoder.declared_child(place);
        if let Some(node) = child.filter(|_| !decoder.is_read_as_a_whole(place)) {
            return elements(decoder, node, seq);
        }
        let mut copy = Copied { out: (child.is_some() || decoder.takes_json(place)).then(String::new) };
        copy.visit_seq(seq)?;
        if let (Some(node), Some(json)) = (child, &copy.out) {
            let inside = Inside { decoder: &mut *decoder, node };
            inside.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(de::Error::custom)?;
        }
        put_copy(decoder, place, copy, "an array")
    }
}

fn put_copy<E: de::Error>(decoder: &mut Decoder, place: Place, copy: Copied, what: &str) -> Result<(), E> {
    match copy.out.filter(|_| decoder.takes_json(place)) {
        Some(json) => decoder.put(place, Scalar::Text(&json)),
        None => {
            decoder.refuse(place, what);
            Ok(())
        }
    }
}

/// Copies a value as JSON text, or skips it.
struct Copied {
    out: Option<String>,
}

impl Copied {
    fn write<E: de::Error>(&mut self, value: &impl serde::Serialize) -> Result<(), E> {
        if let Some(out) = &mut self.out {
            out.push_str(&serde_json::to_string(value).map_err(E::custom)?);
        }
        Ok(())
    }

    fn punctuate(&mut self, mark: char) {
        if let Some(out) = &mut self.out {
            out.push(mark);
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Copied {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Copied {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.write(&value)
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.write(&value)
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.write(&value)
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.write(&value)
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.write(&value)
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.write(&())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.punctuate('{');
        let mut first = true;
        while let Some(key) = map.next_key::<String>()? {
            if !std::mem::take(&mut first) {
                self.punctuate(',');
            }
            self.write(&key)?;
            self.punctuate(':');
            map.next_value_seed(&mut *self)?;
        }
        self.punctuate('}');
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.punctuate('[');
        let mut first = true;
        loop {
            // The comma has to wait until it is known that another element follows.
            let before = self.out.as_ref().map(String::len);
            if !first {
                self.punctuate(',');
            }
            if seq.next_element_seed(&mut *self)?.is_none() {
                if let (Some(out), Some(before)) = (&mut self.out, before) {
                    out.truncate(before);
                }
                break;
            }
            first = false;
        }
        self.punctuate(']');
        Ok(())
    }
}
