//! The one schema that all files of a load share.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use basalt_engine::files::ParquetFile;

use super::files::{FileKind, SourceFile};

/// How CSV files are read.
#[derive(Debug, Clone)]
pub struct CsvOptions {
    /// What separates fields.
    pub delimiter: u8,
    /// Types of columns that are known, by name: those of a table that exists. The others are
    /// inferred from the values.
    pub known_types: Option<SchemaRef>,
}

impl CsvOptions {
    /// The reader's view of these options.
    pub(super) fn format(&self) -> CsvFormat {
        CsvFormat::default().with_header(true).with_delimiter(self.delimiter)
    }
}

/// Every way in which the files of a load differ.
#[derive(Debug, PartialEq, Eq)]
pub struct SchemaDifferences {
    /// The file that the others are compared with.
    pub first: PathBuf,
    /// File, and what is different in it.
    pub differences: Vec<(PathBuf, String)>,
}

impl fmt::Display for SchemaDifferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the files have different columns than {}:", self.first.display())?;
        for (file, difference) in &self.differences {
            write!(f, "\n  {}: {difference}", file.display())?;
        }
        f.write_str("\nHINT: load files with different columns into different tables, or rewrite them alike")
    }
}

impl std::error::Error for SchemaDifferences {}

/// The columns of one file, with layouts normalised (see [`canonical`]).
///
/// # Errors
/// A file that is not what it says; a CSV column that the table does not have.
pub fn file_schema(file: &SourceFile, csv: &CsvOptions) -> anyhow::Result<SchemaRef> {
    let shown = file.path.display();
    let open = File::open(&file.path).with_context(|| format!("{shown} cannot be opened"))?;
    let schema = match file.kind {
        FileKind::Parquet => SchemaRef::clone(ParquetFile::open(&file.path, open)?.schema()),
        FileKind::Csv => csv_schema(&file.path, open, csv)?,
    };
    let fields = schema.fields().iter().map(|field| canonical_field(field));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

fn csv_schema(path: &Path, file: File, csv: &CsvOptions) -> anyhow::Result<SchemaRef> {
    let shown = path.display();
    // All rows are looked at: a type that fits the first thousand only would fail half-way.
    let rows = if csv.known_types.is_some() { Some(0) } else { None };
    let (inferred, _rows) = csv
        .format()
        .infer_schema(BufReader::new(file), rows)
        .with_context(|| format!("{shown} is not readable CSV with a header line"))?;
    let Some(known) = &csv.known_types else {
        return Ok(Arc::new(Schema::new(
            inferred.fields().iter().map(|field| typed(field)).collect::<Vec<_>>(),
        )));
    };
    let mut unknown = Vec::new();
    let fields: Vec<Field> = inferred
        .fields()
        .iter()
        .filter_map(|field| match known.field_with_name(field.name()) {
            Ok(known) => Some(known.clone().with_nullable(true)),
            Err(_) => {
                unknown.push(format!("{:?}", field.name()));
                None
            }
        })
        .collect();
    if !unknown.is_empty() {
        let names: Vec<&str> = known.fields().iter().map(|f| f.name().as_str()).collect();
        bail!(
            "{shown} has columns that the table does not have: {}; the table has: {}",
            unknown.join(", "),
            names.join(", ")
        );
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A column without a single value is text: it has to become something.
fn typed(field: &Field) -> Field {
    match field.data_type() {
        DataType::Null => field.clone().with_data_type(DataType::Utf8),
        _ => field.clone(),
    }
}

/// One schema for all files, in the order of the first file's columns.
///
/// # Errors
/// All differences in names and types, of all files. Order and NOT NULL may differ: a column is
/// nullable when it is in any file. A column without any type in some files, because all its
/// values are NULL there, has that of the others.
pub fn unify(schemas: &[(PathBuf, SchemaRef)]) -> Result<SchemaRef, SchemaDifferences> {
    let Some(((first, first_schema), others)) = schemas.split_first() else {
        return Ok(Arc::new(Schema::empty()));
    };
    let mut fields: Vec<Field> = first_schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let names: HashSet<&str> = first_schema.fields().iter().map(|f| f.name().as_str()).collect();
    let mut differences = duplicates(first, first_schema);
    for (file, schema) in others {
        differences.extend(duplicates(file, schema));
        let mut add = |text: String| differences.push((file.clone(), text));
        let theirs: HashMap<&str, &FieldRef> =
            schema.fields().iter().map(|field| (field.name().as_str(), field)).collect();
        for field in &mut fields {
            match theirs.get(field.name().as_str()) {
                None => add(format!("column {:?} is missing", field.name())),
                Some(other) if *field.data_type() == DataType::Null => {
                    *field = other.as_ref().clone().with_nullable(true);
                }
                Some(other) if *other.data_type() == DataType::Null => field.set_nullable(true),
                Some(other) if other.data_type() != field.data_type() => add(format!(
                    "column {:?} is {}, not {}",
                    field.name(),
                    other.data_type(),
                    field.data_type()
                )),
                Some(other) if other.is_nullable() => field.set_nullable(true),
                Some(_) => {}
            }
        }
        for field in schema.fields() {
            if !names.contains(field.name().as_str()) {
                add(format!("column {:?} is extra ({})", field.name(), field.data_type()));
            }
        }
    }
    if differences.is_empty() {
        Ok(Arc::new(Schema::new(fields)))
    } else {
        Err(SchemaDifferences { first: first.clone(), differences })
    }
}

fn duplicates(file: &Path, schema: &Schema) -> Vec<(PathBuf, String)> {
    let mut seen = HashSet::new();
    let twice = schema.fields().iter().filter(|field| !seen.insert(field.name()));
    twice
        .map(|field| (file.to_owned(), format!("column {:?} is there twice", field.name())))
        .collect()
}

fn canonical_field(field: &Field) -> Field {
    // Metadata of the writer (`PARQUET:field_id`) is no difference either.
    Field::new(field.name(), canonical(field.data_type()), field.is_nullable())
}

/// The plain layout of a type: without dictionaries, views and 64-bit offsets.
fn canonical(data_type: &DataType) -> DataType {
    let item = |field: &FieldRef| Arc::new(canonical_field(field));
    match data_type {
        DataType::Dictionary(_, values) => canonical(values),
        DataType::RunEndEncoded(_, values) => canonical(values.data_type()),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => DataType::List(item(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(item(field), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(item).collect()),
        DataType::Map(entries, sorted) => DataType::Map(item(entries), *sorted),
        other => other.clone(),
    }
}
