//! What a descriptor or a ticket asks for.
//!
//! Flight SQL wraps its commands in a protobuf `Any`. Users of plain Flight send the text of a
//! statement instead (`FlightDescriptor.for_command(b"SELECT 1")`), or a path: both are taken
//! when the bytes are no Flight SQL command.

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{FlightDescriptor, Ticket};
use basalt_engine::snapshot::DEFAULT_SCHEMA;
use prost::Message;
use tonic::Status;

use super::status;

/// The type URLs of Flight SQL's messages start with this.
const FLIGHT_SQL_PREFIX: &str = "type.googleapis.com/arrow.flight.protocol.";

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    /// A Flight SQL command.
    Command(Command),
    /// The text of a statement.
    Sql(String),
    /// A table or view by name.
    Relation(RelationName),
}

/// A table or view, by schema and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelationName {
    pub(super) schema: String,
    pub(super) name: String,
}

impl RelationName {
    /// The query that reads the whole relation.
    pub(super) fn select_all(&self) -> String {
        let quote = |name: &str| name.replace('"', "\"\"");
        format!("SELECT * FROM \"{}\".\"{}\"", quote(&self.schema), quote(&self.name))
    }

    fn from_path(path: &[String]) -> Result<Self, Status> {
        match path {
            [name] => Ok(Self { schema: DEFAULT_SCHEMA.to_owned(), name: name.clone() }),
            [schema, name] => Ok(Self { schema: schema.clone(), name: name.clone() }),
            _ => Err(status::invalid(format!(
                "a path of {} parts names no table: use [table] or [schema, table]",
                path.len()
            ))),
        }
    }
}

impl Target {
    /// Reads a descriptor.
    pub(super) fn of_descriptor(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        if descriptor.r#type == DescriptorType::Path as i32 {
            return RelationName::from_path(&descriptor.path).map(Self::Relation);
        }
        Self::of_bytes(&descriptor.cmd, "descriptor")
    }

    /// Reads a ticket.
    pub(super) fn of_ticket(ticket: &Ticket) -> Result<Self, Status> {
        Self::of_bytes(&ticket.ticket, "ticket")
    }

    fn of_bytes(bytes: &[u8], what: &str) -> Result<Self, Status> {
        if let Ok(any) = Any::decode(bytes) {
            match Command::try_from(any) {
                Ok(Command::Unknown(any)) if any.type_url.starts_with(FLIGHT_SQL_PREFIX) => {
                    let url = any.type_url;
                    return Err(status::unsupported(format!("command {url} is not supported")));
                }
                Ok(Command::Unknown(_)) => {}
                Ok(command) => return Ok(Self::Command(command)),
                Err(e) => return Err(status::invalid(format!("the {what} is malformed: {e}"))),
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(sql) if !sql.trim().is_empty() => Ok(Self::Sql(sql.to_owned())),
            Ok(_) => Err(status::invalid(format!("the {what} is empty"))),
            Err(_) => Err(status::invalid(format!(
                "the {what} is neither a Flight SQL command nor the text of a statement"
            ))),
        }
    }
}

/// Refuses a command in a transaction: no transaction was ever begun here.
pub(super) fn check_no_transaction(id: Option<&bytes::Bytes>) -> Result<(), Status> {
    match id {
        Some(id) if !id.is_empty() => Err(status::error(
            basalt_engine::error::ErrorCode::UnknownHandle,
            "the transaction is unknown: this server has no transactions yet",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};

    use super::*;

    #[track_caller]
    fn check_sql(text: &str) {
        let descriptor = FlightDescriptor::new_cmd(text.as_bytes().to_vec());
        assert_eq!(Target::of_descriptor(&descriptor).unwrap(), Target::Sql(text.to_owned()));
    }

    #[test]
    fn text_is_taken_for_sql() {
        check_sql("SELECT 1");
        check_sql("\n\n-- a comment\nselect 'é'");
        check_sql("WITH t AS (SELECT 1) SELECT * FROM t");
        check_sql("(SELECT 1)");
    }

    #[test]
    fn a_wrapped_command_is_taken_for_itself() {
        let query = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
        assert_eq!(
            Target::of_descriptor(&descriptor).unwrap(),
            Target::Command(Command::CommandStatementQuery(query))
        );
    }

    #[test]
    fn an_unknown_command_of_flight_sql_is_unimplemented() {
        let any = Any { type_url: format!("{FLIGHT_SQL_PREFIX}sql.New"), value: "x".into() };
        let ticket = Ticket::new(any.encode_to_vec());
        assert_eq!(Target::of_ticket(&ticket).unwrap_err().code(), tonic::Code::Unimplemented);
    }

    #[test]
    fn bytes_that_are_neither_are_refused() {
        for bytes in [&b""[..], b"  ", b"\xff\xfe\x00"] {
            let status = Target::of_ticket(&Ticket::new(bytes.to_vec())).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn a_path_names_a_relation_and_is_quoted() {
        let path = FlightDescriptor::new_path(vec!["s".to_owned(), "a\"b".to_owned()]);
        let Target::Relation(name) = Target::of_descriptor(&path).unwrap() else {
            panic!("a path names a relation")
        };
        assert_eq!(name.select_all(), "SELECT * FROM \"s\".\"a\"\"b\"");
    }
}
