//! Functions that make a time of seconds since 1970: a number of seconds is a moment, wherever the clock
//! hangs, so that the time is one of UTC. What they read of text without a zone has none, as before.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue, plan_datafusion_err};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The functions.
pub(in crate::sql) const EPOCHS: [&str; 6] = [
    "from_unixtime",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
];

/// One of [`EPOCHS`], as the planner has it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::sql) struct Epoch(pub Arc<ScalarUDF>);

impl ScalarUDFImpl for Epoch {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(arg_types)
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Err(plan_datafusion_err!("`{}` has a type with its arguments only", self.name()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let of_number = args.arg_fields.first().is_some_and(|field| field.data_type().is_numeric());
        let field = self.0.return_field_from_args(args)?;
        Ok(match field.data_type() {
            DataType::Timestamp(unit, None) if of_number => {
                Arc::new(Field::new(field.name(), DataType::Timestamp(*unit, Some("UTC".into())), true))
            }
            _ => field,
        })
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let wanted = args.return_field.data_type().clone();
        // The function is asked for what it promises itself.
        let constants: Vec<Option<&ScalarValue>> = args
            .args
            .iter()
            .map(|value| match value {
                ColumnarValue::Scalar(constant) => Some(constant),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        args.return_field = self.0.return_field_from_args(ReturnFieldArgs {
            arg_fields: &args.arg_fields,
            scalar_arguments: &constants,
        })?;
        let value = self.0.invoke_with_args(args)?;
        if value.data_type() == wanted { Ok(value) } else { value.cast_to(&wanted, None) }
    }
}
