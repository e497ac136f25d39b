//! Results as text: aligned tables for people, CSV and JSON for programs.
//!
//! Every writer turns batches into bytes in a buffer of the caller's, so that memory is bounded by
//! a batch and a closed pipe is seen as such. CSV and JSON stream and are never cut; the
//! interactive table shows the first rows only and says so.

mod csv;
mod escape;
mod json;
mod plan;
mod table;
mod value;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

pub use csv::CsvWriter;
pub use json::JsonWriter;
pub use plan::PlanWriter;
pub use table::{TableOptions, TableWriter};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns
    Table,
    /// CSV with a header line; NULL is empty, an empty string is ""
    Csv,
    /// One JSON object per line
    Json,
}

/// One result on its way out in one format.
pub enum ResultWriter {
    /// See [`TableWriter`].
    Table(TableWriter),
    /// See [`PlanWriter`]: what [`Format::Table`] makes of EXPLAIN.
    Plan(PlanWriter),
    /// See [`CsvWriter`].
    Csv(CsvWriter),
    /// See [`JsonWriter`].
    Json(JsonWriter),
}

impl ResultWriter {
    /// Starts a result; `table` is for [`Format::Table`] only.
    ///
    /// # Errors
    /// A schema that the format cannot express.
    pub fn new(
        format: Format,
        schema: &SchemaRef,
        table: TableOptions,
    ) -> Result<Self, ArrowError> {
        Ok(match format {
            Format::Table if PlanWriter::fits(schema) => Self::Plan(PlanWriter),
            Format::Table => Self::Table(TableWriter::new(schema, table)),
            Format::Csv => Self::Csv(CsvWriter::new(schema)),
            Format::Json => Self::Json(JsonWriter::new(schema)),
        })
    }

    /// Appends the text of a batch to `out`, as far as it can be known yet.
    ///
    /// # Errors
    /// A value that the format cannot express.
    pub fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        match self {
            Self::Table(writer) => writer.write(batch, out),
            Self::Plan(_) => PlanWriter::write(batch, out),
            Self::Csv(writer) => writer.write(batch, out),
            Self::Json(writer) => writer.write(batch, out),
        }
    }

    /// Appends what is left after the last batch.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Table(writer) => writer.finish(out),
            Self::Csv(writer) => writer.finish(out),
            Self::Plan(_) | Self::Json(_) => {}
        }
    }
}

/// A whole result as text.
///
/// # Errors
/// As [`ResultWriter::write`].
pub fn to_text(
    format: Format,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    table: TableOptions,
) -> Result<String, ArrowError> {
    let mut out = Vec::new();
    let mut writer = ResultWriter::new(format, schema, table)?;
    for batch in batches {
        writer.write(batch, &mut out)?;
    }
    writer.finish(&mut out);
    String::from_utf8(out).map_err(|error| ArrowError::ExternalError(Box::new(error)))
}
