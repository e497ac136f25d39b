//! Identifiers and qualified names, normalised the PostgreSQL way.
//!
//! Invariant: an unquoted identifier is lower-cased (ASCII, as DataFusion does, so that a name
//! means the same in DDL and in a query), a quoted one is kept; both have 1 to
//! [`NAME_CHARS_MAX`] characters and no NUL.

use std::fmt;

use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::syntax::position_of;
use crate::error::{ErrorCode, Position, SqlError, printable};
use crate::snapshot::{CATALOG, DEFAULT_SCHEMA};

/// The longest name, in characters: what the catalog promises for tables and columns.
pub const NAME_CHARS_MAX: usize = 255;

/// The name of a table or view: `[schema.]name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// The schema, when written.
    pub schema: Option<String>,
    /// The name in the schema.
    pub name: String,
}

impl ObjectRef {
    /// The schema this name resolves in: the written one or [`DEFAULT_SCHEMA`].
    pub fn schema_or_default(&self) -> &str {
        self.schema.as_deref().unwrap_or(DEFAULT_SCHEMA)
    }

    /// The name as DataFusion's planner takes it.
    pub fn to_table_reference(&self) -> TableReference {
        match &self.schema {
            Some(schema) => TableReference::partial(schema.as_str(), self.name.as_str()),
            None => TableReference::bare(self.name.as_str()),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// An identifier as it is compared, whatever its length.
pub(super) fn normalized(ident: &Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    }
}

/// The normalised text of an identifier.
///
/// # Errors
///
/// [`ErrorCode::InvalidStatement`] when it is empty, too long or contains NUL.
pub fn normalize(ident: &Ident) -> Result<String, SqlError> {
    let name = normalized(ident);
    let at = |error: SqlError| match position_of(ident.span) {
        Some(position) => error.at(position),
        None => error,
    };
    check_name(&name).map(|()| name).map_err(at)
}

/// Checks a name that a user gave to something: 1 to [`NAME_CHARS_MAX`] characters, no NUL.
///
/// # Errors
///
/// [`ErrorCode::InvalidStatement`] naming what is wrong.
pub fn check_name(name: &str) -> Result<(), SqlError> {
    let invalid = |message: String| Err(SqlError::new(ErrorCode::InvalidStatement, message));
    if name.is_empty() {
        return invalid("a name is empty".to_owned());
    }
    if name.contains('\0') {
        return invalid(format!("name \"{}\" contains a NUL character", printable(name)));
    }
    let chars = name.chars().count();
    if chars > NAME_CHARS_MAX {
        let start: String = name.chars().take(32).collect();
        return invalid(format!(
            "name \"{}...\" has {chars} characters: at most {NAME_CHARS_MAX} are allowed",
            printable(&start)
        ));
    }
    Ok(())
}

/// A relation's name of one, two or (with this cluster's catalog) three parts.
pub(super) fn object_ref(name: &ObjectName) -> Result<(ObjectRef, Position), SqlError> {
    let parts = idents(name)?;
    let position =
        parts.first().and_then(|ident| position_of(ident.span)).unwrap_or(Position::START);
    let normal = parts.iter().map(|ident| normalize(ident)).collect::<Result<Vec<_>, _>>()?;
    match normal.as_slice() {
        [name] => Ok((ObjectRef { schema: None, name: name.clone() }, position)),
        [schema, name] => {
            Ok((ObjectRef { schema: Some(schema.clone()), name: name.clone() }, position))
        }
        [catalog, schema, name] if catalog == CATALOG => {
            Ok((ObjectRef { schema: Some(schema.clone()), name: name.clone() }, position))
        }
        _ => Err(SqlError::new(
            ErrorCode::InvalidStatement,
            format!("name \"{name}\" has too many parts, or names another catalog"),
        )
        .at(position)
        .with_hint(format!("write schema.name; the only catalog is \"{CATALOG}\""))),
    }
}

/// A schema's name of one or (with this cluster's catalog) two parts.
pub(super) fn schema_name(name: &ObjectName) -> Result<String, SqlError> {
    let (object, position) = object_ref(name)?;
    match object.schema {
        None => Ok(object.name),
        Some(catalog) if catalog == CATALOG => Ok(object.name),
        Some(_) => Err(SqlError::new(
            ErrorCode::InvalidStatement,
            format!("schema name \"{name}\" has too many parts"),
        )
        .at(position)),
    }
}

fn idents(name: &ObjectName) -> Result<Vec<&Ident>, SqlError> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(ident),
            ObjectNamePart::Function(_) => Err(SqlError::new(
                ErrorCode::FeatureNotSupported,
                format!("name \"{name}\" is a function call, where a plain name is expected"),
            )),
        })
        .collect()
}
