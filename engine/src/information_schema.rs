//! The schema `information_schema`: what the snapshot holds, in the standard's tables.
//!
//! Invariant: it lists what Flight SQL's GetTables lists, with the types that `CREATE TABLE` takes.
//! Computed when a statement names one of its tables, from the pinned snapshot alone, so it answers
//! while workers are down (RULES 34). A view that no longer plans is listed without columns.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use basalt_storage::schema::{Column, KeyKind, TableKey};
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::Result;

use crate::session::SessionSpec;
use crate::snapshot::{CATALOG, Relation, TableSnapshot, ViewSnapshot};
use crate::snapshot_catalog::view_table;
use crate::types::{column_type_name, type_name, wire_type};

/// Its name.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// Its tables.
const TABLES: [&str; 6] =
    ["columns", "key_column_usage", "schemata", "table_constraints", "tables", "views"];

/// The schema over one snapshot.
pub(crate) struct InformationSchema {
    spec: Arc<SessionSpec>,
    view_depth: usize,
}

impl InformationSchema {
    pub(crate) fn new(spec: Arc<SessionSpec>, view_depth: usize) -> Self {
        Self { spec, view_depth }
    }

    fn relations(&self) -> impl Iterator<Item = (&str, &str, &Relation)> {
        self.spec.snapshot.schemas.iter().flat_map(|(schema, found)| {
            let relations = found.relations.iter();
            relations.map(move |(name, relation)| (schema.as_str(), name.as_str(), relation))
        })
    }

    fn stored(&self) -> impl Iterator<Item = &TableSnapshot> {
        self.relations().filter_map(|(.., relation)| match relation {
            Relation::Table(table) => Some(table.as_ref()),
            Relation::View(_) => None,
        })
    }

    fn schemata(&self) -> Result<RecordBatch> {
        let names: Vec<_> = self.spec.snapshot.schemas.keys().map(String::as_str).collect();
        let nothing = || nulls(names.len());
        batch([
            ("catalog_name", constant(CATALOG, names.len())),
            ("schema_name", texts(names.iter().copied())),
            ("schema_owner", nothing()),
        ])
    }

    fn tables(&self) -> Result<RecordBatch> {
        let all: Vec<_> = self.relations().collect();
        let of = |table: &'static str, view: &'static str| {
            texts(all.iter().map(move |(.., relation)| match relation {
                Relation::Table(_) => table,
                Relation::View(_) => view,
            }))
        };
        batch([
            ("table_catalog", constant(CATALOG, all.len())),
            ("table_schema", texts(all.iter().map(|(schema, ..)| *schema))),
            ("table_name", texts(all.iter().map(|(_, name, _)| *name))),
            ("table_type", of("BASE TABLE", "VIEW")),
            ("is_insertable_into", of("YES", "NO")),
        ])
    }

    fn views(&self) -> Result<RecordBatch> {
        let views: Vec<&ViewSnapshot> = self
            .relations()
            .filter_map(|(.., relation)| match relation {
                Relation::View(view) => Some(view.as_ref()),
                Relation::Table(_) => None,
            })
            .collect();
        batch([
            ("table_catalog", constant(CATALOG, views.len())),
            ("table_schema", texts(views.iter().map(|view| view.schema_name.as_str()))),
            ("table_name", texts(views.iter().map(|view| view.name.as_str()))),
            ("view_definition", texts(views.iter().map(|view| view.query.as_str()))),
            ("check_option", constant("NONE", views.len())),
            ("is_updatable", constant("NO", views.len())),
        ])
    }

    async fn columns(&self) -> Result<RecordBatch> {
        let mut columns = Vec::new();
        for (schema, name, relation) in self.relations() {
            match relation {
                Relation::Table(table) => {
                    let stored = table.schema.columns.iter();
                    columns.extend(stored.zip(1..).map(|(column, position)| {
                        ColumnRow::stored(schema, name, position, column)
                    }));
                }
                Relation::View(view) => {
                    let Ok(view) = view_table(&self.spec, view, self.view_depth).await else {
                        continue;
                    };
                    let fields = view.schema();
                    columns.extend(
                        fields.fields().iter().zip(1..).map(|(field, position)| {
                            ColumnRow::viewed(schema, name, position, field)
                        }),
                    );
                }
            }
        }
        column_rows(&columns)
    }

    fn keys(&self) -> Vec<(&TableSnapshot, &TableKey)> {
        self.stored()
            .flat_map(|table| table.schema.keys.iter().map(move |key| (table, key)))
            .collect()
    }

    fn table_constraints(&self) -> Result<RecordBatch> {
        let keys = self.keys();
        let kinds = keys.iter().map(|(_, key)| match key.kind {
            KeyKind::Primary => "PRIMARY KEY",
            KeyKind::Unique => "UNIQUE",
            KeyKind::Foreign { .. } => "FOREIGN KEY",
        });
        let schemas = || texts(keys.iter().map(|(table, _)| table.schema_name.as_str()));
        batch([
            ("constraint_catalog", constant(CATALOG, keys.len())),
            ("constraint_schema", schemas()),
            ("constraint_name", texts(keys.iter().map(|(_, key)| key.name.as_str()))),
            ("table_catalog", constant(CATALOG, keys.len())),
            ("table_schema", schemas()),
            ("table_name", texts(keys.iter().map(|(table, _)| table.name.as_str()))),
            ("constraint_type", texts(kinds)),
            ("enforced", constant("NO", keys.len())),
        ])
    }

    fn key_column_usage(&self) -> Result<RecordBatch> {
        let all: Vec<_> = self
            .keys()
            .into_iter()
            .flat_map(|(table, key)| {
                let columns = key.columns.iter().zip(1..);
                columns.map(move |(column, position)| (table, key, *column, position))
            })
            .collect();
        let names = all.iter().map(|(table, _, column, _)| {
            table.schema.column(*column).map_or("?", |column| column.name.as_str())
        });
        let schemas = || texts(all.iter().map(|(table, ..)| table.schema_name.as_str()));
        batch([
            ("constraint_catalog", constant(CATALOG, all.len())),
            ("constraint_schema", schemas()),
            ("constraint_name", texts(all.iter().map(|(_, key, ..)| key.name.as_str()))),
            ("table_catalog", constant(CATALOG, all.len())),
            ("table_schema", schemas()),
            ("table_name", texts(all.iter().map(|(table, ..)| table.name.as_str()))),
            ("column_name", texts(names)),
            ("ordinal_position", numbers(all.iter().map(|(.., position)| Some(*position)))),
        ])
    }
}

impl fmt::Debug for InformationSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InformationSchema")
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        TABLES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let batch = match name {
            "columns" => Box::pin(self.columns()).await?,
            "key_column_usage" => self.key_column_usage()?,
            "schemata" => self.schemata()?,
            "table_constraints" => self.table_constraints()?,
            "tables" => self.tables()?,
            "views" => self.views()?,
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.contains(&name)
    }
}

/// One row of `columns`.
struct ColumnRow<'a> {
    schema: &'a str,
    table: &'a str,
    name: String,
    position: i32,
    default: Option<&'a str>,
    nullable: bool,
    type_name: String,
    chars_max: Option<i32>,
    /// Digits, their base, and how many stand after the point.
    numeric: Option<(i32, i32, Option<i32>)>,
}

impl<'a> ColumnRow<'a> {
    fn stored(schema: &'a str, table: &'a str, position: i32, column: &'a Column) -> Self {
        Self {
            schema,
            table,
            name: column.name.clone(),
            position,
            default: column.declared.default.as_deref(),
            nullable: column.nullable,
            type_name: column_type_name(column),
            chars_max: column.declared.chars_max.and_then(|chars| i32::try_from(chars).ok()),
            numeric: numeric(&column.data_type),
        }
    }

    fn viewed(
        schema: &'a str,
        table: &'a str,
        position: i32,
        field: &arrow::datatypes::Field,
    ) -> Self {
        let data_type = wire_type(field.data_type());
        Self {
            schema,
            table,
            name: field.name().clone(),
            position,
            default: None,
            nullable: true,
            type_name: type_name(&data_type).unwrap_or_else(|arrow| arrow),
            chars_max: None,
            numeric: numeric(&data_type),
        }
    }
}

fn column_rows(rows: &[ColumnRow<'_>]) -> Result<RecordBatch> {
    let yes_or_no = rows.iter().map(|row| if row.nullable { "YES" } else { "NO" });
    let numeric = |part: fn((i32, i32, Option<i32>)) -> Option<i32>| {
        numbers(rows.iter().map(|row| row.numeric.and_then(part)))
    };
    batch([
        ("table_catalog", constant(CATALOG, rows.len())),
        ("table_schema", texts(rows.iter().map(|row| row.schema))),
        ("table_name", texts(rows.iter().map(|row| row.table))),
        ("column_name", texts(rows.iter().map(|row| row.name.as_str()))),
        ("ordinal_position", numbers(rows.iter().map(|row| Some(row.position)))),
        (
            "column_default",
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.default))) as ArrayRef,
        ),
        ("is_nullable", texts(yes_or_no)),
        ("data_type", texts(rows.iter().map(|row| row.type_name.as_str()))),
        ("character_maximum_length", numbers(rows.iter().map(|row| row.chars_max))),
        ("numeric_precision", numeric(|(digits, ..)| Some(digits))),
        ("numeric_precision_radix", numeric(|(_, base, _)| Some(base))),
        ("numeric_scale", numeric(|(.., scale)| scale)),
    ])
}

/// Digits of a number type, in base 2 or 10 as in PostgreSQL.
fn numeric(data_type: &DataType) -> Option<(i32, i32, Option<i32>)> {
    use DataType as T;
    let bits = |bits| Some((bits, 2, Some(0)));
    match data_type {
        T::Int8 | T::UInt8 => bits(8),
        T::Int16 | T::UInt16 => bits(16),
        T::Int32 | T::UInt32 => bits(32),
        T::Int64 | T::UInt64 => bits(64),
        T::Float32 => Some((24, 2, None)),
        T::Float64 => Some((53, 2, None)),
        T::Decimal128(digits, scale) => Some((i32::from(*digits), 10, Some(i32::from(*scale)))),
        _ => None,
    }
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn constant(value: &str, rows: usize) -> ArrayRef {
    texts(std::iter::repeat_n(value, rows))
}

fn nulls(rows: usize) -> ArrayRef {
    Arc::new(StringArray::new_null(rows))
}

fn numbers(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(Int32Array::from_iter(values))
}
