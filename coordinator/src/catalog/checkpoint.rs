//! A whole state, serialised, so that opening a catalog need not apply its whole log again.
//!
//! ```text
//!  0  magic "BCKP"                      4
//!  4  format version                    2   little endian, as all numbers here
//!  6  zero                              2
//!  8  sequence number of the state      8
//! 16  BLAKE3 of the log record there   32
//! 48  the state as JSON                 n
//! ..  BLAKE3 of everything above       32
//! ```
//! A checkpoint is derived data: the log before it stays, so a damaged one costs time, not state.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use basalt_engine::snapshot::{
    ChosenKey, Distribution, Relation, SchemaSnapshot, TableSnapshot, ViewSnapshot,
};
use basalt_engine::statistics::TableStatistics;
use basalt_storage::command_log::record::Reader;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, TableId, TxnId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::schema::TableSchema;
use serde::{Deserialize, Serialize};

use super::command::RequestKey;
use super::error::CatalogError;
use super::members::LogSets;
use super::record::FORMAT_VERSION;
use super::state::{ClusterState, DroppedTable, RequestOutcome, State, TableEntry};

const MAGIC: &[u8; 4] = b"BCKP";
const HEADER_BYTES: usize = 48;
const DIGEST_BYTES: usize = 32;

/// A state and the log record it was taken after.
pub(super) struct Checkpoint {
    pub(super) state: State,
    pub(super) record: Digest,
}

/// Serialises `state`, which is the state after the log record with digest `record`.
pub(super) fn encode(state: &State, record: Digest) -> Result<Vec<u8>, CatalogError> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&state.version.to_le_bytes());
    bytes.extend_from_slice(record.as_bytes());
    write_document(state, &mut bytes)?;
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    Ok(bytes)
}

/// Checks and parses what [`encode`] made.
pub(super) fn decode(bytes: &[u8]) -> Result<Checkpoint, CatalogError> {
    let mut at = Reader(bytes);
    if at.take::<4>().ok_or_else(|| corrupt("is too short"))? != *MAGIC {
        return Err(corrupt("does not begin like one"));
    }
    let format = u16::from_le_bytes(at.take().ok_or_else(|| corrupt("is too short"))?);
    let (covered, digest) =
        bytes.split_last_chunk::<DIGEST_BYTES>().ok_or_else(|| corrupt("is too short"))?;
    if Digest::of(covered) != Digest::from_bytes(*digest) {
        return Err(corrupt("fails its digest"));
    }
    if format > FORMAT_VERSION {
        return Err(CatalogError::NewerFormat {
            place: "the checkpoint".to_owned(),
            found: format,
            supported: FORMAT_VERSION,
        });
    }
    let header = (at.take::<2>(), at.take::<8>(), at.take::<32>(), covered.get(HEADER_BYTES..));
    let (Some(_), Some(seq), Some(record), Some(json)) = header else {
        return Err(corrupt("is too short"));
    };
    let document: Document<'_> = serde_json::from_slice(json)
        .map_err(|error| corrupt(format!("holds no state: {error}")))?;
    let state = restore(document)?;
    if state.version != u64::from_le_bytes(seq) {
        return Err(corrupt("is of another record than it says"));
    }
    Ok(Checkpoint { state, record: Digest::from_bytes(record) })
}

fn corrupt(problem: impl Into<String>) -> CatalogError {
    CatalogError::Corrupt { place: "the checkpoint".to_owned(), problem: problem.into() }
}

impl State {
    /// Digest of the whole state: equal for states that applied the same commands.
    pub fn digest(&self) -> Result<Digest, CatalogError> {
        let mut bytes = Vec::new();
        write_document(self, &mut bytes)?;
        Ok(Digest::of(&bytes))
    }
}

fn write_document(state: &State, bytes: &mut Vec<u8>) -> Result<(), CatalogError> {
    serde_json::to_writer(bytes, &document(state)?)
        .map_err(|error| CatalogError::invalid(format!("the state cannot be written: {error}")))
}

/// A [`State`] as it is written. Everything is in one order: by name, by id, or by age.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    version: u64,
    cluster: Option<Cow<'a, ClusterState>>,
    next_table: u64,
    unused_tables: Vec<TableId>,
    schemas: Vec<SchemaDocument<'a>>,
    drops: Vec<Cow<'a, DroppedTable>>,
    requests: Vec<(Cow<'a, RequestKey>, Cow<'a, RequestOutcome>)>,
    /// Absent before format 4, and in a log that never had members.
    #[serde(default, skip_serializing_if = "LogSets::is_initial")]
    log_sets: LogSets,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaDocument<'a> {
    name: Cow<'a, str>,
    relations: Vec<RelationDocument<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum RelationDocument<'a> {
    Table(Box<TableDocument<'a>>),
    View { name: Cow<'a, str>, query: Cow<'a, str> },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableDocument<'a> {
    id: TableId,
    name: Cow<'a, str>,
    version: u64,
    columns: Cow<'a, TableSchema>,
    distribution: Distribution,
    sort_key: Cow<'a, [ColumnId]>,
    replicas: u16,
    created_by: TxnId,
    /// Absent in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed_by: Option<TxnId>,
    segments: Vec<Cow<'a, SegmentRecord>>,
    /// Absent before format 6, and in tables that were never analysed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statistics: Option<Cow<'a, TableStatistics>>,
    /// Absent before format 7, and in tables of which none was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chosen_key: Option<Cow<'a, ChosenKey>>,
}

fn document(state: &State) -> Result<Document<'_>, CatalogError> {
    let mut schemas = Vec::with_capacity(state.schemas.len());
    for (name, schema) in &state.schemas {
        let relations = schema.relations.iter().map(|(name, relation)| match relation {
            Relation::Table(table) => table_document(state, table),
            Relation::View(view) => {
                Ok(RelationDocument::View { name: name.into(), query: view.query.as_str().into() })
            }
        });
        let relations = relations.collect::<Result<_, _>>()?;
        schemas.push(SchemaDocument { name: name.into(), relations });
    }
    Ok(Document {
        version: state.version,
        cluster: state.cluster.as_deref().map(Cow::Borrowed),
        next_table: state.next_table,
        unused_tables: state.unused_tables.iter().copied().collect(),
        schemas,
        drops: state.drops.iter().map(Cow::Borrowed).collect(),
        requests: (state.requests.iter())
            .map(|(key, outcome)| (Cow::Borrowed(key), Cow::Borrowed(outcome)))
            .collect(),
        log_sets: state.log_sets.clone(),
    })
}

fn table_document<'a>(
    state: &State,
    table: &'a TableSnapshot,
) -> Result<RelationDocument<'a>, CatalogError> {
    let entry = state.tables.get(&table.id).ok_or_else(|| {
        CatalogError::invalid(format!("table {} has no entry in the index", table.id))
    })?;
    Ok(RelationDocument::Table(Box::new(TableDocument {
        id: table.id,
        name: table.name.as_str().into(),
        version: table.version,
        columns: Cow::Borrowed(&table.schema),
        distribution: table.distribution,
        sort_key: table.sort_key.as_slice().into(),
        replicas: table.replicas,
        created_by: entry.created_by,
        changed_by: Some(entry.changed_by),
        segments: table.segments.iter().map(|segment| Cow::Borrowed(segment.as_ref())).collect(),
        statistics: table.statistics.as_deref().map(Cow::Borrowed),
        chosen_key: table.chosen_key.as_deref().map(Cow::Borrowed),
    })))
}

fn restore(document: Document<'_>) -> Result<State, CatalogError> {
    let mut state = State::new();
    state.version = document.version;
    state.cluster = document.cluster.map(|cluster| Arc::new(cluster.into_owned()));
    state.next_table = document.next_table;
    state.log_sets = document.log_sets;
    state.unused_tables = Arc::new(document.unused_tables.into_iter().collect());
    state.drops = document.drops.into_iter().map(Cow::into_owned).collect::<VecDeque<_>>();
    for (key, outcome) in document.requests {
        state.requests.remember(key.into_owned(), outcome.into_owned());
    }
    for schema in document.schemas {
        restore_schema(&mut state, schema)?;
    }
    Ok(state)
}

fn restore_schema(state: &mut State, document: SchemaDocument<'_>) -> Result<(), CatalogError> {
    let schema_name = document.name.into_owned();
    let mut schema = SchemaSnapshot::default();
    for relation in document.relations {
        let (name, relation) = match relation {
            RelationDocument::View { name, query } => {
                let (name, query) = (name.into_owned(), query.into_owned());
                let schema_name = schema_name.clone();
                let view = ViewSnapshot { schema_name, name: name.clone(), query };
                (name, Relation::View(Arc::new(view)))
            }
            RelationDocument::Table(table) => restore_table(state, &schema_name, *table)?,
        };
        schema.relations.insert(name, relation);
    }
    state.schemas.insert(schema_name, Arc::new(schema));
    Ok(())
}

fn restore_table(
    state: &mut State,
    schema_name: &str,
    document: TableDocument<'_>,
) -> Result<(String, Relation), CatalogError> {
    let name = document.name.into_owned();
    let segments: Vec<_> =
        document.segments.into_iter().map(|segment| Arc::new(segment.into_owned())).collect();
    for segment in &segments {
        if !state.segments.insert(segment.segment) {
            return Err(corrupt(format!("lists segment {} twice", segment.segment)));
        }
    }
    let table = TableSnapshot {
        id: document.id,
        schema_name: schema_name.to_owned(),
        name: name.clone(),
        version: document.version,
        schema: Arc::new(document.columns.into_owned()),
        distribution: document.distribution,
        chosen_key: document.chosen_key.map(|key| Arc::new(key.into_owned())),
        sort_key: document.sort_key.into_owned(),
        replicas: document.replicas,
        segments: segments.into(),
        statistics: document.statistics.map(|statistics| Arc::new(statistics.into_owned())),
    };
    let entry = TableEntry {
        schema: schema_name.to_owned(),
        name: name.clone(),
        created_by: document.created_by,
        changed_by: document.changed_by.unwrap_or(document.created_by),
    };
    if Arc::make_mut(&mut state.tables).insert(document.id, entry).is_some() {
        return Err(corrupt(format!("lists table {} twice", document.id)));
    }
    Ok((name, Relation::Table(Arc::new(table))))
}
