//! Generating the tables as Parquet files, once.
//!
//! ```text
//! parts of a table --encode on every core--> column chunks --in order--> one row group each
//! ```
//! Invariant: a file with the name of a table is complete: it is written as `<table>.tmp`, and
//! gets its name after it was closed.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use super::{Table, Workload};
use crate::{machine, terminal};

/// Rows of a row group: several per table at scale 1, so that readers can share the work.
const ROW_GROUP_ROWS: f64 = 500_000.0;

/// Makes `<dir>/<table>.parquet` for every table that is not there yet, with a progress bar on a
/// terminal.
///
/// # Errors
/// A scale that is not a positive number, and a folder that cannot be written.
pub async fn generate(workload: &Workload, dir: &Path, scale: f64) -> anyhow::Result<()> {
    if !(scale > 0.0 && scale <= 100_000.0) {
        return Err(anyhow!("scale {scale} is not between 0 and 100000"));
    }
    std::fs::create_dir_all(dir)
        .with_context(|| format!("folder {} cannot be made", dir.display()))?;
    let mut missing = Vec::new();
    for table in workload.tables {
        if !dir.join(format!("{}.parquet", table.name)).try_exists()? {
            missing.push(table);
        }
    }
    let parts = missing.iter().map(|table| u64::from(parts(table, scale).unsigned_abs())).sum();
    let bar = terminal::bar(parts, "generating");
    for table in missing {
        bar.set_message(format!("generating {}", table.name));
        let file = dir.join(format!("{}.parquet", table.name));
        generate_table(table, &file, scale, &bar)
            .await
            .with_context(|| format!("{} cannot be generated", file.display()))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Rows of a Parquet file, from its footer.
///
/// # Errors
/// A file that is missing or not Parquet.
pub fn parquet_rows(file: &Path) -> anyhow::Result<u64> {
    let open = File::open(file).with_context(|| format!("{} cannot be opened", file.display()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(open)
        .with_context(|| format!("{} is not a readable Parquet file", file.display()))?;
    Ok(u64::try_from(reader.metadata().file_metadata().num_rows())?)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "at most 1.2 million parts by the scale's bound"
)]
fn parts(table: &Table, scale: f64) -> i32 {
    (table.rows_about(scale) / ROW_GROUP_ROWS).ceil().max(1.0) as i32
}

async fn generate_table(
    table: &'static Table,
    file: &Path,
    scale: f64,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let temporary = file.with_extension("tmp");
    let schema = (table.schema)();
    let properties =
        Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let columns = ArrowSchemaConverter::new().convert(&schema)?;
    let mut writer = SerializedFileWriter::new(
        File::create(&temporary)?,
        columns.root_schema_ptr(),
        properties,
    )?;
    let factory = ArrowRowGroupWriterFactory::new(&writer, schema);

    let parts = parts(table, scale);
    let mut row_groups = stream::iter(1..=parts)
        .map(|part| {
            // `part` counts row groups from 1, the file from 0.
            let columns = factory.create_column_writers(usize::try_from(part - 1).unwrap_or(0));
            async move {
                let columns = columns?;
                tokio::task::spawn_blocking(move || encode(table, columns, scale, part, parts))
                    .await?
            }
        })
        .buffered(machine::cores());
    while let Some(chunks) = row_groups.try_next().await? {
        let mut row_group = writer.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
        bar.inc(1);
    }
    drop(row_groups);
    writer.close()?;
    publish(&temporary, file)?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "generated data is made again when a crash loses it")]
fn publish(temporary: &Path, file: &Path) -> std::io::Result<()> {
    std::fs::rename(temporary, file)
}

/// One part of a table as the encoded columns of one row group.
fn encode(
    table: &Table,
    mut columns: Vec<ArrowColumnWriter>,
    scale: f64,
    part: i32,
    parts: i32,
) -> anyhow::Result<Vec<ArrowColumnChunk>> {
    for batch in (table.batches)(scale, part, parts) {
        write_batch(&batch?, &mut columns)?;
    }
    Ok(columns.into_iter().map(ArrowColumnWriter::close).collect::<Result<_, _>>()?)
}

fn write_batch(batch: &RecordBatch, columns: &mut [ArrowColumnWriter]) -> anyhow::Result<()> {
    // No column is nested: one leaf each.
    let mut writers = columns.iter_mut();
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        for leaf in compute_leaves(field, array)? {
            let writer = writers.next().context("fewer column writers than columns")?;
            writer.write(&leaf)?;
        }
    }
    Ok(())
}
