//! Rows that are written literally: `write("target", #{ column: value })`.

use arrow::datatypes::DataType;
use rhai::Expr;
use tidegate_core::diagnostic::did_you_mean;

use super::{CallNode, Found, Function, first_name, literal};
use crate::rhai::run::Input;
use crate::rhai::write::{Outlets, misfit};
use crate::target::Unfit;

pub(super) fn check(functions: &[Function], inputs: &[Input], outlets: &mut Outlets, found: &mut Found<'_>) {
    for function in functions {
        function.each(|path| {
            let Some(call) = path.last().and_then(CallNode::new) else { return };
            if let ("write", [target, row]) = (call.name, call.arguments.as_slice()) {
                write(function, inputs, target, row, outlets, found);
            }
        });
    }
}

fn write(
    function: &Function,
    inputs: &[Input],
    target: &Expr,
    row: &Expr,
    outlets: &mut Outlets,
    found: &mut Found<'_>,
) {
    let Some(name) = literal(target) else { return };
    if !outlets.names().any(|known| known == name) {
        let known: Vec<&str> = outlets.names().collect();
        let what = format!("`{name}` is not among the targets of the option `writes`");
        let help = did_you_mean(name, &known).filter(|help| help.starts_with("did"));
        let help = help.unwrap_or_else(|| format!("add it there, as `//! writes = [\"{name}\", ..]`"));
        return found.wrong(target.position(), what, help);
    }
    let Expr::Map(parts, _) = row else { return };
    let columns: Vec<(String, Option<DataType>)> = parts
        .0
        .iter()
        .map(|(column, value)| (column.as_str().to_owned(), value_type(function, inputs, value)))
        .collect();
    let Err(unfit) = outlets.check(name, &columns) else { return };
    let place_of = |wanted: &str| {
        let column = parts.0.iter().find(|(column, _)| column.as_str() == wanted);
        column.map_or(row.position(), |(_, value)| value.position())
    };
    let at = match &unfit {
        Unfit::Type { column, .. } | Unfit::NoZone { column } => place_of(column),
        Unfit::Name { what, .. } => {
            let column = what.rsplit('`').nth(1).unwrap_or_default();
            parts
                .0
                .iter()
                .find(|(name, _)| name.as_str() == column)
                .map_or(row.position(), |(name, _)| name.pos)
        }
        _ => row.position(),
    };
    found.wrong(at, misfit(&unfit), None);
}

/// The type of a value, if that can be seen.
pub(super) fn value_type(function: &Function, inputs: &[Input], value: &Expr) -> Option<DataType> {
    Some(match value {
        Expr::BoolConstant(..) | Expr::And(..) | Expr::Or(..) => DataType::Boolean,
        Expr::IntegerConstant(..) => DataType::Int64,
        Expr::FloatConstant(..) => DataType::Float64,
        Expr::StringConstant(..) | Expr::InterpolatedString(..) | Expr::CharConstant(..) => DataType::Utf8,
        Expr::Unit(_) => DataType::Null,
        Expr::FnCall(call, _)
            if matches!(call.name.as_str(), "==" | "!=" | ">" | ">=" | "<" | "<=" | "!") =>
        {
            DataType::Boolean
        }
        Expr::FnCall(call, _) if call.name == "now" => DataType::Int64,
        Expr::Dot(parts, ..) if function.is_row(&parts.lhs) && matches!(parts.rhs, Expr::Property(..)) => {
            let (name, _) = first_name(&parts.rhs)?;
            let mut types = inputs.iter().filter_map(|input| input.schema.field_with_name(name).ok());
            let first = types.next()?.data_type().clone();
            match first {
                _ if types.any(|other| *other.data_type() != first) => return None,
                // A script sees times as numbers.
                DataType::Timestamp(..) => DataType::Int64,
                first => first,
            }
        }
        _ => return None,
    })
}
