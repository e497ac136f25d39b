//! What drivers ask about the database: catalogs, schemas, tables, keys, types.
//!
//! Invariant: answers come from the catalog's snapshot and never contact a worker (RULES 28).
//! Schemas are exactly those of FLIGHT_SQL.md 3.2, nullability included; rows are sorted by
//! name; patterns know `%` and `_`.
//!
//! A ticket of metadata is the command itself: it is stateless, and answered when fetched.
//!
//! - `keys`: primary keys; foreign keys are not told
//! - `pattern`: LIKE patterns
//! - `types`: the SQL types, and what is said of a column besides its Arrow type

mod keys;
mod pattern;
mod types;

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{Command, CommandGetDbSchemas, CommandGetTables};
use arrow_flight::{FlightDescriptor, FlightInfo};
use basalt_engine::error::ErrorCode;
use basalt_engine::snapshot::{CATALOG, Relation, Snapshot};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::Status;

use super::command::RelationName;
use super::{FlightSqlServer, encode, query, status};
use pattern::matches;

const TABLE: &str = "TABLE";
const VIEW: &str = "VIEW";

impl FlightSqlServer {
    /// The schema of the answer to a metadata command; `None` for any other command.
    pub(super) fn metadata_schema(&self, command: &Command) -> Result<Option<SchemaRef>, Status> {
        let schema = match command {
            Command::CommandGetCatalogs(_) => catalogs_schema(),
            Command::CommandGetDbSchemas(_) => db_schemas_schema(),
            Command::CommandGetTables(c) => tables_schema(c.include_schema),
            Command::CommandGetTableTypes(_) => table_types_schema(),
            Command::CommandGetPrimaryKeys(_) => keys::primary_keys_schema(),
            Command::CommandGetImportedKeys(_)
            | Command::CommandGetExportedKeys(_)
            | Command::CommandGetCrossReference(_) => keys::foreign_keys_schema(),
            Command::CommandGetSqlInfo(_) => self.shared.sql_info.schema(),
            Command::CommandGetXdbcTypeInfo(_) => types::xdbc_schema()?,
            _ => return Ok(None),
        };
        Ok(Some(schema))
    }

    /// The answer to a metadata command; `None` for any other command.
    pub(super) async fn metadata(&self, command: &Command) -> Result<Option<RecordBatch>, Status> {
        let batch = match command {
            Command::CommandGetCatalogs(_) => strings(catalogs_schema(), vec![vec![CATALOG]])?,
            Command::CommandGetDbSchemas(c) => self.db_schemas(c)?,
            Command::CommandGetTables(c) => self.tables(c).await?,
            Command::CommandGetTableTypes(_) => {
                strings(table_types_schema(), vec![vec![TABLE, VIEW]])?
            }
            Command::CommandGetPrimaryKeys(c) => keys::primary_keys(&self.backend().snapshot(), c)?,
            Command::CommandGetImportedKeys(_)
            | Command::CommandGetExportedKeys(_)
            | Command::CommandGetCrossReference(_) => {
                RecordBatch::new_empty(keys::foreign_keys_schema())
            }
            Command::CommandGetSqlInfo(c) => self.shared.sql_info.batch(&c.info)?,
            Command::CommandGetXdbcTypeInfo(c) => types::xdbc(c.data_type)?,
            _ => return Ok(None),
        };
        Ok(Some(batch))
    }

    /// Every table and view, as something that can be fetched.
    pub(super) fn list_flights(&self) -> BoxStream<'static, Result<FlightInfo, Status>> {
        let names: Vec<_> = relations(&self.backend().snapshot()).map(|(name, _)| name).collect();
        let service = self.clone();
        stream::iter(names)
            .filter_map(move |name| {
                let service = service.clone();
                async move { service.flight_of(name).await.transpose() }
            })
            .boxed()
    }

    /// `None` when the relation is gone.
    async fn flight_of(&self, name: RelationName) -> Result<Option<FlightInfo>, Status> {
        let Some(schema) = self.relation_schema(&name, TABLE).await? else { return Ok(None) };
        let ticket = name.select_all().into_bytes();
        let descriptor = FlightDescriptor::new_path(vec![name.schema, name.name]);
        query::single_endpoint(&schema, ticket, descriptor).map(Some)
    }

    fn db_schemas(&self, command: &CommandGetDbSchemas) -> Result<RecordBatch, Status> {
        let snapshot = self.backend().snapshot();
        let pattern = command.db_schema_filter_pattern.as_deref();
        let names: Vec<_> = snapshot
            .schemas
            .keys()
            .filter(|name| in_catalog(command.catalog.as_deref()) && matches(pattern, name))
            .map(String::as_str)
            .collect();
        strings(db_schemas_schema(), vec![vec![CATALOG; names.len()], names])
    }

    async fn tables(&self, command: &CommandGetTables) -> Result<RecordBatch, Status> {
        let snapshot = self.backend().snapshot();
        let mut listed = Vec::new();
        let mut schemas = Vec::new();
        for (name, kind) in relations(&snapshot).filter(|(name, kind)| wanted(command, name, kind))
        {
            if command.include_schema {
                let Some(schema) = self.relation_schema(&name, kind).await? else { continue };
                let described = types::describe_columns(&schema, &name);
                schemas.push(encode::schema_bytes(&described)?);
            }
            listed.push((name, kind));
        }
        let names = listed.iter().map(|(name, _)| name);
        let mut columns = vec![
            texts(listed.iter().map(|_| CATALOG)),
            texts(names.clone().map(|name| name.schema.as_str())),
            texts(names.map(|name| name.name.as_str())),
            texts(listed.iter().map(|(_, kind)| *kind)),
        ];
        if command.include_schema {
            columns.push(Arc::new(BinaryArray::from_iter_values(schemas)));
        }
        RecordBatch::try_new(tables_schema(command.include_schema), columns).map_err(unencodable)
    }

    /// The columns of a relation; none for a view that is broken, so that it is listed all the
    /// same; `None` for a relation that was dropped since the snapshot.
    async fn relation_schema(
        &self,
        name: &RelationName,
        kind: &str,
    ) -> Result<Option<SchemaRef>, Status> {
        let columns = self.backend().relation_schema(&name.schema, &name.name);
        match columns.await {
            Ok(schema) => Ok(Some(schema)),
            Err(e) if kind == VIEW => {
                tracing::debug!(view = %name.name, error = %e, "a view cannot be described");
                Ok(Some(Arc::new(Schema::empty())))
            }
            Err(e) if e.code == ErrorCode::UndefinedTable => Ok(None),
            Err(e) => Err(status::from_error(&e, "", None)),
        }
    }
}

/// The FlightInfo of a metadata command: its own ticket.
pub(super) fn info(
    schema: &Schema,
    command: Command,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    query::single_endpoint(schema, command.into_any().encode_to_vec(), descriptor)
}

/// Tables and views with their type, sorted by schema and name.
fn relations(snapshot: &Snapshot) -> impl Iterator<Item = (RelationName, &'static str)> {
    snapshot.schemas.iter().flat_map(|(schema, relations)| {
        relations.relations.iter().map(move |(name, relation)| {
            let kind = match relation {
                Relation::Table(_) => TABLE,
                Relation::View(_) => VIEW,
            };
            (RelationName { schema: schema.clone(), name: name.clone() }, kind)
        })
    })
}

fn wanted(command: &CommandGetTables, name: &RelationName, kind: &str) -> bool {
    in_catalog(command.catalog.as_deref())
        && matches(command.db_schema_filter_pattern.as_deref(), &name.schema)
        && matches(command.table_name_filter_pattern.as_deref(), &name.name)
        && (command.table_types.is_empty() || command.table_types.iter().any(|t| t == kind))
}

/// Whether a catalog filter lets our one catalog through. An empty name asks for what has no
/// catalog: nothing.
fn in_catalog(filter: Option<&str>) -> bool {
    filter.is_none_or(|catalog| catalog == CATALOG)
}

fn strings(schema: SchemaRef, columns: Vec<Vec<&str>>) -> Result<RecordBatch, Status> {
    let columns = columns.into_iter().map(|c| Arc::new(StringArray::from(c)) as ArrayRef).collect();
    RecordBatch::try_new(schema, columns).map_err(unencodable)
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn unencodable(e: arrow::error::ArrowError) -> Status {
    status::error(ErrorCode::Internal, format!("metadata: {e}"))
}

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

fn catalogs_schema() -> SchemaRef {
    schema(vec![text("catalog_name", false)])
}

fn db_schemas_schema() -> SchemaRef {
    schema(vec![text("catalog_name", true), text("db_schema_name", false)])
}

fn table_types_schema() -> SchemaRef {
    schema(vec![text("table_type", false)])
}

fn tables_schema(include_schema: bool) -> SchemaRef {
    let mut fields = vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("table_type", false),
    ];
    if include_schema {
        fields.push(Field::new("table_schema", DataType::Binary, false));
    }
    schema(fields)
}
