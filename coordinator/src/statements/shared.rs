//! Queries that have a subplan several times: it is run first, once.
//!
//! ```text
//! parts, one after the other ─▶ rows here, up to a bound ─▶ the query, planned over them ─▶ rows
//!      └── too many rows, or any error ─▶ the query as it was written
//! ```
//! A part survives the loss of workers as any query does, and so does the query over its rows: they are with the
//! coordinator, and all of it sees one snapshot. A part's error is not the query's: as it was written, it may
//! never have evaluated that.

use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use basalt_engine::error::{SqlError, from_datafusion};
use basalt_engine::shared_subplans::{
    PART_BYTES_MAX, SENT_BYTES_MAX, SharedPart, SharedPlan, sent_bytes, shared,
};
use basalt_engine::stack::LargeStack;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, pin_mut, stream};

use super::Statements;
use super::failover::{Resilient, Spool};
use super::registry::RunNotes;
use super::session::Pinned;
use crate::backend::RowStream;

/// A query that was planned.
pub(super) enum Runnable {
    /// As it was written.
    Whole(Box<Resilient>),
    /// Over parts that are run first.
    Sharing(Box<Sharing>),
}

/// A query over parts.
pub(super) struct Sharing {
    statements: Statements,
    pinned: Pinned,
    /// As it was written.
    written: LogicalPlan,
    shared: SharedPlan,
    notes: RunNotes,
}

impl Runnable {
    /// Plans a query; also returns the columns of its rows. One that shares subplans is planned once its parts
    /// have their rows.
    pub(super) async fn plan(
        statements: &Statements,
        pinned: Pinned,
        query: &LogicalPlan,
        notes: &RunNotes,
    ) -> Result<(Self, SchemaRef), SqlError> {
        if let Some(shared) = parts_of(&pinned, query) {
            let columns = SchemaRef::clone(&shared.columns);
            let (statements, written, notes) = (statements.clone(), query.clone(), notes.clone());
            let sharing = Sharing { statements, pinned, written, shared, notes };
            return Ok((Self::Sharing(Box::new(sharing)), columns));
        }
        let (query, columns) = Resilient::plan(statements, &pinned, query, notes).await?;
        Ok((Self::Whole(Box::new(query)), columns))
    }

    /// Starts the query.
    pub(super) fn rows(self) -> RowStream {
        match self {
            Self::Whole(query) => query.rows().boxed(),
            Self::Sharing(query) => query.rows(),
        }
    }
}

/// A query over its parts, if it has any and they can be planned: what cannot be is the query's own error only if it
/// fails as it was written.
pub(super) fn parts_of(pinned: &Pinned, query: &LogicalPlan) -> Option<SharedPlan> {
    if !pinned.spec.settings.shared_subplans {
        return None;
    }
    match shared(&pinned.state, query) {
        Ok(shared) => shared,
        Err(error) => {
            tracing::debug!(%error, "parts of a query cannot be planned");
            None
        }
    }
}

impl Sharing {
    fn rows(self) -> RowStream {
        let rows = async move {
            match self.planned().await {
                Ok((query, held)) => query
                    .rows()
                    .map(move |row| {
                        let _until_the_end = &held;
                        row
                    })
                    .boxed(),
                Err(error) => stream::once(ready(Err(error))).boxed(),
            }
        };
        stream::once(rows).flatten().boxed()
    }

    /// The query over its parts, with what they hold; the query as it was written where that cannot be.
    async fn planned(self) -> Result<(Resilient, Vec<PartRows>), SqlError> {
        let started = Instant::now();
        let over_parts = match self.parts(started).await {
            Ok(Some(held)) => {
                let query = self.plan(&self.shared.main).await;
                query.map(|query| may_be_sent(query.physical()).then_some((query, held)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let (query, held) = match over_parts {
            Ok(Some(over_parts)) => over_parts,
            Ok(None) => (self.plan(&self.written).await?, vec![]),
            Err(error) => {
                tracing::debug!(%error, "a part of a query failed, running it as it was written");
                (self.plan(&self.written).await?, vec![])
            }
        };
        Ok((query.within(started, None), held))
    }

    /// Runs the parts; returns what they hold, `None` where that is too much.
    async fn parts(&self, started: Instant) -> Result<Option<Vec<PartRows>>, SqlError> {
        let mut held = Vec::with_capacity(self.shared.parts.len());
        for part in &self.shared.parts {
            match self.run(part, started).await? {
                Some(rows) => held.push(rows),
                None => return Ok(None),
            }
        }
        Ok(Some(held))
    }

    /// Plans on a large stack, as queries are; what comes of it runs on its own.
    async fn plan(&self, query: &LogicalPlan) -> Result<Resilient, SqlError> {
        let planned = Resilient::plan(&self.statements, &self.pinned, query, &self.notes);
        LargeStack::new(planned).await.map(|(query, _)| query)
    }

    /// Runs a part and gives its table the rows; returns what they are counted by, `None` where they are too many.
    async fn run(&self, part: &SharedPart, started: Instant) -> Result<Option<PartRows>, SqlError> {
        let query = self.plan(&part.plan).await?.within(started, Some(part.table.name()));
        if part.is_too_large(query.physical()) {
            return Ok(None);
        }
        let mut kept = PartRows::new(&self.statements);
        let rows = query.rows();
        pin_mut!(rows);
        while let Some(batch) = rows.next().await {
            if !kept.push(batch?) {
                return Ok(None);
            }
        }
        kept.fill(part).map_err(from_datafusion)?;
        Ok(Some(kept))
    }
}

/// The rows of a part; they are counted as long as this lives.
pub(super) struct PartRows(Spool);

impl PartRows {
    pub(super) fn new(statements: &Statements) -> Self {
        Self(Spool::new(&statements.inner.part_rows))
    }

    /// Keeps rows; `false` when they are too many.
    pub(super) fn push(&mut self, batch: RecordBatch) -> bool {
        self.0.push(batch) && self.0.bytes() <= PART_BYTES_MAX
    }

    /// Gives them to the part's table.
    pub(super) fn fill(&mut self, part: &SharedPart) -> Result<(), DataFusionError> {
        part.table.fill(self.0.take())
    }
}

/// Whether a plan has no more rows with it than may be sent to workers.
pub(super) fn may_be_sent(plan: &Arc<dyn ExecutionPlan>) -> bool {
    sent_bytes(plan) <= SENT_BYTES_MAX
}
