//! CSV after RFC 4180, with one addition: NULL is an empty field, an empty string is `""`.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::value::ColumnText;

/// Writes a header line and a line per row.
pub struct CsvWriter {
    header: Option<String>,
}

impl CsvWriter {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|f| quoted(f.name())).collect();
        Self { header: Some(names.join(",") + "\n") }
    }

    pub(super) fn write(
        &mut self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
    ) -> Result<(), ArrowError> {
        self.finish(out);
        let columns = batch.columns().iter().map(ColumnText::new).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                if let Some(value) = column.value(row)? {
                    out.extend_from_slice(quoted(&value).as_bytes());
                }
            }
            out.push(b'\n');
        }
        Ok(())
    }

    /// The header, when no batch has brought it out yet.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(header) = self.header.take() {
            out.extend_from_slice(header.as_bytes());
        }
    }
}

fn quoted(value: &str) -> String {
    let needs_quotes = value.is_empty() || value.contains([',', '"', '\n', '\r']);
    if needs_quotes { format!("\"{}\"", value.replace('"', "\"\"")) } else { value.to_owned() }
}
