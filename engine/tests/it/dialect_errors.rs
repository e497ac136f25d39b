//! The catalogue of mistakes: what users read when a statement is wrong.
//!
//! `mistakes.txt` holds the statements and the exact text shown for each, and is read by people
//! before it is changed.

use std::sync::Arc;

use basalt_engine::arithmetic::with_checked_arithmetic;
use basalt_engine::dialect::{self, Statement};
use basalt_engine::error::{
    ErrorCode, Position, SqlError, from_datafusion, from_datafusion_with_relations,
};
use basalt_engine::types::SqlTypes;
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

/// A session with two tables, planning as the engine does.
async fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_default_catalog_and_schema("basalt", "public");
    config.options_mut().sql_parser.collect_spans = true;
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_type_planner(Arc::new(SqlTypes));
    let context = SessionContext::new_with_state(with_checked_arithmetic(builder).build());
    for table in [
        "CREATE TABLE sales AS VALUES (1, 'a', 2.5::DOUBLE, DATE '2026-01-01')",
        "CREATE TABLE items AS SELECT column1 AS id, column2 AS \"Amount\" FROM (VALUES (1, 2))",
    ] {
        context.sql(table).await.unwrap().collect().await.unwrap();
    }
    context
}

/// Parses, plans and runs a statement; the error it must end in.
async fn mistake(context: &SessionContext, sql: &str) -> SqlError {
    let statement = match dialect::parse_one(sql) {
        Ok(parsed) => parsed.statement,
        Err(error) => return error,
    };
    let Statement::Query(query) = statement else { panic!("no mistake: {sql}") };
    let convert = |error| from_datafusion_with_relations(error, &["sales", "items"]);
    let plan = match context.state().statement_to_plan(query).await {
        Ok(plan) => plan,
        Err(error) => return convert(error),
    };
    let frame = context.execute_logical_plan(plan).await.map_err(convert);
    match frame {
        Ok(frame) => match frame.collect().await {
            Ok(_) => panic!("no mistake: {sql}"),
            Err(error) => convert(error),
        },
        Err(error) => error,
    }
}

#[tokio::test]
async fn every_mistake_of_the_catalogue_reads_as_written_there() {
    let context = session().await;
    let catalogue = include_str!("mistakes.txt");
    let mut actual = String::new();
    for block in catalogue.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let sql: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("> ")).collect();
        let sql = sql.join("\n");
        let error = mistake(&context, &sql).await;
        for line in sql.lines() {
            actual.push_str(&format!("> {line}\n"));
        }
        actual.push_str(&format!("{} {}\n\n", error.code.sqlstate(), error.render(&sql)));
    }
    if actual.trim() != catalogue.trim() {
        panic!("the catalogue has changed; it would be:\n{actual}");
    }
}

fn check(error: DataFusionError, code: ErrorCode, message: &str) {
    let sql = from_datafusion(error);
    assert_eq!((sql.code, sql.message.as_str()), (code, message));
}

#[test]
fn errors_of_ours_come_out_as_they_went_in() {
    let ours = SqlError::new(ErrorCode::DataCorrupted, "chunk 1/2/3 fails its checksum")
        .at(Position { line: 3, column: 4 })
        .with_hint("restore it");
    let check = |error: DataFusionError| {
        let sql = from_datafusion(error);
        assert_eq!(
            (sql.code, sql.message, sql.position, sql.hint),
            (ours.code, ours.message.clone(), ours.position, ours.hint.clone())
        );
    };
    let wrapped = || DataFusionError::from(ours.clone());
    check(wrapped());
    check(wrapped().context("while reading"));
    check(DataFusionError::Shared(Arc::new(wrapped())));
    check(DataFusionError::ArrowError(
        Box::new(ArrowError::from_external_error(Box::new(wrapped()))),
        None,
    ));
    check(DataFusionError::External(Box::new(ours.clone())));
    check(DataFusionError::Collection(vec![wrapped(), DataFusionError::Plan("later".into())]));
    // datafusion-distributed carries only the text of external errors between processes.
    let text = match wrapped() {
        DataFusionError::External(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    check(DataFusionError::External(text.clone().into()));
    check(DataFusionError::Execution(format!("External error: {text}")));
    check(DataFusionError::External(Box::new(tonic::Status::internal(text))));
}

#[test]
fn errors_are_classified_by_their_type() {
    use ArrowError as A;
    use DataFusionError as D;
    use ErrorCode as C;
    let arrow = |error| D::ArrowError(Box::new(error), None);
    check(arrow(A::DivideByZero), C::DataException, "division by zero");
    check(
        arrow(A::ArithmeticOverflow("Overflow happened on: 1 + 2".into())),
        C::NumericOutOfRange,
        "value out of range: 1 + 2",
    );
    check(
        arrow(A::CastError("Can't cast value 300 to type Int8".into())),
        C::NumericOutOfRange,
        "can't cast value 300 to type Int8",
    );
    check(
        arrow(A::CastError("Cannot cast string 'x' to value of Int64 type".into())),
        C::DataException,
        "cannot cast string 'x' to value of Int64 type",
    );
    check(
        D::ResourcesExhausted("Failed to allocate 1 MB".into()),
        C::ResourcesExhausted,
        "failed to allocate 1 MB",
    );
    check(D::NotImplemented("Lateral joins.".into()), C::FeatureNotSupported, "lateral joins");
    check(D::Configuration("no such key".into()), C::InvalidParameter, "no such key");
    check(
        D::Internal(
            "PhysicalExpr is odd.\nThis issue was likely caused by a bug in DataFusion's code."
                .into(),
        ),
        C::Internal,
        "internal error: PhysicalExpr is odd",
    );
    check(
        D::External(Box::new(tonic::Status::unavailable("connection refused"))),
        C::Unavailable,
        "a worker cannot be reached: connection refused",
    );
    check(
        D::External(Box::new(tonic::Status::cancelled("x"))),
        C::Cancelled,
        "the statement was cancelled",
    );
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    check(D::IoError(full), C::ResourcesExhausted, "a disk of the cluster is full");
}

#[test]
fn control_characters_never_reach_a_message() {
    let error = dialect::parse("select \u{1b}[31m\0").unwrap_err();
    assert!(!error.message.chars().any(char::is_control), "{error:?}");
    let rendered = error.render("select \u{1b}[31m\0");
    assert!(!rendered.contains('\u{1b}'), "{rendered:?}");
}

#[test]
fn a_caret_in_a_long_line_stays_in_sight() {
    let sql = format!("select {}, fro from", vec!["a"; 5_000].join(", "));
    let rendered = dialect::parse(&sql).unwrap_err().render(&sql);
    assert!(rendered.lines().all(|line| line.chars().count() < 200), "{rendered}");
}

#[test]
fn codes_have_names_and_states_of_their_own() {
    let names: std::collections::HashSet<_> = ErrorCode::ALL.iter().map(|c| c.name()).collect();
    let states: std::collections::HashSet<_> =
        ErrorCode::ALL.iter().map(|c| c.sqlstate()).collect();
    assert_eq!((names.len(), states.len()), (ErrorCode::ALL.len(), ErrorCode::ALL.len()));
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_name(code.name()), Some(code));
    }
}
