//! `CommandStatementIngest`: a stream of batches into a table, in one commit.
//!
//! Invariant: batches reach the backend as the client sends them, one at a time; a stream that
//! the client breaks off ends with an error, never as if it were complete.

use arrow_flight::FlightData;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use basalt_engine::snapshot::CATALOG;
use tonic::{Status, Streaming};

use super::caller::Caller;
use super::command::{self, RelationName};
use super::{FlightSqlServer, decode, status};
use crate::backend::{IngestMode, IngestRequest};

impl FlightSqlServer {
    /// Loads an upload as a Flight SQL command says; the rows written.
    pub(super) async fn ingest(
        &self,
        caller: Caller,
        ingest: CommandStatementIngest,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<i64, Status> {
        self.load(request(caller, ingest)?, first, rest).await
    }

    /// Appends an upload to a table named by a path; the rows written.
    pub(super) async fn append(
        &self,
        caller: Caller,
        relation: RelationName,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<i64, Status> {
        let request = IngestRequest {
            session: caller.session,
            schema_name: Some(relation.schema),
            table: relation.name,
            mode: IngestMode::Append,
            options: Vec::new(),
            request: caller.request,
        };
        self.load(request, first, rest).await
    }

    async fn load(
        &self,
        request: IngestRequest,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<i64, Status> {
        let Some(upload) = decode::upload(first, rest).await? else {
            return Err(status::invalid(format!(
                "nothing was sent for table \"{}\": not even a schema",
                request.table
            )));
        };
        let load = self.backend().ingest(request, upload.schema, upload.batches);
        let rows = status::guard("", load).await?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }
}

/// The error of a DoPut without a single message. The Go driver, and so Python's, opens the
/// stream and sends nothing when its data has no batches; it does not even name the table.
pub(super) fn nothing_sent() -> Status {
    status::invalid(
        "no record batch was sent, so the table is unknown and nothing was created or loaded\n\
         HINT: the ADBC driver sends nothing at all for data of zero batches (an empty table \
         of pyarrow or pandas); send one batch of zero rows, or use CREATE TABLE",
    )
}

fn request(caller: Caller, ingest: CommandStatementIngest) -> Result<IngestRequest, Status> {
    command::check_no_transaction(ingest.transaction_id.as_ref())?;
    if ingest.temporary {
        return Err(status::unsupported("temporary tables are not supported"));
    }
    if let Some(catalog) = ingest.catalog.filter(|c| !c.is_empty() && c != CATALOG) {
        return Err(status::invalid(format!(
            "catalog \"{catalog}\" does not exist: the only one is \"{CATALOG}\""
        )));
    }
    if ingest.table.is_empty() {
        return Err(status::invalid("the ingest names no table"));
    }
    let mut options: Vec<_> = ingest.options.into_iter().collect();
    options.sort();
    Ok(IngestRequest {
        session: caller.session,
        schema_name: ingest.schema.filter(|schema| !schema.is_empty()),
        table: ingest.table,
        mode: mode(ingest.table_definition_options)?,
        options,
        request: caller.request,
    })
}

fn mode(options: Option<TableDefinitionOptions>) -> Result<IngestMode, Status> {
    use {TableExistsOption as Exists, TableNotExistOption as Missing};
    let options = options.unwrap_or_default();
    match (options.if_not_exist(), options.if_exists()) {
        (Missing::Create, Exists::Fail) => Ok(IngestMode::Create),
        (Missing::Fail, Exists::Append) => Ok(IngestMode::Append),
        (Missing::Create, Exists::Replace) => Ok(IngestMode::Replace),
        (Missing::Create, Exists::Append) => Ok(IngestMode::CreateAppend),
        (missing, exists) => Err(status::invalid(format!(
            "an ingest cannot combine {} with {}",
            missing.as_str_name(),
            exists.as_str_name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::SessionId;

    #[track_caller]
    fn check_mode(missing: TableNotExistOption, exists: TableExistsOption) -> Option<IngestMode> {
        let options =
            TableDefinitionOptions { if_not_exist: missing as i32, if_exists: exists as i32 };
        mode(Some(options)).ok()
    }

    #[test]
    fn the_four_modes_of_adbc_are_told_apart() {
        use {TableExistsOption as Exists, TableNotExistOption as Missing};
        assert_eq!(check_mode(Missing::Create, Exists::Fail), Some(IngestMode::Create));
        assert_eq!(check_mode(Missing::Fail, Exists::Append), Some(IngestMode::Append));
        assert_eq!(check_mode(Missing::Create, Exists::Replace), Some(IngestMode::Replace));
        assert_eq!(check_mode(Missing::Create, Exists::Append), Some(IngestMode::CreateAppend));
        assert_eq!(check_mode(Missing::Fail, Exists::Fail), None);
        assert_eq!(mode(None).ok(), None);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let ingest = CommandStatementIngest {
            table: "t".to_owned(),
            catalog: Some("other".to_owned()),
            ..CommandStatementIngest::default()
        };
        let status = request(Caller { session: SessionId(1), request: None }, ingest).unwrap_err();
        assert!(status.message().starts_with("catalog \"other\""), "{}", status.message());
    }
}
