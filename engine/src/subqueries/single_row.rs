//! Scalar subqueries have one row at most, or the statement fails; without a row they are NULL.
//!
//! Distributed plans turn `(SELECT w FROM b)` into a join, and a join with a subquery of three rows
//! answers three times, silently. So a subquery that may have several rows is put below an
//! aggregate that hands on the value of one row and fails at the second. Correlated subqueries need
//! no such guard: DataFusion only takes those that are aggregates already.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, LogicalPlanBuilder, Signature,
    Subquery, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

/// The aggregate that fails at a second row. Workers know it; SQL does not.
pub(crate) fn single_row() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(AggregateUDF::new_from_impl(SingleRow::default())));
    Arc::clone(&FUNCTION)
}

/// Guards every uncorrelated scalar subquery that may have several rows, or none and a column that is
/// never NULL: DataFusion takes the subquery itself for never NULL then.
#[derive(Debug, Default)]
pub(crate) struct GuardScalarSubqueries;

impl AnalyzerRule for GuardScalarSubqueries {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| plan.map_expressions(guard_in))?;
        if !plan.transformed {
            return Ok(plan.data);
        }
        // What a guard gives may be NULL, and what is made of it.
        let recomputed = |node: LogicalPlan| Ok(Transformed::yes(node.recompute_schema()?));
        plan.data.transform_up_with_subqueries(recomputed).data()
    }

    fn name(&self) -> &'static str {
        "guard_scalar_subqueries"
    }
}

fn guard_in(expression: Expr) -> Result<Transformed<Expr>> {
    expression.transform_up(|expression| match expression {
        Expr::ScalarSubquery(subquery) if needs_guard(&subquery) => {
            Ok(Transformed::yes(Expr::ScalarSubquery(guarded(subquery)?)))
        }
        other => Ok(Transformed::no(other)),
    })
}

fn needs_guard(subquery: &Subquery) -> bool {
    let plan = subquery.subquery.as_ref();
    let may_have_several_rows = plan.max_rows().is_none_or(|rows| rows > 1);
    let has_nulls = plan.schema().fields().iter().any(|field| field.is_nullable());
    subquery.outer_ref_columns.is_empty()
        && (may_have_several_rows || !has_nulls && !has_one_row(plan))
}

/// Whether a plan has its row always.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(relation) => relation.produce_one_row,
        _ => false,
    }
}

/// The subquery below the aggregate, its column with the name it had.
fn guarded(subquery: Subquery) -> Result<Subquery> {
    let plan = subquery.subquery.as_ref().clone();
    let Some((qualifier, field)) = plan.schema().iter().next() else {
        return plan_err!("a scalar subquery has no column");
    };
    let name = field.name().clone();
    let column = Expr::Column(Column::from((qualifier, field)));
    let value = single_row().call(vec![column]).alias(name);
    let plan =
        LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![value])?.build()?;
    Ok(Subquery { subquery: Arc::new(plan), ..subquery })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow {
    signature: Signature,
}

impl Default for SingleRow {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for SingleRow {
    fn name(&self) -> &'static str {
        "basalt_single_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let value = ScalarValue::try_new_null(arguments.return_field.data_type())?;
        Ok(Box::new(SeenRow { value, rows: 0 }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let value = format_state_name(arguments.name, "value");
        let rows = format_state_name(arguments.name, "rows");
        Ok(vec![
            Arc::new(Field::new(value, arguments.return_field.data_type().clone(), true)),
            Arc::new(Field::new(rows, DataType::UInt64, true)),
        ])
    }
}

/// The value of the first row, and how many rows there were.
#[derive(Debug)]
struct SeenRow {
    value: ScalarValue,
    rows: u64,
}

impl SeenRow {
    fn see(&mut self, values: &ArrayRef, row: usize, rows: u64) -> Result<()> {
        if rows > 0 && self.rows == 0 {
            self.value = ScalarValue::try_from_array(values, row)?;
        }
        self.rows = self.rows.saturating_add(rows);
        match self.rows {
            0 | 1 => Ok(()),
            _ => exec_err!("more than one row returned by a subquery used as an expression"),
        }
    }
}

impl Accumulator for SeenRow {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.see(&values[0], 0, values[0].len() as u64)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[1].as_primitive::<UInt64Type>();
        for row in 0..counts.len() {
            self.see(&states[0], row, counts.value(row))?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::UInt64(Some(self.rows))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) - size_of_val(&self.value) + self.value.size()
    }
}
