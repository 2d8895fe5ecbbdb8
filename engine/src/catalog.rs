//! What the configuration offers to rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tidegate_core::FieldType;
use tidegate_rules::{Catalog, OutputColumns, Plugins};

use crate::config::{Config, Stream};
use crate::system;

/// The catalog of `config`. `known` has the columns of streams that do not declare them, as far as
/// anybody does.
#[must_use]
pub fn catalog(config: &Config, known: &dyn Fn(&str) -> Option<SchemaRef>) -> Catalog {
    let (mut inputs, mut derived) = (BTreeMap::new(), BTreeMap::new());
    for (name, stream) in &config.streams {
        match (stream, stream.schema()) {
            (Stream::Input(_), schema) => drop(inputs.insert(name.clone(), schema.or_else(|| known(name)))),
            (Stream::Derived { .. }, Some(schema)) => drop(derived.insert(name.clone(), schema)),
            (Stream::Derived { .. }, None) => {}
        }
    }
    inputs.extend(system::STREAMS.iter().map(|own| (own.name.to_owned(), Some(Arc::clone(own.schema())))));
    let outputs = config.outputs.iter().map(|(name, output)| {
        let accepted = output.config.columns().map(|columns| {
            let field = |(name, kind): (String, FieldType)| Field::new(name, kind.data_type(), true);
            Arc::new(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
        });
        (name.clone(), OutputColumns { required: output.config.required_columns(), accepted })
    });
    let tables = config.tables.iter().map(|(name, table)| (name.clone(), table.schema())).collect();
    let by_arrival = config
        .streams
        .iter()
        .filter(|(_, stream)| stream.goes_by_arrival())
        .map(|(name, _)| name.clone())
        .chain(system::STREAMS.iter().map(|own| own.name.to_owned()))
        .collect();
    let is_inferred = |stream: &Stream| matches!(stream, Stream::Input(_)) && stream.schema().is_none();
    let inferred = config
        .streams
        .iter()
        .filter(|(_, stream)| is_inferred(stream))
        .map(|(name, _)| name.clone())
        .collect();
    let rules: Option<Vec<_>> = config.uplinks.values().map(|uplink| uplink.rules.clone()).collect();
    let uplink_rules = rules.map(|rules| rules.into_iter().flatten().collect());
    Catalog {
        inputs,
        inferred,
        by_arrival,
        derived,
        tables,
        outputs: outputs.collect(),
        uplink: !config.uplinks.is_empty(),
        uplink_rules,
        plugins: Plugins {
            compiled: None,
            trusted_keys: config.rules.trusted_keys.clone(),
            must_be_signed: config.rules.require_signed_plugins,
        },
    }
}
