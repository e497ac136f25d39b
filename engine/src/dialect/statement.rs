//! The closed set of statements, as the statement life cycle matches on them.
//!
//! Invariant: names are normalised (unquoted ones lower-cased) and checked against the length
//! limit; whether what they name exists is decided elsewhere.

use basalt_storage::encoding::ChunkEncoding;
use datafusion::common::format::ExplainFormat;
use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast::{DataType, Query};

use super::modify::{Delete, Update};
use super::names::ObjectRef;
use crate::error::Position;
use crate::files::{CsvOptions, FileFormat};
use crate::settings::WriteConsistency;

/// One statement of a script and where it was.
#[derive(Debug, Clone)]
pub struct ParsedStatement {
    /// What it is.
    pub statement: Statement,
    /// Its own text, without the separating `;` and comments around it.
    pub text: String,
    /// Its `LABEL`, when it has one.
    pub label: Option<Label>,
    /// Its `WITH CONSISTENCY`, when it has one.
    pub consistency: Option<WriteConsistency>,
    /// Where its text begins in the script. Positions inside `statement` count in the script.
    pub start: Position,
    /// How many parameters it has: the highest `n` of its `$n`, or the number of its `?`.
    pub parameters: usize,
}

impl ParsedStatement {
    /// Its own text without the `LABEL` at its end: what the label stands for.
    pub fn text_without_label(&self) -> &str {
        let bytes = self.label.as_ref().map_or(self.text.len(), |label| label.text_bytes);
        self.text.get(..bytes).unwrap_or(&self.text)
    }
}

/// `LABEL 'key'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The key: 1 to 255 bytes without control characters.
    pub key: String,
    /// Where the word `LABEL` is.
    pub position: Position,
    /// Bytes of the statement's own text before it.
    pub(super) text_bytes: usize,
}

/// Every statement this engine knows.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `SELECT`, `VALUES`, `WITH`, `TABLE`, `FROM`: always one `sqlparser` query.
    Query(DFStatement),
    /// `EXPLAIN` of a query, an `INSERT`, a `COPY` or a `CREATE TABLE AS`.
    Explain(Explain),
    /// `CREATE TABLE`, with columns, with a query, or both.
    CreateTable(Box<CreateTable>),
    /// `DROP TABLE`.
    DropTable(DropTable),
    /// `CREATE VIEW`.
    CreateView(Box<CreateView>),
    /// `DROP VIEW`.
    DropView(DropView),
    /// `CREATE SCHEMA`.
    CreateSchema(CreateSchema),
    /// `DROP SCHEMA`.
    DropSchema(DropSchema),
    /// `INSERT INTO`.
    Insert(Insert),
    /// `DELETE FROM`.
    Delete(Box<Delete>),
    /// `UPDATE`.
    Update(Box<Update>),
    /// `COPY ... FROM`.
    CopyFrom(CopyFrom),
    /// `VACUUM t`; every table when there is none.
    Vacuum(Option<(ObjectRef, Position)>),
    /// `ANALYZE COMPRESSION t`.
    AnalyzeCompression(AnalyzeCompression),
    /// `ANALYZE`.
    Analyze(Analyze),
    /// `ALTER SYSTEM DRAIN WORKER` or `UNDRAIN WORKER`.
    DrainWorker(DrainWorker),
    /// `SET name = value`; whether the setting exists is the session's to say.
    Set {
        /// The setting, lower case, parts joined by dots.
        name: String,
        /// The value as text; several values are joined by `, `.
        value: String,
    },
    /// `RESET name`, `SET name TO DEFAULT`; `RESET ALL` when there is no name.
    Reset {
        /// The setting.
        name: Option<String>,
    },
    /// `SHOW name`, or `SHOW ALL` when there is no name.
    Show {
        /// The setting.
        name: Option<String>,
    },
    /// `SHOW TABLES`.
    ShowTables,
    /// `SHOW SCHEMAS`.
    ShowSchemas,
    /// `SHOW COLUMNS FROM t`.
    ShowColumns(ObjectRef),
    /// `DESCRIBE t`.
    Describe(ObjectRef),
    /// `SHOW CREATE TABLE t` or `SHOW CREATE VIEW v`.
    ShowCreate(ObjectRef),
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
}

/// `ANALYZE COMPRESSION t [(a, b)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalyzeCompression {
    /// The table.
    pub table: ObjectRef,
    /// Where the table's name is.
    pub table_position: Position,
    /// The columns to look at; empty means all.
    pub columns: Vec<(String, Position)>,
}

/// `ANALYZE [t [(columns)]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analyze {
    /// The table and where its name is; every table when there is none.
    pub table: Option<(ObjectRef, Position)>,
    /// The columns; all of them when empty.
    pub columns: Vec<(String, Position)>,
}

/// `ALTER SYSTEM DRAIN WORKER 'id'`, or `UNDRAIN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainWorker {
    /// The worker's id as it was written.
    pub worker: String,
    /// Where it was.
    pub position: Position,
    /// Whether the worker is to lose its slices and copies, or may keep what it has.
    pub drain: bool,
}

impl Statement {
    /// What the statement is called in messages and logs, as SQL writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Query(_) => "SELECT",
            Self::Explain(_) => "EXPLAIN",
            Self::CreateTable(table) if table.query.is_some() => "CREATE TABLE AS",
            Self::CreateTable(_) => "CREATE TABLE",
            Self::DropTable(_) => "DROP TABLE",
            Self::CreateView(_) => "CREATE VIEW",
            Self::DropView(_) => "DROP VIEW",
            Self::CreateSchema(_) => "CREATE SCHEMA",
            Self::DropSchema(_) => "DROP SCHEMA",
            Self::Insert(_) => "INSERT",
            Self::Delete(_) => "DELETE",
            Self::Update(_) => "UPDATE",
            Self::CopyFrom(_) => "COPY",
            Self::Vacuum(_) => "VACUUM",
            Self::AnalyzeCompression(_) => "ANALYZE COMPRESSION",
            Self::Analyze(_) => "ANALYZE",
            Self::DrainWorker(_) => "ALTER SYSTEM",
            Self::Set { .. } => "SET",
            Self::Reset { .. } => "RESET",
            Self::Show { .. } => "SHOW",
            Self::ShowTables => "SHOW TABLES",
            Self::ShowSchemas => "SHOW SCHEMAS",
            Self::ShowColumns(_) => "SHOW COLUMNS",
            Self::Describe(_) => "DESCRIBE",
            Self::ShowCreate(_) => "SHOW CREATE",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Rollback => "ROLLBACK",
        }
    }

    /// Whether the statement runs a query or plans one, so that it may have parameters.
    pub(super) fn takes_parameters(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Insert(_) | Self::Delete(_) | Self::Update(_))
    }

    /// Whether the statement changes what is stored, all in one commit, so that its outcome can be
    /// remembered under a `LABEL`.
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Self::CreateTable(_)
                | Self::DropTable(_)
                | Self::CreateView(_)
                | Self::DropView(_)
                | Self::CreateSchema(_)
                | Self::DropSchema(_)
                | Self::Insert(_)
                | Self::Delete(_)
                | Self::Update(_)
                | Self::CopyFrom(_)
        )
    }

    /// Whether it changes rows, and may be run again as a whole when it failed.
    pub fn changes_rows(&self) -> bool {
        match self {
            Self::CreateTable(create) => create.query.is_some(),
            Self::Insert(_) | Self::Delete(_) | Self::Update(_) | Self::CopyFrom(_) => true,
            _ => false,
        }
    }

    /// Whether the statement gives rows and changes nothing.
    pub fn is_read_only(&self) -> bool {
        matches!(
            self,
            Self::Query(_)
                | Self::Explain(_)
                | Self::AnalyzeCompression(_)
                | Self::Show { .. }
                | Self::ShowTables
                | Self::ShowSchemas
                | Self::ShowColumns(_)
                | Self::Describe(_)
                | Self::ShowCreate(_)
        )
    }
}

/// `EXPLAIN [ANALYZE] [VERBOSE] [FORMAT f] statement`.
#[derive(Debug, Clone)]
pub struct Explain {
    /// Run it and show what it did. Only ever true for a query: explaining never writes.
    pub analyze: bool,
    /// Show every plan on the way.
    pub verbose: bool,
    /// The form of the plan; the session's default when absent.
    pub format: Option<ExplainFormat>,
    /// What is explained.
    pub statement: Box<Statement>,
}

/// `CREATE TABLE`.
#[derive(Debug, Clone)]
pub struct CreateTable {
    /// The table.
    pub name: ObjectRef,
    /// Where the name is, for "already exists".
    pub name_position: Position,
    /// Do nothing when the table exists.
    pub if_not_exists: bool,
    /// Replace the table when it exists.
    pub or_replace: bool,
    /// The declared columns; empty when they come from the query alone.
    pub columns: Vec<ColumnSpec>,
    /// `DISTSTYLE` and `DISTKEY`, when given.
    pub distribution: Option<DistributionSpec>,
    /// The columns of `SORTKEY`, the most significant first; empty when not given.
    pub sort_key: Vec<String>,
    /// `REPLICAS n`: copies wanted, when given.
    pub replicas: Option<u32>,
    /// `PRIMARY KEY`, `UNIQUE` and `FOREIGN KEY`: kept, shown and not enforced.
    pub keys: Vec<KeySpec>,
    /// The query of `CREATE TABLE AS`.
    pub query: Option<Box<Query>>,
}

/// One column of `CREATE TABLE`.
#[derive(Debug, Clone)]
pub struct ColumnSpec {
    /// The name.
    pub name: String,
    /// The type as SQL wrote it; [`crate::types::storage_type_of`] gives the stored form.
    pub data_type: DataType,
    /// `NOT NULL`.
    pub not_null: bool,
    /// The text of the expression of `DEFAULT`, and where it is.
    pub default: Option<(String, Position)>,
    /// The encoding of `ENCODE`, and where its name is; absent for AUTO.
    pub encode: Option<(ChunkEncoding, Position)>,
    /// Where the name is.
    pub position: Position,
}

/// A key of a new table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// The name of `CONSTRAINT name`, when given.
    pub name: Option<String>,
    /// What it says.
    pub kind: KeySpecKind,
    /// Its columns, in order.
    pub columns: Vec<(String, Position)>,
    /// Where it begins.
    pub position: Position,
}

/// What a key says of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySpecKind {
    /// `PRIMARY KEY`: its columns are NOT NULL as well, which is enforced.
    Primary,
    /// `UNIQUE`.
    Unique,
    /// `FOREIGN KEY ... REFERENCES`.
    Foreign {
        /// The table that it refers to.
        table: ObjectRef,
        /// Its columns; empty means its primary key.
        columns: Vec<String>,
    },
}

/// How rows are assigned to slices, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DistributionSpec {
    /// `DISTSTYLE AUTO`.
    Auto,
    /// `DISTSTYLE EVEN`.
    Even,
    /// `DISTKEY (column)`.
    Key(String),
    /// `DISTSTYLE ALL`.
    All,
}

/// `DROP TABLE`.
#[derive(Debug, Clone)]
pub struct DropTable {
    /// The tables, in order.
    pub names: Vec<ObjectRef>,
    /// Skip those that do not exist.
    pub if_exists: bool,
}

/// `CREATE VIEW`.
#[derive(Debug, Clone)]
pub struct CreateView {
    /// The view.
    pub name: ObjectRef,
    /// Where the name is.
    pub name_position: Position,
    /// Replace the view when it exists.
    pub or_replace: bool,
    /// Do nothing when the view exists.
    pub if_not_exists: bool,
    /// New names for the query's columns; empty when they stay.
    pub columns: Vec<String>,
    /// The query.
    pub query: Box<Query>,
    /// The text of the query, which the catalog keeps.
    pub query_text: String,
    /// The relations that it names without a schema, with the byte of `query_text` where each
    /// name begins, in order. What names a WITH clause is not among them.
    pub unqualified: Vec<(String, usize)>,
}

/// `DROP VIEW`.
#[derive(Debug, Clone)]
pub struct DropView {
    /// The views, in order.
    pub names: Vec<ObjectRef>,
    /// Skip those that do not exist.
    pub if_exists: bool,
}

/// `CREATE SCHEMA`.
#[derive(Debug, Clone)]
pub struct CreateSchema {
    /// The schema.
    pub name: String,
    /// Do nothing when the schema exists.
    pub if_not_exists: bool,
}

/// `DROP SCHEMA`.
#[derive(Debug, Clone)]
pub struct DropSchema {
    /// The schema.
    pub name: String,
    /// Do nothing when the schema does not exist.
    pub if_exists: bool,
    /// Drop its relations as well.
    pub cascade: bool,
}

/// `INSERT INTO t [(columns)] query`.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The table.
    pub table: ObjectRef,
    /// Where the table's name is.
    pub table_position: Position,
    /// The columns the query fills, in its order; empty means all in the table's order.
    pub columns: Vec<String>,
    /// The rows: a `VALUES` or any query. `None` is one row of defaults: `DEFAULT VALUES`.
    pub source: Option<Box<Query>>,
}

/// `COPY t [(columns)] FROM 'path' ...`.
#[derive(Debug, Clone)]
pub struct CopyFrom {
    /// The table.
    pub table: ObjectRef,
    /// Where the table's name is.
    pub table_position: Position,
    /// The columns to fill by name; `None` means all.
    pub columns: Option<Vec<String>>,
    /// A path, glob or directory on the servers.
    pub path: String,
    /// The format, when named; otherwise the files' extension says.
    pub format: Option<FileFormat>,
    /// How CSV is written.
    pub options: CsvOptions,
}
