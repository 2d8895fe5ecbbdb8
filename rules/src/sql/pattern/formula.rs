//! Expressions over the rows of a match: what DEFINE and MEASURES say.
//!
//! A formula is an ordinary expression over slots. A slot is filled before the expression is evaluated, with
//! a value of one row of the match (`A.x`, `FIRST(A.x)`, `PREV(x)`) or an aggregate of several (`SUM(A.x)`).

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result, ScalarValue, TableReference, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;

/// All variables: a name without a variable before it means every row of the match.
pub(in crate::sql) const ALL: u64 = u64::MAX;

/// What stands before a name without a variable.
pub(in crate::sql) const ALL_NAME: &str = "*";

/// `PREV`, `FIRST` and `LAST` look no further than this: PREV keeps as many rows of every key.
const MAX_OFFSET: u32 = 100;

/// An expression over slots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub(in crate::sql) struct Formula {
    pub slots: Vec<Slot>,
    /// slot `n` is the column `#n`
    pub expr: Expr,
}

/// What a slot is filled with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub(in crate::sql) enum Slot {
    /// `value`, which is an expression over the columns of the input, at one row
    Value { at: At, value: Expr },
    /// `call`, an aggregate of the rows of some variables
    Aggregate { variables: u64, finished: bool, call: Expr },
    /// the name of the variable of the row at hand
    Classifier { finished: bool },
    /// how many matches the partition has had, this one included
    MatchNumber,
}

/// Which row: among the rows of `variables` in the match so far, the one `offset` after the first or before
/// the last, and then `back` rows before that one, in the match or before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sql) struct At {
    /// a bit for each variable
    pub variables: u64,
    pub from_last: bool,
    pub offset: u32,
    pub back: u32,
    /// look at the whole match also where only the rows up to one count
    pub finished: bool,
}

/// What names mean in the formulas of one pattern.
pub(in crate::sql) struct Scope<'a> {
    /// names, each with the bits of its variables
    pub names: &'a [(String, u64)],
    /// the columns of the input, without qualifiers
    pub rows: &'a DFSchema,
    /// whether this is a measure, which may be FINAL
    pub measure: bool,
}

impl Formula {
    /// `expr` is planned on [`Scope::planning_schema`].
    pub(in crate::sql) fn new(expr: Expr, scope: &Scope<'_>) -> Result<Self> {
        let mut slots = Vec::new();
        let mut take = |slot: Slot| {
            let at = slots.iter().position(|known| *known == slot).unwrap_or_else(|| {
                slots.push(slot);
                slots.len() - 1
            });
            Ok(Transformed::new(
                Expr::Column(Column::new_unqualified(format!("#{at}"))),
                true,
                TreeNodeRecursion::Jump,
            ))
        };
        let expr = expr.transform_down(|expr| match &expr {
            Expr::Column(_) | Expr::AggregateFunction(_) => take(scope.slot(&expr, false)?),
            Expr::ScalarFunction(call) if is_marker(call) => take(scope.slot(&expr, false)?),
            Expr::WindowFunction(_) => plan_err!(
                "OVER cannot stand in MATCH_RECOGNIZE; compute it in a view that MATCH_RECOGNIZE reads"
            ),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                plan_err!(
                    "a subquery cannot stand in MATCH_RECOGNIZE; join in a view that MATCH_RECOGNIZE reads"
                )
            }
            _ => Ok(Transformed::no(expr)),
        })?;
        let slots = slots.into_iter().map(|slot| match slot {
            Slot::Value { at, value } => Ok(Slot::Value { at, value: coerced(value, scope.rows)? }),
            Slot::Aggregate { variables, finished, call } => {
                Ok(Slot::Aggregate { variables, finished, call: coerced(call, scope.rows)? })
            }
            other => Ok(other),
        });
        let formula = Self { slots: slots.collect::<Result<_>>()?, expr: expr.data };
        let expr = coerced(formula.expr.clone(), &formula.schema(scope.rows)?)?;
        Ok(Self { expr, ..formula })
    }

    /// The columns that its expression sees.
    pub(in crate::sql) fn schema(&self, rows: &DFSchema) -> Result<DFSchema> {
        let fields = self.slots.iter().enumerate().map(|(at, slot)| {
            let data_type = match slot {
                Slot::Value { value, .. } => value.get_type(rows)?,
                Slot::Aggregate { call, .. } => call.get_type(rows)?,
                Slot::Classifier { .. } => DataType::Utf8,
                Slot::MatchNumber => DataType::Int64,
            };
            Ok((None, Arc::new(Field::new(format!("#{at}"), data_type, true))))
        });
        DFSchema::new_with_metadata(fields.collect::<Result<_>>()?, std::collections::HashMap::new())
    }
}

impl Scope<'_> {
    /// The schema that formulas are planned on: each variable has all columns.
    pub(in crate::sql) fn planning_schema(&self) -> Result<DFSchema> {
        let names = self.names.iter().map(|(name, _)| name.as_str()).chain([ALL_NAME]);
        let fields = names.flat_map(|name| {
            self.rows.fields().iter().map(move |field| (Some(TableReference::bare(name)), Arc::clone(field)))
        });
        DFSchema::new_with_metadata(fields.collect(), std::collections::HashMap::new())
    }

    fn slot(&self, expr: &Expr, finished: bool) -> Result<Slot> {
        match bare(expr) {
            Expr::Column(_) => Ok(Slot::Value { at: self.last(expr, finished)?, value: unqualified(expr)? }),
            Expr::AggregateFunction(_) => {
                refuse_markers(expr, "an aggregate")?;
                Ok(Slot::Aggregate {
                    variables: self.variables(expr)?,
                    finished,
                    call: unqualified(bare(expr))?,
                })
            }
            Expr::ScalarFunction(call) => match (call.name(), call.args.as_slice()) {
                ("classifier", []) => Ok(Slot::Classifier { finished }),
                ("classifier", _) => {
                    plan_err!("CLASSIFIER takes no argument; it is the variable of the last row")
                }
                ("match_number", _) => Ok(Slot::MatchNumber),
                ("next", _) => {
                    plan_err!(
                        "NEXT looks at a row that has not come yet; give that row a variable of its own at \
                        the end of the pattern"
                    )
                }
                ("final" | "running", [seen]) => {
                    let is_final = call.name() == "final";
                    if is_final && !self.measure {
                        return plan_err!(
                            "FINAL cannot stand in DEFINE, where the match has not ended; leave it out"
                        );
                    }
                    self.slot(seen, is_final)
                }
                ("prev", args) => {
                    let (value, back) = argument("PREV", args, 1)?;
                    let (at, value) = match bare(value) {
                        Expr::ScalarFunction(inner) if matches!(inner.name(), "first" | "last") => {
                            self.logical(inner, finished)?
                        }
                        _ => {
                            refuse_markers(value, "PREV")?;
                            (self.last(value, finished)?, value)
                        }
                    };
                    Ok(Slot::Value { at: At { back, ..at }, value: unqualified(value)? })
                }
                ("first" | "last", _) => {
                    let (at, value) = self.logical(call, finished)?;
                    Ok(Slot::Value { at, value: unqualified(value)? })
                }
                (name, _) => plan_err!("`{}` cannot stand here", name.to_uppercase()),
            },
            other => plan_err!("`{other}` has no row of its own; write `LAST(..)` or an aggregate"),
        }
    }

    /// `FIRST(value [, offset])` or `LAST(value [, offset])`.
    fn logical<'a>(&self, call: &'a ScalarFunction, finished: bool) -> Result<(At, &'a Expr)> {
        let name = call.name().to_uppercase();
        let (value, offset) = argument(&name, &call.args, 0)?;
        refuse_markers(value, &name)?;
        Ok((At { from_last: call.name() == "last", offset, ..self.last(value, finished)? }, value))
    }

    /// The last row of the variable that `expr` names.
    fn last(&self, expr: &Expr, finished: bool) -> Result<At> {
        Ok(At { variables: self.variables(expr)?, from_last: true, offset: 0, back: 0, finished })
    }

    /// The variables that the columns of `expr` name, which must be the same for all.
    fn variables(&self, expr: &Expr) -> Result<u64> {
        let mut found: Option<(&str, u64)> = None;
        let mut columns: Vec<_> = expr.column_refs().into_iter().collect();
        columns.sort_unstable();
        for column in columns {
            let name = column.relation.as_ref().map_or(ALL_NAME, |relation| relation.table());
            let bits = self.names.iter().find(|(known, _)| known == name).map_or(ALL, |(_, bits)| *bits);
            match found {
                Some((other, known)) if known != bits => {
                    let named = |name: &str| {
                        if name == ALL_NAME { "all variables".to_owned() } else { format!("`{name}`") }
                    };
                    return plan_err!(
                        "`{}` names rows of {} and of {}, but one value comes from one row; combine two \
                        such values instead",
                        expr.to_string().replace("*.", ""),
                        named(other),
                        named(name)
                    );
                }
                _ => found = Some((name, bits)),
            }
        }
        Ok(found.map_or(ALL, |(_, bits)| bits))
    }
}

/// The same with the casts that its types need, and simplified.
fn coerced(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let simplifier =
        ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build());
    simplifier.simplify(simplifier.coerce(expr, schema)?)
}

/// The first argument, and the second as a number.
fn argument<'a>(name: &str, args: &'a [Expr], default: u32) -> Result<(&'a Expr, u32)> {
    let form = format!("write `{name}(column)` or `{name}(column, 2)`");
    match args {
        [value] => Ok((value, default)),
        [value, Expr::Literal(ScalarValue::Int64(Some(offset)), _)] => match u32::try_from(*offset) {
            Ok(offset) if offset <= MAX_OFFSET => Ok((value, offset)),
            _ => plan_err!("{name} looks back by {offset}, but it can from 0 to {MAX_OFFSET}; {form}"),
        },
        _ => plan_err!("{name} takes a value and a number; {form}"),
    }
}

fn refuse_markers(expr: &Expr, place: &str) -> Result<()> {
    expr.apply(|expr| match expr {
        Expr::ScalarFunction(call) if is_marker(call) => {
            let name = call.name().to_uppercase();
            plan_err!(
                "{name} cannot stand in {place}; of all combinations, only PREV(FIRST(..)) and \
                PREV(LAST(..)) mean something"
            )
        }
        Expr::AggregateFunction(call) if place != "an aggregate" => {
            plan_err!("`{}` cannot stand in {place}; an aggregate belongs to no row", call.func.name())
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}

fn bare(expr: &Expr) -> &Expr {
    if let Expr::Alias(alias) = expr { bare(&alias.expr) } else { expr }
}

/// The same over the columns of the input, whose names need no variable.
fn unqualified(expr: &Expr) -> Result<Expr> {
    let expr = expr.clone().transform_up(|expr| match expr {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))),
        Expr::Alias(alias) => Ok(Transformed::yes(*alias.expr)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(expr.data)
}

/// The functions that mean something only in MATCH_RECOGNIZE, by their names.
static MARKERS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let name_only = |name| {
        Arc::new(ScalarUDF::new_from_impl(Marker {
            name,
            signature: Signature::variadic_any(Volatility::Immutable),
        }))
    };
    let nothing = |name| {
        Arc::new(ScalarUDF::new_from_impl(Marker {
            name,
            signature: Signature::nullary(Volatility::Immutable),
        }))
    };
    let mut markers: Vec<_> =
        ["first", "last", "prev", "next", "final", "running", super::clauses::SUBSET].map(name_only).into();
    markers.extend([super::clauses::NOT_FOLLOWED_BY].map(name_only));
    markers.extend(["classifier", "match_number"].map(nothing));
    markers
});

/// The functions that the planner must know, so that they come as far as [`Formula::new`].
pub(in crate::sql) fn markers() -> impl Iterator<Item = Arc<ScalarUDF>> {
    MARKERS.iter().cloned()
}

/// Whether `call` means something only in MATCH_RECOGNIZE.
pub(in crate::sql) fn is_marker(call: &ScalarFunction) -> bool {
    let function: &dyn Any = call.func.inner().as_ref();
    function.is::<Marker>()
}

/// A function that stands for a slot.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.name {
            "classifier" => DataType::Utf8,
            "match_number" => DataType::Int64,
            _ => arguments.first().cloned().unwrap_or(DataType::Null),
        })
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        plan_err!("`{}` means something only in MATCH_RECOGNIZE", self.name.to_uppercase())
    }
}
