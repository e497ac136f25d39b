//! The statement life cycle: parse, pin a snapshot, plan, run, commit.
//!
//! ```text
//! text ─▶ dialect ─▶ pinned snapshot ─▶ plan ─▶ checker ─▶ stages on workers ─▶ rows
//!                                          │
//!                                          └▶ append ─▶ seal ─▶ commit ─▶ rows affected
//! ```
//!
//! Invariant: one statement sees one snapshot, and what it changes becomes visible in one commit
//! or not at all (RULES 3, 9).
//!
//! - `backend`: the seam to the Flight SQL service
//! - `session`: what SET changed, per connection, and the planning session of a statement
//! - [`registry`]: statements that run, and those that ran lately
//! - `query`: statements that return rows
//! - `failover`: statements that lose a worker
//! - `parameters`: `$1..$n`
//! - `show`: SHOW, DESCRIBE, EXPLAIN, with `create_text`
//! - `names`: names without a schema
//! - `definition`: CREATE and DROP, with `declared`: defaults, lengths, encodings and keys
//! - `replan`: definitions that two sessions make at once
//! - `insert`: INSERT, CREATE TABLE AS, COPY, with `insert_defaults`
//! - `modify`: DELETE and UPDATE
//! - `requests`: writes that are done once however often they are sent
//! - `turns`: who changes a table waits for the others
//! - `compact`: small segments merged, VACUUM
//! - `redistribute`: keys for tables whose distribution is left to the engine
//! - `compression`: ANALYZE COMPRESSION
//! - `analyze`: what tables hold, found out for the planner
//! - `ingest`: rows that a client uploads
//! - `target`: where a write's rows go, and how many copies of them
//! - `system`: ALTER SYSTEM
//! - `transaction`: append, seal, commit or abort

mod analyze;
mod backend;
mod compact;
pub(crate) mod compression;
mod create_text;
mod declared;
mod definition;
pub(crate) mod failover;
mod ingest;
mod insert;
mod insert_defaults;
mod modify;
mod names;
mod parameters;
pub mod pressure;
mod query;
mod redistribute;
pub mod registry;
mod replan;
mod requests;
mod result_cache;
mod session;
mod shared;
mod show;
mod system;
pub(crate) mod target;
pub(crate) mod transaction;
mod turns;
mod view_text;

use std::sync::Arc;

use basalt_engine::channels::Channels;
use basalt_engine::dialect::{self, ParsedStatement};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::files::AllowedRoots;
use basalt_engine::session::PlanningSessions;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use tokio::sync::Semaphore;

use crate::catalog::Catalog;
use crate::membership::Members;
use crate::membership::probe::Probes;
use crate::reconcile::Reconciler;
use failover::SpoolBudget;
use pressure::SegmentLimits;
use registry::Registry;
use result_cache::ResultCache;
use session::Sessions;
use turns::Turns;

/// What statements may read and use.
#[derive(Debug)]
pub struct StatementOptions {
    /// What COPY and file functions may name.
    pub allowed_roots: AllowedRoots,
    /// When writes wait for compaction.
    pub segment_limits: SegmentLimits,
    /// Statements that run and ran.
    pub registry: Arc<Registry>,
    /// Memory for answers that may be asked for again; 0 keeps none.
    pub result_cache_bytes: usize,
}

/// Runs statements of all sessions of one coordinator.
#[derive(Clone)]
pub struct Statements {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Catalog,
    members: Arc<Members>,
    reconciler: Reconciler,
    channels: Channels,
    planning: Arc<PlanningSessions>,
    sessions: Sessions,
    registry: Arc<Registry>,
    /// One turn: compactions of one coordinator run one by one.
    compaction: Arc<Semaphore>,
    unmergeable: compact::Unmergeable,
    segment_limits: SegmentLimits,
    analyses: analyze::Analyses,
    redistribution: redistribute::Redistribution,
    turns: Turns,
    probes: Probes,
    spools: Arc<SpoolBudget>,
    /// What rows of parts of queries may take: they wait longer.
    part_rows: Arc<SpoolBudget>,
    results: Arc<ResultCache>,
}

impl Statements {
    /// A statement life cycle over a catalog and its cluster.
    ///
    /// # Errors
    /// As [`PlanningSessions::new`].
    pub fn new(
        catalog: Catalog,
        members: Arc<Members>,
        reconciler: Reconciler,
        channels: Channels,
        runtime: Arc<RuntimeEnv>,
        options: StatementOptions,
    ) -> Result<Self, DataFusionError> {
        let StatementOptions { allowed_roots, segment_limits, registry, result_cache_bytes } =
            options;
        let planning = PlanningSessions::new(channels.clone(), runtime, allowed_roots)?;
        let probes = Probes::new(Arc::clone(&members), channels.clone());
        let inner = Inner {
            catalog,
            members,
            reconciler,
            channels,
            planning: Arc::new(planning),
            sessions: Sessions::default(),
            registry,
            compaction: Arc::new(Semaphore::new(1)),
            unmergeable: compact::Unmergeable::default(),
            segment_limits,
            analyses: analyze::Analyses::default(),
            redistribution: redistribute::Redistribution::default(),
            turns: Turns::default(),
            probes,
            spools: Arc::default(),
            part_rows: Arc::default(),
            results: Arc::new(ResultCache::new(result_cache_bytes)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who asks workers whether they are there.
    pub(crate) fn probes(&self) -> &Probes {
        &self.inner.probes
    }

    /// Statements that run, and those that ran lately.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }
}

/// Parses a text that must be exactly one statement.
fn parse_one(sql: &str) -> Result<ParsedStatement, SqlError> {
    let mut statements = dialect::parse(sql)?.into_iter();
    match (statements.next(), statements.next()) {
        (Some(statement), None) => Ok(statement),
        (None, _) => Err(SqlError::new(ErrorCode::SyntaxError, "there is no statement")
            .with_hint("send one SQL statement")),
        (Some(_), Some(second)) => {
            Err(SqlError::new(ErrorCode::SyntaxError, "there is more than one statement")
                .at(second.start)
                .with_hint("send statements one by one, or as an update script"))
        }
    }
}
