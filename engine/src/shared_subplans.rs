//! Subplans that a statement has several times, computed once.
//!
//! DataFusion plans the query of a WITH, and that of a view, anew at each place that names it. Here subplans that
//! are there more than once become *parts*: each is run once, by itself, its rows are collected, and the
//! statement reads them where the subplan was.
//!
//! ```text
//! statement ─▶ find: what is there several times, the largest first
//!                │ uses: what each place needs of it, once filters and columns were pushed down
//!                ▼
//!          parts ─▶ run one after the other ─▶ SharedTable, its rows with the coordinator
//!                                                  │
//!          the statement over these tables ◀───────┘ SharedRowsExec, sent with its plan
//! ```
//! A part computes the columns that any place needs, of the rows that the filter of any place keeps, as DuckDB
//! does with its materialised CTEs. What is planned after it knows exactly how many rows it has.
//!
//! Invariant: a statement over shared tables has the rows of the statement: nothing that may give other rows the
//! next time, or that depends on rows around it, is shared. Not here: how parts are run, and what becomes of a
//! statement whose parts have too many rows (coordinator).

mod exec;
mod find;
mod table;
mod uses;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::DistributedLeafExec;

pub(crate) use exec::SharedRowsExec;
use find::{Copied, Found, repeated};
pub use table::SharedTable;
use uses::{narrowed, uses_of};

use crate::distribute::estimated_rows;

/// Bytes of the rows of one part: they are sent to workers with the plans that read them.
pub const PART_BYTES_MAX: usize = 16 << 20;
/// The same of all places of a statement that read rows of parts.
pub const SENT_BYTES_MAX: usize = 32 << 20;
/// How much larger than that a part may be estimated to be and is tried all the same: of groups by several keys, an
/// estimate is what there would be if every key met every other one.
const ESTIMATE_FACTOR: usize = 4;
/// Subplans of a statement that turn out to be of no use as parts, before it is run as it was written.
const REFUSED_MAX: usize = 8;

/// A statement whose parts are run first.
#[derive(Debug, Clone)]
pub struct SharedPlan {
    /// The parts, in the order in which they are run: a part may read those before it.
    pub parts: Vec<SharedPart>,
    /// The statement over the tables of its parts.
    pub main: LogicalPlan,
    /// The columns of its rows before they take wire form.
    pub columns: SchemaRef,
}

/// A subplan that is run once.
#[derive(Debug, Clone)]
pub struct SharedPart {
    /// What it computes.
    pub plan: LogicalPlan,
    /// What is read in its place, once it has the rows of `plan`.
    pub table: Arc<SharedTable>,
    /// How many places read it.
    pub uses: usize,
}

impl SharedPart {
    /// Whether the rows of its physical plan are estimated to be too many to be shared.
    pub fn is_too_large(&self, plan: &Arc<dyn ExecutionPlan>) -> bool {
        let bytes = |rows: usize| rows.saturating_mul(row_bytes_least(&plan.schema()));
        estimated_rows(plan).is_some_and(|rows| bytes(rows) > PART_BYTES_MAX * ESTIMATE_FACTOR)
    }
}

/// Bytes of the rows of parts that are sent with a plan: of each place that reads one its own.
pub fn sent_bytes(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let mut bytes = 0_usize;
    let visited = plan.apply(|node| {
        let leaf = node.downcast_ref::<DistributedLeafExec>().map_or(node, |leaf| leaf.original());
        if let Some(rows) = leaf.downcast_ref::<SharedRowsExec>() {
            bytes = bytes.saturating_add(rows.bytes());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "nothing here fails");
    bytes
}

/// Bytes that a row has at least.
fn row_bytes_least(schema: &SchemaRef) -> usize {
    let widths = schema.fields().iter().map(|field| field.data_type().primitive_width());
    widths.map(|width| width.unwrap_or(1)).sum()
}

/// The statement with the subplans that it has several times as parts; `None` where it has none that pay.
///
/// # Errors
/// Those of DataFusion's rules.
pub fn shared(state: &SessionState, statement: &LogicalPlan) -> Result<Option<SharedPlan>> {
    let mut refused = Vec::new();
    while refused.len() <= REFUSED_MAX {
        let Some(found) = repeated(state, statement, &refused)? else { return Ok(None) };
        match decided(state, statement, found)? {
            Decision::Share(plan) => return Ok(Some(plan)),
            Decision::Without(part, reason) => {
                tracing::debug!(reason, "a subplan is not shared");
                refused.push(part);
            }
        }
    }
    Ok(None)
}

enum Decision {
    Share(SharedPlan),
    /// This part is of no use.
    Without(Copied, &'static str),
}

fn analyzed(state: &SessionState, plan: &LogicalPlan) -> Result<LogicalPlan> {
    let ignore = |_: &LogicalPlan, _: &dyn AnalyzerRule| {};
    state.analyzer().execute_and_check(plan.clone(), state.config_options(), ignore)
}

fn decided(state: &SessionState, statement: &LogicalPlan, found: Found) -> Result<Decision> {
    let mut readers = vec![state.optimize(&found.main)?];
    let mut parts = Vec::with_capacity(found.parts.len());
    // Who reads a part was found before it.
    for part in found.parts {
        let mut uses = Vec::new();
        for plan in &readers {
            uses.extend(uses_of(plan, &part.table)?);
        }
        if uses.len() < 2 {
            return Ok(Decision::Without(part.written, "it is read in one place"));
        }
        let Some(plan) = narrowed(&part, &uses)? else {
            return Ok(Decision::Without(part.written, "a place reads what it has not"));
        };
        let optimized = state.optimize(&plan)?;
        if !part.table.takes(optimized.schema().as_arrow()) {
            return Ok(Decision::Without(part.written, "its types are others"));
        }
        readers.push(optimized);
        parts.push(SharedPart { plan, table: part.table, uses: uses.len() });
    }
    parts.reverse();
    let columns = Arc::clone(analyzed(state, statement)?.schema().inner());
    Ok(Decision::Share(SharedPlan { parts, main: found.main, columns }))
}
