//! Columns of one kind for UNIONs, joins and subqueries, whose operands are columns of whole plans.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr_schema::cast_subquery;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Projection, Subquery, Union,
};

use super::{literals, reconcile_typed};

/// A UNION whose branches have floats where any has.
pub(super) fn union_of_one_kind(mut union: Union) -> Result<Transformed<LogicalPlan>> {
    let width = union.schema.fields().len();
    // Branches of several widths are for type coercion to refuse.
    if union.inputs.iter().any(|input| input.schema().fields().len() != width) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let mut columns: Vec<Vec<Expr>> = union.inputs.iter().map(|input| columns_of(input)).collect();
    let mut is_changed = false;
    for position in 0..width {
        let inputs = union.inputs.iter();
        let types = inputs.map(|input| input.schema().field(position).data_type().clone());
        let types: Vec<_> = types.collect();
        let mut operands: Vec<_> =
            columns.iter_mut().filter_map(|columns| columns.get_mut(position)).collect();
        is_changed |= reconcile_typed(&mut operands, &types)?;
    }
    if is_changed {
        let inputs = union.inputs.iter().zip(columns);
        let inputs = inputs.map(|(input, columns)| Ok(Arc::new(projected(input, columns)?)));
        union.inputs = inputs.collect::<Result<_>>()?;
    }
    let (schema, is_stale) = schema_of(&union)?;
    union.schema = Arc::new(schema);
    Ok(Transformed::new_transformed(LogicalPlan::Union(union), is_changed || is_stale))
}

/// The columns of a branch: what is written out as it is, others as columns.
fn columns_of(input: &LogicalPlan) -> Vec<Expr> {
    let written = match input {
        LogicalPlan::Projection(Projection { expr, .. }) => expr.as_slice(),
        _ => &[],
    };
    let columns = input.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(position, column)| match written.get(position) {
        Some(expr) if literals::is_written(expr) => expr.clone().unalias(),
        _ => Expr::Column(column),
    });
    columns.collect()
}

/// A branch with these columns, by the names that it had.
fn projected(input: &Arc<LogicalPlan>, columns: Vec<Expr>) -> Result<LogicalPlan> {
    let is_cast = |expr: &Expr| matches!(expr, Expr::Cast(_));
    let is_decimal =
        |expr: &Expr| matches!(expr, Expr::Literal(value, _) if value.data_type().is_decimal());
    if !columns.iter().any(|expr| is_cast(expr) || is_decimal(expr)) {
        return Ok(LogicalPlan::clone(input));
    }
    let named = columns.into_iter().zip(input.schema().columns()).map(|(expr, column)| {
        let Column { relation, name, .. } = column;
        match expr {
            Expr::Column(_) => expr,
            other => other.alias_qualified(relation, name),
        }
    });
    LogicalPlanBuilder::from(Arc::clone(input)).project(named.collect::<Vec<_>>())?.build()
}

/// The columns of a UNION, with the types that those of its first branch have now.
fn schema_of(union: &Union) -> Result<(DFSchema, bool)> {
    let mut is_stale = false;
    let first = union.inputs.first().map(|input| input.schema());
    let fields = union.schema.iter().enumerate().map(|(position, (relation, field))| {
        let now = first.map(|schema| schema.field(position).data_type());
        let is_number = |data_type: &DataType| data_type.is_decimal() || data_type.is_floating();
        let field = match now {
            Some(now)
                if now != field.data_type() && is_number(now) && is_number(field.data_type()) =>
            {
                is_stale = true;
                Arc::new(Field::clone(field).with_data_type(now.clone()))
            }
            _ => Arc::clone(field),
        };
        (relation.cloned(), field)
    });
    let fields = fields.collect();
    Ok((DFSchema::new_with_metadata(fields, union.schema.metadata().clone())?, is_stale))
}

/// A join whose keys are of one kind, pair by pair.
pub(super) fn join_on_one_kind(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let mut is_changed = false;
    for (left, right) in &mut join.on {
        let types = [left.get_type(join.left.schema())?, right.get_type(join.right.schema())?];
        is_changed |= reconcile_typed(&mut [left, right], &types)?;
    }
    Ok(Transformed::new_transformed(LogicalPlan::Join(join), is_changed))
}

/// An operand and the column of the subquery that it is compared with, of one kind. Whether they were
/// not.
pub(super) fn operand_and_subquery(
    operand: &mut Expr,
    subquery: &mut Subquery,
    schema: &DFSchema,
) -> Result<bool> {
    let Some((relation, field)) = subquery.subquery.schema().iter().next() else {
        return Ok(false);
    };
    let types = [operand.get_type(schema)?, field.data_type().clone()];
    let mut column = Expr::Column(Column::from((relation, field)));
    let is_changed = reconcile_typed(&mut [operand, &mut column], &types)?;
    if !matches!(column, Expr::Column(_)) {
        *subquery = cast_subquery(subquery.clone(), &DataType::Float64)?;
    }
    Ok(is_changed)
}
