//! The one place where [`DataFusionError`] is crossed.
//!
//! Invariant: what a variant says is believed before what its text says, and an error of ours comes
//! out as it went in, also after it travelled as text through datafusion-distributed, which keeps
//! the variants of DataFusion and Arrow over the wire and only the text of all others.

use std::error::Error;
use std::fmt;

use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use datafusion::common::{Column, Diagnostic, SchemaError};
use datafusion::error::DataFusionError;

use super::wording::{no_signature, with_sql_types};
use super::{ErrorCode, Position, SqlError, did_you_mean, did_you_mean_among, printable};
use crate::dialect;
use crate::snapshot::{CATALOG, DEFAULT_SCHEMA};
use crate::snapshot_catalog::SEARCH_PATH_SCHEMA;

/// An error of ours on its way through DataFusion.
///
/// Its text is the error in full, because text is all that crosses from worker to coordinator.
#[derive(Debug)]
pub(super) struct Carried(pub(super) SqlError);

/// Separates the parts of a [`Carried`] error's text; messages cannot contain it.
const SEPARATOR: char = '\u{1f}';

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SqlError { code, message, position, hint } = &self.0;
        let Position { line, column } = position.unwrap_or(Position { line: 0, column: 0 });
        let (code, s) = (code.name(), SEPARATOR);
        let message = message.replace(SEPARATOR, " ");
        let hint = hint.as_deref().unwrap_or_default().replace(SEPARATOR, " ");
        write!(f, "{s}{code}{s}{line}{s}{column}{s}{message}{s}{hint}{s}")
    }
}

impl Error for Carried {}

/// An error as the text that crosses from a worker, for where no error of DataFusion carries it.
pub(crate) fn carried_text(error: SqlError) -> String {
    Carried(error).to_string()
}

/// An error of a fragment as it crosses from a worker. Only text does: so what is about a
/// connection to another worker becomes an error of ours here, where its type is known. Of
/// everything else the coordinator knows more.
pub(crate) fn crossing(error: DataFusionError) -> DataFusionError {
    let sql = convert(&error, &Context { relations: &[], diagnostic: None });
    if sql.code == ErrorCode::Unavailable { sql.into() } else { error }
}

/// Finds a [`Carried`] error in a text that may have more around it.
fn parse_carried(text: &str) -> Option<SqlError> {
    let mut parts = text.split(SEPARATOR).skip(1);
    let code = ErrorCode::from_name(parts.next()?)?;
    let line = parts.next()?.parse::<u64>().ok()?;
    let column = parts.next()?.parse::<u64>().ok()?;
    let message = parts.next()?.to_owned();
    let hint = parts.next()?;
    let position = (line > 0).then_some(Position { line, column });
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    Some(SqlError { code, message, position, hint })
}

/// What the user reads of an error of DataFusion.
pub fn from_datafusion(error: DataFusionError) -> SqlError {
    from_datafusion_with_relations(error, &[])
}

/// As [`from_datafusion`]; a table that does not exist is compared with the names in `relations`.
pub fn from_datafusion_with_relations(error: DataFusionError, relations: &[&str]) -> SqlError {
    let mut sql = convert(&error, &Context { relations, diagnostic: None });
    sql.message = tidy(&sql.message);
    sql
}

/// What was learnt on the way to the innermost error.
#[derive(Clone, Copy)]
struct Context<'a> {
    relations: &'a [&'a str],
    diagnostic: Option<&'a Diagnostic>,
}

impl Context<'_> {
    fn position(&self) -> Option<Position> {
        let start = self.diagnostic?.span?.start;
        Some(Position { line: start.line, column: start.column })
    }
}

fn convert(error: &DataFusionError, context: &Context<'_>) -> SqlError {
    let plain = |code, message: &str| with_details(code, message, context);
    match error {
        DataFusionError::Context(_, inner) => convert(inner, context),
        DataFusionError::Shared(inner) => convert(inner, context),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            // The innermost diagnostic is the most precise one that has a place.
            let better = diagnostic.span.is_some() || context.diagnostic.is_none();
            let diagnostic = if better { Some(&**diagnostic) } else { context.diagnostic };
            convert(inner, &Context { diagnostic, ..*context })
        }
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => convert(first, context),
            None => internal("an empty list of errors"),
        },
        DataFusionError::ArrowError(error, _) => from_arrow(error, context),
        DataFusionError::ParquetError(error) => {
            SqlError::new(ErrorCode::SourceFile, error.to_string())
        }
        DataFusionError::SQL(error, _) => dialect::parser_error(error),
        DataFusionError::SchemaError(error, _) => from_schema(error, context),
        DataFusionError::NotImplemented(text) => not_implemented(text, context),
        DataFusionError::Plan(text) => from_plan_text(text, context),
        DataFusionError::Configuration(text) => plain(ErrorCode::InvalidParameter, text),
        // datafusion-distributed, when the first half of a dispatch got lost.
        DataFusionError::Execution(text)
            if text.contains("timed-out while waiting for the plan") =>
        {
            unavailable(text)
        }
        DataFusionError::Execution(text) => value_problem(text, context),
        DataFusionError::ResourcesExhausted(text) => exhausted(text, context),
        DataFusionError::IoError(error) => from_io(error),
        DataFusionError::ExecutionJoin(error) if error.is_cancelled() => {
            SqlError::new(ErrorCode::Cancelled, "the statement was cancelled")
        }
        DataFusionError::ExecutionJoin(_) => internal("a task of the statement panicked"),
        DataFusionError::External(error) => from_external(error.as_ref(), context),
        DataFusionError::Internal(text)
        | DataFusionError::Substrait(text)
        | DataFusionError::Ffi(text) => from_internal_text(text),
        other => internal(&other.to_string()),
    }
}

/// What DataFusion takes for a bug of its own and a user can do something about.
fn from_internal_text(text: &str) -> SqlError {
    if let Some(sql) = parse_carried(text) {
        return sql;
    }
    pattern_problem(text).unwrap_or_else(|| internal(text))
}

/// What is wrong with a value, where only a text says it.
fn value_problem(text: &str, context: &Context<'_>) -> SqlError {
    if let Some(sql) = pattern_problem(text) {
        return sql;
    }
    if let Some((_, call)) = text.split_once("Array overflow on ") {
        return with_details(
            ErrorCode::NumericOutOfRange,
            &format!("value out of range: {call}"),
            context,
        );
    }
    const NUMBERS: [&str; 2] = ["Decimal overflow", "Signed integer overflow"];
    let code = match NUMBERS.iter().any(|part| text.starts_with(part)) {
        true => ErrorCode::NumericOutOfRange,
        false => ErrorCode::DataException,
    };
    with_details(code, text, context)
}

/// What is wrong with a pattern, from the texts that the regex crate's errors arrive in.
fn pattern_problem(text: &str) -> Option<SqlError> {
    let too_large = ["CompiledTooBig(", "ompiled regex exceeds size limit"];
    let why = if too_large.iter().any(|part| text.contains(part)) {
        "compiled, it is too large"
    } else if let Some((_, picture)) = text.split_once("regex parse error:") {
        // The crate prints a picture of the pattern before it says what is wrong; where that is
        // printed for programmers, a frame follows.
        let why = picture.rsplit_once("error: ").map_or(picture, |(_, why)| why).trim();
        why.split_once('\n').map_or(why, |(why, _)| why)
    } else {
        text.split_once("egular expression did not compile: ")?.1
    };
    let message = format!("a regular expression cannot be used: {}", lower_first(why.trim()));
    Some(
        SqlError::new(ErrorCode::DataException, message).with_hint(
            "its syntax is that of Rust's regex crate, and compiled it has at most 10 MiB",
        ),
    )
}

/// What DataFusion says when the disk that it may spill to is used up.
const SPILL_TEXT: &str = "disk space during the spilling process has exceeded";

/// A budget is used up; the settings that DataFusion advises to raise are not the user's to set.
fn exhausted(text: &str, context: &Context<'_>) -> SqlError {
    let sql = match text.contains(SPILL_TEXT) {
        true => SqlError::new(
            ErrorCode::ResourcesExhausted,
            "the statement needs more spill space than there is",
        ),
        false => with_details(ErrorCode::ResourcesExhausted, text, context),
    };
    match sql.hint {
        Some(_) => sql,
        None => sql.with_hint("sort, group or join fewer rows or columns at a time"),
    }
}

/// Errors of libraries that DataFusion hands through.
fn from_external(error: &(dyn Error + Send + Sync + 'static), context: &Context<'_>) -> SqlError {
    if let Some(Carried(sql)) = error.downcast_ref::<Carried>() {
        return sql.clone();
    }
    if let Some(sql) = error.downcast_ref::<SqlError>() {
        return sql.clone();
    }
    if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        return convert(inner, context);
    }
    if let Some(inner) = error.downcast_ref::<ArrowError>() {
        return from_arrow(inner, context);
    }
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        return from_status(status);
    }
    if let Some(FlightError::Tonic(status)) = error.downcast_ref::<FlightError>() {
        return from_status(status);
    }
    if let Some(inner) = error.downcast_ref::<std::io::Error>() {
        return from_io(inner);
    }
    let text = error.to_string();
    if let Some(sql) = parse_carried(&text) {
        return sql;
    }
    if error.is::<tonic::transport::Error>() {
        return unavailable(&text);
    }
    from_internal_text(&text)
}

fn from_arrow(error: &ArrowError, context: &Context<'_>) -> SqlError {
    let plain = |code, message: &str| with_details(code, message, context);
    match error {
        ArrowError::ExternalError(inner) => from_external(inner.as_ref(), context),
        ArrowError::DivideByZero => plain(ErrorCode::DataException, "division by zero"),
        ArrowError::ArithmeticOverflow(text) => {
            let what = text.strip_prefix("Overflow happened on: ").map(str::to_owned);
            let what = what.unwrap_or_else(|| lower_first(text));
            plain(ErrorCode::NumericOutOfRange, &format!("value out of range: {what}"))
        }
        ArrowError::CastError(text) | ArrowError::InvalidArgumentError(text)
            if OUT_OF_RANGE_TEXTS.iter().any(|part| text.contains(part)) =>
        {
            plain(ErrorCode::NumericOutOfRange, &with_sql_types(text))
        }
        ArrowError::CastError(text) => plain(ErrorCode::DataException, &with_sql_types(text)),
        ArrowError::ParseError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::InvalidArgumentError(text) => value_problem(text, context),
        ArrowError::MemoryError(text) => plain(ErrorCode::ResourcesExhausted, text),
        ArrowError::OffsetOverflowError(_) => {
            plain(ErrorCode::ResourcesExhausted, "a value or a batch of values is over 2 GiB")
        }
        ArrowError::NotYetImplemented(text) => plain(ErrorCode::FeatureNotSupported, text),
        ArrowError::CsvError(text)
        | ArrowError::JsonError(text)
        | ArrowError::AvroError(text)
        | ArrowError::ParquetError(text) => plain(ErrorCode::SourceFile, text),
        ArrowError::IoError(_, error) => from_io(error),
        ArrowError::IpcError(text) => unavailable(text),
        ArrowError::SchemaError(text) | ArrowError::CDataInterface(text) => internal(text),
        ArrowError::DictionaryKeyOverflowError | ArrowError::RunEndIndexOverflowError => {
            internal(&error.to_string())
        }
    }
}

/// Parts of the texts that Arrow's casts have for a number that does not fit its new type.
const OUT_OF_RANGE_TEXTS: [&str; 4] =
    ["Can't cast value", "to store in a Decimal", "is out of range", "Overflowing on"];

fn from_schema(error: &SchemaError, context: &Context<'_>) -> SqlError {
    let at = |mut sql: SqlError, field: Option<&Column>| {
        let start = field.and_then(|field| field.spans().first()).map(|span| span.start);
        let of_field = start.map(|at| Position { line: at.line, column: at.column });
        sql.position = sql.position.or(of_field).or(context.position());
        sql
    };
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            at(field_not_found(field, valid_fields), Some(field))
        }
        SchemaError::AmbiguousReference { field } => {
            let name = printable(&field.name);
            let sql = SqlError::new(
                ErrorCode::InvalidStatement,
                format!("column \"{name}\" is in more than one table"),
            );
            at(sql.with_hint(format!("write the table before it, as in t.{name}")), Some(field))
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            let name = printable(name);
            let message = format!("column \"{name}\" appears more than once");
            let sql = SqlError::new(ErrorCode::InvalidStatement, message);
            at(sql.with_hint("give one of them another name with AS"), None)
        }
    }
}

fn field_not_found(field: &Column, valid: &[Column]) -> SqlError {
    if let Some(relation) = &field.relation
        && !valid.is_empty()
        && !valid.iter().any(|v| v.relation.as_ref().is_some_and(|r| r.resolved_eq(relation)))
    {
        let mut tables: Vec<&str> =
            valid.iter().filter_map(|v| v.relation.as_ref()).map(|r| r.table()).collect();
        tables.dedup();
        let name = printable(relation.table());
        let sql = SqlError::new(
            ErrorCode::UndefinedTable,
            format!("table \"{name}\" is not in the FROM clause"),
        );
        return did_you_mean_among(sql, &name, "tables", &tables);
    }
    let shown = match &field.relation {
        Some(relation) => format!("{}.{}", relation.table(), field.name),
        None => field.name.clone(),
    };
    let sql = SqlError::new(
        ErrorCode::UndefinedColumn,
        format!("column \"{}\" does not exist", printable(&shown)),
    );
    let names: Vec<&str> = valid
        .iter()
        .filter(|v| field.relation.is_none() || v.relation == field.relation)
        .map(|v| v.name.as_str())
        .collect();
    did_you_mean_among(sql, &field.name, "columns", &names)
}

/// What no plan can be made of. A subquery that is left over takes columns from where they are not to be had.
fn not_implemented(text: &str, context: &Context<'_>) -> SqlError {
    const OURS: &str = "this subquery is not supported: ";
    const LEFT_OVER: &str = "does not support logical expression OuterReferenceColumn";
    let message = match text.contains(LEFT_OVER) {
        true => &format!("{OURS}it takes columns from a table that it is not joined to"),
        false => text,
    };
    let error = with_details(ErrorCode::FeatureNotSupported, message, context);
    match message.starts_with(OURS) && error.hint.is_none() {
        true => error.with_hint("join the tables instead, or compute its rows in WITH before"),
        false => error,
    }
}

/// Planning errors have one variant; what kind they are is only in their text.
fn from_plan_text(text: &str, context: &Context<'_>) -> SqlError {
    let quoted = |prefix: &str, suffix: &str| {
        let rest = text.strip_prefix(prefix)?;
        rest.split_once(suffix).map(|(name, _)| name.to_owned())
    };
    let at = |mut sql: SqlError| {
        sql.position = sql.position.or(context.position());
        sql
    };
    if let Some(name) = quoted("table '", "' not found") {
        let name = local_name(&name);
        let sql = SqlError::new(
            ErrorCode::UndefinedTable,
            format!("table \"{}\" does not exist", printable(name)),
        );
        return at(did_you_mean_among(sql, name, "tables", context.relations));
    }
    for prefix in ["table function '", "Table function '"] {
        if let Some(name) = quoted(prefix, "' not found") {
            let message = format!("table function \"{}\" does not exist", printable(&name));
            let sql = SqlError::new(ErrorCode::UndefinedFunction, message);
            let known = ["read_parquet", "read_csv", "generate_series", "range", "unnest"];
            return at(did_you_mean_among(sql, &name, "table functions", &known));
        }
    }
    if let Some(name) = quoted("Invalid function '", "'") {
        let suggested = text.split_once("Did you mean '").and_then(|(_, s)| s.split_once('\''));
        let message = format!("function \"{}\" does not exist", printable(&name));
        let sql = SqlError::new(ErrorCode::UndefinedFunction, message);
        return at(did_you_mean(sql, &name, suggested.map(|(name, _)| name)));
    }
    if let Some((message, hint)) = no_signature(text) {
        return at(SqlError::new(ErrorCode::DatatypeMismatch, message).with_hint(hint));
    }
    let code = PLAN_TEXTS
        .iter()
        .find(|(part, _)| text.contains(part))
        .map_or(ErrorCode::InvalidStatement, |(_, code)| *code);
    let mut sql = with_details(code, text, context);
    if code == ErrorCode::DatatypeMismatch {
        sql.message = with_sql_types(&sql.message);
        sql.hint = sql.hint.map(|hint| with_sql_types(&hint));
    }
    sql
}

/// Parts of planning errors that tell their kind.
const PLAN_TEXTS: &[(&str, ErrorCode)] = &[
    ("not yet supported", ErrorCode::FeatureNotSupported),
    ("No function matches the given name and argument types", ErrorCode::DatatypeMismatch),
    ("coerce", ErrorCode::DatatypeMismatch),
    ("Cannot infer common", ErrorCode::DatatypeMismatch),
    ("requires a boolean expression", ErrorCode::DatatypeMismatch),
    ("null_aware anti join only supports", ErrorCode::FeatureNotSupported),
    ("only supports", ErrorCode::DatatypeMismatch),
    ("Unsupported CAST", ErrorCode::DatatypeMismatch),
    ("Cannot cast", ErrorCode::DatatypeMismatch),
    ("non-boolean predicate", ErrorCode::DatatypeMismatch),
    ("Invalid comparison operation", ErrorCode::DatatypeMismatch),
    ("is not supported", ErrorCode::FeatureNotSupported),
    ("are not supported", ErrorCode::FeatureNotSupported),
];

/// A name without the catalog and the default schema that resolving it put before it.
fn local_name(name: &str) -> &str {
    let name = name.strip_prefix(CATALOG).and_then(|n| n.strip_prefix('.')).unwrap_or(name);
    let path = name.strip_prefix(SEARCH_PATH_SCHEMA).or(name.strip_prefix(DEFAULT_SCHEMA));
    path.and_then(|n| n.strip_prefix('.')).unwrap_or(name)
}

fn from_status(status: &tonic::Status) -> SqlError {
    if let Some(sql) = parse_carried(status.message()) {
        return sql;
    }
    match status.code() {
        // hyper calls requests cancelled whose connection was closed before they were sent.
        _ if is_of_transport(status) => unavailable(status.message()),
        tonic::Code::Cancelled => {
            SqlError::new(ErrorCode::Cancelled, "the statement was cancelled")
        }
        tonic::Code::ResourceExhausted => {
            SqlError::new(ErrorCode::ResourcesExhausted, status.message())
        }
        // Unauthenticated: another cluster's process answers where the worker was before.
        tonic::Code::Unavailable
        | tonic::Code::DeadlineExceeded
        | tonic::Code::Aborted
        | tonic::Code::Unauthenticated => unavailable(status.message()),
        // hyper and h2 report a cut connection as one of these.
        tonic::Code::Unknown | tonic::Code::Internal
            if Error::source(status).is_some() || status.message().contains("h2 protocol") =>
        {
            unavailable(status.message())
        }
        _ => internal(status.message()),
    }
}

/// Whether a status says that a connection failed, and not what the other end answered.
pub(super) fn is_of_transport(status: &tonic::Status) -> bool {
    Error::source(status).is_some_and(|source| source.is::<tonic::transport::Error>())
}

fn unavailable(text: &str) -> SqlError {
    SqlError::new(ErrorCode::Unavailable, format!("a worker cannot be reached: {text}"))
        .with_hint("send the statement again")
}

fn from_io(error: &std::io::Error) -> SqlError {
    // An error of ours may have been put into an io::Error by a reader or a writer.
    if let Some(inner) = error.get_ref() {
        if let Some(Carried(sql)) = inner.downcast_ref::<Carried>() {
            return sql.clone();
        }
        if let Some(sql) = inner.downcast_ref::<SqlError>() {
            return sql.clone();
        }
    }
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            SqlError::new(ErrorCode::ResourcesExhausted, "a disk of the cluster is full")
                .with_hint("free some space and send the statement again")
        }
        // The writer of spill files hands an error of DataFusion through as its text.
        _ if error.to_string().contains(SPILL_TEXT) => {
            exhausted(&error.to_string(), &Context { relations: &[], diagnostic: None })
        }
        _ => SqlError::new(ErrorCode::Unavailable, format!("a disk operation failed: {error}")),
    }
}

fn internal(text: &str) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("internal error: {}", tidy(text)))
        .with_hint("this is a bug: please report it with the statement")
}

/// An error whose text DataFusion wrote: first line as message, the rest and its help as hint.
fn with_details(code: ErrorCode, text: &str, context: &Context<'_>) -> SqlError {
    if let Some(sql) = parse_carried(text) {
        return sql;
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut sql = SqlError::new(code, lines.next().unwrap_or("unknown error"));
    sql.position = context.position();
    let help = context.diagnostic.into_iter().flat_map(|d| {
        let notes = d.notes.iter().map(|note| note.message.as_str());
        notes.chain(d.helps.iter().map(|help| help.message.as_str()))
    });
    let rest: Vec<&str> = lines.chain(help).take(8).collect();
    if !rest.is_empty() {
        sql.hint = Some(tidy(&rest.join("; ")));
    }
    sql
}

/// A message the way ours are: no prefixes of layers, no advice of the library about its own bugs
/// or backtraces, no control characters, lower case, no full stop.
fn tidy(text: &str) -> String {
    let mut text = text;
    for end in ["\n\nbacktrace:", "\nThis issue was likely caused by", "This issue was likely"] {
        text = text.split_once(end).map_or(text, |(before, _)| before);
    }
    loop {
        let trimmed = text.trim().trim_end_matches('.');
        let shorter = PREFIXES.iter().find_map(|prefix| trimmed.strip_prefix(prefix));
        match shorter {
            Some(shorter) => text = shorter,
            None => {
                text = trimmed;
                break;
            }
        }
    }
    lower_first(&printable(&text.replace(['\n', '\t'], " ")))
}

/// What the layers put before a message.
const PREFIXES: &[&str] = &[
    "DataFusion error: ",
    "Error during planning: ",
    "Execution error: ",
    "Arrow error: ",
    "External error: ",
    "Internal error: ",
    "internal error: internal error: ",
    "SQL error: ",
    "Schema error: ",
    "This feature is not implemented: ",
    "Resources exhausted: ",
    "Invalid or Unsupported Configuration: ",
    "Cast error: ",
    "Parser error: ",
    "Compute error: ",
    "Invalid argument error: ",
    "Not yet implemented: ",
    "Csv error: ",
    "Parquet error: ",
    "Overflow happened on: ",
];

/// Lower-cases the first letter of a sentence, but not of a name like `PhysicalExpr` or `NULL`.
pub(crate) fn lower_first(text: &str) -> String {
    let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let mut chars = word.chars();
    match chars.next() {
        Some(first) if first.is_ascii_uppercase() && chars.all(|c| c.is_ascii_lowercase()) => {
            format!("{}{}", first.to_ascii_lowercase(), text.get(1..).unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}
