//! The catalogue of mistakes: what users read when a statement is wrong.
//!
//! `mistakes.txt` holds the statements and the exact text shown for each, and is read by people
//! before it is changed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use basalt_engine::channels::Channels;
use basalt_engine::dialect::{self, Statement};
use basalt_engine::distribute::plan_distributed;
use basalt_engine::error::{
    ErrorCode, Position, SqlError, from_datafusion, from_datafusion_with_relations,
};
use basalt_engine::files::AllowedRoots;
use basalt_engine::runtime::Resources;
use basalt_engine::secret::ClusterSecret;
use basalt_engine::session::{PlanningSessions, SessionSpec, planning_state};
use basalt_engine::settings::Settings;
use basalt_engine::snapshot::{
    ClusterView, DEFAULT_SCHEMA, Distribution, Relation, SchemaSnapshot, Snapshot, TableSnapshot,
};
use basalt_storage::ids::{ClusterId, ColumnId, Epoch, TableId, WorkerId};
use basalt_storage::schema::{Column, TableSchema};
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::physical_plan::collect;
use url::Url;

fn table(id: u64, name: &str, columns: &[(&str, DataType)]) -> Relation {
    let columns = (1..).zip(columns).map(|(id, (name, data_type))| Column {
        id: ColumnId(id),
        name: (*name).to_owned(),
        data_type: data_type.clone(),
        nullable: true,
        declared: Default::default(),
    });
    Relation::Table(Arc::new(TableSnapshot {
        id: TableId(id),
        schema_name: DEFAULT_SCHEMA.to_owned(),
        name: name.to_owned(),
        version: 1,
        schema: Arc::new(TableSchema { version: 1, columns: columns.collect(), keys: vec![] }),
        distribution: Distribution::Auto,
        chosen_key: None,
        sort_key: vec![],
        replicas: 1,
        segments: vec![].into(),
        statistics: None,
    }))
}

/// The session that the coordinator plans in, over two empty tables.
fn session() -> SessionState {
    use DataType::{Date32, Float64, Int64, Utf8};
    let sales = [("column1", Int64), ("column2", Utf8), ("column3", Float64), ("column4", Date32)];
    let relations = [
        ("sales".to_owned(), table(1, "sales", &sales)),
        ("items".to_owned(), table(2, "items", &[("id", Int64), ("Amount", Int64)])),
    ];
    let schema = SchemaSnapshot { relations: relations.into() };
    // Nobody listens there: a mistake is found before a worker is asked.
    let worker = WorkerId::generate();
    let cluster = ClusterView {
        cluster: ClusterId::generate(),
        epoch: Epoch(1),
        slice_owners: vec![worker],
        slice_partners: vec![],
        members: 1,
        workers: [(worker, Url::parse("http://127.0.0.1:1").unwrap())].into(),
        domains: [].into(),
        moved: [].into(),
    };
    let snapshot = Snapshot {
        version: 1,
        cluster: Arc::new(cluster),
        schemas: [(DEFAULT_SCHEMA.to_owned(), Arc::new(schema))].into(),
        pin: Arc::default(),
    };
    let resources = Resources {
        memory_bytes: 64 << 20,
        spill_dir: std::env::temp_dir(),
        spill_bytes_max: 1 << 20,
    };
    let channels = Channels::new(&ClusterSecret::generate().unwrap()).unwrap();
    let runtime = resources.runtime().unwrap();
    let sessions = PlanningSessions::new(channels, runtime, AllowedRoots::none()).unwrap();
    let spec = SessionSpec {
        snapshot: Arc::new(snapshot),
        settings: Settings::default(),
        computed_schemas: HashMap::new(),
        sessions: Arc::new(sessions),
    };
    planning_state(&Arc::new(spec)).unwrap()
}

/// Parses, plans and runs a statement; the error it must end in.
async fn mistake(state: &SessionState, sql: &str) -> SqlError {
    let statement = match dialect::parse_one(sql) {
        Ok(parsed) => parsed.statement,
        Err(error) => return error,
    };
    let Statement::Query(query) = statement else { panic!("no mistake: {sql}") };
    let rows = async {
        let logical = state.statement_to_plan(query).await?;
        let distributed = plan_distributed(state, &logical).await?;
        collect(distributed.plan, state.task_ctx()).await
    };
    match rows.await {
        Ok(_) => panic!("no mistake: {sql}"),
        Err(error) => from_datafusion_with_relations(error, &["sales", "items"]),
    }
}

#[tokio::test]
async fn every_mistake_of_the_catalogue_reads_as_written_there() {
    let state = session();
    let catalogue = include_str!("mistakes.txt");
    let mut actual = String::new();
    for block in catalogue.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let sql: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("> ")).collect();
        let sql = sql.join("\n");
        let error = mistake(&state, &sql).await;
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
        arrow(A::ComputeError("Int8Array overflow on abs(-128)".into())),
        C::NumericOutOfRange,
        "value out of range: abs(-128)",
    );
    check(
        D::Execution("Decimal overflow while applying ceil".into()),
        C::NumericOutOfRange,
        "decimal overflow while applying ceil",
    );
    check(
        arrow(A::CastError("Can't cast value 300 to type Int8".into())),
        C::NumericOutOfRange,
        "can't cast value 300 to type TINYINT",
    );
    check(
        arrow(A::CastError("Cannot cast string 'x' to value of Int64 type".into())),
        C::DataException,
        "cannot cast string 'x' to value of BIGINT type",
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
    let spilled =
        "The used disk space during the spilling process has exceeded the allowable limit of 1 MB.";
    check(
        D::IoError(std::io::Error::other(spilled)),
        C::ResourcesExhausted,
        "the statement needs more spill space than there is",
    );
    check(
        D::Internal(
            "failed to call 'regex_match_dyn_scalar' Compute error: Regular expression did not compile: CompiledTooBig(10485760)"
                .into(),
        ),
        C::DataException,
        "a regular expression cannot be used: compiled, it is too large",
    );
    check(
        D::External("regex parse error:\n    (\n    ^\nerror: unclosed group".into()),
        C::DataException,
        "a regular expression cannot be used: unclosed group",
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
