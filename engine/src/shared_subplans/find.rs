//! Subplans that are in a statement more than once.
//!
//! They are looked for below the names of derived tables, where WITH queries and views begin, in the plan as it
//! was parsed: there copies are equal to the letter. DataFusion takes plans for equal that read other tables of one
//! name, or have values of other types, so these are compared as well ([`Copied`]).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, SubqueryAlias, TableScan};

use super::SharedTable;
use crate::distribute::Topology;
use crate::subqueries::outer_columns;
use crate::table::SegmentTable;

/// Parts of one statement.
const PARTS_MAX: usize = 8;
/// Nodes of a statement that is looked at: to compare all of a larger one takes long.
const NODES_MAX: usize = 2_000;
/// A part reads at least so many times the rows of a scan that is one task: to run a query more costs as much.
const READ_ROWS_FACTOR: u64 = 4;

/// A statement over its parts.
pub(super) struct Found {
    pub(super) main: LogicalPlan,
    /// Those that read a part come before it.
    pub(super) parts: Vec<FoundPart>,
}

/// A subplan that is there several times.
pub(super) struct FoundPart {
    /// As it is in the statement.
    pub(super) written: Copied,
    /// The same over the parts that it reads.
    pub(super) plan: LogicalPlan,
    pub(super) table: Arc<SharedTable>,
}

/// A subplan, and what tells it apart from others that DataFusion takes for equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Copied {
    plan: Arc<LogicalPlan>,
    /// The address of the snapshot of each table that is read, in the order of the plan: it lives as long as the plan.
    tables: Vec<usize>,
    /// The types of constants; those of moments name their zones.
    constants: Vec<DataType>,
}

/// A statement with the subplans that are there several times, and are not `refused`, as parts.
///
/// # Errors
/// Those of DataFusion's analyser.
pub(super) fn repeated(
    state: &SessionState,
    statement: &LogicalPlan,
    refused: &[Copied],
) -> Result<Option<Found>> {
    if nodes_of(statement)? > NODES_MAX {
        return Ok(None);
    }
    let mut found = Found { main: statement.clone(), parts: vec![] };
    while found.parts.len() < PARTS_MAX {
        let plans = std::iter::once(&found.main).chain(found.parts.iter().map(|part| &part.plan));
        let Some(largest) = largest_repeated(plans, refused, state)? else { break };
        let name = format!("shared_{}", found.parts.len() + 1);
        let table = Arc::new(SharedTable::new(&name, Arc::new(schema_of(&largest.plan, state)?)));
        let source = provider_as_source(Arc::clone(&table) as Arc<_>);
        let leaf = Arc::new(LogicalPlanBuilder::scan(name, source, None)?.build()?);
        found.main = replaced(found.main, &largest, &leaf)?;
        for part in &mut found.parts {
            part.plan = replaced(part.plan.clone(), &largest, &leaf)?;
        }
        let plan = largest.plan.as_ref().clone();
        found.parts.push(FoundPart { written: largest, plan, table });
    }
    Ok((!found.parts.is_empty()).then_some(found))
}

/// The columns that are read in place of a subplan. Only analysed it says which types they have, and which may be
/// NULL.
fn schema_of(plan: &LogicalPlan, state: &SessionState) -> Result<Schema> {
    let options = state.config_options();
    let analyzed = state.analyzer().execute_and_check(plan.clone(), options, |_, _| {})?;
    Ok(Schema::new(analyzed.schema().fields().clone()))
}

fn nodes_of(plan: &LogicalPlan) -> Result<usize> {
    let mut nodes = 0;
    plan.apply_with_subqueries(|_| {
        nodes += 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(nodes)
}

/// The subplan of most nodes that is there several times and may be shared; the first of several.
fn largest_repeated<'a>(
    plans: impl Iterator<Item = &'a LogicalPlan>,
    refused: &[Copied],
    state: &SessionState,
) -> Result<Option<Copied>> {
    let mut copies: HashMap<Arc<LogicalPlan>, usize> = HashMap::new();
    let mut several = Vec::new();
    for plan in plans {
        plan.apply_with_subqueries(|node| {
            // Of a name for a name only the inner one begins a subplan.
            if let LogicalPlan::SubqueryAlias(alias) = node
                && !matches!(alias.input.as_ref(), LogicalPlan::SubqueryAlias(_))
            {
                let copies = copies.entry(Arc::clone(&alias.input)).or_default();
                *copies += 1;
                if *copies == 2 {
                    several.push(Arc::clone(&alias.input));
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let mut largest: Option<(usize, Copied)> = None;
    for plan in several {
        let nodes = nodes_of(&plan)?;
        if largest.as_ref().is_some_and(|(most, _)| nodes <= *most) {
            continue;
        }
        if let Some(copied) = shareable(&plan, state)?
            && !refused.contains(&copied)
        {
            largest = Some((nodes, copied));
        }
    }
    Ok(largest.map(|(_, copied)| copied))
}

/// A subplan that has the same rows wherever it is, and whenever, and that it pays to run once.
fn shareable(plan: &Arc<LogicalPlan>, state: &SessionState) -> Result<Option<Copied>> {
    if !computes(plan)? || !has_names(plan) || !outer_columns(plan)?.is_empty() {
        return Ok(None);
    }
    let Some(copied) = copied(plan)? else { return Ok(None) };
    let least = state.config().get_extension::<Topology>().map_or(0, |known| known.one_task_rows());
    let rows = rows_read(plan)?;
    let pays = rows > 0 && rows >= least.saturating_mul(READ_ROWS_FACTOR);
    Ok((pays && is_lasting(plan)?).then_some(copied))
}

/// Whether a subplan does more than to read rows, which is as fast as to read them here.
fn computes(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        Ok(matches!(
            node,
            LogicalPlan::Aggregate(_)
                | LogicalPlan::Distinct(_)
                | LogicalPlan::Window(_)
                | LogicalPlan::Join(_)
                | LogicalPlan::Limit(_)
                | LogicalPlan::RecursiveQuery(_)
        ))
    })
}

/// Whether each of its columns has a name of its own.
fn has_names(plan: &LogicalPlan) -> bool {
    let fields = plan.schema().fields();
    let mut names: Vec<_> = fields.iter().map(|field| field.name()).collect();
    names.sort_unstable();
    !names.is_empty() && names.windows(2).all(|pair| pair[0] != pair[1])
}

/// What tells a subplan apart; `None` of one that reads anything but tables of the statement's snapshot and the
/// rounds of its own recursive queries.
fn copied(plan: &Arc<LogicalPlan>) -> Result<Option<Copied>> {
    let (mut tables, mut constants) = (Vec::new(), Vec::new());
    let (mut is_known, mut recursive, mut rounds) = (true, vec![], vec![]);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => match stored(scan) {
                Some(address) => tables.push(address),
                None if is_round(scan) => rounds.push(scan.table_name.to_string()),
                None => is_known = false,
            },
            LogicalPlan::RecursiveQuery(query) => recursive.push(query.name.clone()),
            LogicalPlan::Extension(_) => is_known = false,
            _ => {}
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr {
                    constants.push(value.data_type());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    is_known &= rounds.iter().all(|round| recursive.contains(round));
    Ok(is_known.then(|| Copied { plan: Arc::clone(plan), tables, constants }))
}

/// Which table of the snapshot a scan reads, if it is one.
fn stored(scan: &TableScan) -> Option<usize> {
    let provider = source_as_provider(&scan.source).ok()?;
    let table = provider.downcast_ref::<SegmentTable>()?;
    table.is_whole().then(|| Arc::as_ptr(table.snapshot()).cast::<()>() as usize)
}

/// Whether a scan reads the last round of a recursive query.
fn is_round(scan: &TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|provider| provider.is::<CteWorkTable>())
}

/// Whether no expression gives another value each time.
fn is_lasting(plan: &LogicalPlan) -> Result<bool> {
    let mut is_lasting = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            is_lasting &= !expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(is_lasting)
}

/// Rows of all tables that a subplan reads, those that its filters leave out with them.
fn rows_read(plan: &LogicalPlan) -> Result<u64> {
    let mut rows = 0_u64;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(table) = provider.downcast_ref::<SegmentTable>()
        {
            rows = rows.saturating_add(table.snapshot().segments.totals().live_rows);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(rows)
}

/// A plan that reads `leaf` wherever it has the subplan.
fn replaced(plan: LogicalPlan, subplan: &Copied, leaf: &Arc<LogicalPlan>) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|node| {
        if let LogicalPlan::SubqueryAlias(alias) = &node
            && alias.input == subplan.plan
            && copied(&alias.input)?.as_ref() == Some(subplan)
        {
            let alias = SubqueryAlias::try_new(Arc::clone(leaf), alias.alias.clone())?;
            let alias = LogicalPlan::SubqueryAlias(alias);
            return Ok(Transformed::new(alias, true, TreeNodeRecursion::Jump));
        }
        Ok(Transformed::no(node))
    })
    .data()
}
