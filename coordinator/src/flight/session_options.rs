//! Session options: the catalog and the schema that a session is in.
//!
//! There is one catalog, and unqualified names resolve through one schema: setting either to
//! what it is anyway succeeds, any other value is an INVALID_VALUE and any other option an
//! INVALID_NAME. Bodies are bare protobuf messages, which arrow-flight 59 does not have.

use std::collections::HashMap;

use basalt_engine::snapshot::{CATALOG, DEFAULT_SCHEMA};
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
pub(super) fn set(body: &[u8]) -> Result<Vec<u8>, Status> {
    let request = SetSessionOptionsRequest::decode(body)
        .map_err(|e| status::invalid(format!("SetSessionOptionsRequest is malformed: {e}")))?;
    let errors = request
        .session_options
        .into_iter()
        .filter_map(|(name, option)| {
            let value = refusal(&name, option.value.as_ref())? as i32;
            Some((name, OptionError { value }))
        })
        .collect();
    Ok(SetSessionOptionsResult { errors }.encode_to_vec())
}

/// Why an option cannot be set to a value; no value resets it.
fn refusal(name: &str, value: Option<&OptionValue>) -> Option<OptionErrorValue> {
    let only = match name {
        "catalog" => CATALOG,
        "schema" => DEFAULT_SCHEMA,
        _ => return Some(OptionErrorValue::InvalidName),
    };
    match value {
        None => None,
        Some(OptionValue::Text(text)) if text == only => None,
        Some(_) => Some(OptionErrorValue::InvalidValue),
    }
}

/// Answers GetSessionOptions.
pub(super) fn get() -> Vec<u8> {
    let text = |value: &str| SessionOptionValue { value: Some(OptionValue::Text(value.to_owned())) };
    let session_options = HashMap::from([
        ("catalog".to_owned(), text(CATALOG)),
        ("schema".to_owned(), text(DEFAULT_SCHEMA)),
    ]);
    GetSessionOptionsResult { session_options }.encode_to_vec()
}

/// The answer to CloseSession, once it is done.
pub(super) fn closed() -> Vec<u8> {
    CloseSessionResult { status: CloseStatus::Closed as i32 }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_set(name: &str, value: Option<OptionValue>, expected: Option<OptionErrorValue>) {
        let option = SessionOptionValue { value };
        let request = SetSessionOptionsRequest {
            session_options: HashMap::from([(name.to_owned(), option)]),
        };
        let result = set(&request.encode_to_vec()).unwrap();
        let errors = SetSessionOptionsResult::decode(result.as_slice()).unwrap().errors;
        assert_eq!(errors.get(name).map(|e| e.value), expected.map(|e| e as i32));
    }

    #[test]
    fn only_what_is_true_can_be_set() {
        let text = |t: &str| Some(OptionValue::Text(t.to_owned()));
        check_set("catalog", text(CATALOG), None);
        check_set("schema", text(DEFAULT_SCHEMA), None);
        check_set("schema", None, None);
        check_set("schema", text("other"), Some(OptionErrorValue::InvalidValue));
        check_set("catalog", Some(OptionValue::Int(1)), Some(OptionErrorValue::InvalidValue));
        check_set("colour", text("red"), Some(OptionErrorValue::InvalidName));
    }
}
