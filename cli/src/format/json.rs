//! JSON lines: an object per row, keys in the order of the columns, NULL as `null`.
//!
//! Numbers are JSON numbers with all their digits, also beyond what a double holds; binary is
//! hexadecimal; dates and times are ISO 8601 strings. A second column of the same name becomes
//! `name_1`, because an object cannot have two.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, WriterBuilder};

/// Writes one object per row.
pub struct JsonWriter {
    schema: SchemaRef,
}

impl JsonWriter {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        Self { schema: with_unique_names(schema) }
    }

    pub(super) fn write(
        &mut self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
    ) -> Result<(), ArrowError> {
        if batch.num_columns() == 0 {
            out.extend(std::iter::repeat_n("{}\n", batch.num_rows()).flat_map(str::bytes));
            return Ok(());
        }
        let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())?;
        let mut writer =
            WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
        writer.write(&batch)?;
        writer.finish()
    }
}

fn with_unique_names(schema: &SchemaRef) -> SchemaRef {
    let mut taken = HashSet::new();
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| {
            let mut name = field.name().clone();
            let mut number = 0;
            while !taken.insert(name.clone()) {
                number += 1;
                name = format!("{}_{number}", field.name());
            }
            // Nullable, so that a batch passes whatever its own schema promised.
            field.as_ref().clone().with_name(name).with_nullable(true)
        })
        .collect();
    Arc::new(Schema::new(fields))
}
