//! JSON in a column of text: `payload->'pump'->>'state'`, as PostgreSQL writes it.
//!
//! `->` gives JSON, `->>` gives text without quotes, and `json_get_array` a list of such texts, for `unnest`;
//! a key is a text, or a number that counts elements from 0, from the end when it is negative. What is not
//! there is null, and so are JSON's null and a text that is no JSON.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use serde_json::Value;

use super::complaint::at_first;
use super::words::{field_type, kind};

static JSON_GET: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(JsonGet::new("json_get", Form::Json))));
static JSON_GET_TEXT: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(JsonGet::new("json_get_text", Form::Text))));

/// The functions that `->` and `->>` stand for, and those that have no operator.
pub(super) fn functions() -> [Arc<ScalarUDF>; 3] {
    let array = Arc::new(ScalarUDF::from(JsonGet::new("json_get_array", Form::Array)));
    [Arc::clone(&JSON_GET), Arc::clone(&JSON_GET_TEXT), array]
}

/// What is made of a value that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// JSON
    Json,
    /// text, without quotes
    Text,
    /// the elements of an array, each as text
    Array,
}

/// Plans `->` and `->>`.
#[derive(Debug)]
pub(super) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::Arrow => &*JSON_GET,
            BinaryOperator::LongArrow => &*JSON_GET_TEXT,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        // A path is one call, so that the text is read once.
        let mut arguments = match expr.left {
            Expr::ScalarFunction(call) if call.func.name() == JSON_GET.name() => call.args,
            other => vec![other],
        };
        arguments.push(expr.right);
        let types = arguments.iter().map(|argument| argument.get_type(schema)).collect::<Result<Vec<_>>>()?;
        function.coerce_types(&types).map_err(|error| at_first(&arguments, error))?;
        Ok(PlannerResult::Planned(function.call(arguments)))
    }
}

/// `json_get(json, key, ..)`, `json_get_text(json, key, ..)` and `json_get_array(json, key, ..)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    name: &'static str,
    form: Form,
    signature: Signature,
}

impl JsonGet {
    fn new(name: &'static str, form: Form) -> Self {
        Self { name, form, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// One key of a path, for each row.
enum Key {
    Name(ArrayRef),
    Index(ArrayRef),
}

impl Key {
    fn in_value(&self, row: usize, value: &mut Value) -> Option<Value> {
        match self {
            Self::Name(names) => {
                let names = names.as_string_opt::<i32>().filter(|names| names.is_valid(row))?;
                value.as_object_mut()?.get_mut(names.value(row)).map(Value::take)
            }
            Self::Index(indices) => {
                let indices =
                    indices.as_primitive_opt::<Int64Type>().filter(|indices| indices.is_valid(row))?;
                let (list, index) = (value.as_array_mut()?, indices.value(row));
                let from_start =
                    if index < 0 { i64::try_from(list.len()).ok()?.checked_add(index)? } else { index };
                list.get_mut(usize::try_from(from_start).ok()?).map(Value::take)
            }
        }
    }
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.form {
            Form::Json | Form::Text => DataType::Utf8,
            Form::Array => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        })
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_text = |data_type: &DataType| {
            matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null)
        };
        let Some((json, keys)) =
            types.split_first().filter(|(_, keys)| !keys.is_empty() || self.form == Form::Array)
        else {
            return plan_err!("`{}` takes a JSON text and a key; write `payload->'key'`", self.name);
        };
        if !is_text(json) {
            return plan_err!(
                "JSON is looked for in text, and not in {}; a struct's field is `column['field']`",
                kind(json)
            );
        }
        let key = |data_type: &DataType| match data_type {
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => Ok(DataType::Utf8),
            number if number.is_integer() => Ok(DataType::Int64),
            other => {
                let found = field_type(other);
                plan_err!(
                    "a key of JSON is a text or a whole number, and not {found}; write `payload->'key'` or \
                    `payload->0`"
                )
            }
        };
        std::iter::once(Ok(DataType::Utf8)).chain(keys.iter().map(key)).collect()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let all_scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let mut arrays = ColumnarValue::values_to_arrays(&args.args)?.into_iter();
        let Some(json) = arrays.next() else { return exec_err!("`{}` takes a JSON text", self.name) };
        let json = json
            .as_string_opt::<i32>()
            .ok_or_else(|| DataFusionError::Internal("JSON is looked for in what is no text".into()))?;
        let keys: Vec<Key> = arrays
            .map(|keys| if *keys.data_type() == DataType::Utf8 { Key::Name(keys) } else { Key::Index(keys) })
            .collect();
        let get = |row: usize| -> Option<Value> {
            let mut value: Value = serde_json::from_str(json.is_valid(row).then(|| json.value(row))?).ok()?;
            for key in &keys {
                value = key.in_value(row, &mut value)?;
            }
            Some(value)
        };
        let found: ArrayRef = match self.form {
            Form::Json => Arc::new(
                (0..json.len())
                    .map(|row| get(row).filter(|value| !value.is_null()).map(|value| value.to_string()))
                    .collect::<StringArray>(),
            ),
            Form::Text => {
                Arc::new((0..json.len()).map(|row| get(row).and_then(as_text)).collect::<StringArray>())
            }
            Form::Array => {
                let mut lists = ListBuilder::new(StringBuilder::new());
                for row in 0..json.len() {
                    let list = if let Some(Value::Array(list)) = get(row) { Some(list) } else { None };
                    let is_list = list.is_some();
                    list.into_iter()
                        .flatten()
                        .for_each(|element| lists.values().append_option(as_text(element)));
                    lists.append(is_list);
                }
                Arc::new(lists.finish())
            }
        };
        if all_scalar && rows > 0 && found.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?));
        }
        Ok(ColumnarValue::Array(found))
    }
}

/// A value as text: without quotes, and null where it is null.
fn as_text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}
