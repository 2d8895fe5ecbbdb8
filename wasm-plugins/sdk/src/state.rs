//! What a plugin keeps from row to row, over restarts, and for its next version.
//!
//! At rest it is the state's version (two bytes) and CBOR (RFC 8949) with fields by name, so that the next
//! version may have more of them. What is as in the beginning is not kept at all.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::{self, Level};

/// Where the state of a plugin lies that is not keyed.
const KEY: &str = "state";
/// What the keys of [`Keyed`] begin with.
const KEYED: &str = "keyed/";

/// What a plugin may keep: see [`Plugin::State`](crate::Plugin::State).
pub trait State: Sized {
    #[doc(hidden)]
    fn load(version: u16) -> Loaded<Self>;

    #[doc(hidden)]
    fn store(loaded: Loaded<Self>, version: u16);
}

/// A value, and what it was like at rest.
#[doc(hidden)]
#[derive(Debug)]
pub struct Loaded<T> {
    pub value: T,
    rest: Option<Vec<u8>>,
}

impl<T: Serialize + DeserializeOwned + Default> State for T {
    fn load(version: u16) -> Loaded<Self> {
        Loaded::load(KEY, version)
    }

    fn store(loaded: Loaded<Self>, version: u16) {
        loaded.store(KEY, version);
    }
}

/// A `T` for each key: each device, say. One that was never touched is `T::default()`.
#[derive(Debug)]
pub struct Keyed<T> {
    version: u16,
    touched: BTreeMap<String, Loaded<T>>,
}

impl<T: Serialize + DeserializeOwned + Default> Keyed<T> {
    /// What is kept for `key`.
    pub fn entry(&mut self, key: &str) -> &mut T {
        // An owned key is needed for the first look only.
        if !self.touched.contains_key(key) {
            let loaded = Loaded::load(&format!("{KEYED}{key}"), self.version);
            self.touched.insert(key.to_owned(), loaded);
        }
        match self.touched.get_mut(key) {
            Some(loaded) => &mut loaded.value,
            None => unreachable!("it was put there"),
        }
    }

    /// Keeps nothing for `key` any more.
    pub fn remove(&mut self, key: &str) {
        *self.entry(key) = T::default();
    }
}

impl<T: Serialize + DeserializeOwned + Default> State for Keyed<T> {
    fn load(version: u16) -> Loaded<Self> {
        Loaded { value: Self { version, touched: BTreeMap::new() }, rest: None }
    }

    fn store(loaded: Loaded<Self>, version: u16) {
        for (key, loaded) in loaded.value.touched {
            loaded.store(&format!("{KEYED}{key}"), version);
        }
    }
}

impl<T: Serialize + DeserializeOwned + Default> Loaded<T> {
    fn load(key: &str, version: u16) -> Self {
        let rest = host::get(key);
        let value = rest.as_deref().and_then(|rest| match decode(rest, version) {
            Ok(value) => Some(value),
            Err(why) => {
                host::log(Level::Warn, &format!("what was kept under `{key}` is given up: {why}"));
                None
            }
        });
        Self { value: value.unwrap_or_default(), rest }
    }

    fn store(self, key: &str, version: u16) {
        let rest = encode(&self.value, version);
        if rest == encode(&T::default(), version) {
            if self.rest.is_some() {
                host::remove(key);
            }
        } else if self.rest.as_ref() != Some(&rest) {
            host::set(key, &rest);
        }
    }
}

fn encode<T: Serialize>(value: &T, version: u16) -> Vec<u8> {
    match cbor4ii::serde::to_vec(version.to_le_bytes().to_vec(), value) {
        Ok(rest) => rest,
        Err(error) => panic!("the state cannot be kept: {error}"),
    }
}

fn decode<T: DeserializeOwned>(rest: &[u8], version: u16) -> Result<T, String> {
    let Some((head, body)) = rest.split_first_chunk() else {
        return Err("it is no state of this kind of plugin".into());
    };
    let kept = u16::from_le_bytes(*head);
    if kept != version {
        return Err(format!("it is of version {kept} of the state, and the plugin keeps version {version}"));
    }
    cbor4ii::serde::from_slice(body).map_err(|error| format!("it does not fit any more ({error})"))
}
