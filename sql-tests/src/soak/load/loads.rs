//! Tables that are made, loaded and dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use super::Hand;

const ROWS: i64 = 20_000;
const LAYOUTS: [&str; 4] = ["DISTKEY(n)", "DISTSTYLE ALL", "DISTSTYLE EVEN SORTKEY(n)", ""];

/// A file that COPY reads.
pub(super) struct Loads {
    file: PathBuf,
}

impl Loads {
    /// Writes the file.
    ///
    /// # Errors
    /// When that is not possible.
    pub(super) fn new(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("load.parquet");
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=ROWS));
        let texts = (1..=ROWS).map(|n| format!("a text of a file, number {n}"));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("s", texts)])?;
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&file)?, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(Self { file })
    }

    /// Loads and drops until the load is over.
    ///
    /// # Errors
    /// The first answer that is wrong.
    pub(super) async fn run(self, mut hand: Hand) -> anyhow::Result<()> {
        for layout in LAYOUTS.iter().cycle() {
            if hand.watch.is_over() {
                break;
            }
            hand.done(&format!("CREATE TABLE loaded (n BIGINT, s VARCHAR) {layout}")).await?;
            let file = self.file.display();
            hand.done(&format!("COPY loaded FROM '{file}' FORMAT PARQUET")).await?;
            let insert = format!(
                "INSERT INTO loaded SELECT value, 'inserted, number ' || value \
                 FROM generate_series({}, {})",
                ROWS + 1,
                2 * ROWS
            );
            hand.done(&insert).await?;
            let all = "SELECT count(*), count(DISTINCT n), sum(n), count(DISTINCT s) FROM loaded";
            let rows = 2 * ROWS;
            hand.is(all, &[rows, rows, rows * (rows + 1) / 2, rows]).await?;
            hand.done("DROP TABLE loaded").await?;
        }
        Ok(())
    }
}
