//! What a file is: its format, and how its CSV is written.

use std::path::Path;

/// A format that files from outside may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Delimited text (RFC 4180 and relatives).
    Csv,
}

impl FileFormat {
    /// The format with this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Parquet, Self::Csv].into_iter().find(|f| name.eq_ignore_ascii_case(f.name()))
    }

    /// The format that a file's extension tells.
    pub fn from_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        [Self::Parquet, Self::Csv]
            .into_iter()
            .find(|f| f.extensions().iter().any(|e| extension.eq_ignore_ascii_case(e)))
    }

    /// The name, as in SQL and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
        }
    }

    /// Extensions that a directory is searched for.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Parquet => &["parquet", "parq"],
            Self::Csv => &["csv", "tsv", "tbl", "txt"],
        }
    }
}

/// How CSV files are written. The default is RFC 4180 with a header line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CsvOptions {
    /// The first record names the columns. Otherwise they are `column_1`, `column_2` and so on.
    pub header: bool,
    /// Between fields.
    pub delimiter: u8,
    /// Around fields that contain delimiters, quotes or line breaks; doubled inside.
    pub quote: u8,
    /// Before a quote inside a quoted field, when quotes are not doubled.
    pub escape: Option<u8>,
    /// The unquoted text that means NULL. An empty field is NULL when this is empty.
    pub null: String,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { header: true, delimiter: b',', quote: b'"', escape: None, null: String::new() }
    }
}

impl CsvOptions {
    /// The one ASCII character that an option's text stands for; `\t` is a tab.
    pub fn character(text: &str) -> Option<u8> {
        match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Some(*byte),
            b"\\t" => Some(b'\t'),
            _ => None,
        }
    }
}
