//! Reading files into batches of one schema, on a thread of its own.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::csv::ReaderBuilder;
use arrow::datatypes::{DataType, SchemaRef};
use basalt_engine::files::ParquetFile;
use basalt_sql_tests::client::ClientError;
use futures::Stream;
use tokio::sync::mpsc;

use super::files::{FileKind, SourceFile};
use super::schema::{CsvOptions, file_schema};

/// Rows per batch.
const BATCH_ROWS: usize = 8192;

/// Batches read ahead of the network: hides reading without holding much.
const BATCHES_AHEAD: usize = 4;

type Item = Result<RecordBatch, ClientError>;

/// The rows of all files, one file after the other, in `schema`.
///
/// The stream ends with an error that names the file when one cannot be read or has changed since
/// it was listed. Dropping the stream stops the reading.
pub fn stream(
    files: Vec<SourceFile>,
    schema: SchemaRef,
    csv: CsvOptions,
) -> impl Stream<Item = Item> + Send + 'static {
    let (sender, receiver) = mpsc::channel::<Item>(BATCHES_AHEAD);
    tokio::task::spawn_blocking(move || {
        for file in &files {
            if let Err(error) = read_file(file, &schema, &csv, &sender) {
                let text = format!("{} cannot be loaded: {error:#}", file.path.display());
                // The receiver is gone when the upload has failed already.
                let _ = sender.blocking_send(Err(ClientError::Local(text)));
                return;
            }
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

fn read_file(
    file: &SourceFile,
    schema: &SchemaRef,
    csv: &CsvOptions,
    sender: &mpsc::Sender<Item>,
) -> anyhow::Result<()> {
    let open = File::open(&file.path)?;
    check_unchanged(file, &open)?;
    match file.kind {
        FileKind::Parquet => {
            let parquet = ParquetFile::open(&file.path, open.try_clone()?)?;
            let mut send = |batch| sender.blocking_send(Ok(batch)).is_ok();
            parquet.read(0..parquet.rows(), schema, BATCH_ROWS, &mut send)?;
        }
        FileKind::Csv => {
            // In the order of the file's own header.
            let own = file_schema(file, csv)?;
            let reader = ReaderBuilder::new(own)
                .with_format(csv.format())
                .with_batch_size(BATCH_ROWS)
                .build_buffered(BufReader::new(open.try_clone()?))?;
            for batch in reader {
                let batch = conform(&batch?, schema)?;
                if sender.blocking_send(Ok(batch)).is_err() {
                    break;
                }
            }
        }
    }
    check_unchanged(file, &open)
}

fn check_unchanged(file: &SourceFile, open: &File) -> anyhow::Result<()> {
    if open.metadata()?.len() != file.bytes {
        bail!("it has changed since the load began: try again when it is complete");
    }
    Ok(())
}

/// The batch with its columns in the order and layout of `schema`.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> anyhow::Result<RecordBatch> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column = |name: &str, to: &DataType| -> anyhow::Result<ArrayRef> {
        let column = batch.column_by_name(name).with_context(|| format!("no column {name:?}"))?;
        if column.data_type() == to {
            return Ok(Arc::clone(column));
        }
        cast_with_options(column, to, &strict).with_context(|| format!("column {name:?}"))
    };
    let columns = schema
        .fields()
        .iter()
        .map(|field| column(field.name(), field.data_type()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
