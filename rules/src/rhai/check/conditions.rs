//! Columns that stand where a condition must; what is literal, Rhai itself finds.

use arrow::datatypes::DataType;
use rhai::{ASTNode, Expr};

use super::writes::value_type;
use super::{Found, Function};
use crate::rhai::error::OR_ELSE;
use crate::rhai::run::Input;

/// In other languages `x || 5.0` gives a value to what is missing.
pub(super) fn check(functions: &[Function], inputs: &[Input], found: &mut Found<'_>) {
    for function in functions {
        function.each(|path| {
            let Some(ASTNode::Expr(expr @ (Expr::And(sides, _) | Expr::Or(sides, _)))) = path.last() else {
                return;
            };
            let (operator, help) = match expr {
                Expr::Or(..) => ("||", Some(OR_ELSE.to_owned())),
                _ => ("&&", None),
            };
            for side in sides.iter() {
                let word = match value_type(function, inputs, side) {
                    Some(DataType::Int64) => "int64",
                    Some(DataType::Float64) => "float64",
                    Some(DataType::Utf8) => "utf8",
                    _ => continue,
                };
                found.wrong(
                    side.position(),
                    format!("`{operator}` takes conditions, and this is {word}"),
                    help.clone(),
                );
            }
        });
    }
}
