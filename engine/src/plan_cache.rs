//! Optimised plans of statements that were asked before, while their tables, the cluster and the settings stay the
//! same.
//!
//! ```text
//! plan as parsed ─▶ found: its optimised plan, over the tables of this statement ─▶ physical plan
//!      └─ not found ─▶ analyser, optimiser, join order ─▶ kept, when it is asked for again
//! ```
//! What is kept is as it was before it was cut for workers: that depends on who lives, and its operators have states.
//! Planning these again is the larger part of planning, so the gain is small (`sql-tests/results/tpcds-time.txt`).
//!
//! Invariant: a plan that is found is the one that would be made now. It is found by the plan as it was parsed, the
//! types of its literals and all settings; and it is used while each of its tables is the very snapshot that it was
//! made over, with its statistics, and the cluster is equal. Plans that depend on more have no key
//! ([`DecidedBy`]).
//!
//! Tables are not kept: a plan here has in their place which of the statement's tables it reads.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::decided_by::{Bounds, DecidedBy, ScannedTable};
use crate::session::SessionSpec;
use crate::settings::Settings;
use crate::snapshot::{ClusterView, TableSnapshot};

/// Plans that are looked at.
const BOUNDS: Bounds = Bounds { parts: 10_000, literal_bytes: 64 << 10 };
/// Bytes of all plans that are kept, about.
const BYTES_MAX: u64 = 64 << 20;
/// Bytes of a node, of a column of one, of a part of an expression, about.
const PART_BYTES: u64 = 200;
/// Plans that may be kept, about.
const PLANS: usize = 500;
/// Statements that are remembered to have been asked once: most are never asked again.
const ASKED_ONCE: usize = 4_096;

/// A statement's plan before it is cut for workers.
#[derive(Debug, Clone)]
pub(crate) struct Optimized {
    /// The plan, with its joins in order.
    pub(crate) plan: LogicalPlan,
    /// The columns of its rows before they take wire form.
    pub(crate) columns: SchemaRef,
}

/// The optimised plans of one coordinator.
pub(crate) struct PlanCache {
    plans: Cache<Arc<PlanKey>, Arc<Held>, Bytes>,
    asked_once: Cache<u64, ()>,
    hasher: RandomState,
}

impl Default for PlanCache {
    fn default() -> Self {
        Self {
            plans: Cache::with_weighter(PLANS, BYTES_MAX, Bytes),
            asked_once: Cache::new(ASKED_ONCE),
            hasher: RandomState::new(),
        }
    }
}

/// What a plan is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PlanKey {
    plan: LogicalPlan,
    literals: Vec<DataType>,
    settings: Settings,
}

/// A plan that is kept.
struct Held {
    /// The tables that it was made over, in the order in which the statement names them.
    tables: Vec<Weak<TableSnapshot>>,
    cluster: Arc<ClusterView>,
    /// Its scans have a [`Place`].
    optimized: Optimized,
    bytes: u64,
}

/// What a plan takes, with its key.
#[derive(Clone)]
struct Bytes;

impl Weighter<Arc<PlanKey>, Arc<Held>> for Bytes {
    fn weight(&self, _: &Arc<PlanKey>, held: &Arc<Held>) -> u64 {
        held.bytes
    }
}

/// What stands for a table in a plan that is kept: the place where the statement names it.
struct Place {
    place: usize,
    schema: SchemaRef,
}

impl TableSource for Place {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// A statement that may have been planned before.
pub(crate) struct Asked {
    spec: Arc<SessionSpec>,
    key: PlanKey,
    scans: Vec<ScannedTable>,
}

impl Asked {
    /// That of a plan as it was parsed; `None` where its session wants no plans of before, or it depends on more than
    /// can be compared.
    ///
    /// # Errors
    /// Those of DataFusion's walks over plans.
    pub(crate) fn of(state: &SessionState, plan: &LogicalPlan) -> Result<Option<Self>> {
        let spec = state.config().get_extension::<SessionSpec>();
        let Some(spec) = spec.filter(|spec| spec.settings.plan_cache) else { return Ok(None) };
        let Some(DecidedBy { scans, literals }) = DecidedBy::of(plan, BOUNDS)? else {
            return Ok(None);
        };
        let key = PlanKey { plan: plan.clone(), literals, settings: spec.settings.clone() };
        Ok(Some(Self { spec, key, scans }))
    }

    fn cache(&self) -> &PlanCache {
        &self.spec.sessions.plans
    }

    /// The plan that was made of it before, over its own tables.
    ///
    /// # Errors
    /// Those of DataFusion's walks over plans.
    pub(crate) fn found(&self) -> Result<Option<Optimized>> {
        match self.cache().plans.get(&self.key) {
            Some(held) if self.is_over(&held) => {
                let Optimized { plan, columns } = held.optimized.clone();
                let plan = with_sources(plan, |source| {
                    let place = source.downcast_ref::<Place>()?;
                    Some(Arc::clone(&self.scans.get(place.place)?.source))
                })?;
                Ok(plan.map(|plan| Optimized { plan, columns }))
            }
            _ => Ok(None),
        }
    }

    /// Whether a plan was made over the same tables and workers.
    fn is_over(&self, held: &Held) -> bool {
        let is_same = |(scan, table): (&ScannedTable, &Weak<TableSnapshot>)| {
            std::ptr::eq(Arc::as_ptr(&scan.table), table.as_ptr())
        };
        held.tables.len() == self.scans.len()
            && self.scans.iter().zip(&held.tables).all(is_same)
            && held.cluster == self.spec.snapshot.cluster
    }

    /// Keeps the plan that was made of it, if it was asked for before.
    ///
    /// # Errors
    /// Those of DataFusion's walks over plans.
    pub(crate) fn keep(self, optimized: &Optimized) -> Result<()> {
        let cache = &self.spec.sessions.plans;
        let hash = cache.hasher.hash_one(&self.key);
        if cache.asked_once.get(&hash).is_none() {
            cache.asked_once.insert(hash, ());
            return Ok(());
        }
        let place_of = |source: &Arc<dyn TableSource>| -> Option<Arc<dyn TableSource>> {
            let scanned = ScannedTable::of(source)?;
            let is_it = |scan: &ScannedTable| Arc::ptr_eq(&scan.table, &scanned.table);
            let place = self.scans.iter().position(is_it)?;
            Some(Arc::new(Place { place, schema: source.schema() }))
        };
        let key = with_sources(self.key.plan.clone(), place_of)?;
        let plan = with_sources(optimized.plan.clone(), place_of)?;
        // One that reads more than was written is made anew each time.
        let (Some(key), Some(plan)) = (key, plan) else { return Ok(()) };
        let bytes = bytes_of(&key)? + bytes_of(&plan)?;
        let held = Held {
            tables: self.scans.iter().map(|scan| Arc::downgrade(&scan.table)).collect(),
            cluster: Arc::clone(&self.spec.snapshot.cluster),
            optimized: Optimized { plan, columns: Arc::clone(&optimized.columns) },
            bytes,
        };
        cache.plans.insert(Arc::new(PlanKey { plan: key, ..self.key }), Arc::new(held));
        Ok(())
    }
}

/// A plan that reads what is given for each of its sources; `None` where nothing is.
fn with_sources(
    plan: LogicalPlan,
    source_for: impl Fn(&Arc<dyn TableSource>) -> Option<Arc<dyn TableSource>>,
) -> Result<Option<LogicalPlan>> {
    let mut are_given = true;
    let plan = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        match source_for(&scan.source) {
            Some(source) => scan.source = source,
            None => are_given = false,
        }
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    });
    Ok(Some(plan.data()?).filter(|_| are_given))
}

/// What a plan takes: its nodes, their columns and the parts of their expressions.
fn bytes_of(plan: &LogicalPlan) -> Result<u64> {
    let mut bytes = 0;
    plan.apply_with_subqueries(|node| {
        bytes += PART_BYTES * (1 + node.schema().fields().len() as u64);
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                let own = part.as_literal().map_or(0, |value| value.size() as u64);
                bytes += PART_BYTES + own;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(bytes)
}
