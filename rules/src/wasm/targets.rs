//! What a plugin writes to, and how its rows become a rule's.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{self, Schema};
use arrow::error::ArrowError;
use tidegate_core::{Rows, Seqs};

use super::columns::{Field, Kind, Table, WrittenOut};
use super::manifest::Written;
use crate::rule::Emissions;
use crate::target::{Fit, Target, Unfit};
use crate::{Catalog, OutputColumns};

/// The targets of a plugin, in the order of its manifest.
#[derive(Debug)]
pub(super) struct Targets {
    targets: Vec<Columns>,
    /// what is known of them, and of nothing else
    catalog: Catalog,
}

#[derive(Debug)]
struct Columns {
    target: Target,
    fields: Vec<Field>,
}

/// Rows that one call of `write` gave.
#[derive(Debug)]
pub(super) struct Write {
    target: usize,
    /// places of the columns that it gave
    shape: Vec<u32>,
    /// one a row
    seqs: Vec<u64>,
    rows: RecordBatch,
}

impl Targets {
    pub(super) fn new() -> Self {
        Self { targets: Vec::new(), catalog: Catalog::default() }
    }

    /// Adds the next one. Returns its columns that no plugin can write.
    ///
    /// # Errors
    /// When there is none of the name, or nobody knows what its columns are; with what to do.
    pub(super) fn add(
        &mut self,
        written: &Written,
        catalog: &Catalog,
    ) -> Result<Vec<String>, (String, String)> {
        let name = &written.name;
        let target = Target::find(name, catalog).map_err(|unfit| match unfit {
            Unfit::Name { what, help } => (what, help),
            other => (other.to_string(), "write to another target".to_owned()),
        })?;
        if self.targets.iter().any(|known| known.target == target) {
            return Err((format!("`{name}` stands in `writes` twice"), "leave one of them out".to_owned()));
        }
        let declared = match &target {
            Target::Stream(stream) => {
                let schema = catalog.derived.get(&**stream).cloned();
                self.catalog.derived.extend(schema.clone().map(|schema| (stream.to_string(), schema)));
                schema
            }
            Target::Output(output) => {
                let known = catalog.outputs.get(&**output).cloned().unwrap_or_else(OutputColumns::default);
                let accepted = known.accepted.clone();
                self.catalog.outputs.insert(output.to_string(), known);
                accepted
            }
            Target::Uplink => None,
        };
        self.catalog.uplink = true;
        let (fields, left_out) = fields(name, declared.as_deref(), written)?;
        self.targets.push(Columns { target, fields });
        Ok(left_out)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().map(|columns| &columns.target)
    }

    /// As a plugin is told of them.
    pub(super) fn tables(&self) -> Vec<Table> {
        let table = |columns: &Columns| Table {
            name: columns.target.name().to_owned(),
            fields: columns.fields.clone(),
        };
        self.targets.iter().map(table).collect()
    }

    /// The rows that a plugin gives: `causes` names a row for each, of those that have the numbers `seqs`.
    ///
    /// # Errors
    /// When they are not what the target takes.
    pub(super) fn write(
        &self,
        target: u32,
        causes: &[u32],
        mut columns: Vec<WrittenOut>,
        (seqs, given): (&Seqs, u32),
    ) -> Result<Write, String> {
        let place = target as usize;
        let known = self.targets.get(place);
        let Columns { target, fields } = known.ok_or_else(|| {
            format!("it wrote to target {target}, and has {} (from 0 on)", self.targets.len())
        })?;
        if !causes.is_sorted() {
            return Err(format!("`causes` of what it wrote to `{target}` decrease"));
        }
        if let Some(cause) = causes.last().filter(|cause| **cause >= given) {
            return Err(format!(
                "it wrote to `{target}` because of row {cause}, and was given {given} (from 0 on)"
            ));
        }
        columns.sort_by_key(|column| column.field);
        let (mut shape, mut arrays, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for WrittenOut { field: at, column } in columns {
            let Some(field) = fields.get(at as usize) else {
                return Err(format!(
                    "it wrote column {at} of `{target}`, which has {} (from 0 on)",
                    fields.len()
                ));
            };
            if shape.last() == Some(&at) {
                return Err(format!("it wrote column `{}` of `{target}` twice", field.name));
            }
            let array = column
                .into_array(field.kind, causes.len())
                .map_err(|why| format!("column `{}` of `{target}` {why}", field.name))?;
            shape.push(at);
            written.push(datatypes::Field::new(&field.name, field.kind.data_type(), true));
            arrays.push(array);
        }
        if shape.is_empty() {
            return Err(format!("it wrote rows without a column to `{target}`"));
        }
        let rows = self.fitted(target, Arc::new(Schema::new(written)), arrays)?;
        let seqs = causes.iter().map(|cause| seqs.get(*cause as usize)).collect();
        Ok(Write { target: place, shape, seqs, rows })
    }

    fn fitted(
        &self,
        target: &Target,
        schema: Arc<Schema>,
        columns: Vec<ArrayRef>,
    ) -> Result<RecordBatch, String> {
        let fit = Fit::new(target, &schema, &self.catalog)
            .map_err(|unfit| format!("what it wrote does not fit: {unfit}"))?;
        RecordBatch::try_new(schema, columns)
            .and_then(|rows| fit.apply(&rows))
            .map_err(|error| format!("what it wrote to `{target}` does not fit: {error}"))
    }

    /// Adds what was written in one call of the rule: target by target, and for each in the order of the rows
    /// that led to it and of the plugin's writes, wherever the batch was cut. A new batch begins where the
    /// columns are others.
    ///
    /// # Errors
    /// When Arrow refuses, which it has no reason to.
    pub(super) fn emit(&self, writes: &[Write], out: &mut Emissions) -> Result<(), ArrowError> {
        let mut order: Vec<(usize, u64, usize, usize)> = Vec::new();
        for (at, Write { target, seqs, .. }) in writes.iter().enumerate() {
            order.extend(seqs.iter().enumerate().map(|(row, seq)| (*target, *seq, at, row)));
        }
        order.sort_unstable();
        let shape = |at: usize| writes.get(at).map(|write| &write.shape);
        for rows in order.chunk_by(|a, b| a.0 == b.0 && shape(a.2) == shape(b.2)) {
            let Some((target, _, first, _)) = rows.first() else { continue };
            let Some(Columns { target, .. }) = self.targets.get(*target) else { continue };
            let batch = match writes.get(*first) {
                // All of one write, as it is.
                Some(write) if write.seqs.len() == rows.len() && rows.iter().all(|row| row.2 == *first) => {
                    write.rows.clone()
                }
                _ => {
                    let mut used: Vec<usize> = rows.iter().map(|row| row.2).collect();
                    used.sort_unstable();
                    used.dedup();
                    let place = |at: &usize| used.binary_search(at).unwrap_or_default();
                    let places: Vec<(usize, usize)> =
                        rows.iter().map(|(_, _, at, row)| (place(at), *row)).collect();
                    let used = used.iter().filter_map(|at| writes.get(*at)).map(|write| &write.rows);
                    interleave_record_batch(&used.collect::<Vec<_>>(), &places)?
                }
            };
            let seqs = Seqs::list(rows.iter().map(|row| row.1).collect());
            out.emit(target, Rows { batch, seqs });
        }
        Ok(())
    }
}

impl Write {
    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.rows.get_array_memory_size()
    }
}

/// The columns of a target, and those that no plugin can write.
fn fields(
    name: &str,
    declared: Option<&Schema>,
    written: &Written,
) -> Result<(Vec<Field>, Vec<String>), (String, String)> {
    let Some(declared) = declared else {
        if written.columns.is_empty() {
            let what = format!("`{name}` takes any columns, so the plugin has to say which it writes");
            let help = format!("write `[writes.{name}]` and below it `columns = {{ score = \"float64\" }}`");
            return Err((what, help));
        }
        let field = |(name, kind): &(String, _)| Field { name: name.clone(), kind: Kind::from(*kind) };
        return Ok((written.columns.iter().map(field).collect(), Vec::new()));
    };
    if !written.columns.is_empty() {
        let what = format!("`{name}` has its columns already");
        return Err((what, "leave `columns` out".to_owned()));
    }
    let (mut fields, mut left_out) = (Vec::new(), Vec::new());
    for field in declared.fields() {
        match Kind::written(field.data_type()) {
            Some(kind) => fields.push(Field { name: field.name().clone(), kind }),
            None => left_out.push(field.name().clone()),
        }
    }
    Ok((fields, left_out))
}
