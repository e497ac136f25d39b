//! The ten RPCs of Arrow Flight, each routed to the module of its command's family.
//!
//! arrow-flight has a blanket implementation for `FlightSqlService`; it fixes GetSchema,
//! PollFlightInfo and ListFlights to UNIMPLEMENTED and refuses plain SQL, so this is our own.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Command, DoPutUpdateResult};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::command::{self, Target};
use super::{FlightSqlServer, actions, encode, ingest, metadata, session, status};

type Items<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for FlightSqlServer {
    type HandshakeStream = Items<HandshakeResponse>;
    type ListFlightsStream = Items<FlightInfo>;
    type DoGetStream = Items<FlightData>;
    type DoPutStream = Items<PutResult>;
    type DoExchangeStream = Items<FlightData>;
    type DoActionStream = Items<arrow_flight::Result>;
    type ListActionsStream = Items<ActionType>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        session::handshake(request)
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        Ok(Response::new(self.list_flights()))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let caller = Self::caller_of(&request)?;
        self.flight_info(caller, request.into_inner()).await
    }

    /// The whole answer at the first poll: a query is planned at once and runs as it is fetched.
    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let caller = Self::caller_of(&request)?;
        let info = self.flight_info(caller, request.into_inner()).await?;
        Ok(info.map(|info| PollInfo {
            info: Some(info),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time: None,
        }))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let session = Self::session_of(&request)?;
        let target = Target::of_descriptor(request.get_ref())?;
        let schema = match target {
            Target::Sql(sql) => self.describe_schema(session, &sql).await?,
            Target::Relation(name) => self.describe_schema(session, &name.select_all()).await?,
            Target::Command(Command::CommandStatementQuery(query)) => {
                command::check_no_transaction(query.transaction_id.as_ref())?;
                self.describe_schema(session, &query.query).await?
            }
            Target::Command(Command::CommandPreparedStatementQuery(prepared)) => {
                self.prepared_schema(session, &prepared.prepared_statement_handle).await?
            }
            Target::Command(command) => {
                self.metadata_schema(&command)?.ok_or_else(|| misplaced(&command, "GetSchema"))?
            }
        };
        Ok(Response::new(SchemaResult { schema: encode::schema_bytes(&schema)? }))
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let session = Self::session_of(&request)?;
        match Target::of_ticket(request.get_ref())? {
            Target::Command(Command::TicketStatementQuery(ticket)) => self.fetch_ticket(&ticket),
            Target::Command(command) => match self.metadata(&command).await? {
                Some(batch) => Ok(Response::new(encode::batch(batch))),
                None => Err(misplaced(&command, "DoGet")),
            },
            Target::Sql(sql) => self.fetch_sql(session, &sql).await,
            Target::Relation(name) => self.fetch_sql(session, &name.select_all()).await,
        }
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = Self::caller_of(&request)?;
        let result = self.put(caller, request.into_inner()).await?;
        let result = PutResult { app_metadata: result.into() };
        Ok(Response::new(stream::once(async { Ok(result) }).boxed()))
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let session = Self::session_of(&request)?;
        let body = self.action(session, request.get_ref()).await?;
        let results = body.into_iter().map(|body| Ok(arrow_flight::Result { body: body.into() }));
        Ok(Response::new(stream::iter(results.collect::<Vec<_>>()).boxed()))
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Ok(Response::new(stream::iter(actions::list().into_iter().map(Ok)).boxed()))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(status::unsupported("DoExchange is not supported"))
    }
}

impl FlightSqlServer {
    async fn flight_info(
        &self,
        caller: Caller,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        match Target::of_descriptor(&descriptor)? {
            Target::Sql(sql) => self.execute(&caller, &sql, None, descriptor).await,
            Target::Relation(name) => {
                self.execute(&caller, &name.select_all(), None, descriptor).await
            }
            Target::Command(Command::CommandStatementQuery(query)) => {
                command::check_no_transaction(query.transaction_id.as_ref())?;
                self.execute(&caller, &query.query, None, descriptor).await
            }
            Target::Command(Command::CommandPreparedStatementQuery(prepared)) => {
                let handle = prepared.prepared_statement_handle;
                self.execute_prepared(&caller, &handle, descriptor).await
            }
            Target::Command(command) => {
                let schema = self
                    .metadata_schema(&command)?
                    .ok_or_else(|| misplaced(&command, "GetFlightInfo"))?;
                metadata::info(&schema, command, descriptor).map(Response::new)
            }
        }
    }

    /// Does what the first message of an upload says; the metadata of its one result.
    async fn put(
        &self,
        caller: Caller,
        mut upload: Streaming<FlightData>,
    ) -> Result<Vec<u8>, Status> {
        let Some(mut first) = upload.message().await? else { return Err(ingest::nothing_sent()) };
        let descriptor = first
            .flight_descriptor
            .take()
            .ok_or_else(|| status::invalid("the first message of an upload has no descriptor"))?;
        let record_count = match Target::of_descriptor(&descriptor)? {
            Target::Command(Command::CommandStatementUpdate(update)) => {
                self.update(caller, &update).await?
            }
            Target::Command(Command::CommandPreparedStatementQuery(prepared)) => {
                let handle = prepared.prepared_statement_handle;
                let result = self.put_parameters(caller.session, &handle, first, upload).await?;
                return Ok(result.encode_to_vec());
            }
            Target::Command(Command::CommandPreparedStatementUpdate(prepared)) => {
                let handle = prepared.prepared_statement_handle;
                self.put_update(&caller, &handle, first, upload).await?
            }
            Target::Command(Command::CommandStatementIngest(command)) => {
                self.ingest(caller, command, first, upload).await?
            }
            Target::Relation(name) => self.append(caller, name, first, upload).await?,
            Target::Sql(sql) => self.update_sql(caller, &sql).await?,
            Target::Command(command) => return Err(misplaced(&command, "DoPut")),
        };
        Ok(DoPutUpdateResult { record_count }.encode_to_vec())
    }
}

/// A known command in an RPC that it does not belong to, or one that is not supported.
fn misplaced(command: &Command, rpc: &str) -> Status {
    let name = command.type_url().rsplit('.').next().unwrap_or_default();
    status::unsupported(format!("{name} is not supported in {rpc}"))
}
