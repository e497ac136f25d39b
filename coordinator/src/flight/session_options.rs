//! Session options: the catalog and the schema that a session is in.
//!
//! There is one catalog: setting it to what it is anyway succeeds. The schema becomes the session's
//! search path, as by `SET SCHEMA`, when there is one of that name. Any other value is an
//! INVALID_VALUE and any other option an INVALID_NAME. Bodies are bare protobuf messages, which arrow-flight 59 does not have.

use std::collections::HashMap;

use basalt_engine::error::SqlError;
use basalt_engine::snapshot::CATALOG;
use prost::Message;
use tonic::Status;

use super::status;

#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CloseSessionResult {
    #[prost(enumeration = "CloseStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionError {
    #[prost(enumeration = "OptionErrorValue", tag = "1")]
    value: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    value: Option<OptionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OptionValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(StringList),
}

#[derive(Clone, PartialEq, prost::Message)]
struct StringList {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum OptionErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum CloseStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

/// Answers SetSessionOptions: the options that could not be set, with the reason.
pub(super) fn set(
    body: &[u8],
    set_schema: impl Fn(Option<&str>) -> Result<(), SqlError>,
) -> Result<Vec<u8>, Status> {
    let request = SetSessionOptionsRequest::decode(body)
        .map_err(|e| status::invalid(format!("SetSessionOptionsRequest is malformed: {e}")))?;
    let errors = request
        .session_options
        .into_iter()
        .filter_map(|(name, option)| {
            let value = refusal(&name, option.value.as_ref(), &set_schema)? as i32;
            Some((name, OptionError { value }))
        })
        .collect();
    Ok(SetSessionOptionsResult { errors }.encode_to_vec())
}

/// Why an option cannot be set to a value; no value resets it.
fn refusal(
    name: &str,
    value: Option<&OptionValue>,
    set_schema: impl Fn(Option<&str>) -> Result<(), SqlError>,
) -> Option<OptionErrorValue> {
    let text = match value {
        None => None,
        Some(OptionValue::Text(text)) => Some(text.as_str()),
        Some(_) if matches!(name, "catalog" | "schema") => {
            return Some(OptionErrorValue::InvalidValue);
        }
        Some(_) => return Some(OptionErrorValue::InvalidName),
    };
    let done = match name {
        "catalog" => text.is_none_or(|text| text == CATALOG),
        "schema" => set_schema(text).is_ok(),
        _ => return Some(OptionErrorValue::InvalidName),
    };
    (!done).then_some(OptionErrorValue::InvalidValue)
}

/// Answers GetSessionOptions.
pub(super) fn get(schema: Option<String>) -> Vec<u8> {
    let text = |value| SessionOptionValue { value: Some(OptionValue::Text(value)) };
    let catalog = ("catalog".to_owned(), text(CATALOG.to_owned()));
    let schema = schema.map(|schema| ("schema".to_owned(), text(schema)));
    let session_options = [catalog].into_iter().chain(schema).collect();
    GetSessionOptionsResult { session_options }.encode_to_vec()
}

/// The answer to CloseSession, once it is done.
pub(super) fn closed() -> Vec<u8> {
    CloseSessionResult { status: CloseStatus::Closed as i32 }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use basalt_engine::error::ErrorCode;

    use super::*;

    #[track_caller]
    fn check_set(name: &str, value: Option<OptionValue>, expected: Option<OptionErrorValue>) {
        let option = SessionOptionValue { value };
        let request = SetSessionOptionsRequest {
            session_options: HashMap::from([(name.to_owned(), option)]),
        };
        let only_public = |schema: Option<&str>| match schema {
            None | Some("public") => Ok(()),
            Some(other) => Err(SqlError::new(ErrorCode::UndefinedTable, other)),
        };
        let result = set(&request.encode_to_vec(), only_public).unwrap();
        let errors = SetSessionOptionsResult::decode(result.as_slice()).unwrap().errors;
        assert_eq!(errors.get(name).map(|e| e.value), expected.map(|e| e as i32));
    }

    #[test]
    fn only_what_is_true_can_be_set() {
        let text = |t: &str| Some(OptionValue::Text(t.to_owned()));
        check_set("catalog", text(CATALOG), None);
        check_set("schema", text("public"), None);
        check_set("schema", None, None);
        check_set("schema", text("other"), Some(OptionErrorValue::InvalidValue));
        check_set("catalog", Some(OptionValue::Int(1)), Some(OptionErrorValue::InvalidValue));
        check_set("colour", text("red"), Some(OptionErrorValue::InvalidName));
    }
}
