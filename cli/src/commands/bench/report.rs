//! What was measured, as a table and as JSON.

use std::fmt::Write;

use anyhow::bail;
use serde::Serialize;

use crate::machine::Machine;
use crate::shell::grouped;

/// One query on both sides; times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct QueryResult {
    name: &'static str,
    basalt_rows: u64,
    datafusion_rows: u64,
    basalt_median_ms: f64,
    datafusion_median_ms: f64,
    /// Basalt's median over DataFusion's: below 1 is faster.
    ratio: f64,
    basalt_ms: Vec<f64>,
    datafusion_ms: Vec<f64>,
}

impl QueryResult {
    pub(super) fn new(
        name: &'static str,
        basalt_rows: u64,
        datafusion_rows: u64,
        basalt_ms: Vec<f64>,
        datafusion_ms: Vec<f64>,
    ) -> Self {
        let basalt_median_ms = median(&basalt_ms);
        let datafusion_median_ms = median(&datafusion_ms);
        let ratio = basalt_median_ms / datafusion_median_ms;
        Self {
            name,
            basalt_rows,
            datafusion_rows,
            basalt_median_ms,
            datafusion_median_ms,
            ratio,
            basalt_ms,
            datafusion_ms,
        }
    }
}

/// A whole measurement.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) suite: &'static str,
    pub(super) cluster: String,
    pub(super) data: String,
    pub(super) machine: Machine,
    pub(super) target_partitions: usize,
    pub(super) runs: u16,
    pub(super) rows: u64,
    /// Tables that this run loaded; `load_seconds` is their COPY and 0 when there were none.
    pub(super) tables_loaded: usize,
    pub(super) load_seconds: f64,
    pub(super) queries: Vec<QueryResult>,
}

impl Report {
    /// The report for people.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        let machine = &self.machine;
        let memory = machine.memory_bytes.map_or("unknown".to_owned(), |bytes| {
            format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
        });
        writeln!(text, "{}, {} build of {}", machine.date, machine.profile, machine.commit)?;
        writeln!(
            text,
            "{} cores of {}, {memory}, {}",
            machine.cores, machine.processor, machine.system
        )?;
        writeln!(text, "{} from {}: {}", self.suite, self.data, self.cluster)?;
        writeln!(
            text,
            "against plain DataFusion on Parquet, {} target partitions; medians of {} hot runs",
            self.target_partitions, self.runs
        )?;
        if self.tables_loaded > 0 {
            let rows = grouped(self.rows);
            writeln!(text, "loaded {rows} rows by COPY in {:.2} s", self.load_seconds)?;
        }
        writeln!(text, "\n query |     rows | basalt ms | datafusion ms | ratio")?;
        writeln!(text, "-------+----------+-----------+---------------+-------")?;
        for query in &self.queries {
            writeln!(
                text,
                " {:<5} | {:>8} | {:>9.1} | {:>13.1} | {:>5.2}{}",
                query.name,
                query.basalt_rows,
                query.basalt_median_ms,
                query.datafusion_median_ms,
                query.ratio,
                if query.basalt_rows == query.datafusion_rows { "" } else { "  ROWS DIFFER" },
            )?;
        }
        let basalt: f64 = self.queries.iter().map(|query| query.basalt_median_ms).sum();
        let datafusion: f64 = self.queries.iter().map(|query| query.datafusion_median_ms).sum();
        writeln!(
            text,
            " total |          | {basalt:>9.1} | {datafusion:>13.1} | {:>5.2}",
            basalt / datafusion
        )?;
        Ok(text)
    }

    /// A figure for a wrong answer is worth nothing.
    ///
    /// # Errors
    /// When the two sides disagree about the number of rows of a query.
    pub(super) fn check_rows(&self) -> anyhow::Result<()> {
        for query in &self.queries {
            if query.basalt_rows != query.datafusion_rows {
                bail!(
                    "query {} has {} rows on the cluster and {} in DataFusion",
                    query.name,
                    query.basalt_rows,
                    query.datafusion_rows
                );
            }
        }
        Ok(())
    }
}

/// The middle of the sorted times, or the mean of the two in the middle.
fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_run() {
        assert_eq!(median(&[30.0, 10.0, 20.0]), 20.0);
        assert_eq!(median(&[40.0, 10.0, 20.0, 30.0]), 25.0);
    }
}
