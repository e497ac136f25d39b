//! `CommandStatementUpdate`: a statement or a script, run as soon as its one message is here.
//!
//! The answer does not wait for the client to end its side of the stream: some clients read the
//! result first, and a server that waited for them would deadlock (FLIGHT_SQL.md 3.6).

use arrow_flight::sql::CommandStatementUpdate;
use tonic::Status;

use super::caller::Caller;
use super::{FlightSqlServer, command, status};
use crate::backend::UpdateRequest;

impl FlightSqlServer {
    /// Runs every statement of a text in order; the rows affected in total.
    pub(super) async fn update(
        &self,
        caller: Caller,
        update: &CommandStatementUpdate,
    ) -> Result<i64, Status> {
        command::check_no_transaction(update.transaction_id.as_ref())?;
        self.update_sql(caller, &update.query).await
    }

    /// As [`Self::update`], for a bare text.
    pub(super) async fn update_sql(&self, caller: Caller, sql: &str) -> Result<i64, Status> {
        let Caller { session, request } = caller;
        let update = UpdateRequest { session, sql: sql.to_owned(), parameters: None, request };
        let affected = status::guard(sql, self.backend().execute_update(update)).await?;
        Ok(i64::try_from(affected).unwrap_or(i64::MAX))
    }
}
