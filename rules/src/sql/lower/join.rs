//! Joins: which operator a join becomes, and what it takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, JoinType, NullEquality, Result, ScalarValue, plan_err};
use datafusion_expr::utils::{conjunction, find_valid_equijoin_key_pair, split_conjunction};
use datafusion_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator as BinaryOperator};
use tidegate_core::{TS, ts_type};

use super::aggregate::nanoseconds;
use super::time_bounds::{Missing, reach};
use super::{Lowering, key, nullable, physical, unqualified};
use crate::sql::as_of::{AS_OF_FORM, AsOf, When};
use crate::sql::names::StreamSource;
use crate::sql::operators::{
    Filter, IntervalJoin, IntervalSide, Keys, LatestJoin, LatestJoinParts, Moment, Operator, Project,
    TableJoin, TableJoinKind, TableJoinParts,
};
use crate::sql::table_functions::{WINDOW_END, WINDOW_TIME, WINDOW_TIME_NS};
use crate::sql::wall_clock::asks_for_now;

const INTERVAL_FORM: &str = "write `a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND \
    a.ts + INTERVAL '5' SECOND`, or `b FOR SYSTEM_TIME AS OF a.ts` for the latest row of `b`";

/// The conditions of a join, sorted out.
struct Conditions {
    /// equal expressions of the left and of the right side
    keys: Vec<(Expr, Expr)>,
    /// about the left side alone, the right side alone, and all others
    left: Vec<Expr>,
    right: Vec<Expr>,
    both: Vec<Expr>,
}

impl Conditions {
    fn new(join: &Join, filters: &[&Expr]) -> Result<Self> {
        let (left, right) = (join.left.schema(), join.right.schema());
        let mut conditions =
            Self { keys: join.on.clone(), left: Vec::new(), right: Vec::new(), both: Vec::new() };
        for expr in join.filter.iter().chain(filters.iter().copied()).flat_map(split_conjunction) {
            if matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(true)), _)) {
                continue;
            }
            // It is asked when a pair is made, and not when one of its rows comes.
            if asks_for_now(expr) {
                conditions.both.push(expr.clone());
                continue;
            }
            if let Expr::BinaryExpr(BinaryExpr { left: a, op: BinaryOperator::Eq, right: b }) = expr
                && let Some(pair) = find_valid_equijoin_key_pair(a, b, left, right)?
            {
                conditions.keys.push(pair);
                continue;
            }
            let columns = expr.column_refs();
            let all_of = |schema: &DFSchema| {
                !columns.is_empty() && columns.iter().all(|column| schema.is_column_from_schema(column))
            };
            let list = match (all_of(left), all_of(right)) {
                (true, false) => &mut conditions.left,
                (false, true) => &mut conditions.right,
                _ => &mut conditions.both,
            };
            list.push(expr.clone());
        }
        Ok(conditions)
    }

    /// The condition that is left for pairs.
    fn rest(self) -> Option<Expr> {
        conjunction(self.left.into_iter().chain(self.right).chain(self.both))
    }
}

impl Lowering<'_> {
    /// `filters` are what WHERE asks of the rows of an inner join.
    pub(super) fn join(&mut self, join: &Join, filters: &[&Expr]) -> Result<Box<dyn Operator>> {
        if join.right.exists(|node| Ok(matches!(node, LogicalPlan::Subquery(_))))? {
            return self.each_row_with(join, filters);
        }
        let conditions = Conditions::new(join, filters)?;
        match (tables(&join.left)?, tables(&join.right)?) {
            (_, Some(tables)) => self.table_join(join, conditions, tables),
            (Some(tables), None) => self.table_join_from_right(join, conditions, tables),
            (None, None) => match as_of(&join.right) {
                Some(as_of) => self.latest_join(join, conditions, as_of),
                None => self.interval_join(join, conditions),
            },
        }
    }

    fn interval_join(&mut self, join: &Join, mut conditions: Conditions) -> Result<Box<dyn Operator>> {
        if is_value(&join.right) {
            return plan_err!(
                "a subquery over an endless stream has no value; join the stream within an interval, or \
                take its latest row: FOR SYSTEM_TIME AS OF"
            );
        }
        let (outer_left, outer_right) = match join.join_type {
            JoinType::Inner => (false, false),
            JoinType::Left => (true, false),
            JoinType::Right => (false, true),
            JoinType::Full => (true, true),
            _ if join.null_equality == NullEquality::NullEqualsNull => {
                return plan_err!(
                    "EXCEPT and INTERSECT compare all rows of two endless streams, which needs endless \
                    memory; {INTERVAL_FORM}"
                );
            }
            _ => {
                return plan_err!(
                    "IN, EXISTS and other subqueries over an endless stream never end; join the stream \
                    within an interval, or make it a reference table: [tables.NAME]"
                );
            }
        };
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        // Equal times are a reach too.
        let equal = |(a, b): &(Expr, Expr)| {
            Expr::BinaryExpr(BinaryExpr::new(Box::new(a.clone()), BinaryOperator::Eq, Box::new(b.clone())))
        };
        let equalities = conditions.keys.len();
        let all: Vec<Expr> =
            conditions.keys.iter().map(equal).chain(conditions.both.iter().cloned()).collect();
        let mut missing = Missing::Both;
        let mut found = None;
        for (left, left_kind) in time_columns(&join.left) {
            for (right, right_kind) in time_columns(&join.right) {
                match reach(&all, &left, &right) {
                    Ok((reach, used)) if found.is_none() => {
                        found = Some((reach, used, (left.clone(), left_kind), (right, right_kind)))
                    }
                    Err(half @ (Missing::From | Missing::To)) => missing = half,
                    _ => {}
                }
            }
        }
        let Some((reach, used, left_time, right_time)) = found else {
            return match missing {
                Missing::Both => {
                    plan_err!("a join of two endless streams needs endless memory; {INTERVAL_FORM}")
                }
                Missing::From => {
                    plan_err!(
                        "the join says how much later the right row may be, but not how much earlier, so it \
                        needs endless memory; {INTERVAL_FORM}"
                    )
                }
                Missing::To => {
                    plan_err!(
                        "the join says how much earlier the right row may be, but not how much later, so it \
                        needs endless memory; {INTERVAL_FORM}"
                    )
                }
            };
        };
        let mut index = equalities;
        conditions.both.retain(|_| {
            index += 1;
            !used.contains(&(index - 1))
        });
        let mut left = self.lower(&join.left)?;
        let mut right = self.lower(&join.right)?;
        // What is about one side alone can be asked before a row is kept, unless the row would be written all
        // the same.
        if !outer_left {
            left = filtered(left, std::mem::take(&mut conditions.left), left_schema)?;
        }
        if !outer_right {
            right = filtered(right, std::mem::take(&mut conditions.right), right_schema)?;
        }
        let keys = std::mem::take(&mut conditions.keys);
        let names = keys
            .iter()
            .map(|(a, b)| format!("{} = {}", unqualified(a), unqualified(b)))
            .collect::<Vec<_>>()
            .join(", ");
        let fingerprint = format!(
            "JOIN({} WITH {}, {}ns .. {}ns) BY ({names})",
            left.origin(),
            right.origin(),
            reach.from,
            reach.to
        );
        let (left_keys, right_keys) = both_keys(join, &keys, &*left, &*right)?;
        let side = |input: Box<dyn Operator>,
                    keys: Keys,
                    (column, kind): (Column, TimeKind),
                    schema: &DFSchema,
                    outer: bool| {
            let slack = kind.slack(&*input)?;
            Ok::<_, datafusion_common::DataFusionError>(IntervalSide::new(
                input,
                keys,
                physical(&Expr::Column(column), schema)?,
                slack,
                outer,
            ))
        };
        let left = side(left, left_keys, left_time, left_schema, outer_left)?;
        let right = side(right, right_keys, right_time, right_schema, outer_right)?;
        let condition = conditions
            .rest()
            .map(|condition| physical(&condition, &left_schema.join(right_schema)?))
            .transpose()?;
        let schema = nullable(join.schema.as_arrow());
        Ok(Box::new(IntervalJoin::new(left, right, reach, condition, fingerprint, schema)))
    }

    fn latest_join(
        &mut self,
        join: &Join,
        mut conditions: Conditions,
        as_of: &AsOf,
    ) -> Result<Box<dyn Operator>> {
        let outer = match join.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            _ => return plan_err!("only JOIN and LEFT JOIN can look up the latest row; {AS_OF_FORM}"),
        };
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        if let When::RowTime(relation) = &as_of.when {
            let of_left = left_schema.columns().into_iter().find(|column| {
                column.name == TS
                    && relation.as_ref().is_none_or(|name| {
                        column.relation.as_ref().is_some_and(|relation| relation.table() == name)
                    })
            });
            if of_left.and_then(|column| time_kind(&column, &join.left)) != Some(TimeKind::Ts) {
                return plan_err!("AS OF goes by the `ts` of the stream before JOIN; {AS_OF_FORM}");
            }
        }
        let mut left = self.lower(&join.left)?;
        let right = self.lower(&as_of.input)?;
        if !outer {
            left = filtered(left, std::mem::take(&mut conditions.left), left_schema)?;
        }
        let mut streams = sources(&join.left)?;
        streams.extend(sources(&join.right)?);
        let by_arrival =
            as_of.when == When::Now || streams.iter().all(|stream| self.by_arrival.contains(&**stream));
        let moment = if by_arrival {
            Moment::Arrival
        } else {
            if time_of(TS, &join.right).is_none() {
                return plan_err!("the right side of the join has no `ts` to go by; {AS_OF_FORM}");
            }
            Moment::EventTime {
                left_slack: TimeKind::Ts.slack(&*left)?,
                right_slack: TimeKind::Ts.slack(&*right)?,
            }
        };
        let ttl_ns = self.options.state_ttl.map(nanoseconds);
        if ttl_ns.is_some() && (time_of(TS, &join.left).is_none() || time_of(TS, &join.right).is_none()) {
            return plan_err!(
                "`state_ttl` goes by the `ts` of both sides of the join, and one of them has none; \
                {AS_OF_FORM}"
            );
        }
        let keys = std::mem::take(&mut conditions.keys);
        let names = keys
            .iter()
            .map(|(a, b)| format!("{} = {}", unqualified(a), unqualified(b)))
            .collect::<Vec<_>>()
            .join(", ");
        let how = if by_arrival { "LAST" } else { "LATEST" };
        let fingerprint = format!("{how}({} WITH {}) BY ({names})", left.origin(), right.origin());
        let keys = both_keys(join, &keys, &*left, &*right)?;
        let condition = conditions
            .rest()
            .map(|condition| physical(&condition, &left_schema.join(right_schema)?))
            .transpose()?;
        let parts = LatestJoinParts { left, right, keys, moment, outer, condition, ttl_ns };
        Ok(Box::new(LatestJoin::new(parts, fingerprint, nullable(join.schema.as_arrow()))))
    }

    fn table_join(
        &mut self,
        join: &Join,
        mut conditions: Conditions,
        names: BTreeSet<Arc<str>>,
    ) -> Result<Box<dyn Operator>> {
        let kind = match join.join_type {
            JoinType::Left if is_value(&join.right) => TableJoinKind::Single,
            JoinType::Inner => TableJoinKind::Inner,
            JoinType::Left => TableJoinKind::Left,
            JoinType::LeftSemi => TableJoinKind::Semi,
            JoinType::LeftAnti => TableJoinKind::Anti { null_aware: join.null_aware },
            JoinType::LeftMark => TableJoinKind::Mark,
            _ => {
                return plan_err!(
                    "a table is looked up for each row of the stream, and gives no rows of its own; write \
                    the stream first: FROM stream LEFT JOIN table ON .."
                );
            }
        };
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        let mut input = self.lower(&join.left)?;
        if matches!(kind, TableJoinKind::Inner | TableJoinKind::Semi) {
            input = filtered(input, std::mem::take(&mut conditions.left), left_schema)?;
        }
        let table = filtered(self.lower(&join.right)?, std::mem::take(&mut conditions.right), right_schema)?;
        let keys = both_keys(join, &std::mem::take(&mut conditions.keys), &*input, &*table)?;
        let pairs = left_schema.join(right_schema)?;
        let condition = conditions.rest().map(|condition| physical(&condition, &pairs)).transpose()?;
        let parts = TableJoinParts { input, table, names, keys, kind, condition };
        let schema = nullable(join.schema.as_arrow());
        Ok(Box::new(TableJoin::new(parts, nullable(pairs.as_arrow()), schema)))
    }

    /// The table stands before the stream: the columns change places.
    fn table_join_from_right(
        &mut self,
        join: &Join,
        conditions: Conditions,
        names: BTreeSet<Arc<str>>,
    ) -> Result<Box<dyn Operator>> {
        let join_type = match join.join_type {
            JoinType::Inner => JoinType::Inner,
            JoinType::Right => JoinType::Left,
            _ => {
                return plan_err!(
                    "a table is looked up for each row of the stream, and gives no rows of its own; write \
                    the stream first: FROM stream LEFT JOIN table ON .."
                );
            }
        };
        let Conditions { keys, left, right, both } = conditions;
        let turned = Conditions {
            keys: keys.into_iter().map(|(a, b)| (b, a)).collect(),
            left: right,
            right: left,
            both,
        };
        let schema = Arc::new(join.right.schema().join(join.left.schema())?);
        let swapped = Join {
            left: Arc::clone(&join.right),
            right: Arc::clone(&join.left),
            join_type,
            schema: Arc::clone(&schema),
            ..join.clone()
        };
        let input = self.table_join(&swapped, turned, names)?;
        let columns = join
            .schema
            .columns()
            .into_iter()
            .map(|column| physical(&Expr::Column(column), &schema))
            .collect::<Result<Vec<_>>>()?;
        Ok(Box::new(Project::new(input, columns, nullable(join.schema.as_arrow()))))
    }

    /// `FROM t CROSS JOIN UNNEST(t.list)`: the right side is made of each row of the left one.
    fn each_row_with(&mut self, join: &Join, filters: &[&Expr]) -> Result<Box<dyn Operator>> {
        if join.join_type != JoinType::Inner || !join.on.is_empty() {
            return plan_err!(
                "what is made of each row can only be added with CROSS JOIN; write `FROM t CROSS JOIN \
                UNNEST(t.list) AS u(x)`"
            );
        }
        let joined = self.beside(&join.left, &join.right)?;
        let conditions = join.filter.iter().chain(filters.iter().copied()).cloned().collect();
        filtered(joined, conditions, &join.schema)
    }

    /// The columns of `left`, and beside them those that `right` makes of them.
    fn beside(&mut self, left: &LogicalPlan, right: &LogicalPlan) -> Result<Box<dyn Operator>> {
        let count = left.schema().fields().len();
        match right {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => self.lower(left),
            LogicalPlan::SubqueryAlias(alias) => self.beside(left, &alias.input),
            LogicalPlan::Subquery(subquery) => self.beside(left, &subquery.subquery),
            LogicalPlan::Projection(projection) => {
                let input = self.beside(left, &projection.input)?;
                let below = left.schema().join(projection.input.schema())?;
                let own = left.schema().columns().into_iter().map(Expr::Column);
                let exprs =
                    own.chain(projection.expr.iter().cloned()).map(|expr| physical(&of_row(expr)?, &below));
                let schema = nullable(left.schema().join(&projection.schema)?.as_arrow());
                Ok(Box::new(Project::new(input, exprs.collect::<Result<_>>()?, schema)))
            }
            LogicalPlan::Filter(filter) => {
                let below = left.schema().join(filter.input.schema())?;
                filtered(self.beside(left, &filter.input)?, vec![of_row(filter.predicate.clone())?], &below)
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.beside(left, &unnest.input)?;
                let schema = nullable(left.schema().join(&unnest.schema)?.as_arrow());
                super::unnest::unnest(input, unnest, count, schema)
            }
            _ => plan_err!(
                "this subquery cannot be made of each row; `FROM t CROSS JOIN UNNEST(t.list) AS u(x)` can"
            ),
        }
    }
}

/// The inner join that `plan` is, and the conditions of WHERE above it: they may bound how long its rows are
/// kept.
pub(super) fn filtered_join(plan: &LogicalPlan) -> Option<(&Join, Vec<&Expr>)> {
    match plan {
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => Some((join, Vec::new())),
        LogicalPlan::Filter(filter) => {
            let (join, mut conditions) = filtered_join(&filter.input)?;
            conditions.push(&filter.predicate);
            Some((join, conditions))
        }
        _ => None,
    }
}

/// Columns of the row that a lateral subquery is made of are columns like all others.
fn of_row(expr: Expr) -> Result<Expr> {
    let expr = expr.transform_up(|expr| {
        Ok(match expr {
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            other => Transformed::no(other),
        })
    })?;
    Ok(expr.data)
}

fn filtered(input: Box<dyn Operator>, conditions: Vec<Expr>, schema: &DFSchema) -> Result<Box<dyn Operator>> {
    match conjunction(conditions) {
        Some(condition) => Ok(Box::new(Filter::new(input, physical(&condition, schema)?))),
        None => Ok(input),
    }
}

fn both_keys(
    join: &Join,
    keys: &[(Expr, Expr)],
    left: &dyn Operator,
    right: &dyn Operator,
) -> Result<(Keys, Keys)> {
    let null_is_value = join.null_equality == NullEquality::NullEqualsNull;
    let (left_exprs, right_exprs): (Vec<_>, Vec<_>) = keys.iter().cloned().unzip();
    let side = |exprs: Vec<Expr>, plan: &LogicalPlan, schema: &SchemaRef| {
        let exprs = exprs.iter().map(|expr| key(expr, plan.schema())).collect::<Result<Vec<_>>>()?;
        Keys::new(exprs, schema, null_is_value)
    };
    Ok((side(left_exprs, &join.left, left.schema())?, side(right_exprs, &join.right, right.schema())?))
}

/// What a column that carries time says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeKind {
    /// its event time
    Ts,
    /// the end of its window, which it is before
    WindowEnd,
    /// the last millisecond of its window
    WindowTime,
}

impl TimeKind {
    /// How much such a time of a row of `input` may be behind the watermark.
    fn slack(self, input: &dyn Operator) -> Result<i64> {
        let slack = match self {
            Self::Ts => input.delay_ns(),
            Self::WindowEnd => input.end_delay_ns().saturating_sub(1),
            Self::WindowTime => input.end_delay_ns().saturating_add(WINDOW_TIME_NS - 1),
        };
        if slack >= i64::MAX - 1 {
            return plan_err!(
                "the time of rows whose window ends by its rows can be any time ago, so that a join would \
                have to wait for ever; join what the window reads"
            );
        }
        Ok(slack)
    }
}

/// The columns of `plan` that carry time.
fn time_columns(plan: &LogicalPlan) -> Vec<(Column, TimeKind)> {
    plan.schema()
        .columns()
        .into_iter()
        .filter_map(|column| time_kind(&column, plan).map(|kind| (column, kind)))
        .collect()
}

fn time_of(name: &str, plan: &LogicalPlan) -> Option<TimeKind> {
    time_columns(plan).into_iter().find(|(column, _)| column.name == name).map(|(_, kind)| kind)
}

/// What time `column` of `plan` carries.
fn time_kind(column: &Column, plan: &LogicalPlan) -> Option<TimeKind> {
    let index = plan.schema().maybe_index_of_column(column)?;
    if *plan.schema().field(index).data_type() != ts_type() {
        return None;
    }
    let behind = |expr: &Expr, input: &LogicalPlan| match expr.clone().unalias() {
        Expr::Column(column) => time_kind(&column, input),
        _ => None,
    };
    let through = |input: &LogicalPlan| {
        input.schema().maybe_index_of_column(column)?;
        time_kind(column, input)
    };
    match plan {
        LogicalPlan::TableScan(_) => (column.name == TS).then_some(TimeKind::Ts),
        LogicalPlan::SubqueryAlias(alias) => {
            time_kind(&alias.input.schema().columns().into_iter().nth(index)?, &alias.input)
        }
        LogicalPlan::Projection(projection) => behind(projection.expr.get(index)?, &projection.input),
        LogicalPlan::Aggregate(aggregate) => behind(aggregate.group_expr.get(index)?, &aggregate.input),
        LogicalPlan::Union(union) => {
            let mut kinds = union
                .inputs
                .iter()
                .map(|input| time_kind(&input.schema().columns().into_iter().nth(index)?, input));
            let first = kinds.next()??;
            kinds.all(|kind| kind == Some(first)).then_some(first)
        }
        LogicalPlan::Extension(extension) => {
            let inputs = extension.node.inputs();
            let from_input = inputs.iter().find_map(|input| through(input));
            let own = match column.name.as_str() {
                WINDOW_END => Some(TimeKind::WindowEnd),
                WINDOW_TIME => Some(TimeKind::WindowTime),
                TS => Some(TimeKind::Ts),
                _ => None,
            };
            from_input.or(own)
        }
        LogicalPlan::Join(join) => through(&join.left).or_else(|| through(&join.right)),
        other => other.inputs().into_iter().find_map(through),
    }
}

/// The tables that `plan` reads, if it reads nothing else.
pub(super) fn tables(plan: &LogicalPlan) -> Result<Option<BTreeSet<Arc<str>>>> {
    let mut names = BTreeSet::new();
    let mut only = true;
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            match scan.source.downcast_ref::<StreamSource>() {
                Some(source) if source.is_table => drop(names.insert(Arc::clone(&source.name))),
                _ => only = false,
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(only.then_some(names))
}

/// The streams that `plan` reads.
fn sources(plan: &LogicalPlan) -> Result<BTreeSet<Arc<str>>> {
    let mut names = BTreeSet::new();
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<StreamSource>()
            && !source.is_table
        {
            names.insert(Arc::clone(&source.name));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

/// Whether `plan` was a subquery in an expression: `ScalarSubqueryToJoin` gives it such a name.
fn is_value(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::SubqueryAlias(alias) if alias.alias.table().starts_with("__scalar_sq"))
}

fn as_of(plan: &LogicalPlan) -> Option<&AsOf> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => as_of(&alias.input),
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<AsOf>(),
        _ => None,
    }
}
