//! Answers of queries that were asked before, while nothing that they were made of has changed.
//!
//! ```text
//! plan, its parameters bound ─┐
//! the tables' commits         ├─ key ─▶ rows in wire form
//! the session's settings      ┘
//! ```
//! Invariant: an answer that is found is one that running the query now could give. What decides it is in the
//! key and compared, not only hashed: the plan as it was parsed, with views and names resolved; of each table its
//! id and the commit that last changed its rows or columns; all settings; the types of literals, as a moment equals
//! the same one of another time zone. A plan that depends on anything else
//! has no key: system tables, files, functions of time, session or chance.
//!
//! The least recently used go when the budget is used up, as in Redshift's result cache.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use basalt_engine::decided_by::{Bounds, DecidedBy};
use basalt_engine::settings::Settings;
use basalt_storage::ids::TableId;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::logical_plan::builder::LogicalTableSource;

/// An answer of more than this part of the budget is not kept.
const ANSWER_PARTS: usize = 16;
/// What a key takes at most, about, in bytes: plans are trees of small pieces, and literals may be as large.
const KEY_BYTES: usize = 16 << 10;
/// Larger plans have no key.
const BOUNDS: Bounds = Bounds { parts: 500, literal_bytes: KEY_BYTES / 4 };

/// What decides an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ResultKey {
    plan: LogicalPlan,
    /// The tables in the order in which the plan names them, each with its commit.
    tables: Vec<(TableId, u64)>,
    /// The types of its literals, in order: zones of timestamps are not compared with their values.
    literals: Vec<DataType>,
    settings: Settings,
}

impl ResultKey {
    /// The key of a plan whose parameters are bound; `None` where its answer depends on more.
    pub(super) fn of(plan: &LogicalPlan, settings: &Settings) -> Result<Option<Self>> {
        let Some(decided) = DecidedBy::of(plan, BOUNDS)? else { return Ok(None) };
        let DecidedBy { scans, literals } = decided;
        let tables = scans.iter().map(|scan| (scan.table.id, scan.table.version)).collect();
        let (plan, settings) = (plan.clone(), settings.clone());
        Ok(Some(Self { plan, tables, literals, settings }))
    }

    /// The same key without the segments of its tables, which a key that is kept must not keep: scans are equal
    /// whatever their sources are.
    fn without_sources(self) -> Result<Self> {
        let plan = self.plan.transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
            scan.source = Arc::new(LogicalTableSource::new(scan.source.schema()));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        });
        Ok(Self { plan: plan.data()?, ..self })
    }
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
    /// Bytes of answers on their way, which may be kept when they are whole.
    collected_bytes: AtomicUsize,
    kept: Mutex<Kept>,
}

/// An answer, its key once more, and when it was last used.
#[derive(Debug)]
struct Held {
    key: Arc<ResultKey>,
    result: KeptResult,
    used: u64,
}

#[derive(Debug, Default)]
struct Kept {
    results: HashMap<Arc<ResultKey>, Held>,
    /// Keys by when they were last used.
    by_use: BTreeMap<u64, Arc<ResultKey>>,
    uses: u64,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, key: &ResultKey) {
        if let Some(held) = self.results.remove(key) {
            self.by_use.remove(&held.used);
            self.bytes -= held.result.bytes();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((_, key)) = self.by_use.pop_first()
            && let Some(held) = self.results.remove(&key)
        {
            self.bytes -= held.result.bytes();
        }
    }
}

impl ResultCache {
    /// A cache of so many bytes; of 0, one that keeps nothing.
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, collected_bytes: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// Whether anything is kept.
    pub(super) fn is_enabled(&self) -> bool {
        self.budget_bytes > 0
    }

    /// Bytes of an answer beyond which it is not kept.
    fn answer_bytes_max(&self) -> usize {
        self.budget_bytes / ANSWER_PARTS
    }

    /// The answer to a query, if it is here.
    pub(super) fn get(&self, key: &ResultKey) -> Option<KeptResult> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        kept.uses += 1;
        let held = kept.results.get_mut(key)?;
        kept.by_use.remove(&held.used);
        held.used = kept.uses;
        kept.by_use.insert(kept.uses, Arc::clone(&held.key));
        Some(held.result.clone())
    }

    /// Begins to collect an answer that may be kept; none of a plan that cannot be walked once more. Where it is
    /// planned, as that takes stack (`engine/src/stack.rs`).
    pub(super) fn collect(self: &Arc<Self>, key: ResultKey) -> Collected {
        let key = key.without_sources().ok();
        Collected { key, cache: Arc::clone(self), batches: Vec::new(), bytes: 0 }
    }

    /// Keeps an answer, in the place of those that were not asked for the longest.
    fn keep(&self, key: ResultKey, result: KeptResult) {
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
        kept.results.insert(Arc::clone(&key), Held { key, result, used });
    }
}

/// Rows on their way to the client, for the cache: as long as they are few, and all that are collected
/// fit into its budget.
pub(super) struct Collected {
    /// `None` when it is too large.
    key: Option<ResultKey>,
    cache: Arc<ResultCache>,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl Collected {
    /// Some more rows.
    pub(super) fn add(&mut self, batch: &RecordBatch) {
        if self.key.is_none() {
            return;
        }
        let bytes = batch.get_array_memory_size();
        let all = self.cache.collected_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes += bytes;
        if self.bytes > self.cache.answer_bytes_max() || all > self.cache.budget_bytes {
            self.key = None;
            self.let_go();
            return;
        }
        self.batches.push(batch.clone());
    }

    /// All rows are there.
    pub(super) fn keep(mut self, schema: SchemaRef) {
        if let Some(key) = self.key.take() {
            let batches = std::mem::take(&mut self.batches).into();
            self.cache.keep(key, KeptResult { schema, batches });
        }
    }

    fn let_go(&mut self) {
        self.batches.clear();
        self.cache.collected_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use datafusion::logical_expr::{LogicalPlanBuilder, lit};

    use super::*;

    fn key(number: i64) -> ResultKey {
        let plan = LogicalPlanBuilder::values(vec![vec![lit(number)]]).unwrap().build().unwrap();
        let literals = vec![DataType::Int64];
        ResultKey { plan, tables: vec![(TableId(1), 7)], literals, settings: Settings::default() }
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
        let typed = ResultKey { literals: vec![DataType::Int32], ..key(1) };
        assert!(cache.get(&typed).is_none());
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
            kept.results.values().map(|held| held.result.bytes()).sum::<usize>()
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

    #[test]
    fn answers_on_their_way_have_no_more_than_the_budget_and_give_it_back() {
        let cache = Arc::new(ResultCache::new(1 << 20));
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; 6_000]));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let mut collected: Vec<_> = (0..100).map(|number| cache.collect(key(number))).collect();
        collected.iter_mut().for_each(|answer| answer.add(&batch));
        assert!(cache.collected_bytes.load(Ordering::Relaxed) <= 1 << 20);
        let whole = collected.iter().filter(|answer| answer.key.is_some()).count();
        assert!((10..30).contains(&whole), "{whole}");
        collected.drain(..).for_each(|answer| answer.keep(batch.schema()));
        assert_eq!(cache.collected_bytes.load(Ordering::Relaxed), 0);
        // The last of those that were whole; none that was not.
        assert!(has(&cache, whole as i64 - 1) && !has(&cache, 99));
    }
}
