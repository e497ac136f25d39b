//! What the rows of a plan depend on, for caches that find what was made of the same plan before.
//!
//! A plan as it was parsed, with names and views resolved and parameters bound, has the same rows as one that is
//! equal to it if both read the same commits of the same tables in sessions of the same settings. DataFusion takes
//! plans for equal that read other tables of one name, or have values of other types, so these are told apart here.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource, Volatility};

use crate::snapshot::TableSnapshot;
use crate::table::SegmentTable;

/// What of a plan is looked at: to compare larger ones would take longer than is saved, and much stack.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Its nodes with the parts of their expressions.
    pub parts: usize,
    /// Bytes of its literals.
    pub literal_bytes: usize,
}

/// What the rows of a plan depend on beside itself and the settings of its session.
#[derive(Clone)]
pub struct DecidedBy {
    /// What it reads, in the order in which it names it.
    pub scans: Vec<ScannedTable>,
    /// The types of its literals, in order: zones of timestamps are not compared with their values.
    pub literals: Vec<DataType>,
}

/// A stored table that a plan reads.
#[derive(Clone)]
pub struct ScannedTable {
    /// The table at its commit.
    pub table: Arc<TableSnapshot>,
    /// What the plan reads it through.
    pub source: Arc<dyn TableSource>,
}

impl ScannedTable {
    /// The stored table that a source has all rows of, if it is one.
    pub(crate) fn of(source: &Arc<dyn TableSource>) -> Option<Self> {
        let provider = source_as_provider(source).ok()?;
        let table = provider.downcast_ref::<SegmentTable>().filter(|table| table.is_whole())?;
        Some(Self { table: Arc::clone(table.snapshot()), source: Arc::clone(source) })
    }
}

impl DecidedBy {
    /// What decides a plan's rows; `None` where that is more: system tables, files, functions of time, session or
    /// chance, parameters without values. Nor is that looked for in plans beyond the bounds, and without tables there
    /// is nothing to save.
    ///
    /// # Errors
    /// Those of DataFusion's walks over plans.
    pub fn of(plan: &LogicalPlan, bounds: Bounds) -> Result<Option<Self>> {
        let (mut scans, mut literals) = (Vec::new(), Vec::new());
        let (mut parts, mut literal_bytes, mut is_decided) = (0, 0, true);
        plan.apply_with_subqueries(|node| {
            parts += 1;
            match node {
                LogicalPlan::TableScan(scan) => match ScannedTable::of(&scan.source) {
                    Some(scanned) => scans.push(scanned),
                    None => is_decided = false,
                },
                node => is_decided &= only_computes(node),
            }
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    parts += 1;
                    is_decided &= is_immutable(part);
                    if let Expr::Literal(value, _) = part {
                        literal_bytes += value.size();
                        literals.push(value.data_type());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
            is_decided &= parts <= bounds.parts && literal_bytes <= bounds.literal_bytes;
            Ok(match is_decided {
                true => TreeNodeRecursion::Continue,
                false => TreeNodeRecursion::Stop,
            })
        })?;
        let is_known = is_decided && !scans.is_empty();
        Ok(is_known.then_some(Self { scans, literals }))
    }
}

/// Whether all that a node does is in it, and is to compute rows. What is written to is not compared with plans.
fn only_computes(node: &LogicalPlan) -> bool {
    use LogicalPlan as P;
    match node {
        P::Projection(_) | P::Filter(_) | P::Window(_) | P::Aggregate(_) | P::Sort(_) => true,
        P::Join(_) | P::Repartition(_) | P::Union(_) | P::Limit(_) | P::Distinct(_) => true,
        P::EmptyRelation(_) | P::Values(_) | P::Unnest(_) => true,
        P::Subquery(_) | P::SubqueryAlias(_) => true,
        P::TableScan(_) | P::RecursiveQuery(_) | P::Extension(_) => false,
        P::Dml(_) | P::Ddl(_) | P::Copy(_) | P::Statement(_) => false,
        P::Explain(_) | P::Analyze(_) | P::DescribeTable(_) => false,
    }
}

fn is_immutable(expr: &Expr) -> bool {
    let volatility = match expr {
        Expr::ScalarFunction(function) => function.func.signature().volatility,
        Expr::AggregateFunction(function) => function.func.signature().volatility,
        Expr::WindowFunction(function) => function.fun.signature().volatility,
        Expr::Placeholder(_) | Expr::ScalarVariable(..) | Expr::HigherOrderFunction(_) => {
            return false;
        }
        _ => return true,
    };
    volatility == Volatility::Immutable
}
