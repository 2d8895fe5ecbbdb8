//! Operands that do not fit their operator. The planner would say so in its own types, and without a place.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, Result, plan_datafusion_err};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion_sql::sqlparser::ast::BinaryOperator;

use super::complaint::at_first;
use super::words::{kind, said};

/// Looks at operators before the planner does.
#[derive(Debug)]
pub(super) struct Operands;

impl ExprPlanner for Operands {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        match refused(&expr, schema) {
            None => Ok(PlannerResult::Original(expr)),
            Some(why) => Err(at_first([&expr.left, &expr.right], why)),
        }
    }
}

fn refused(expr: &RawBinaryExpr, schema: &DFSchema) -> Option<DataFusionError> {
    use BinaryOperator as Op;
    let RawBinaryExpr { op, left, right } = expr;
    let sides = Sides { left, right, types: [left.get_type(schema).ok()?, right.get_type(schema).ok()?] };
    let planned = match op {
        Op::PGOverlap => return Some(plan_datafusion_err!("`&&` joins no conditions in SQL; write AND")),
        Op::MyIntegerDivide | Op::DuckIntegerDivide => {
            let why = "whole numbers divided by `/` give whole numbers; write `CAST(a / b AS BIGINT)` where \
                they are not whole";
            return Some(plan_datafusion_err!("`{op}` is not known here; {why}"));
        }
        Op::StringConcat => return sides.put_together(),
        Op::BitwiseAnd
        | Op::BitwiseOr
        | Op::BitwiseXor
        | Op::PGBitwiseXor
        | Op::PGBitwiseShiftLeft
        | Op::PGBitwiseShiftRight => return sides.bits(op),
        Op::Plus => Operator::Plus,
        Op::Minus => Operator::Minus,
        Op::Multiply => Operator::Multiply,
        Op::Divide => Operator::Divide,
        Op::Modulo => Operator::Modulo,
        Op::Eq => Operator::Eq,
        Op::NotEq => Operator::NotEq,
        Op::Lt => Operator::Lt,
        Op::LtEq => Operator::LtEq,
        Op::Gt => Operator::Gt,
        Op::GtEq => Operator::GtEq,
        Op::And | Op::Or => return sides.conditions(&op.to_string()),
        _ => return None,
    };
    let compares = !matches!(op, Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo);
    let [a, b] = &sides.types;
    BinaryTypeCoercer::new(a, &planned, b).get_result_type().err()?;
    Some(if compares { sides.compared(&op.to_string()) } else { sides.computed(&op.to_string()) })
}

/// What stands on both sides of an operator.
struct Sides<'a> {
    left: &'a Expr,
    right: &'a Expr,
    types: [DataType; 2],
}

impl Sides<'_> {
    fn kinds(&self) -> [&'static str; 2] {
        let [a, b] = &self.types;
        [kind(a), kind(b)]
    }

    /// `a || b`, where neither is text.
    fn put_together(&self) -> Option<DataFusionError> {
        let is_text = |data_type: &DataType| matches!(kind(data_type), "text" | "a list" | "NULL");
        if self.types.iter().any(is_text) {
            return None;
        }
        let [left, right] = [said(self.left), said(self.right)];
        Some(plan_datafusion_err!(
            "`{left} || {right}` would put texts together, and there is none; write OR between conditions"
        ))
    }

    /// `a & b`, where one of them is no whole number: the planner would cut it to one.
    fn bits(&self, op: &BinaryOperator) -> Option<DataFusionError> {
        let is_whole = |data_type: &DataType| data_type.is_integer() || data_type.is_null();
        let (side, data_type) =
            [self.left, self.right].into_iter().zip(&self.types).find(|(_, kind)| !is_whole(kind))?;
        let ([left, right], side, kind) = ([said(self.left), said(self.right)], said(side), kind(data_type));
        let help = match (op, kind) {
            (BinaryOperator::BitwiseXor, _) => format!("`power({left}, {right})` for the power"),
            (BinaryOperator::BitwiseAnd, "a condition") => "AND between conditions".to_owned(),
            (BinaryOperator::BitwiseOr, "a condition") => "OR between conditions".to_owned(),
            (BinaryOperator::BitwiseOr, "text") => "`||` to put texts together".to_owned(),
            _ => format!("`CAST({side} AS BIGINT)` if the bits of its whole part are meant"),
        };
        let found = if kind == "a number" { "may have a fraction".to_owned() } else { format!("is {kind}") };
        Some(plan_datafusion_err!(
            "`{op}` works on the bits of whole numbers, and `{side}` {found}; write {help}"
        ))
    }

    /// `a AND b`, where one of them is none.
    fn conditions(&self, op: &str) -> Option<DataFusionError> {
        let is_condition = |data_type: &DataType| matches!(kind(data_type), "a condition" | "NULL");
        let (side, data_type) =
            [self.left, self.right].into_iter().zip(&self.types).find(|(_, kind)| !is_condition(kind))?;
        let (text, kind) = (said(side), kind(data_type));
        let help = if kind == "a number" {
            format!("compare it with something, such as `{text} > 0`")
        } else {
            "compare it".into()
        };
        Some(plan_datafusion_err!("`{text}` is {kind}, but {op} stands between conditions; {help}"))
    }

    fn compared(&self, op: &str) -> DataFusionError {
        let ([left, right], [a, b]) = ([said(self.left), said(self.right)], self.kinds());
        let help = match (a, b) {
            _ if left.starts_with('[') || right.starts_with('[') => {
                "a list stands in brackets; a name stands alone, or in double quotes".to_owned()
            }
            _ if left.contains(" || ") => "write OR between conditions: `||` puts texts together".to_owned(),
            ("a condition", _) if matches!(self.right, Expr::Literal(..)) => {
                let no = matches!(right.to_lowercase().trim_matches('\''), "0" | "false" | "off" | "no")
                    == (op == "=");
                if no { format!("write `NOT {left}`") } else { format!("write `{left}` alone") }
            }
            ("a condition", _) => "compare two conditions, or two numbers".to_owned(),
            ("text", "a number") => format!("write `CAST({left} AS DOUBLE)`"),
            ("a number", "text") => format!("write `CAST({right} AS DOUBLE)`"),
            ("a time", _) => "write a time: `TIMESTAMP '2026-01-31T12:00:00Z'`, or `now()`".to_owned(),
            ("a span of time", _) => "write a span of time: `INTERVAL '10' SECOND`".to_owned(),
            _ => "convert one of them with CAST".to_owned(),
        };
        plan_datafusion_err!("`{left}` is {a} and `{right}` is {b}, which `{op}` cannot compare; {help}")
    }

    fn computed(&self, op: &str) -> DataFusionError {
        let ([left, right], [a, b]) = ([said(self.left), said(self.right)], self.kinds());
        let help = match (a, b, op) {
            ("text", "text", "+") => format!("write `{left} || {right}` to put texts together"),
            ("text", ..) => format!("write `CAST({left} AS DOUBLE)`"),
            (_, "text", _) => format!("write `CAST({right} AS DOUBLE)`"),
            ("a time", "a number", "+" | "-") => {
                format!("write the number as a span of time: `{left} {op} INTERVAL '10' SECOND`")
            }
            ("a time", "a time", "+") => "a time minus another is the span between them".to_owned(),
            ("a condition", ..) | (_, "a condition", _) => {
                "make a number of a condition with `CASE WHEN .. THEN 1 ELSE 0 END`".to_owned()
            }
            _ => "convert one of them with CAST".to_owned(),
        };
        plan_datafusion_err!("`{left}` is {a} and `{right}` is {b}, which `{op}` does not take; {help}")
    }
}

/// The error that the planner has with `plan` as a whole, at the smallest expression that has it.
pub(super) fn in_plan(plan: &LogicalPlan, error: DataFusionError) -> DataFusionError {
    let mut found = None;
    let searched = plan.apply_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        node.inputs().iter().for_each(|input| schema.merge(input.schema()));
        node.apply_expressions(|expr| {
            found = smallest(expr, &schema);
            Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    });
    match found.filter(|_| searched.is_ok()) {
        Some((expr, why)) => at_first([&expr], why),
        None => error,
    }
}

fn smallest(expr: &Expr, schema: &DFSchema) -> Option<(Expr, DataFusionError)> {
    let mut found = None;
    let searched = expr.apply_children(|child| {
        found = smallest(child, schema);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    searched.ok()?;
    found.or_else(|| {
        let why = expr.clone().rewrite(&mut TypeCoercionRewriter::new(schema)).err()?;
        Some((expr.clone(), why))
    })
}
