//! The digest of what a client asked for under a key: on disk for as long as the key is remembered.
//!
//! Fields follow each other with their lengths, so that no two requests have the same bytes. Rows
//! are hashed in the form that arrow gives them for comparing, from the first to the last, wherever
//! a client cuts them into batches; text is the same as a view, a dictionary or by itself. A new
//! version of arrow may have another form: a request that is sent again across such an upgrade is
//! refused as another one, never done twice; a test notices it.

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use basalt_engine::error::{SqlError, from_datafusion};
use basalt_engine::types::storage_type;
use basalt_storage::digest::Digest;

/// Values that are brought into row form at a time: a row of each of 10,000 columns, or many rows
/// of few.
const RUN_VALUES: usize = 65_536;

/// Bytes that are hashed at a time: BLAKE3 is slow on the few bytes of a row.
const BUFFER_BYTES: usize = 64 << 10;

/// What was asked for, field by field.
pub(super) struct Payload(blake3::Hasher);

impl Payload {
    /// Nothing yet, of a kind of request.
    pub(super) fn new(kind: &str) -> Self {
        let mut payload = Self(blake3::Hasher::new());
        payload.text("basalt request 1");
        payload.text(kind);
        payload
    }

    /// Adds a text.
    pub(super) fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    /// Adds a number of texts.
    pub(super) fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a String>) {
        self.0.update(&(texts.len() as u64).to_le_bytes());
        texts.for_each(|text| self.text(text));
    }

    /// Adds rows, with the names and types of their columns.
    pub(super) fn rows(&mut self, rows: RowsDigest) {
        for (name, data_type) in &rows.columns {
            self.text(name);
            self.text(&data_type.to_string());
        }
        self.0.update(&rows.rows.to_le_bytes());
        self.0.update(rows.finish().as_bytes());
    }

    /// The digest.
    pub(super) fn finish(self) -> Digest {
        Digest::from_bytes(*self.0.finalize().as_bytes())
    }
}

/// The digest of rows that come batch by batch.
pub(super) struct RowsDigest {
    columns: Vec<(String, DataType)>,
    converter: RowConverter,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    rows: u64,
}

impl RowsDigest {
    /// No rows yet, of these columns.
    pub(super) fn new(schema: &Schema) -> Result<Self, SqlError> {
        let columns: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| {
                let plain = storage_type(field.data_type());
                (field.name().clone(), plain.unwrap_or_else(|_| field.data_type().clone()))
            })
            .collect();
        let fields = columns.iter().map(|(_, data_type)| SortField::new(data_type.clone()));
        let converter =
            RowConverter::new(fields.collect()).map_err(|e| from_datafusion(e.into()))?;
        let (hasher, buffer) = (blake3::Hasher::new(), Vec::with_capacity(BUFFER_BYTES));
        Ok(Self { columns, converter, hasher, buffer, rows: 0 })
    }

    /// Adds the rows of a batch.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        let run_rows = (RUN_VALUES / self.columns.len().max(1)).max(1);
        for start in (0..batch.num_rows()).step_by(run_rows) {
            self.add_run(&batch.slice(start, run_rows.min(batch.num_rows() - start)))?;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn add_run(&mut self, run: &RecordBatch) -> Result<(), SqlError> {
        let plain = |(array, (_, data_type)): (&ArrayRef, &(String, DataType))| match array
            .data_type()
            == data_type
        {
            true => Ok(ArrayRef::clone(array)),
            false => cast(array, data_type),
        };
        let rows = run
            .columns()
            .iter()
            .zip(&self.columns)
            .map(plain)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|columns| self.converter.convert_columns(&columns))
            .map_err(|error| from_datafusion(error.into()))?;
        for row in &rows {
            let bytes = row.as_ref();
            self.push(&(bytes.len() as u64).to_le_bytes());
            self.push(bytes);
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        match bytes.len() > BUFFER_BYTES {
            true => {
                self.hasher.update(bytes);
            }
            false => self.buffer.extend_from_slice(bytes),
        }
    }

    fn finish(mut self) -> blake3::Hash {
        self.hasher.update(&self.buffer);
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn digest(batches: &[RecordBatch]) -> Digest {
        let mut rows = RowsDigest::new(batches[0].schema_ref()).unwrap();
        batches.iter().for_each(|batch| rows.add(batch).unwrap());
        let mut payload = Payload::new("test");
        payload.rows(rows);
        payload.finish()
    }

    fn batch(numbers: Vec<Option<i64>>, texts: ArrayRef) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
        RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("s", texts, true)])
            .unwrap()
    }

    fn sample() -> RecordBatch {
        let texts = StringArray::from(vec![Some("a"), None, Some("")]);
        batch(vec![Some(1), Some(2), None], Arc::new(texts))
    }

    #[test]
    fn batches_and_layouts_make_no_difference() {
        let whole = digest(&[sample()]);
        let cut = [sample().slice(0, 1), sample().slice(1, 0), sample().slice(1, 2)];
        assert_eq!(digest(&cut), whole);
        let views = StringViewArray::from(vec![Some("a"), None, Some("")]);
        assert_eq!(digest(&[batch(vec![Some(1), Some(2), None], Arc::new(views))]), whole);
        let dictionary: DictionaryArray<Int32Type> =
            vec![Some("a"), None, Some("")].into_iter().collect();
        assert_eq!(digest(&[batch(vec![Some(1), Some(2), None], Arc::new(dictionary))]), whole);
    }

    #[test]
    fn every_value_and_its_place_make_one() {
        let whole = digest(&[sample()]);
        let texts = || Arc::new(StringArray::from(vec![Some("a"), None, Some("")])) as ArrayRef;
        assert_ne!(digest(&[batch(vec![Some(1), Some(2), Some(0)], texts())]), whole);
        assert_ne!(digest(&[batch(vec![Some(2), Some(1), None], texts())]), whole);
        assert_ne!(digest(&[sample().slice(0, 2)]), whole);
        assert_ne!(digest(&[sample(), sample()]), whole);
        let renamed = sample().columns().to_vec();
        let renamed = [("m", ArrayRef::clone(&renamed[0])), ("s", ArrayRef::clone(&renamed[1]))];
        assert_ne!(digest(&[RecordBatch::try_from_iter(renamed).unwrap()]), whole);
    }

    #[test]
    fn rows_larger_than_the_buffer_are_hashed_whole() {
        let text = |end: &str| {
            let text = "x".repeat(BUFFER_BYTES * 2) + end;
            batch(vec![Some(1)], Arc::new(StringArray::from(vec![text])))
        };
        assert_eq!(digest(&[text("a")]), digest(&[text("a")]));
        assert_ne!(digest(&[text("a")]), digest(&[text("b")]));
    }

    /// Pinned: digests are compared with those in the catalog.
    #[test]
    fn the_digest_of_a_sample_stays_the_same() {
        let pinned = "8faa147fe51727cb804c5263a82e4f8b59e345d5ae837517ac6ec91de568b37a";
        assert_eq!(digest(&[sample()]).to_string(), pinned);
    }

    #[test]
    fn fields_cannot_run_into_each_other() {
        let digest = |texts: &[&str]| {
            let mut payload = Payload::new("test");
            texts.iter().for_each(|text| payload.text(text));
            payload.finish()
        };
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(digest(&["a"]), digest(&["a", ""]));
    }
}
