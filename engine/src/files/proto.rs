//! [`FileScanExec`] as bytes, on its way from coordinator to worker.
//!
//! Invariant: decoding checks everything that running relies on, but for the paths: those are
//! checked where they are opened, against the roots of that process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion_proto::protobuf;
use prost::Message;

use super::{
    CsvOptions, FILES_MAX, FileFormat, FileScan, FileScanExec, ScannedFile, SourceFile, Unit,
};
use crate::error::{ErrorCode, SqlError};

/// Partitions and units of a leaf at most: more would be a mistake, or an attack.
const UNITS_MAX: usize = 10_000_000;

#[derive(Clone, PartialEq, Message)]
struct FileScanProto {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(message, optional, tag = "2")]
    csv: Option<CsvProto>,
    #[prost(message, optional, tag = "3")]
    schema: Option<protobuf::Schema>,
    #[prost(message, repeated, tag = "4")]
    files: Vec<FileProto>,
    #[prost(message, optional, tag = "5")]
    projection: Option<ProjectionProto>,
    #[prost(uint64, optional, tag = "6")]
    limit: Option<u64>,
    #[prost(message, repeated, tag = "7")]
    partitions: Vec<PartitionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct CsvProto {
    #[prost(bool, tag = "1")]
    header: bool,
    #[prost(uint32, tag = "2")]
    delimiter: u32,
    #[prost(uint32, tag = "3")]
    quote: u32,
    #[prost(uint32, optional, tag = "4")]
    escape: Option<u32>,
    #[prost(string, tag = "5")]
    null: String,
}

#[derive(Clone, PartialEq, Message)]
struct FileProto {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(uint64, tag = "2")]
    bytes: u64,
    #[prost(int64, tag = "3")]
    modified_ns: i64,
    #[prost(uint64, optional, tag = "4")]
    rows: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct ProjectionProto {
    #[prost(uint32, repeated, tag = "1")]
    columns: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct PartitionProto {
    #[prost(message, repeated, tag = "1")]
    units: Vec<UnitProto>,
}

#[derive(Clone, PartialEq, Message)]
struct UnitProto {
    #[prost(uint32, tag = "1")]
    file: u32,
    #[prost(uint64, tag = "2")]
    first_row: u64,
    #[prost(uint64, optional, tag = "3")]
    rows: Option<u64>,
}

impl FileScanExec {
    /// The plan node as bytes. Files that no unit reads are left out.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Internal`] when a column has a type that plans cannot carry.
    pub fn to_proto(&self) -> Result<Vec<u8>, SqlError> {
        let scan = self.scan();
        // Old index to new index, for the files in use.
        let mut used: BTreeMap<usize, u32> =
            self.partitions().iter().flatten().map(|unit| (unit.file, 0)).collect();
        used.values_mut().zip(0..).for_each(|(index, new)| *index = new);
        let files = used.keys().filter_map(|file| scan.files.get(*file)).map(file_to_proto);
        let unit = |unit: &Unit| UnitProto {
            file: used.get(&unit.file).copied().unwrap_or_default(),
            first_row: unit.first_row,
            rows: unit.rows,
        };
        let schema = protobuf::Schema::try_from(scan.schema.as_ref())
            .map_err(|error| invalid(&format!("cannot be encoded: {error}")))?;
        let proto = FileScanProto {
            format: match scan.format {
                FileFormat::Parquet => 1,
                FileFormat::Csv => 2,
            },
            csv: Some(CsvProto {
                header: scan.csv.header,
                delimiter: scan.csv.delimiter.into(),
                quote: scan.csv.quote.into(),
                escape: scan.csv.escape.map(Into::into),
                null: scan.csv.null.clone(),
            }),
            schema: Some(schema),
            files: files.collect(),
            projection: self.projection().map(|columns| ProjectionProto {
                columns: columns.iter().map(|c| u32::try_from(*c).unwrap_or(u32::MAX)).collect(),
            }),
            limit: self.limit().map(|limit| limit as u64),
            partitions: self
                .partitions()
                .iter()
                .map(|units| PartitionProto { units: units.iter().map(unit).collect() })
                .collect(),
        };
        Ok(proto.encode_to_vec())
    }

    /// The plan node from bytes of [`Self::to_proto`].
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Internal`] when they are not that, or contradict themselves.
    pub fn from_proto(bytes: &[u8]) -> Result<Self, SqlError> {
        let proto = FileScanProto::decode(bytes)
            .map_err(|error| invalid(&format!("cannot be decoded: {error}")))?;
        let units: usize = proto.partitions.iter().map(|partition| partition.units.len()).sum();
        if proto.files.len() > FILES_MAX || units + proto.partitions.len() > UNITS_MAX {
            return Err(invalid("has too many files or units"));
        }
        let format = match proto.format {
            1 => FileFormat::Parquet,
            2 => FileFormat::Csv,
            _ => return Err(invalid("has an unknown format")),
        };
        let csv =
            proto.csv.and_then(csv_from_proto).ok_or_else(|| invalid("has no CSV options"))?;
        let schema = proto.schema.ok_or_else(|| invalid("has no schema"))?;
        let schema = Schema::try_from(&schema)
            .map_err(|error| invalid(&format!("has a bad schema: {error}")))?;
        let files = proto.files.into_iter().map(|file| file_from_proto(file, format));
        let files = files.collect::<Option<Vec<_>>>().ok_or_else(|| invalid("has a bad file"))?;
        let scan = FileScan { format, csv, schema: Arc::new(schema), files };
        let projection =
            proto.projection.map(|p| p.columns.into_iter().map(|c| c as usize).collect());
        let limit = proto.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let unit = |unit: UnitProto| Unit {
            file: unit.file as usize,
            first_row: unit.first_row,
            rows: unit.rows,
        };
        let partitions = proto
            .partitions
            .into_iter()
            .map(|partition| partition.units.into_iter().map(unit).collect())
            .collect();
        Self::new(Arc::new(scan), projection, limit, partitions)
    }
}

fn file_to_proto(file: &ScannedFile) -> FileProto {
    FileProto {
        // Resolving refuses paths that are not UTF-8.
        path: file.source.path.to_string_lossy().into_owned(),
        bytes: file.source.bytes,
        modified_ns: file.source.modified_ns,
        rows: file.rows,
    }
}

fn file_from_proto(file: FileProto, format: FileFormat) -> Option<ScannedFile> {
    let FileProto { path, bytes, modified_ns, rows } = file;
    let path = PathBuf::from(path);
    let has_rows = rows.is_some() == (format == FileFormat::Parquet);
    let source = SourceFile { path, bytes, modified_ns };
    (source.path.is_absolute() && has_rows).then_some(ScannedFile { source, rows })
}

fn csv_from_proto(csv: CsvProto) -> Option<CsvOptions> {
    let CsvProto { header, delimiter, quote, escape, null } = csv;
    let escape = match escape {
        Some(escape) => Some(u8::try_from(escape).ok()?),
        None => None,
    };
    let delimiter = u8::try_from(delimiter).ok()?;
    Some(CsvOptions { header, delimiter, quote: u8::try_from(quote).ok()?, escape, null })
}

fn invalid(what: &str) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("internal error: a file scan {what}"))
}
