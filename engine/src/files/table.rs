//! A set of files as a table, and the table functions `read_parquet` and `read_csv`.
//!
//! ```sql
//! SELECT * FROM read_parquet('/data/sales/*.parquet');
//! SELECT * FROM read_csv('/data/sales.csv', header => false, delimiter => '|');
//! ```
//!
//! Invariant: the paths of a table are fixed when it is made, that is, while the statement that
//! names them is planned; [`FileScanExec`] checks them again where it reads.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Result as DataFusionResult, ScalarValue, Statistics};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::{AllowedRoots, CsvOptions, FileFormat, FileScan, FileScanExec, FileSet};
use crate::error::{ErrorCode, SqlError, printable};

/// A set of files that a query reads as a table.
#[derive(Debug, Clone)]
pub struct FileTable {
    scan: Arc<FileScan>,
}

impl FileTable {
    /// A table over a described set.
    pub fn new(scan: FileScan) -> Self {
        Self { scan: Arc::new(scan) }
    }

    /// Resolves a pattern and describes its files. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// As [`FileSet::resolve`] and [`FileScan::open`].
    pub fn open(
        pattern: &str,
        format: Option<FileFormat>,
        options: &CsvOptions,
        declared: Option<&arrow::datatypes::Schema>,
        roots: &AllowedRoots,
    ) -> Result<Self, SqlError> {
        let set = FileSet::resolve(pattern, format, roots)?;
        FileScan::open(set, options, declared, roots).map(Self::new)
    }

    /// The set.
    pub fn scan(&self) -> &Arc<FileScan> {
        &self.scan
    }
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.scan.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        // One task here; distribution splits again by tasks with `FileScanExec::with_units`.
        let partitions = self.scan.split(1, state.config().target_partitions());
        let partitions = partitions.into_iter().flatten().collect();
        let scan = Arc::clone(&self.scan);
        Ok(Arc::new(FileScanExec::new(scan, projection.cloned(), limit, partitions)?))
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut statistics = Statistics::new_unknown(&self.scan.schema);
        if let Some(rows) = self.scan.rows() {
            statistics.num_rows = Precision::Exact(usize::try_from(rows).unwrap_or(usize::MAX));
        }
        Some(statistics)
    }
}

/// The table function `read_parquet` or `read_csv`.
#[derive(Debug, Clone)]
pub struct ReadFiles {
    format: FileFormat,
    roots: Arc<AllowedRoots>,
    defaults: CsvOptions,
}

impl ReadFiles {
    /// A function for files of a format inside the roots of the process that plans.
    pub fn new(format: FileFormat, roots: Arc<AllowedRoots>, defaults: CsvOptions) -> Self {
        Self { format, roots, defaults }
    }

    /// The name to register it under.
    pub fn name(&self) -> &'static str {
        match self.format {
            FileFormat::Parquet => "read_parquet",
            FileFormat::Csv => "read_csv",
        }
    }

    fn arguments(&self, exprs: &[Expr]) -> Result<(String, CsvOptions), SqlError> {
        let name = self.name();
        let invalid = |what: String| {
            SqlError::new(ErrorCode::InvalidParameter, format!("function \"{name}\" {what}"))
        };
        let text = |expr: &Expr| match expr {
            Expr::Literal(value, _) => match value {
                ScalarValue::Utf8(Some(text))
                | ScalarValue::Utf8View(Some(text))
                | ScalarValue::LargeUtf8(Some(text)) => Some(text.clone()),
                ScalarValue::Boolean(Some(switch)) => Some(switch.to_string()),
                _ => None,
            },
            _ => None,
        };
        let (path, options) = exprs.split_first().ok_or_else(|| {
            invalid("needs a path".to_owned()).with_hint(format!("write {name}('/path/to/files')"))
        })?;
        let path = text(path).ok_or_else(|| {
            invalid("takes a path in single quotes as its first argument".to_owned())
        })?;
        let mut csv = self.defaults.clone();
        for option in options {
            // The dialect writes `name => value` as 'name=value': DataFusion has no named ones.
            let named = text(option).and_then(|text| {
                let (name, value) = text.split_once('=')?;
                Some((name.trim().to_owned(), value.to_owned()))
            });
            let (option, value) = named
                .ok_or_else(|| invalid("takes options of the form header => false".to_owned()))?;
            self.set_option(&mut csv, &option, &value).ok_or_else(|| {
                let (option, value) = (printable(&option), printable(&value));
                let error = invalid(format!("has no option {option} that could be '{value}'"));
                match self.format {
                    FileFormat::Csv => error.with_hint(
                        "options are header, delimiter, quote and escape (one character), and null",
                    ),
                    FileFormat::Parquet => error.with_hint("leave it out"),
                }
            })?;
        }
        Ok((path, csv))
    }

    fn set_option(&self, csv: &mut CsvOptions, name: &str, value: &str) -> Option<()> {
        if self.format != FileFormat::Csv {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "header" => csv.header = value.to_ascii_lowercase().parse().ok()?,
            "delimiter" | "delim" | "sep" => csv.delimiter = CsvOptions::character(value)?,
            "quote" => csv.quote = CsvOptions::character(value)?,
            "escape" => csv.escape = Some(CsvOptions::character(value)?),
            "null" | "nullstr" => value.clone_into(&mut csv.null),
            _ => return None,
        }
        Some(())
    }
}

impl TableFunctionImpl for ReadFiles {
    fn call_with_args(&self, args: TableFunctionArgs) -> DataFusionResult<Arc<dyn TableProvider>> {
        let (path, options) = self.arguments(args.exprs())?;
        let table = FileTable::open(&path, Some(self.format), &options, None, &self.roots)?;
        Ok(Arc::new(table))
    }
}
