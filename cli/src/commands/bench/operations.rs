//! Look-ups and changes, alternating with DuckDB's.

use std::path::Path;

use anyhow::Context;
use basalt_sql_tests::client::Client;
use serde::Serialize;

use super::duckdb::DuckDb;
use crate::terminal;
use crate::workload::{self, Operation, Workload};

/// One operation; times in milliseconds, in the order of the runs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OperationResult {
    pub(super) name: &'static str,
    pub(super) basalt_ms: Vec<f64>,
    pub(super) duckdb_ms: Vec<f64>,
}

/// Runs all operations of a workload; the first time of each warms up.
pub(super) async fn measure_operations(
    workload: &Workload,
    data: &Path,
    client: &mut Client,
    duckdb: &mut Option<DuckDb>,
    runs: u16,
) -> anyhow::Result<Vec<OperationResult>> {
    let bar = terminal::bar(workload.operations.len() as u64, "measuring");
    let mut results = Vec::new();
    for operation in workload.operations {
        bar.set_message(format!("measuring {}", operation.name));
        let rows = workload::parquet_rows(&data.join(format!("{}.parquet", operation.table)))?;
        let result = measure(operation, rows, client, duckdb, runs).await;
        results.push(result.with_context(|| operation.name)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(results)
}

async fn measure(
    operation: &Operation,
    rows: u64,
    client: &mut Client,
    duckdb: &mut Option<DuckDb>,
    runs: u16,
) -> anyhow::Result<OperationResult> {
    let Operation { name, sql, times, .. } = *operation;
    let mut result = OperationResult { name, basalt_ms: vec![], duckdb_ms: vec![] };
    for n in 0..=u64::from(runs) * u64::from(times) {
        let sql = sql(n, rows);
        let (_, time) = workload::run_statements(client, &[&sql]).await?;
        let basalt = super::milliseconds(time);
        let duckdb = match duckdb {
            Some(duckdb) => Some(duckdb.run_statements(&[sql]).await?.0),
            None => None,
        };
        if n > 0 {
            result.basalt_ms.push(basalt);
            result.duckdb_ms.extend(duckdb);
        }
    }
    Ok(result)
}
