//! What the configuration offers to rules.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use tidegate_connectors::mqtt::template::Template;
use tidegate_rules::{Catalog, OutputColumns};

use crate::config::{Config, OutputKind, Stream};

/// The catalog of `config`. `inferred` knows the columns of streams that do not declare them, as far as
/// anybody does.
#[must_use]
pub fn catalog(config: &Config, inferred: &dyn Fn(&str) -> Option<SchemaRef>) -> Catalog {
    let (mut inputs, mut derived) = (BTreeMap::new(), BTreeMap::new());
    for (name, stream) in &config.streams {
        match (stream, stream.schema()) {
            (Stream::Input { .. }, schema) => {
                drop(inputs.insert(name.clone(), schema.or_else(|| inferred(name))))
            }
            (Stream::Derived { .. }, Some(schema)) => drop(derived.insert(name.clone(), schema)),
            (Stream::Derived { .. }, None) => {}
        }
    }
    let outputs = config.outputs.iter().map(|(name, output)| (name.clone(), columns(&output.kind)));
    let tables = config.tables.iter().map(|(name, table)| (name.clone(), table.schema())).collect();
    let by_arrival = config
        .streams
        .iter()
        .filter(|(_, stream)| stream.goes_by_arrival())
        .map(|(name, _)| name.clone())
        .collect();
    let rules: Option<Vec<_>> = config.uplinks.values().map(|uplink| uplink.rules.clone()).collect();
    let uplink_rules = rules.map(|rules| rules.into_iter().flatten().collect());
    Catalog {
        inputs,
        by_arrival,
        derived,
        tables,
        outputs: outputs.collect(),
        uplink: !config.uplinks.is_empty(),
        uplink_rules,
    }
}

fn columns(kind: &OutputKind) -> OutputColumns {
    match kind {
        OutputKind::Mqtt(output) => {
            let topic = Template::parse(&output.topic);
            let payload = output.payload.as_deref().map(Template::parse);
            let columns = topic.columns().chain(payload.iter().flat_map(Template::columns));
            let mut names: Vec<String> = columns.map(str::to_owned).collect();
            names.sort();
            names.dedup();
            OutputColumns { required: names, accepted: None }
        }
    }
}
