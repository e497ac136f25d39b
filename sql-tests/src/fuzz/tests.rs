//! Planted faults: what a run must find, and what it must not take for one.

use std::sync::Arc;

use async_trait::async_trait;

use super::answers::{Answer, Failure};
use super::ast::{Expr, Family, Query, Relation, Select};
use super::data;
use super::databases::{Database, PlainDataFusion};
use super::explained::Explained;
use super::generate;
use super::oracles::{Case, Databases, Kind, Oracle, Verdict};
use super::report::Summary;
use super::run::{self, Options, run_round};
use super::setup::{Setup, Target};
use super::shrink::Budget;

/// Plain DataFusion with a fault.
struct Faulty {
    plain: PlainDataFusion,
    fault: fn(&str, Result<Answer, Failure>) -> Result<Answer, Failure>,
}

#[async_trait]
impl Database for Faulty {
    async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        (self.fault)(sql, self.plain.query(sql).await)
    }

    async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.plain.execute(sql).await
    }

    fn is_ours(&self) -> bool {
        false
    }
}

/// The answer without its last row, or with another number where there is one row.
fn spoilt(answer: Result<Answer, Failure>) -> Result<Answer, Failure> {
    let mut answer = answer?;
    match answer.rows.as_mut_slice() {
        [row] => row[0] = "-7".to_owned(),
        _ => drop(answer.rows.pop()),
    }
    Ok(answer)
}

/// Runs queries from seed 0 against a fault until it is found.
async fn summary_of(
    oracle: Oracle,
    queries: u64,
    fault: fn(&str, Result<Answer, Failure>) -> Result<Answer, Failure>,
) -> Summary {
    let database = Arc::new(Faulty { plain: PlainDataFusion::new(1), fault });
    let target = Target { flags: "--workers 0".to_owned(), database, every: 1, offset: 0 };
    let setup = Setup::of(vec![target]);
    let tables = data::tables(0, false);
    setup.load(&tables).await.unwrap();
    let options = Options {
        seed: 0,
        queries,
        oracle: Some(oracle),
        duckdb: None,
        keeps_going: false,
        jobs: 2,
        budget: Budget::default(),
    };
    let mut summary = Summary::default();
    run_round(&options, &setup, &tables, 0..queries, &mut summary, &mut |_| {}).await.unwrap();
    summary
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_nothing_is_found() {
    for oracle in [Oracle::Differential, Oracle::Tlp, Oracle::NoRec] {
        let summary = summary_of(oracle, 40, |_, answer| answer).await;
        assert_eq!((summary.queries, summary.findings.len()), (40, 0), "{summary}");
        assert!(summary.same >= 36, "{summary}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_is_found_and_made_small() {
    let fault = |sql: &str, answer| {
        if sql.contains(" FULL JOIN ") { spoilt(answer) } else { answer }
    };
    let summary = summary_of(Oracle::Differential, 200, fault).await;
    let finding = &summary.findings[0];
    let sql = finding.shrunk.case.query.to_string();
    assert_eq!(finding.shrunk.difference.kind, Kind::Rows);
    assert!(sql.contains(" FULL JOIN "), "{sql}");
    assert!(sql.len() < 120 && sql.len() < finding.original.len(), "{finding}");
    let rows: usize = finding.shrunk.tables.iter().map(data::Table::rows).sum();
    assert!(rows <= 2, "{finding}");
    let text = finding.to_string();
    let (seed, script) = (finding.seed, finding.script());
    let command = format!(
        "REPRO seed={seed} query={seed} cmd=basalt fuzz --seed {seed} --queries 1 --oracle \
         differential --workers 0"
    );
    assert!(text.ends_with(&command), "{text}");
    assert!(script.starts_with("CREATE TABLE fuzz_") && script.ends_with(&format!("{sql};")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_of_a_finding_shows_it() {
    let fault = |sql: &str, answer| if sql.contains("sum(") { spoilt(answer) } else { answer };
    let summary = summary_of(Oracle::Differential, 200, fault).await;
    let finding = &summary.findings[0];
    let again = PlainDataFusion::new(1);
    for table in &finding.shrunk.tables {
        again.load(table).await.unwrap();
    }
    let (sql, shown) = &finding.shrunk.difference.expected;
    assert_eq!(again.query(sql).await.unwrap().shown(20), *shown, "{finding}");
    assert_ne!(finding.shrunk.difference.got.1, *shown, "{finding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_part_has_are_found() {
    // A predicate and its negation both leave out a row for which it is true.
    let fault = |sql: &str, answer| {
        if sql.contains("UNION ALL") && sql.contains("LIKE") { spoilt(answer) } else { answer }
    };
    let summary = summary_of(Oracle::Tlp, 200, fault).await;
    let finding = &summary.findings[0];
    assert!(finding.shrunk.difference.got.0.contains("LIKE"), "{finding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_skips_rows_is_found() {
    let fault = |sql: &str, answer| {
        let is_optimised = sql.starts_with("SELECT count(*)") && sql.contains(" IN (");
        if is_optimised { spoilt(answer) } else { answer }
    };
    let summary = summary_of(Oracle::NoRec, 200, fault).await;
    let finding = &summary.findings[0];
    assert!(finding.shrunk.difference.got.0.contains(" IN ("), "{finding}");
    assert!(finding.shrunk.difference.expected.0.contains("CASE WHEN"), "{finding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_on_one_side_only_is_found() {
    let fault = |sql: &str, answer| {
        let error = Failure { sqlstate: Some("XX000".to_owned()), message: "lost".to_owned() };
        if sql.contains(" EXCEPT ") { Err(error) } else { answer }
    };
    let summary = summary_of(Oracle::Differential, 300, fault).await;
    let kind = &summary.findings[0].shrunk.difference.kind;
    assert_eq!(*kind, Kind::Fails("XX000".to_owned()));
}

/// The verdict on a query against a database that fails with "out of range" at everything.
async fn verdict_on_overflow(sql: &str) -> Verdict {
    let fault = |_: &str, _| {
        let message = "integer out of range".to_owned();
        Err(Failure { sqlstate: Some("22003".to_owned()), message })
    };
    let (plain, checked) = (PlainDataFusion::new(1), PlainDataFusion::checked(1));
    let tested = Faulty { plain: PlainDataFusion::new(1), fault };
    let without_pushdown = PlainDataFusion::without_pushdown(1);
    let databases = Databases {
        plain: &plain,
        checked: &checked,
        without_pushdown: &without_pushdown,
        with_few_rules: &PlainDataFusion::with_few_rules(1),
        duckdb: None,
        tested: &tested,
    };
    let items = vec![(Expr::leaf(Family::Int, sql), "c".to_owned())];
    let query = Query::select(Select { items, ..Select::default() });
    Case { oracle: Oracle::Differential, query }.check(databases).await
}

/// `SELECT ... ORDER BY c DESC NULLS LAST`, on `plain` and on `tested`.
async fn verdict_on(select: Select, plain: &dyn Database, tested: &dyn Database) -> Verdict {
    let (checked, without_pushdown) =
        (PlainDataFusion::checked(1), PlainDataFusion::without_pushdown(1));
    let with_few_rules = PlainDataFusion::with_few_rules(1);
    for database in [plain, tested, &checked, &without_pushdown, &with_few_rules] {
        database.execute("CREATE TABLE IF NOT EXISTS empty (id INT)").await.unwrap();
    }
    let databases = Databases {
        plain,
        checked: &checked,
        without_pushdown: &without_pushdown,
        with_few_rules: &with_few_rules,
        duckdb: None,
        tested,
    };
    let order_by = vec![(Expr::leaf(Family::Int, "c"), "DESC NULLS LAST")];
    let query = Query { order_by, ..Query::select(select) };
    Case { oracle: Oracle::Differential, query }.check(databases).await
}

fn item(text: &str) -> Vec<(Expr, String)> {
    vec![(Expr::leaf(Family::Int, text), "c".to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_datafusion_pushes_too_far_is_its_fault_and_a_wrong_row_is_not() {
    let name = "(SELECT sum(1) AS s FROM empty)".to_owned();
    let null_in_nulls = "t.s IN (CAST(NULL AS BIGINT), CAST(NULL AS BIGINT))";
    let select = Select {
        items: item("count(*)"),
        from: Some(Relation::Table { name, alias: "t".to_owned() }),
        filter: Some(Expr::leaf(Family::Bool, null_in_nulls)),
        ..Select::default()
    };
    let (plain, right) = (PlainDataFusion::new(1), PlainDataFusion::without_pushdown(1));
    assert_eq!(
        verdict_on(select.clone(), &plain, &right).await,
        Verdict::Explained(Explained::FilterPushdown)
    );
    let spoils = |_: &str, answer| spoilt(answer);
    let wrong = Faulty { plain: PlainDataFusion::new(1), fault: spoils };
    assert!(matches!(verdict_on(select, &plain, &wrong).await, Verdict::Different(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn unsorted_rows_are_the_fault_of_whose_they_are() {
    let reversed = |_: &str, answer: Result<Answer, Failure>| {
        let mut answer = answer?;
        answer.rows.reverse();
        let batch = arrow::compute::concat_batches(&answer.batches[0].schema(), &answer.batches)?;
        let last = u32::try_from(batch.num_rows()).unwrap_or_default();
        let order = arrow::array::UInt32Array::from_iter_values((0..last).rev());
        answer.batches = vec![arrow::compute::take_record_batch(&batch, &order)?];
        Ok(answer)
    };
    let select = Select { items: item("unnest([1, 3, 2])"), ..Select::default() };
    let sorted = PlainDataFusion::new(1);
    let unsorted = Faulty { plain: PlainDataFusion::new(1), fault: reversed };
    assert_eq!(verdict_on(select.clone(), &sorted, &sorted).await, Verdict::Same);
    assert_eq!(
        verdict_on(select.clone(), &unsorted, &sorted).await,
        Verdict::Explained(Explained::ReferenceUnsorted)
    );
    assert!(matches!(verdict_on(select, &sorted, &unsorted).await, Verdict::Different(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overflow_is_explained_where_there_is_one_and_nowhere_else() {
    let overflow = verdict_on_overflow("9223372036854775807 + 1").await;
    assert_eq!(overflow, Verdict::Explained(Explained::Overflow));
    let none = verdict_on_overflow("9223372036854775806 + 1").await;
    assert!(matches!(none, Verdict::Different(_)), "{none:?}");
}

#[test]
fn a_seed_gives_the_same_tables_and_the_same_query_every_time() {
    assert_eq!(data::tables(3, false), data::tables(3, false));
    assert_ne!(data::tables(3, false), data::tables(4, false));
    let tables = data::tables(0, false);
    for seed in 0..50 {
        let texts = [(), ()].map(|()| run::case(seed, None, false, &tables).query.to_string());
        assert_eq!(texts[0], texts[1], "seed {seed}");
    }
    let text = |seed| generate::query(seed, &tables).to_string();
    assert_ne!(text(1), text(2));
}

#[test]
fn every_kind_of_table_and_query_is_generated() {
    let tables = data::tables(0, false);
    let all: Vec<_> = tables.iter().map(|table| table.create(true)).collect();
    let mut all = all.join("\n");
    assert!(tables.iter().any(|table| table.rows() == 0 && table.inserts().is_empty()));
    assert!(tables.iter().any(|table| table.rows() == 1));
    assert!(tables.iter().any(|table| table.loads.len() > 1));
    for seed in 0..3_000 {
        all.push_str(&generate::query(seed, &tables).to_string());
    }
    let wanted = [
        "ENCODE raw",
        "ENCODE lz4",
        "ENCODE zstd",
        "ENCODE bytedict",
        "ENCODE delta",
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "UNSIGNED",
        "REAL",
        "DOUBLE",
        "DECIMAL(9, 2)",
        "DECIMAL(30, 5)",
        "DATE",
        "TIME",
        "TIMESTAMP(3)",
        "TIMESTAMPTZ",
        "INTERVAL",
        "BYTEA",
        "BIGINT[]",
        "DISTKEY",
        "DISTSTYLE EVEN",
        "DISTSTYLE ALL",
        "SORTKEY",
        "INNER JOIN",
        "LEFT JOIN",
        "RIGHT JOIN",
        "FULL JOIN",
        "CROSS JOIN",
        "LEFT SEMI JOIN",
        "RIGHT ANTI JOIN",
        "WITH w",
        "UNION ALL",
        ") UNION (",
        "INTERSECT",
        "EXCEPT",
        "GROUPING SETS",
        "ROLLUP",
        "CUBE",
        "HAVING",
        "FILTER (WHERE",
        "count(DISTINCT",
        "OVER (",
        "ROWS BETWEEN",
        "RANGE BETWEEN",
        "IGNORE NULLS",
        "LIMIT",
        "OFFSET",
        "VALUES",
        "EXISTS (",
        "NOT IN (SELECT",
        "IS DISTINCT FROM",
        "IS NOT DISTINCT FROM",
        "BETWEEN",
        "LIKE",
        "CASE WHEN",
        "coalesce",
        "nullif",
        "TRY_CAST",
        "date_trunc",
        "grouping(",
        "string_agg(",
    ];
    let missing: Vec<_> = wanted.iter().filter(|part| !all.contains(**part)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_only_duckdb_checks_is_generated_for_it_alone() {
    let tables = data::tables(0, false);
    let all = |make: fn(u64, &[data::Table]) -> Query| -> String {
        (0..3_000).map(|seed| make(seed, &tables).to_string() + "\n").collect()
    };
    let (plain, wide) = (all(generate::query), all(generate::wide_query));
    let wanted = [
        "LATERAL (SELECT",
        "RANGE BETWEEN INTERVAL",
        "(-0.0)",
        ", 2) IGNORE NULLS",
        "INTERVAL '36 hours'",
        "coalesce((SELECT",
        "(EXISTS (SELECT count(",
        "(CASE WHEN",
    ];
    for part in wanted {
        assert!(wide.contains(part), "{part}");
    }
    for part in ["LATERAL", "RANGE BETWEEN INTERVAL", "(-0.0)", ", 2) IGNORE NULLS"] {
        assert!(!plain.contains(part), "{part}");
    }
}

#[test]
fn the_share_of_duckdb_leaves_other_queries_as_they_are() {
    let tables = data::tables(0, false);
    let of = |seed, oracle, has_duckdb| run::case(seed, oracle, has_duckdb, &tables);
    for seed in 0..50 {
        let without = of(seed, None, false);
        assert_ne!(without.oracle, Oracle::DuckDb);
        let with = of(seed, None, true);
        if with.oracle != Oracle::DuckDb {
            assert_eq!(with, without, "seed {seed}");
        } else {
            assert_eq!(with, of(seed, Some(Oracle::DuckDb), true), "seed {seed}");
        }
    }
}
