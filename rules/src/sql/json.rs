//! JSON in a column of text: `payload->'pump'->>'state'`, as PostgreSQL writes it.
//!
//! `->` gives JSON, `->>` gives text without quotes; a key is a text, or a number that counts elements from 0, from the end when it is negative.
//! What is not there is null, and so are JSON's null and a text that is no JSON.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use serde_json::Value;

static JSON_GET: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(JsonGet::new("json_get", false))));
static JSON_GET_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(JsonGet::new("json_get_text", true))));

/// The functions that `->` and `->>` stand for.
pub(super) fn functions() -> [Arc<ScalarUDF>; 2] {
    [Arc::clone(&JSON_GET), Arc::clone(&JSON_GET_TEXT)]
}

/// Plans `->` and `->>`.
#[derive(Debug)]
pub(super) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
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
        Ok(PlannerResult::Planned(function.call(arguments)))
    }
}

/// `json_get(json, key, ..)` and `json_get_text(json, key, ..)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    name: &'static str,
    /// whether text comes without quotes
    as_text: bool,
    signature: Signature,
}

impl JsonGet {
    fn new(name: &'static str, as_text: bool) -> Self {
        Self { name, as_text, signature: Signature::user_defined(Volatility::Immutable) }
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
                let indices = indices.as_primitive_opt::<Int64Type>().filter(|indices| indices.is_valid(row))?;
                let (list, index) = (value.as_array_mut()?, indices.value(row));
                let from_start = if index < 0 { i64::try_from(list.len()).ok()?.checked_add(index)? } else { index };
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
        Ok(DataType::Utf8)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_text =
            |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null);
        let Some((json, keys)) = types.split_first().filter(|(_, keys)| !keys.is_empty()) else {
            return plan_err!("`{}` takes a JSON text and a key; write `payload->'key'`", self.name);
        };
        if !is_text(json) {
            return plan_err!("JSON is looked for in text, and not in {json}; a struct's field is `column['field']`");
        }
        let key = |data_type: &DataType| match data_type {
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => Ok(DataType::Utf8),
            number if number.is_integer() => Ok(DataType::Int64),
            other => plan_err!("a key of JSON is a text or a whole number, and not {other}; write `payload->'key'` or `payload->0`"),
        };
        std::iter::once(Ok(DataType::Utf8)).chain(keys.iter().map(key)).collect()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let all_scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let mut arrays = ColumnarValue::values_to_arrays(&args.args)?.into_iter();
        let Some(json) = arrays.next() else { return exec_err!("`{}` takes a JSON text", self.name) };
        let json = json.as_string_opt::<i32>().ok_or_else(|| DataFusionError::Internal("JSON is looked for in what is no text".into()))?;
        let keys: Vec<Key> =
            arrays.map(|keys| if *keys.data_type() == DataType::Utf8 { Key::Name(keys) } else { Key::Index(keys) }).collect();
        let get = |row: usize| -> Option<String> {
            let mut value: Value = serde_json::from_str(json.is_valid(row).then(|| json.value(row))?).ok()?;
            for key in &keys {
                value = key.in_value(row, &mut value)?;
            }
            match value {
                Value::Null => None,
                Value::String(text) if self.as_text => Some(text),
                other => Some(other.to_string()),
            }
        };
        let found: StringArray = (0..json.len()).map(get).collect();
        if all_scalar && rows > 0 && found.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}
