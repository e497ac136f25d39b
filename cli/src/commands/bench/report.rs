//! What was measured, as a table and as JSON.

use std::fmt::Write;

use anyhow::bail;
use serde::Serialize;

use super::cost::Cost;
use super::memory::Peaks;
use super::operations::OperationResult;
use crate::machine::Machine;
use crate::shell::grouped;

/// One query on all sides; times in milliseconds, in the order of the runs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct QueryResult {
    name: &'static str,
    pub(super) basalt_rows: u64,
    pub(super) datafusion_rows: u64,
    pub(super) duckdb_rows: Option<u64>,
    /// Of the cluster with another number of workers.
    pub(super) other_rows: Option<u64>,
    pub(super) basalt_ms: Vec<f64>,
    pub(super) datafusion_ms: Vec<f64>,
    /// DataFusion on the rows in memory.
    pub(super) in_memory_ms: Vec<f64>,
    pub(super) duckdb_ms: Vec<f64>,
    /// The cluster with another number of workers.
    pub(super) other_ms: Vec<f64>,
    /// What each of Basalt's runs cost this process: all that the cluster did, if it is in it.
    pub(super) costs: Vec<Cost>,
}

impl QueryResult {
    /// Nothing measured yet.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            basalt_rows: 0,
            datafusion_rows: 0,
            duckdb_rows: None,
            other_rows: None,
            basalt_ms: vec![],
            datafusion_ms: vec![],
            in_memory_ms: vec![],
            duckdb_ms: vec![],
            other_ms: vec![],
            costs: vec![],
        }
    }

    fn rows_agree(&self) -> bool {
        let others = [Some(self.datafusion_rows), self.duckdb_rows, self.other_rows];
        others.into_iter().flatten().all(|rows| rows == self.basalt_rows)
    }
}

/// Loading all tables; times in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct LoadResult {
    pub(super) rows: u64,
    /// By COPY; empty when the tables were there.
    pub(super) basalt_ms: Vec<f64>,
    /// By CREATE TABLE AS and CHECKPOINT.
    pub(super) duckdb_ms: Vec<f64>,
    /// One copy of all tables.
    pub(super) stored_bytes: i64,
    /// The files that they were loaded from.
    pub(super) file_bytes: u64,
}

/// Loading all tables with one copy and with two; times in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct CopiesResult {
    pub(super) one_ms: Vec<f64>,
    pub(super) two_ms: Vec<f64>,
}

/// The column caches of all workers at the end.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct CacheResult {
    pub(super) budget_bytes: i64,
    pub(super) bytes: i64,
    pub(super) hits: i64,
    pub(super) misses: i64,
}

/// A whole measurement.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) suite: &'static str,
    pub(super) cluster: String,
    pub(super) data: String,
    pub(super) machine: Machine,
    pub(super) target_partitions: usize,
    pub(super) duckdb_version: Option<String>,
    pub(super) runs: u16,
    /// Whether it was left to the engine where the rows of all tables go.
    pub(super) is_auto: bool,
    /// The workers of the other cluster that was measured.
    pub(super) against: Option<u16>,
    /// Whether what was in memory was forgotten before every run.
    pub(super) is_cold: bool,
    pub(super) load: LoadResult,
    /// What it took after loading, if it was asked for.
    pub(super) vacuum_ms: Option<f64>,
    /// Of the cluster, if it has processes of its own.
    pub(super) peaks: Option<Peaks>,
    pub(super) operations: Vec<OperationResult>,
    pub(super) copies: Option<CopiesResult>,
    pub(super) cache: CacheResult,
    /// Whether the cluster is in this process, so that what it cost is known.
    pub(super) is_embedded: bool,
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
        let declared = if self.is_auto { ", all tables left to AUTO" } else { "" };
        writeln!(text, "{} from {}: {}{declared}", self.suite, self.data, self.cluster)?;
        write!(
            text,
            "against plain DataFusion on Parquet, {} target partitions",
            self.target_partitions
        )?;
        if let Some(version) = &self.duckdb_version {
            write!(text, ", and DuckDB {version} on its own tables")?;
        }
        let heat = if self.is_cold { "cold" } else { "hot" };
        writeln!(text, "; medians of {} {heat} runs", self.runs)?;
        self.write_load(&mut text)?;
        self.write_sizes(&mut text)?;
        self.write_copies(&mut text)?;
        self.write_queries(&mut text)?;
        self.write_cache(&mut text)?;
        self.write_operations(&mut text)?;
        Ok(text)
    }

    fn write_load(&self, text: &mut String) -> std::fmt::Result {
        let load = &self.load;
        if load.basalt_ms.is_empty() {
            return Ok(());
        }
        let basalt = median(&load.basalt_ms);
        let rows = grouped(load.rows);
        let runs = load.basalt_ms.len();
        write!(text, "loaded {rows} rows by COPY in {:.2} s", basalt / 1000.0)?;
        if !load.duckdb_ms.is_empty() {
            let duckdb = median(&load.duckdb_ms);
            write!(
                text,
                ", DuckDB by CREATE TABLE AS and CHECKPOINT in {:.2} s: ratio {:.2}",
                duckdb / 1000.0,
                basalt / duckdb
            )?;
        }
        writeln!(text, " (medians of {runs})")
    }

    fn write_sizes(&self, text: &mut String) -> std::fmt::Result {
        let LoadResult { stored_bytes, file_bytes, .. } = self.load;
        writeln!(
            text,
            "one copy takes {:.2} GiB, the Parquet files {:.2}: ratio {:.2}",
            gibibytes(stored_bytes as f64),
            gibibytes(file_bytes as f64),
            stored_bytes as f64 / file_bytes as f64
        )?;
        if let Some(milliseconds) = self.vacuum_ms {
            writeln!(text, "VACUUM took {:.2} s", milliseconds / 1000.0)?;
        }
        let Some(Peaks { load, queries }) = self.peaks else { return Ok(()) };
        writeln!(
            text,
            "peak memory of all processes: {:.2} GiB loading, {:.2} in queries",
            gibibytes(load as f64),
            gibibytes(queries as f64)
        )
    }

    fn write_operations(&self, text: &mut String) -> std::fmt::Result {
        if self.operations.is_empty() {
            return Ok(());
        }
        let mut header = " operation         | basalt ms".to_owned();
        if self.duckdb_version.is_some() {
            header += " | duckdb ms | ratio";
        }
        let rule: String = header.chars().map(|c| if c == '|' { '+' } else { '-' }).collect();
        writeln!(text, "\n{header}\n{rule}")?;
        for OperationResult { name, basalt_ms, duckdb_ms } in &self.operations {
            let basalt = median(basalt_ms);
            write!(text, " {name:<17} | {basalt:>9.2}")?;
            if !duckdb_ms.is_empty() {
                let duckdb = median(duckdb_ms);
                write!(text, " | {duckdb:>9.2} | {:>5.2}", basalt / duckdb)?;
            }
            writeln!(text)?;
        }
        Ok(())
    }

    fn write_copies(&self, text: &mut String) -> std::fmt::Result {
        let Some(CopiesResult { one_ms, two_ms }) = &self.copies else { return Ok(()) };
        let [one, two] = [one_ms, two_ms].map(|times| median(times));
        writeln!(
            text,
            "loaded with one copy in {:.2} s, with two in {:.2} s: ratio {:.2} (medians of {})",
            one / 1000.0,
            two / 1000.0,
            two / one,
            one_ms.len()
        )
    }

    fn write_cache(&self, text: &mut String) -> std::fmt::Result {
        let CacheResult { budget_bytes, bytes, hits, misses } = self.cache;
        let gib = |bytes: i64| gibibytes(bytes as f64);
        let asked = hits + misses;
        if self.is_cold {
            return writeln!(text, "column caches: filled, and not looked at");
        }
        if asked == 0 {
            return writeln!(text, "column caches: none");
        }
        writeln!(
            text,
            "column caches: {:.2} of {:.2} GiB used, {:.1} % of columns were found",
            gib(bytes),
            gib(budget_bytes),
            100.0 * hits as f64 / asked as f64
        )
    }

    /// What verification costs, in time of processors: where nothing waits for a disk, a query is
    /// faster without it by no larger a part.
    fn write_verification(&self, text: &mut String) -> std::fmt::Result {
        if !self.is_embedded {
            return Ok(());
        }
        let costs = || self.queries.iter().flat_map(|query| &query.costs);
        let cpu: f64 = costs().map(|cost| cost.cpu_ms).sum();
        let verification: f64 = costs().map(|cost| cost.verification_ms).sum();
        if cpu <= 0.0 {
            return writeln!(text, "checksums of what was read: this system does not tell");
        }
        writeln!(
            text,
            "checksums of what was read: {verification:.0} of {cpu:.0} ms of processor time, {:.2} %",
            100.0 * verification / cpu
        )
    }

    fn write_queries(&self, text: &mut String) -> std::fmt::Result {
        let mut header = " query |     rows | basalt ms | datafusion ms | ratio".to_owned();
        if self.queries.iter().any(|query| !query.in_memory_ms.is_empty()) {
            header += " | in memory ms | ratio";
        }
        if self.duckdb_version.is_some() {
            header += " | duckdb ms | ratio";
        }
        if let Some(workers) = self.against {
            header += &format!(" | {:>12} | ratio", format!("{workers} worker(s)"));
        }
        let rule: String = header.chars().map(|c| if c == '|' { '+' } else { '-' }).collect();
        writeln!(text, "\n{header}\n{rule}")?;
        let mut totals = Medians::default();
        for query in &self.queries {
            let medians = Medians::of(query);
            let warning = if query.rows_agree() { "" } else { "  ROWS DIFFER" };
            let line = medians.line(query.name, &query.basalt_rows.to_string());
            writeln!(text, "{line}{warning}")?;
            totals.add(&medians);
        }
        writeln!(text, "{}", totals.line("total", ""))?;
        for (name, ratio) in RATIOS {
            let ratios = self.queries.iter().map(|query| (query.name, ratio(&Medians::of(query))));
            let ratios: Vec<_> =
                ratios.filter_map(|(query, ratio)| Some((query, ratio?))).collect();
            if let Some((mean, largest, query)) = summary(&ratios) {
                writeln!(
                    text,
                    "ratios to {name}: geometric mean {mean:.2}, largest {largest:.2} ({query})"
                )?;
            }
        }
        self.write_verification(text)
    }

    /// A figure for a wrong answer is worth nothing.
    ///
    /// # Errors
    /// When the sides disagree about the number of rows of a query.
    pub(super) fn check_rows(&self) -> anyhow::Result<()> {
        for query in &self.queries {
            if !query.rows_agree() {
                let told = |rows: Option<u64>, whose: &str| {
                    rows.map_or_else(String::new, |rows| format!(", {rows} {whose}"))
                };
                bail!(
                    "query {} has {} rows on the cluster, {} in DataFusion{}{}",
                    query.name,
                    query.basalt_rows,
                    query.datafusion_rows,
                    told(query.duckdb_rows, "in DuckDB"),
                    told(query.other_rows, "on the other cluster")
                );
            }
        }
        Ok(())
    }
}

type Ratio = fn(&Medians) -> Option<f64>;

/// What Basalt's times are divided by, with its name.
const RATIOS: [(&str, Ratio); 3] = [
    ("DataFusion", |medians| Some(medians.basalt / medians.datafusion)),
    ("DuckDB", |medians| Some(medians.basalt / medians.duckdb?)),
    ("the other cluster", |medians| Some(medians.basalt / medians.other?)),
];

/// The geometric mean of some ratios, and the largest with its query.
fn summary<'a>(ratios: &[(&'a str, f64)]) -> Option<(f64, f64, &'a str)> {
    let largest = ratios.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let logarithms: f64 = ratios.iter().map(|(_, ratio)| ratio.ln()).sum();
    Some(((logarithms / ratios.len() as f64).exp(), largest.1, largest.0))
}

/// Medians of one query, or their sums over all; milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Medians {
    basalt: f64,
    datafusion: f64,
    in_memory: Option<f64>,
    duckdb: Option<f64>,
    other: Option<f64>,
}

impl Medians {
    fn of(query: &QueryResult) -> Self {
        Self {
            basalt: median(&query.basalt_ms),
            datafusion: median(&query.datafusion_ms),
            in_memory: (!query.in_memory_ms.is_empty()).then(|| median(&query.in_memory_ms)),
            duckdb: (!query.duckdb_ms.is_empty()).then(|| median(&query.duckdb_ms)),
            other: (!query.other_ms.is_empty()).then(|| median(&query.other_ms)),
        }
    }

    fn add(&mut self, other: &Self) {
        self.basalt += other.basalt;
        self.datafusion += other.datafusion;
        if let Some(in_memory) = other.in_memory {
            *self.in_memory.get_or_insert_default() += in_memory;
        }
        if let Some(duckdb) = other.duckdb {
            *self.duckdb.get_or_insert_default() += duckdb;
        }
        if let Some(other) = other.other {
            *self.other.get_or_insert_default() += other;
        }
    }

    /// A line of the table; a ratio below 1 means that Basalt is faster.
    fn line(&self, name: &str, rows: &str) -> String {
        let Self { basalt, datafusion, in_memory, duckdb, other } = self;
        let mut line = format!(
            " {name:<5} | {rows:>8} | {basalt:>9.1} | {datafusion:>13.1} | {:>5.2}",
            basalt / datafusion
        );
        if let Some(in_memory) = in_memory {
            line += &format!(" | {in_memory:>12.1} | {:>5.2}", basalt / in_memory);
        }
        if let Some(duckdb) = duckdb {
            line += &format!(" | {duckdb:>9.1} | {:>5.2}", basalt / duckdb);
        }
        if let Some(other) = other {
            line += &format!(" | {other:>12.1} | {:>5.2}", basalt / other);
        }
        line
    }
}

fn gibibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 30)
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
    fn ratios_are_told_by_their_geometric_mean_and_the_largest() {
        let (mean, largest, query) = summary(&[("q1", 2.0), ("q2", 8.0), ("q3", 4.0)]).unwrap();
        assert!((mean - 4.0).abs() < 1e-9, "{mean}");
        assert_eq!((largest, query), (8.0, "q2"));
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn the_median_is_the_middle_run() {
        assert_eq!(median(&[30.0, 10.0, 20.0]), 20.0);
        assert_eq!(median(&[40.0, 10.0, 20.0, 30.0]), 25.0);
    }
}
