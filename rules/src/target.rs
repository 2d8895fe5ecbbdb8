//! Where rules write, and what is asked of their columns there: the same in every language.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use tidegate_core::TS;
use tidegate_core::diagnostic::{did_you_mean, nearest};

use crate::catalog::{Catalog, OutputColumns};
use crate::types::field_type;

/// Where a rule writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A derived stream.
    Stream(Arc<str>),
    /// An output.
    Output(Arc<str>),
    /// The way to the cloud.
    Uplink,
}

impl Target {
    /// The target that rules call `name`.
    ///
    /// # Errors
    /// When there is none, or it is not for rules to write.
    pub fn find(name: &str, catalog: &Catalog) -> Result<Self, Unfit> {
        if catalog.outputs.contains_key(name) {
            return Ok(Self::Output(Arc::from(name)));
        }
        if catalog.derived.contains_key(name) {
            return Ok(Self::Stream(Arc::from(name)));
        }
        let (what, help) = if name == "uplink" {
            if catalog.uplink {
                return Ok(Self::Uplink);
            }
            ("there is no uplink".to_owned(), "add [uplink] to the configuration".to_owned())
        } else if catalog.tables.contains_key(name) {
            (format!("`{name}` is a reference table, which its file fills"), ELSEWHERE.to_owned())
        } else if catalog.inputs.contains_key(name) {
            (format!("`{name}` is fed by a connection and cannot be written"), ELSEWHERE.to_owned())
        } else {
            let known: Vec<&str> = catalog.writable().collect();
            let help = did_you_mean(name, &known)
                .unwrap_or_else(|| "declare an output or a derived stream in the configuration".to_owned());
            (format!("`{name}` is not an output, a derived stream or `uplink`"), help)
        };
        Err(Unfit::Name { what, help })
    }

    /// The name as rules write it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Stream(name) | Self::Output(name) => name,
            Self::Uplink => "uplink",
        }
    }
}

const ELSEWHERE: &str = "write to an output, a derived stream or `uplink`";

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a rule cannot write what it does. How that is mended is said in the rule's language, but for names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no such target, or no such column in it.
    #[error("{what}; {help}")]
    Name {
        /// what is not there
        what: String,
        /// what is, and may be meant
        help: String,
    },
    /// Nobody could use rows of a stream that do not say when they were.
    #[error("every row of stream `{stream}` needs its event time")]
    NoTime {
        /// the stream
        stream: Arc<str>,
    },
    /// The output makes something of a column that the rule does not write.
    #[error("output `{output}` needs a column `{column}`, because its configuration names it")]
    NoColumn {
        /// the output
        output: Arc<str>,
        /// the column
        column: String,
        /// one that the rule writes, and may mean by it
        near: Option<String>,
    },
    /// It would be taken for another time than it is, where a moment is meant.
    #[error("`{column}` is a time without a zone, and would be taken for UTC")]
    NoZone {
        /// the column
        column: String,
    },
    /// Values would be lost, or mean something else.
    #[error("column `{column}` is {found}, but {target} declares it {wanted}")]
    Type {
        /// the column
        column: String,
        /// what the rule writes
        found: &'static str,
        /// the stream or output, with the word for what it is
        target: String,
        /// what that takes
        wanted: &'static str,
    },
}

/// How the columns of a rule become those of a target.
#[derive(Debug, Clone)]
pub struct Fit {
    schema: SchemaRef,
    origins: Vec<Origin>,
}

/// What becomes a column of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// the rule's column at this place
    Column(usize),
    /// the same, after a cast that loses nothing
    Cast(usize),
    /// nothing: the rule has none
    Null,
}

impl Fit {
    /// Makes rows with the columns `written` fit `target`.
    ///
    /// # Errors
    /// When they do not.
    pub fn new(target: &Target, written: &Schema, catalog: &Catalog) -> Result<Self, Unfit> {
        match target {
            Target::Stream(stream) => match catalog.derived.get(&**stream) {
                Some(declared) => Self::for_stream(stream, declared, written),
                None => {
                    let what = format!("`{stream}` is not a derived stream");
                    Err(Unfit::Name { what, help: ELSEWHERE.to_owned() })
                }
            },
            Target::Output(output) => match catalog.outputs.get(&**output) {
                Some(columns) => Self::for_output(output, columns, written),
                None => Ok(Self::unchanged(written)),
            },
            Target::Uplink => {
                let ts = written.field_with_name(TS).ok();
                ts.map_or(Ok(()), refuse_local).map(|()| Self::unchanged(written))
            }
        }
    }

    fn unchanged(written: &Schema) -> Self {
        let origins = (0..written.fields().len()).map(Origin::Column).collect();
        Self { schema: Arc::new(written.clone()), origins }
    }

    /// All that the stream declares, in its order.
    fn for_stream(stream: &Arc<str>, declared: &SchemaRef, written: &Schema) -> Result<Self, Unfit> {
        let place = format!("stream `{stream}`");
        refuse_others(&format!("{place} declares no field"), declared, written)?;
        let origin = |wanted: &Arc<Field>| match written.index_of(wanted.name()) {
            Ok(at) => origin(at, written.field(at), wanted, &place),
            Err(_) if wanted.name() == TS => Err(Unfit::NoTime { stream: Arc::clone(stream) }),
            Err(_) => Ok(Origin::Null),
        };
        let origins = declared.fields().iter().map(origin).collect::<Result<_, _>>()?;
        Ok(Self { schema: Arc::clone(declared), origins })
    }

    /// What the rule writes and no more: a column that it leaves out is not touched.
    fn for_output(output: &Arc<str>, columns: &OutputColumns, written: &Schema) -> Result<Self, Unfit> {
        let missing = columns.required.iter().find(|column| written.index_of(column).is_err());
        if let Some(column) = missing {
            let have = written.fields().iter().map(|field| field.name().as_str());
            let near = nearest(column, have).map(str::to_owned);
            return Err(Unfit::NoColumn { output: Arc::clone(output), column: column.clone(), near });
        }
        let Some(accepted) = &columns.accepted else { return Ok(Self::unchanged(written)) };
        let place = format!("output `{output}`");
        refuse_others(&format!("{place} has no column"), accepted, written)?;
        let (mut fields, mut origins) = (Vec::new(), Vec::new());
        for (at, field) in written.fields().iter().enumerate() {
            let Some((_, wanted)) = accepted.column_with_name(field.name()) else { continue };
            origins.push(origin(at, field, wanted, &place)?);
            fields.push(wanted.clone());
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), origins })
    }

    /// The columns of the target, and what becomes each.
    pub fn columns(&self) -> impl Iterator<Item = (&Arc<Field>, Origin)> {
        self.schema.fields().iter().zip(self.origins.iter().copied())
    }

    /// The rows of `batch`, whose columns are those that it was made for, in the columns of the target.
    ///
    /// # Errors
    /// When a value does not fit after all, such as a row without an event time.
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let loses_nothing = CastOptions { safe: false, ..CastOptions::default() };
        let column = |at: usize| {
            let missing = || ArrowError::SchemaError(format!("there is no column {at}"));
            batch.columns().get(at).ok_or_else(missing)
        };
        let columns = self.columns().map(|(field, origin)| match origin {
            Origin::Column(at) => column(at).cloned(),
            Origin::Cast(at) => cast_with_options(column(at)?, field.data_type(), &loses_nothing),
            Origin::Null => Ok(new_null_array(field.data_type(), batch.num_rows())),
        });
        let columns = columns.collect::<Result<_, _>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)
    }
}

/// `refusal` names the target and says that it has no column of that name.
fn refuse_others(refusal: &str, known: &Schema, written: &Schema) -> Result<(), Unfit> {
    let Some(other) = written.fields().iter().find(|field| known.index_of(field.name()).is_err()) else {
        return Ok(());
    };
    let names: Vec<&str> = known.fields().iter().map(|field| field.name().as_str()).collect();
    let help = did_you_mean(other.name(), &names).unwrap_or_else(|| "it takes none".to_owned());
    Err(Unfit::Name { what: format!("{refusal} `{}`", other.name()), help })
}

fn refuse_local(found: &Field) -> Result<(), Unfit> {
    match found.data_type() {
        DataType::Timestamp(_, None) => Err(Unfit::NoZone { column: found.name().clone() }),
        _ => Ok(()),
    }
}

fn origin(at: usize, found: &Field, wanted: &Field, target: &str) -> Result<Origin, Unfit> {
    if matches!(wanted.data_type(), DataType::Timestamp(..)) {
        refuse_local(found)?;
    }
    match widens(found.data_type(), wanted.data_type()) {
        Some(false) => Ok(Origin::Column(at)),
        Some(true) => Ok(Origin::Cast(at)),
        None => Err(Unfit::Type {
            column: wanted.name().clone(),
            found: field_type(found.data_type()),
            target: target.to_owned(),
            wanted: field_type(wanted.data_type()),
        }),
    }
}

/// Whether values of `found` fit `wanted` without loss: `Some(false)` as they are, `Some(true)` after a cast.
fn widens(found: &DataType, wanted: &DataType) -> Option<bool> {
    use DataType::{Float32, Float64, Int64, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    match (found, wanted) {
        (a, b) if a == b => Some(false),
        (Null, _) | (Utf8View | LargeUtf8, Utf8) | (Timestamp(..), Timestamp(..)) | (Float32, Float64) => {
            Some(true)
        }
        (a, Int64 | Float64) if a.is_integer() => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::{Float64Type, TimeUnit};
    use tidegate_core::schema::ts_field;

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        let columns = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
        Arc::new(Schema::new(columns.collect::<Vec<_>>()))
    }

    fn catalog() -> Catalog {
        let fields = vec![
            ts_field(),
            Field::new("level", DataType::Float64, true),
            Field::new("device", DataType::Utf8, true),
        ];
        let open = OutputColumns { required: vec!["device".to_owned()], accepted: None };
        let registers = schema(&[("run", DataType::Boolean), ("speed", DataType::Float64)]);
        let closed = OutputColumns { required: Vec::new(), accepted: Some(registers) };
        Catalog {
            inputs: [("tank".to_owned(), None)].into(),
            tables: [("limits".to_owned(), None)].into(),
            derived: [("levels".to_owned(), Arc::new(Schema::new(fields)))].into(),
            outputs: [("lamp".to_owned(), open), ("pump".to_owned(), closed)].into(),
            ..Catalog::default()
        }
    }

    fn fit(target: &str, written: &[(&str, DataType)]) -> Result<Vec<(String, Origin)>, String> {
        let catalog = catalog();
        let target = Target::find(target, &catalog).map_err(|unfit| unfit.to_string())?;
        let fit = Fit::new(&target, &schema(written), &catalog).map_err(|unfit| unfit.to_string())?;
        Ok(fit.columns().map(|(field, origin)| (field.name().clone(), origin)).collect())
    }

    fn columns(found: &[(&str, Origin)]) -> Result<Vec<(String, Origin)>, String> {
        Ok(found.iter().map(|(name, origin)| ((*name).to_owned(), *origin)).collect())
    }

    #[test]
    fn only_what_rules_fill_is_a_target() {
        let find = |name| Target::find(name, &catalog()).map_err(|unfit| unfit.to_string());
        assert_eq!(find("levels"), Ok(Target::Stream("levels".into())));
        assert_eq!(find("pump"), Ok(Target::Output("pump".into())));
        let said = |name| find(name).err().unwrap_or_default();
        assert_eq!(said("uplink"), "there is no uplink; add [uplink] to the configuration");
        assert!(said("tank").starts_with("`tank` is fed by a connection and cannot be written; write to"));
        assert!(said("limits").starts_with("`limits` is a reference table, which its file fills; write to"));
        assert!(said("pmp").ends_with("; did you mean `pump`?"), "{}", said("pmp"));
    }

    #[test]
    fn a_stream_has_the_columns_that_it_declares_in_their_order() {
        let (ts, text) = (ts_field().data_type().clone(), DataType::Utf8View);
        assert_eq!(
            fit("levels", &[("device", text), ("ts", ts.clone())]),
            columns(&[("ts", Origin::Column(1)), ("level", Origin::Null), ("device", Origin::Cast(0))])
        );
        assert_eq!(
            fit("levels", &[("level", DataType::Int32)]),
            Err("every row of stream `levels` needs its event time".to_owned())
        );
        assert_eq!(
            fit("levels", &[("ts", ts.clone()), ("levl", DataType::Int32)]),
            Err("stream `levels` declares no field `levl`; did you mean `level`?".to_owned())
        );
        assert_eq!(
            fit("levels", &[("ts", ts), ("level", DataType::Utf8)]),
            Err("column `level` is utf8, but stream `levels` declares it float64".to_owned())
        );
    }

    #[test]
    fn a_moment_has_a_zone() {
        let local = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let said = |target: Target, columns: &[(&str, DataType)]| {
            Fit::new(&target, &schema(columns), &catalog()).err().map(|unfit| unfit.to_string())
        };
        let wrong = Some("`ts` is a time without a zone, and would be taken for UTC".to_owned());
        let ts = ts_field().data_type().clone();
        assert_eq!(said(Target::Stream("levels".into()), &[("ts", local.clone())]), wrong);
        assert_eq!(said(Target::Uplink, &[("ts", local.clone())]), wrong);
        assert_eq!(said(Target::Uplink, &[("seen", local), ("ts", ts)]), None);
    }

    #[test]
    fn an_output_gets_what_the_rule_writes_if_it_has_such_columns() {
        assert_eq!(
            fit("lamp", &[("x", DataType::Int32), ("device", DataType::Utf8)]),
            columns(&[("x", Origin::Column(0)), ("device", Origin::Column(1))])
        );
        let missing = "output `lamp` needs a column `device`, because its configuration names it";
        assert_eq!(fit("lamp", &[("devic", DataType::Utf8)]), Err(missing.to_owned()));
        assert_eq!(fit("pump", &[("speed", DataType::Int64)]), columns(&[("speed", Origin::Cast(0))]));
        assert_eq!(
            fit("pump", &[("sped", DataType::Int64)]),
            Err("output `pump` has no column `sped`; did you mean `speed`?".to_owned())
        );
        assert_eq!(
            fit("pump", &[("run", DataType::Utf8)]),
            Err("column `run` is utf8, but output `pump` declares it bool".to_owned())
        );
    }

    #[test]
    fn rows_are_fitted() {
        let written: [(&str, ArrayRef); 3] = [
            ("level", Arc::new(Int32Array::from(vec![Some(3), None]))),
            ("device", Arc::new(StringArray::from(vec!["a", "b"]))),
            ("ts", Arc::new(TimestampNanosecondArray::from(vec![1, 2]).with_timezone("UTC"))),
        ];
        let batch = RecordBatch::try_from_iter(written).unwrap();
        let catalog = catalog();
        let target = Target::find("levels", &catalog).unwrap();
        let fitted = Fit::new(&target, &batch.schema(), &catalog).unwrap().apply(&batch).unwrap();
        let expected = catalog.derived.values().next().unwrap();
        assert_eq!(fitted.schema_ref(), expected);
        let levels = fitted.column_by_name("level").unwrap().as_primitive::<Float64Type>();
        assert_eq!(levels, &Float64Array::from(vec![Some(3.0), None]));
    }
}
