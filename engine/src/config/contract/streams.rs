//! What contracts can look at.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::SchemaRef;

use crate::config::Stream;

/// The streams that contracts may look at.
pub(in crate::config) struct StreamsOfContracts {
    /// with their columns, as far as they are declared
    pub(in crate::config) columns: BTreeMap<String, Option<SchemaRef>>,
    /// whose rows may have been kept on their way without saying so
    pub(in crate::config) hides_age: BTreeSet<String>,
}

impl StreamsOfContracts {
    /// `names`: also of those that have errors.
    pub(in crate::config) fn new(streams: &BTreeMap<String, Stream>, names: &[String]) -> Self {
        let columns = names.iter().map(|name| (name.clone(), streams.get(name).and_then(Stream::schema)));
        let hides_age = |stream: &Stream| matches!(stream, Stream::Input(stream) if stream.hides_age());
        let hides_age = streams.iter().filter(|(_, stream)| hides_age(stream)).map(|(name, _)| name.clone());
        Self { columns: columns.collect(), hides_age: hides_age.collect() }
    }

    pub(in crate::config) fn names(&self) -> Vec<&str> {
        self.columns.keys().map(String::as_str).collect()
    }
}
