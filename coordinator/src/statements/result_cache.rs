//! Answers of queries that were asked before, while nothing that they were made of has changed.
//!
//! ```text
//! plan, its parameters bound ─┐
//! the tables' commits         ├─ key ─▶ rows in wire form
//! the session's settings      ┘
//! ```
//! Invariant: an answer that is found is one that running the query now could give. What decides it is in the
//! key and compared, not only hashed: the plan as it was parsed, with views and names resolved; of each table its
//! id and the commit that last changed its rows or columns; all settings. A plan that depends on anything else
//! has no key: system tables, files, functions of time, session or chance.
//!
//! The least recently used go when the budget is used up, as in Redshift's result cache.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use basalt_engine::settings::Settings;
use basalt_engine::table::SegmentTable;
use basalt_storage::ids::TableId;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

/// An answer of more than this part of the budget is not kept.
const ANSWER_PARTS: usize = 16;
/// What a key takes about, in bytes: plans are trees of small pieces.
const KEY_BYTES: usize = 16 << 10;
/// Larger plans have no key: to compare them would take longer than is saved, and much stack.
const PLAN_NODES_MAX: usize = 500;

/// What decides an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ResultKey {
    plan: LogicalPlan,
    /// The tables in the order in which the plan names them, each with its commit.
    tables: Vec<(TableId, u64)>,
    settings: Settings,
}

impl ResultKey {
    /// The key of a plan whose parameters are bound; `None` where its answer depends on more.
    pub(super) fn of(plan: &LogicalPlan, settings: &Settings) -> Result<Option<Self>> {
        let (mut tables, mut nodes, mut is_decided) = (Vec::new(), 0, true);
        plan.apply_with_subqueries(|node| {
            nodes += 1;
            match node {
                LogicalPlan::TableScan(scan) => {
                    let provider = source_as_provider(&scan.source)?;
                    match provider.downcast_ref::<SegmentTable>() {
                        Some(table) => {
                            tables.push((table.snapshot().id, table.snapshot().version));
                        }
                        None => is_decided = false,
                    }
                }
                LogicalPlan::Extension(_) | LogicalPlan::RecursiveQuery(_) => is_decided = false,
                _ => {}
            }
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    nodes += 1;
                    is_decided &= is_immutable(part);
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
            Ok(match is_decided && nodes <= PLAN_NODES_MAX {
                true => TreeNodeRecursion::Continue,
                false => TreeNodeRecursion::Stop,
            })
        })?;
        let is_small = nodes <= PLAN_NODES_MAX;
        // Without tables there is nothing to save.
        let has_key = is_decided && is_small && !tables.is_empty();
        Ok(has_key.then(|| Self { plan: plan.clone(), tables, settings: settings.clone() }))
    }
}

fn is_immutable(expr: &Expr) -> bool {
    let volatility = match expr {
        Expr::ScalarFunction(function) => function.func.signature().volatility,
        Expr::AggregateFunction(function) => function.func.signature().volatility,
        Expr::WindowFunction(function) => function.fun.signature().volatility,
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => return false,
        _ => return true,
    };
    volatility == Volatility::Immutable
}

/// An answer, in wire form.
#[derive(Debug, Clone)]
pub(super) struct KeptResult {
    pub(super) schema: SchemaRef,
    pub(super) batches: Arc<[RecordBatch]>,
}

impl KeptResult {
    fn bytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() + KEY_BYTES
    }
}

/// The answers of one coordinator.
#[derive(Debug)]
pub(super) struct ResultCache {
    budget_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    results: HashMap<Arc<ResultKey>, (KeptResult, u64)>,
    /// Keys by when they were last used.
    by_use: BTreeMap<u64, Arc<ResultKey>>,
    uses: u64,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, key: &ResultKey) {
        if let Some((result, used)) = self.results.remove(key) {
            self.by_use.remove(&used);
            self.bytes -= result.bytes();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((_, key)) = self.by_use.pop_first()
            && let Some((result, _)) = self.results.remove(&key)
        {
            self.bytes -= result.bytes();
        }
    }
}

impl ResultCache {
    /// A cache of so many bytes; of 0, one that keeps nothing.
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, kept: Mutex::default() }
    }

    /// Whether anything is kept.
    pub(super) fn is_enabled(&self) -> bool {
        self.budget_bytes > 0
    }

    /// Bytes of an answer beyond which it is not kept.
    pub(super) fn answer_bytes_max(&self) -> usize {
        self.budget_bytes / ANSWER_PARTS
    }

    /// The answer to a query, if it is here.
    pub(super) fn get(&self, key: &ResultKey) -> Option<KeptResult> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        kept.uses += 1;
        let (shared, _) = kept.results.get_key_value(key)?;
        let shared = Arc::clone(shared);
        let (result, used) = kept.results.get_mut(key)?;
        kept.by_use.remove(used);
        *used = kept.uses;
        kept.by_use.insert(kept.uses, shared);
        Some(result.clone())
    }

    /// Keeps an answer, in the place of those that were not asked for the longest.
    pub(super) fn keep(&self, key: ResultKey, result: KeptResult) {
        if result.bytes() > self.answer_bytes_max() + KEY_BYTES || !self.is_enabled() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&key);
        while kept.bytes + result.bytes() > self.budget_bytes && !kept.results.is_empty() {
            kept.remove_oldest();
        }
        let key = Arc::new(key);
        kept.uses += 1;
        let used = kept.uses;
        kept.bytes += result.bytes();
        kept.by_use.insert(used, Arc::clone(&key));
        kept.results.insert(key, (result, used));
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use datafusion::logical_expr::{LogicalPlanBuilder, lit};

    use super::*;

    fn key(number: i64) -> ResultKey {
        let plan = LogicalPlanBuilder::values(vec![vec![lit(number)]]).unwrap().build().unwrap();
        ResultKey { plan, tables: vec![(TableId(1), 7)], settings: Settings::default() }
    }

    fn result(rows: usize) -> KeptResult {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; rows]));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        KeptResult { schema: batch.schema(), batches: Arc::from(vec![batch]) }
    }

    fn has(cache: &ResultCache, number: i64) -> bool {
        cache.get(&key(number)).is_some()
    }

    #[test]
    fn an_answer_is_found_by_its_plan_its_tables_and_its_settings_together() {
        let cache = ResultCache::new(1 << 20);
        cache.keep(key(1), result(1));
        assert!(has(&cache, 1) && !has(&cache, 2));
        let newer = ResultKey { tables: vec![(TableId(1), 8)], ..key(1) };
        assert!(cache.get(&newer).is_none());
        let elsewhere = Settings { time_zone: "+02:00".into(), ..Settings::default() };
        assert!(cache.get(&ResultKey { settings: elsewhere, ..key(1) }).is_none());
    }

    #[test]
    fn those_that_nobody_asks_for_go_first_and_the_budget_is_kept() {
        let cache = ResultCache::new(20 * KEY_BYTES);
        for number in 0..1_000 {
            cache.keep(key(number), result(10));
            assert!(number == 0 || has(&cache, 0), "it is asked for again and again");
            assert!(cache.kept.lock().unwrap().bytes <= 20 * KEY_BYTES);
        }
        assert!(has(&cache, 999) && !has(&cache, 500));
        let kept = cache.kept.lock().unwrap();
        assert_eq!(kept.results.len(), kept.by_use.len());
        assert_eq!(
            kept.bytes,
            kept.results.values().map(|(result, _)| result.bytes()).sum::<usize>()
        );
    }

    #[test]
    fn an_answer_that_is_kept_again_counts_once() {
        let cache = ResultCache::new(1 << 20);
        (0..5).for_each(|_| cache.keep(key(1), result(10)));
        let kept = cache.kept.lock().unwrap();
        assert_eq!((kept.results.len(), kept.by_use.len()), (1, 1));
        assert_eq!(kept.bytes, result(10).bytes());
    }

    #[test]
    fn large_answers_are_not_kept_nor_anything_without_a_budget() {
        let cache = ResultCache::new(1 << 20);
        cache.keep(key(1), result(100_000));
        assert!(!has(&cache, 1));
        let none = ResultCache::new(0);
        none.keep(key(1), result(0));
        assert!(!none.is_enabled() && !has(&none, 1));
    }
}
