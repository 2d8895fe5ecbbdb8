//! Serde visitors that hand values to the decoder as they meet them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Decoder, Place};
use crate::codec::column::Scalar;
use crate::codec::json::text::marked_number;
use crate::codec::layout::ROW;

/// One object that is a row, or an array of them.
pub(super) struct Rows<'p, 'd> {
    pub(super) decoder: &'d mut Decoder,
    /// Where it is; empty: it is the payload.
    pub(super) path: &'p [String],
}

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.path.is_empty() {
            "an object or an array of objects"
        } else {
            "an array of objects"
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.decoder.begin_row();
        Object { decoder: self.decoder, node: ROW }.visit_map(map)?;
        self.decoder.end_row()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let row = Row { decoder: &mut *self.decoder, path: self.path, index };
            if seq.next_element_seed(row)?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// One element of the array of rows: an object, or nothing that could become a row.
struct Row<'p, 'd> {
    decoder: &'d mut Decoder,
    path: &'p [String],
    index: usize,
}

impl Row<'_, '_> {
    fn leave_out<E>(self, found: impl fmt::Display) -> Result<(), E> {
        self.decoder.leave_out_element(self.path, self.index, found);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Row<'_, '_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.decoder.begin_row();
        Object { decoder: &mut *self.decoder, node: ROW }.visit_map(map)?;
        self.decoder.end_row()
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.leave_out("an array")
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.leave_out(Scalar::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.leave_out(Scalar::Int(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.leave_out(Scalar::Big(value))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.leave_out(Scalar::Float(value))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.leave_out(text_or_number(value))
    }
    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<(), E> {
        self.leave_out(Scalar::Bytes(value))
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.leave_out(Scalar::Null)
    }
}

/// A string, or the number in the place of which it is.
fn text_or_number(text: &str) -> Scalar<'_> {
    marked_number(text).map_or(Scalar::Text(text), Scalar::Beyond)
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
            Rows { decoder: self.decoder, path: self.whole }.deserialize(deserializer)?;
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
        Ok(self.decoder.find(self.node, name))
    }
}

/// The value of a key.
struct Value<'d> {
    decoder: &'d mut Decoder,
    place: Place,
}

impl Value<'_> {
    fn put<E>(self, value: Scalar<'_>) -> Result<(), E> {
        self.decoder.put(self.place, value);
        Ok(())
    }
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
        f.write_str("a value")
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.put(Scalar::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.put(Scalar::Int(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.put(i64::try_from(value).map_or(Scalar::Big(value), Scalar::Int))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.put(Scalar::Float(value))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.put(text_or_number(value))
    }
    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<(), E> {
        self.put(Scalar::Bytes(value))
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.put(Scalar::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Self { decoder, place } = self;
        let child = decoder.child(place);
        if let Some(node) = child.filter(|_| !decoder.is_read_as_a_whole(place)) {
            return Object { decoder, node }.visit_map(map);
        }
        let mut copy = Copied::new(child.is_some() || decoder.takes_json(place));
        copy.visit_map(map)?;
        if let (Some(node), Some(json)) = (child, &copy.out) {
            let inside = Inside { decoder: &mut *decoder, node };
            inside.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(de::Error::custom)?;
        }
        put_copy(decoder, place, copy, "an object");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let Self { decoder, place } = self;
        // What was inferred from objects does not say what an array's elements are.
        let child = decoder.declared_child(place);
        if let Some(node) = child.filter(|_| !decoder.is_read_as_a_whole(place)) {
            return elements(decoder, node, seq);
        }
        let mut copy = Copied::new(child.is_some() || decoder.takes_json(place));
        copy.visit_seq(seq)?;
        if let (Some(node), Some(json)) = (child, &copy.out) {
            let inside = Inside { decoder: &mut *decoder, node };
            inside.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(de::Error::custom)?;
        }
        put_copy(decoder, place, copy, "an array");
        Ok(())
    }
}

fn put_copy(decoder: &mut Decoder, place: Place, copy: Copied, what: &str) {
    let Some(json) = copy.out.filter(|_| decoder.takes_json(place)) else {
        return decoder.refuse(place, what);
    };
    decoder.put(place, Scalar::Text(&json));
    if let Some(number) = copy.beyond {
        decoder.misfits(place, format_args!("{what} with {}, where it is null", Scalar::Beyond(&number)));
    }
}

/// Copies a value as JSON text, or skips it.
struct Copied {
    out: Option<String>,
    /// The first number in it that no float64 holds. Each of them is null in the copy, or nobody could read
    /// it.
    beyond: Option<String>,
}

impl Copied {
    fn new(is_wanted: bool) -> Self {
        Self { out: is_wanted.then(String::new), beyond: None }
    }

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
        f.write_str("a value")
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
        let Some(number) = marked_number(value) else { return self.write(&value) };
        self.beyond.get_or_insert_with(|| number.to_owned());
        self.write(&())
    }
    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<(), E> {
        self.write(&STANDARD.encode(value))
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
