//! The other side: DataFusion as it comes, on the Parquet files and on their rows in memory.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionContext};

use crate::workload::{self, Query, Workload};

/// A session with default settings and one table per file.
pub(super) struct PlainDataFusion {
    session: SessionContext,
}

impl PlainDataFusion {
    /// Registers `<dir>/<table>.parquet` for every table.
    pub(super) async fn open(workload: &Workload, dir: &Path) -> anyhow::Result<Self> {
        let session = SessionContext::new();
        for table in workload.tables {
            let file = dir.join(format!("{}.parquet", table.name));
            let path = file.to_string_lossy();
            // A missing file would register as an empty table.
            workload::parquet_rows(&file).with_context(|| {
                format!("{path} is needed: --scale SF generates it, or name another --data folder")
            })?;
            session
                .register_parquet(table.name, path.as_ref(), ParquetReadOptions::default())
                .await?;
        }
        Ok(Self { session })
    }

    /// The same over the same rows in memory, decoded and spread over as many partitions as queries
    /// have.
    pub(super) async fn open_in_memory(workload: &Workload, dir: &Path) -> anyhow::Result<Self> {
        let files = Self::open(workload, dir).await?;
        let session = SessionContext::new();
        for table in workload.tables {
            let stored = files.session.table(table.name).await?;
            let schema = Arc::clone(stored.schema().inner());
            let partitions = stored.collect_partitioned().await?;
            let memory = MemTable::try_new(schema, partitions)?;
            session.register_table(table.name, Arc::new(memory))?;
        }
        Ok(Self { session })
    }

    /// Partitions that a query is split into; the number of cores unless somebody changes it.
    pub(super) fn target_partitions(&self) -> usize {
        self.session.copied_config().target_partitions()
    }

    /// Runs a query to its last row. Returns the rows.
    pub(super) async fn run(&self, query: &Query) -> anyhow::Result<u64> {
        let mut rows = 0;
        for statement in workload::statements(query.sql) {
            let batches = self.session.sql(&statement).await?.collect().await?;
            rows += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        }
        Ok(rows)
    }
}
