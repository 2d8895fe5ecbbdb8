//! Columns on their way into a plugin and out of it: Arrow's, and those of `wasm-plugins/wit/rule.wit`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, PrimitiveArray,
    StringArray, TimestampNanosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float64Type, Int64Type, Schema, TimestampNanosecondType,
};
use arrow::error::ArrowError;
use tidegate_core::FieldType;
use wasmtime::component::{ComponentType, Lift, Lower};

/// `kind` of rule.wit.
#[derive(ComponentType, Lift, Lower, Debug, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Kind {
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "int64")]
    Int64,
    #[component(name = "float64")]
    Float64,
    #[component(name = "timestamp")]
    Timestamp,
    #[component(name = "utf8")]
    Utf8,
    #[component(name = "bytes")]
    Bytes,
}

/// `field` of rule.wit.
#[derive(ComponentType, Lower, Debug, Clone)]
#[component(record)]
pub(super) struct Field {
    pub name: String,
    pub kind: Kind,
}

/// `table` of rule.wit.
#[derive(ComponentType, Lower, Debug, Clone)]
#[component(record)]
pub(super) struct Table {
    pub name: String,
    pub fields: Vec<Field>,
}

/// `variable` of rule.wit, on the way in.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct VariableIn<'a> {
    offsets: &'a [i32],
    data: &'a [u8],
}

/// `values` of rule.wit, on the way in.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub(super) enum ValuesIn<'a> {
    #[component(name = "boolean")]
    Boolean(&'a [u8]),
    #[component(name = "int64")]
    Int64(&'a [i64]),
    #[component(name = "float64")]
    Float64(&'a [f64]),
    #[component(name = "timestamp")]
    Timestamp(&'a [i64]),
    #[component(name = "utf8")]
    Utf8(VariableIn<'a>),
    #[component(name = "bytes")]
    Bytes(VariableIn<'a>),
}

/// `column` of rule.wit, on the way in.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct ColumnIn<'a> {
    valid: Option<&'a [u8]>,
    values: ValuesIn<'a>,
}

/// `variable` of rule.wit, on the way out.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct VariableOut {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

/// `values` of rule.wit, on the way out.
#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum ValuesOut {
    #[component(name = "boolean")]
    Boolean(Vec<u8>),
    #[component(name = "int64")]
    Int64(Vec<i64>),
    #[component(name = "float64")]
    Float64(Vec<f64>),
    #[component(name = "timestamp")]
    Timestamp(Vec<i64>),
    #[component(name = "utf8")]
    Utf8(VariableOut),
    #[component(name = "bytes")]
    Bytes(VariableOut),
}

/// `column` of rule.wit, on the way out.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct ColumnOut {
    valid: Option<Vec<u8>>,
    values: ValuesOut,
}

/// `written` of rule.wit.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct WrittenOut {
    pub field: u32,
    pub column: ColumnOut,
}

impl Kind {
    /// What a target's column of this type takes.
    pub(super) fn written(data_type: &DataType) -> Option<Self> {
        FieldType::from_arrow(data_type).map(Self::from)
    }

    /// As what a plugin is shown values of this type, which loses nothing.
    fn shown(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 => Some(Self::Int64),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Some(Self::Int64),
            DataType::Float32 => Some(Self::Float64),
            DataType::Utf8View | DataType::LargeUtf8 => Some(Self::Utf8),
            DataType::BinaryView | DataType::LargeBinary => Some(Self::Bytes),
            other => Self::written(other),
        }
    }

    /// In Arrow.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Boolean => FieldType::Bool,
            Self::Int64 => FieldType::Int64,
            Self::Float64 => FieldType::Float64,
            Self::Timestamp => FieldType::Timestamp,
            Self::Utf8 => FieldType::Utf8,
            Self::Bytes => FieldType::Bytes,
        }
        .data_type()
    }

    /// As configurations call it.
    fn word(self) -> &'static str {
        crate::types::field_type(&self.data_type())
    }
}

impl From<FieldType> for Kind {
    fn from(field_type: FieldType) -> Self {
        match field_type {
            FieldType::Bool => Self::Boolean,
            FieldType::Int64 => Self::Int64,
            FieldType::Float64 => Self::Float64,
            FieldType::Utf8 => Self::Utf8,
            FieldType::Timestamp => Self::Timestamp,
            FieldType::Bytes => Self::Bytes,
        }
    }
}

/// The columns of a stream that a plugin is shown.
#[derive(Debug)]
pub(super) struct Shown {
    /// where each is in the stream, and what it is there
    columns: Vec<(usize, DataType, Kind)>,
}

impl Shown {
    /// Those of the stream `name`; besides, the names of those that no plugin can read.
    pub(super) fn new(name: &str, schema: &Schema) -> (Self, Table, Vec<String>) {
        let (mut columns, mut fields, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        for (at, field) in schema.fields().iter().enumerate() {
            match Kind::shown(field.data_type()) {
                Some(kind) => {
                    columns.push((at, field.data_type().clone(), kind));
                    fields.push(Field { name: field.name().clone(), kind });
                }
                None => left_out.push(field.name().clone()),
            }
        }
        (Self { columns }, Table { name: name.to_owned(), fields }, left_out)
    }

    /// What the plugin is shown of `columns`, those of some rows of the stream.
    ///
    /// # Errors
    /// When the stream has other columns by now.
    pub(super) fn hold(&self, columns: &[ArrayRef]) -> Result<Vec<Held>, ArrowError> {
        let hold = |(at, data_type, kind): &(usize, DataType, Kind)| {
            let column =
                columns.get(*at).filter(|column| column.data_type() == data_type).ok_or_else(|| {
                    ArrowError::SchemaError(
                        "the stream has other columns than when the rule was loaded".to_owned(),
                    )
                })?;
            Held::new(column, *kind)
        };
        self.columns.iter().map(hold).collect()
    }
}

/// A column on its way in. Bits begin with a byte, offsets with 0, and where there is no value, there is zero:
/// what the plugin sees does not depend on how the column came to be.
pub(super) struct Held {
    valid: Option<Vec<u8>>,
    values: HeldValues,
}

enum HeldValues {
    Boolean(Vec<u8>),
    Int64(ScalarBuffer<i64>),
    Float64(ScalarBuffer<f64>),
    Timestamp(ScalarBuffer<i64>),
    Utf8(Vec<i32>, Buffer),
    Bytes(Vec<i32>, Buffer),
}

impl Held {
    fn new(column: &ArrayRef, kind: Kind) -> Result<Self, ArrowError> {
        let wanted = kind.data_type();
        let column = if *column.data_type() == wanted { Arc::clone(column) } else { cast(column, &wanted)? };
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        let values = match kind {
            Kind::Boolean => {
                let values = column.as_boolean().values();
                let there = nulls.map(|nulls| values & nulls.inner());
                HeldValues::Boolean(bits(there.as_ref().unwrap_or(values)))
            }
            Kind::Int64 => HeldValues::Int64(numbers::<Int64Type>(&column)),
            Kind::Float64 => HeldValues::Float64(numbers::<Float64Type>(&column)),
            Kind::Timestamp => HeldValues::Timestamp(numbers::<TimestampNanosecondType>(&column)),
            Kind::Utf8 => {
                let texts = column.as_string::<i32>();
                let whole =
                    nulls.map(|_| StringArray::from_iter_values(texts.iter().map(Option::unwrap_or_default)));
                let texts = whole.as_ref().unwrap_or(texts);
                let (offsets, data) = from_zero(texts.value_offsets(), texts.values());
                HeldValues::Utf8(offsets, data)
            }
            Kind::Bytes => {
                let bytes = column.as_binary::<i32>();
                let whole =
                    nulls.map(|_| BinaryArray::from_iter_values(bytes.iter().map(Option::unwrap_or_default)));
                let bytes = whole.as_ref().unwrap_or(bytes);
                let (offsets, data) = from_zero(bytes.value_offsets(), bytes.values());
                HeldValues::Bytes(offsets, data)
            }
        };
        Ok(Self { valid: nulls.map(|nulls| bits(nulls.inner())), values })
    }

    pub(super) fn column(&self) -> ColumnIn<'_> {
        let values = match &self.values {
            HeldValues::Boolean(bits) => ValuesIn::Boolean(bits),
            HeldValues::Int64(values) => ValuesIn::Int64(values),
            HeldValues::Float64(values) => ValuesIn::Float64(values),
            HeldValues::Timestamp(values) => ValuesIn::Timestamp(values),
            HeldValues::Utf8(offsets, data) => ValuesIn::Utf8(VariableIn { offsets, data }),
            HeldValues::Bytes(offsets, data) => ValuesIn::Bytes(VariableIn { offsets, data }),
        };
        ColumnIn { valid: self.valid.as_deref(), values }
    }
}

/// One bit each, with zeros behind the last.
fn bits(values: &BooleanBuffer) -> Vec<u8> {
    let mut bytes = values.sliced().as_slice().to_vec();
    bytes.truncate(values.len().div_ceil(8));
    if let Some(last) = bytes.last_mut().filter(|_| !values.len().is_multiple_of(8)) {
        *last &= (1 << (values.len() % 8)) - 1;
    }
    bytes
}

/// The numbers, and 0 where there is none.
fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef) -> ScalarBuffer<T::Native> {
    let column: &PrimitiveArray<T> = column.as_primitive();
    if column.null_count() == 0 {
        return column.values().clone();
    }
    column.iter().map(Option::unwrap_or_default).collect::<Vec<_>>().into()
}

fn from_zero(offsets: &[i32], data: &Buffer) -> (Vec<i32>, Buffer) {
    let first = offsets.first().copied().unwrap_or_default();
    let last = offsets.last().copied().unwrap_or_default();
    let data = data.slice_with_length(first as usize, (last - first) as usize);
    (offsets.iter().map(|offset| offset - first).collect(), data)
}

impl ColumnOut {
    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let values = match &self.values {
            ValuesOut::Boolean(bits) => bits.len(),
            ValuesOut::Int64(values) | ValuesOut::Timestamp(values) => 8 * values.len(),
            ValuesOut::Float64(values) => 8 * values.len(),
            ValuesOut::Utf8(values) | ValuesOut::Bytes(values) => {
                4 * values.offsets.len() + values.data.len()
            }
        };
        values + self.valid.as_ref().map_or(0, Vec::len)
    }

    /// The same in Arrow: `rows` values of `kind`.
    ///
    /// # Errors
    /// When that is not what it is.
    pub(super) fn into_array(self, kind: Kind, rows: usize) -> Result<ArrayRef, String> {
        let nulls = match self.valid {
            Some(valid) => Some(NullBuffer::new(bitmap(valid, rows, "`valid`")?)),
            None => None,
        };
        let found = self.values.kind();
        if found != kind {
            return Err(format!("takes {} values, and the plugin wrote {}", kind.word(), found.word()));
        }
        Ok(match self.values {
            ValuesOut::Boolean(bits) => Arc::new(BooleanArray::new(bitmap(bits, rows, "`boolean`")?, nulls)),
            ValuesOut::Int64(values) => Arc::new(Int64Array::new(all(values, rows)?, nulls)),
            ValuesOut::Float64(values) => Arc::new(Float64Array::new(all(values, rows)?, nulls)),
            ValuesOut::Timestamp(values) => {
                Arc::new(TimestampNanosecondArray::new(all(values, rows)?, nulls).with_timezone("UTC"))
            }
            ValuesOut::Utf8(VariableOut { offsets, data }) => {
                let offsets = checked(offsets, data.len(), rows)?;
                let texts = StringArray::try_new(offsets, data.into(), nulls);
                Arc::new(texts.map_err(|error| format!("got text that is not UTF-8: {error}"))?)
            }
            ValuesOut::Bytes(VariableOut { offsets, data }) => {
                let offsets = checked(offsets, data.len(), rows)?;
                let bytes = BinaryArray::try_new(offsets, data.into(), nulls);
                Arc::new(bytes.map_err(|error| error.to_string())?)
            }
        })
    }
}

impl ValuesOut {
    fn kind(&self) -> Kind {
        match self {
            Self::Boolean(_) => Kind::Boolean,
            Self::Int64(_) => Kind::Int64,
            Self::Float64(_) => Kind::Float64,
            Self::Timestamp(_) => Kind::Timestamp,
            Self::Utf8(_) => Kind::Utf8,
            Self::Bytes(_) => Kind::Bytes,
        }
    }
}

fn bitmap(bits: Vec<u8>, rows: usize, what: &str) -> Result<BooleanBuffer, String> {
    let (found, wanted) = (bits.len(), rows.div_ceil(8));
    if found != wanted {
        return Err(format!("got {found} bytes of {what} for {rows} rows, and not {wanted}"));
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bits), 0, rows))
}

fn all<T: arrow::datatypes::ArrowNativeType>(values: Vec<T>, rows: usize) -> Result<ScalarBuffer<T>, String> {
    if values.len() != rows {
        return Err(format!("got {} values for {rows} rows", values.len()));
    }
    Ok(values.into())
}

fn checked(offsets: Vec<i32>, bytes: usize, rows: usize) -> Result<OffsetBuffer<i32>, String> {
    if offsets.len() != rows + 1 {
        return Err(format!("got {} offsets for {rows} rows, and not {}", offsets.len(), rows + 1));
    }
    let grow = offsets.is_sorted() && offsets.first().is_some_and(|first| *first >= 0);
    let end = offsets.last().and_then(|last| usize::try_from(*last).ok());
    if !grow || end.is_none_or(|end| end > bytes) {
        return Err(format!("got offsets that do not grow from 0 to at most {bytes}, the bytes of its data"));
    }
    Ok(OffsetBuffer::new(offsets.into()))
}
