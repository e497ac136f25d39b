//! Groups of intervals that are equally long.
//!
//! ```text
//! Aggregate: i, count(*)     Projection: __interval_1 AS i, count(*)
//!   ...                        Aggregate: __length_0, count(*), min(i) AS __interval_1
//!                                Projection: ..., justified_interval(i) AS __length_0
//!                                  ...
//! ```
//! What a group shows is one of its own intervals, the least by months, then days: which one does not
//! depend on the order of rows. Where GROUPING SETS leave the key out, it is NULL.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, when,
};

use super::is_compared_by_length;
use super::justified::justified;
use crate::arithmetic::min_of_intervals;

/// DISTINCT of rows with intervals, as groups; `None` of others.
pub(super) fn distinct_rows(input: &Arc<LogicalPlan>) -> Result<Option<LogicalPlan>> {
    let fields = input.schema().fields();
    let mut found = false;
    for field in fields {
        found |= is_compared_by_length(field.data_type())?;
    }
    if !found {
        return Ok(None);
    }
    let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
    grouped(&Aggregate::try_new(Arc::clone(input), columns, Vec::new())?)
}

/// An aggregate whose keys have no intervals but justified ones; `None` if it has none at all.
pub(super) fn grouped(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let keys = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let input = &aggregate.input;
    let mut lengths: HashMap<Expr, Column> = HashMap::new();
    let mut below: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut functions = aggregate.aggr_expr.clone();
    // By their places: the key's length, and the interval that is shown.
    let mut shown: HashMap<usize, (Column, Column)> = HashMap::new();
    for (place, key) in keys.into_iter().enumerate() {
        if !is_compared_by_length(&key.get_type(input.schema())?)? {
            continue;
        }
        let length = match lengths.get(key) {
            Some(length) => length.clone(),
            None => {
                let length = free_name("length", place, input.schema());
                below.push(justified(key.clone()).alias(length.name()));
                lengths.insert(key.clone(), length.clone());
                length
            }
        };
        let interval = free_name("interval", place, &aggregate.schema);
        functions.push(min(min_of_intervals(), key.clone()).alias(interval.name()));
        shown.insert(place, (length, interval));
    }
    if shown.is_empty() {
        return Ok(None);
    }
    let below = LogicalPlanBuilder::from(Arc::clone(input)).project(below)?.build()?;
    let keys = aggregate.group_expr.iter().map(|key| by_length(key.clone(), &lengths));
    let inner = Aggregate::try_new(Arc::new(below), keys.collect::<Result<_>>()?, functions)?;
    let own = inner.schema.columns();
    if own.len() != aggregate.schema.fields().len() + shown.len() {
        return plan_err!("keys of intervals have other columns than the keys they stand for");
    }
    let columns = aggregate.schema.iter().zip(own).enumerate();
    let columns = columns.map(|(place, ((relation, field), column))| match shown.get(&place) {
        Some((length, interval)) => {
            let is_key = Expr::Column(length.clone()).is_not_null();
            let interval = when(is_key, Expr::Column(interval.clone())).end()?;
            Ok(interval.alias_qualified(relation.cloned(), field.name()))
        }
        None => Ok(Expr::Column(column)),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(inner)).project(columns)?.build().map(Some)
}

fn min(function: Arc<AggregateUDF>, of: Expr) -> Expr {
    let call = AggregateFunction::new_udf(function, vec![of], false, None, Vec::new(), None);
    Expr::AggregateFunction(call)
}

/// A key with lengths in the place of intervals.
fn by_length(key: Expr, lengths: &HashMap<Expr, Column>) -> Result<Expr> {
    key.transform_down(|expr| match lengths.get(&expr) {
        Some(length) => {
            Ok(Transformed::new(Expr::Column(length.clone()), true, TreeNodeRecursion::Jump))
        }
        None => Ok(Transformed::no(expr)),
    })
    .data()
}

/// A name that no column of a schema has.
pub(super) fn free_name(what: &str, place: usize, schema: &DFSchema) -> Column {
    let mut name = format!("__{what}_{place}");
    while schema.fields().iter().any(|field| *field.name() == name) {
        name.push('_');
    }
    Column::new_unqualified(name)
}
