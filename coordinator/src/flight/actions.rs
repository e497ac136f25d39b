//! DoAction: prepare and close statements, cancel queries, session options.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, Command, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
};
use prost::Message;
use tonic::Status;

use super::command::{self, Target};
use super::handle::Handle;
use super::tickets::Cancelled;
use super::{FlightSqlServer, session_options, status};
use crate::backend::SessionId;

const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";
const CANCEL_QUERY: &str = "CancelQuery";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const SET_SESSION_OPTIONS: &str = "SetSessionOptions";
const GET_SESSION_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

/// What the server can be asked to do, as ListActions answers.
const ACTIONS: [(&str, &str); 7] = [
    (CREATE_PREPARED_STATEMENT, "Prepares a statement; nothing is run."),
    (CLOSE_PREPARED_STATEMENT, "Closes a prepared statement."),
    (CANCEL_QUERY, "Cancels a query by its serialized FlightInfo (superseded)."),
    (CANCEL_FLIGHT_INFO, "Cancels a query by its FlightInfo."),
    (SET_SESSION_OPTIONS, "Sets options of the session: catalog, schema."),
    (GET_SESSION_OPTIONS, "Returns the options of the session."),
    (CLOSE_SESSION, "Closes the prepared statements of the session and resets its settings."),
];

/// The answer to ListActions.
pub(super) fn list() -> Vec<ActionType> {
    ACTIONS
        .iter()
        .map(|(name, description)| ActionType {
            r#type: (*name).to_owned(),
            description: (*description).to_owned(),
        })
        .collect()
}

impl FlightSqlServer {
    /// Does an action: the body of its one result, or none.
    pub(super) async fn action(
        &self,
        session: SessionId,
        action: &Action,
    ) -> Result<Option<Vec<u8>>, Status> {
        let body = action.body.as_ref();
        match action.r#type.as_str() {
            CREATE_PREPARED_STATEMENT => {
                let request: ActionCreatePreparedStatementRequest = unpack(body)?;
                command::check_no_transaction(request.transaction_id.as_ref())?;
                self.prepare(session, &request.query).await.map(Some)
            }
            CLOSE_PREPARED_STATEMENT => {
                let request: ActionClosePreparedStatementRequest = unpack(body)?;
                self.close_prepared(session, &request.prepared_statement_handle);
                Ok(None)
            }
            CANCEL_QUERY => {
                let request: ActionCancelQueryRequest = unpack(body)?;
                let info: FlightInfo = decode(&request.info)?;
                let result = ActionCancelQueryResult { result: self.cancel_info(&info) as i32 };
                Ok(Some(result.as_any().encode_to_vec()))
            }
            CANCEL_FLIGHT_INFO => {
                let request: CancelFlightInfoRequest = decode(body)?;
                let status = self.cancel_info(&request.info.unwrap_or_default()) as i32;
                Ok(Some(CancelFlightInfoResult { status }.encode_to_vec()))
            }
            SET_SESSION_OPTIONS => {
                let set = |schema: Option<&str>| self.backend().set_session_schema(session, schema);
                session_options::set(body, set).map(Some)
            }
            GET_SESSION_OPTIONS => {
                Ok(Some(session_options::get(self.backend().session_schema(session))))
            }
            CLOSE_SESSION => {
                self.reset_session(session);
                Ok(Some(session_options::closed()))
            }
            other => Err(status::unsupported(format!("action \"{other}\" is not supported"))),
        }
    }

    /// Cancels the query whose FlightInfo this is. The values of `CancelStatus` and of CancelQuery's
    /// result are the same.
    fn cancel_info(&self, info: &FlightInfo) -> CancelStatus {
        let handles =
            info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref()).filter_map(
                |ticket| match Target::of_ticket(ticket) {
                    Ok(Target::Command(Command::TicketStatementQuery(ticket))) => {
                        Handle::parse(&ticket.statement_handle)
                    }
                    _ => None,
                },
            );
        let mut cancelled = false;
        for handle in handles {
            cancelled |= match self.shared.tickets.cancel(handle) {
                Cancelled::BeforeStart => true,
                Cancelled::Running(query) => {
                    // The stream ends by itself; the backend frees what runs below it. It may
                    // be over there already, which is as good.
                    self.backend().cancel(query);
                    true
                }
                Cancelled::Unknown => false,
            };
        }
        if cancelled { CancelStatus::Cancelled } else { CancelStatus::NotCancellable }
    }
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|e| status::invalid(format!("the action's body is malformed: {e}")))
}

/// A message that Flight SQL wraps in an `Any`.
fn unpack<M: ProstMessageExt>(body: &[u8]) -> Result<M, Status> {
    let any: Any = decode(body)?;
    match any.unpack() {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(status::invalid(format!(
            "the action's body is {}, and not {}",
            any.type_url,
            M::type_url()
        ))),
        Err(e) => Err(status::invalid(format!("the action's body is malformed: {e}"))),
    }
}
