//! Whole plans: that nothing wraps, whatever the optimizer does, and that columns keep their names.

use std::fmt;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::array_value_to_string;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;

use super::with_checked_arithmetic;
use crate::error::{ErrorCode, SqlError, from_datafusion};

mod averages;
mod floats;

const MAX: i64 = i64::MAX;

fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2);
    let builder = SessionStateBuilder::new().with_config(config).with_default_features();
    SessionContext::new_with_state(with_checked_arithmetic(builder).build())
}

async fn rows(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, SqlError> {
    let frame = context.sql(sql).await.map_err(from_datafusion)?;
    frame.collect().await.map_err(from_datafusion)
}

/// Every value of a result, row by row.
async fn values(context: &SessionContext, sql: &str) -> Result<Vec<String>, SqlError> {
    let batches = rows(context, sql).await?;
    let mut values = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            for column in batch.columns() {
                values.push(array_value_to_string(column, row).unwrap());
            }
        }
    }
    Ok(values)
}

async fn check(sql: &str, expected: &[&str]) {
    let actual = values(&session(), sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert_eq!(actual, expected, "{sql}");
}

async fn check_overflow(sql: &str, message: &str) {
    let error = values(&session(), sql).await.expect_err(sql);
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::NumericOutOfRange, message),
        "{sql}"
    );
    assert!(error.hint.is_some(), "{sql}");
}

#[tokio::test]
async fn constants_do_not_wrap_when_they_are_folded() {
    check_overflow(
        "SELECT 9223372036854775807 + 1",
        "integer out of range: 9223372036854775807 + 1",
    )
    .await;
    check_overflow(
        "SELECT -9223372036854775808 - 1",
        "integer out of range: -9223372036854775808 - 1",
    )
    .await;
    check_overflow(
        "SELECT 3037000500 * 3037000500",
        "integer out of range: 3037000500 * 3037000500",
    )
    .await;
    check_overflow(
        "SELECT -(arrow_cast(-9223372036854775808, 'Int64'))",
        "integer out of range: -(-9223372036854775808)",
    )
    .await;
    check_overflow("SELECT 2147483647::INT + 1::INT", "integer out of range: 2147483647 + 1").await;
    check_overflow("SELECT 0::BIGINT UNSIGNED - 1::BIGINT UNSIGNED", "integer out of range: 0 - 1")
        .await;
    check("SELECT 9223372036854775806 + 1", &["9223372036854775807"]).await;
}

#[tokio::test]
async fn constants_that_the_optimizer_makes_do_not_wrap() {
    let overflow = "integer out of range: 9223372036854775807 + 1";
    for sql in [
        "SELECT x + 1 FROM (SELECT 9223372036854775807 AS x)",
        "SELECT y FROM (SELECT x + 1 AS y FROM (SELECT 9223372036854775807 AS x)) WHERE y > 0",
        "SELECT 1 FROM (SELECT 9223372036854775807 AS x) WHERE x + 1 > 0",
        "SELECT sum(x + 1) FROM (SELECT 9223372036854775807 AS x)",
        "SELECT (SELECT max(x) FROM (VALUES (9223372036854775807)) t(x)) + 1",
        "SELECT column1 FROM (VALUES (9223372036854775807 + 1))",
        "SELECT a.x FROM (VALUES (1)) a(x) JOIN (VALUES (9223372036854775807)) b(x) ON a.x = b.x + 1",
        "SELECT x FROM (VALUES (1), (9223372036854775807)) t(x) ORDER BY x + 1",
        "SELECT count(*) FROM (VALUES (9223372036854775807)) t(x) GROUP BY x + 1",
        "SELECT sum(x + 1) OVER () FROM (VALUES (9223372036854775807)) t(x)",
    ] {
        check_overflow(sql, overflow).await;
    }
}

#[tokio::test]
async fn constant_arguments_of_table_functions_do_not_wrap() {
    for end in [
        "9223372036854775807 + 1",
        "2 * (9223372036854775807 - 0)",
        "1 - 2 - 9223372036854775807 - 1",
    ] {
        let sql = format!("SELECT count(*) FROM generate_series({end}, 3)");
        assert!(values(&session(), &sql).await.is_err(), "{sql}");
    }
    check("SELECT count(*) FROM generate_series(1, 2 * 3 + 4)", &["10"]).await;
    check("SELECT 7 LIMIT 2 - 1", &["7"]).await;
}

#[tokio::test]
async fn an_expression_of_a_thousand_terms_is_exact() {
    let sql = format!("SELECT {} FROM (VALUES (3)) t(x)", vec!["x"; 1000].join(" + "));
    check(&sql, &["3000"]).await;
}

#[tokio::test]
async fn what_is_not_evaluated_does_not_overflow() {
    check("SELECT CASE WHEN false THEN 9223372036854775807 + 1 ELSE 7 END", &["7"]).await;
    check("SELECT coalesce(7, 9223372036854775807 + 1)", &["7"]).await;
    let sql = "SELECT CASE WHEN x < 9223372036854775807 THEN x + 1 ELSE x END \
               FROM (VALUES (1), (9223372036854775807)) t(x) ORDER BY 1";
    check(sql, &["2", "9223372036854775807"]).await;
}

#[tokio::test]
async fn null_stays_null() {
    check(
        "SELECT NULL + 1, 1::BIGINT + NULL, -(NULL::BIGINT), NULL::INT * NULL::INT",
        &["", "", "", ""],
    )
    .await;
}

#[tokio::test]
async fn columns_keep_the_names_of_the_operators() {
    let plain = SessionContext::new();
    for sql in [
        "SELECT x + 1, x - 1, x * 2, -x, (x + 1) * 2 FROM (VALUES (1)) t(x)",
        "SELECT sum(x + 1), sum(-x), x * 3 + 1 FROM (VALUES (1)) t(x) GROUP BY x * 3",
        "SELECT sum(x + 1), sum(x + 2), sum(x) FROM (VALUES (1)) t(x)",
        "SELECT x + 0, x * 1, 1 + 2 FROM (VALUES (1)) t(x)",
        "SELECT sum(x - 1) OVER (PARTITION BY x + 1 ORDER BY x * 2) FROM (VALUES (1)) t(x)",
        "SELECT array_agg(x + 1 ORDER BY -x), x + 1 = 2, abs(x * 3) FROM (VALUES (1)) t(x) GROUP BY x",
    ] {
        let checked = rows(&session(), sql).await.unwrap();
        let plain = rows(&plain, sql).await.unwrap();
        assert_eq!(checked, plain, "{sql}");
    }
}

async fn plan(sql: &str) -> String {
    let explained = values(&session(), &format!("EXPLAIN {sql}")).await.unwrap();
    explained.join("\n")
}

#[tokio::test]
async fn many_sums_of_a_column_and_a_constant_become_one_sum() {
    let sql = "SELECT sum(x + 1), sum(x + 2), sum(3 + x) FROM (VALUES (5), (NULL), (7)) t(x)";
    check(sql, &["14", "16", "18"]).await;
    let plan = plan(sql).await;
    assert!(plan.contains("aggr=[[wide_sum(t.x), count(t.x)]]"), "{plan}");
}

#[tokio::test]
async fn one_sum_for_many_overflows_only_when_a_result_does() {
    // The sum of x alone does not fit.
    let below = "SELECT sum(x + 9223372036854775807), sum(x + 9223372036854775806) \
                 FROM (VALUES (-9223372036854775807), (-9223372036854775807)) t(x)";
    check(below, &["0", "-2"]).await;
    let error = values(
        &session(),
        "SELECT sum(x + 1), sum(x + 2) FROM (VALUES (9223372036854775807)) t(x)",
    )
    .await
    .expect_err("9223372036854775808 does not fit");
    assert_eq!(error.code, ErrorCode::NumericOutOfRange, "{error}");
}

#[tokio::test]
async fn a_sum_beside_a_distinct_count_overflows_only_when_the_result_does() {
    // Grouped by k first, the sum of k = 1 does not fit.
    let sql = "SELECT count(DISTINCT k), sum(v), max(v) FROM (VALUES (1, 9223372036854775807), \
               (1, 1), (2, -9)) t(k, v)";
    check(sql, &["2", "9223372036854775799", "9223372036854775807"]).await;
    let plan = plan(sql).await;
    assert!(plan.contains("alias1"), "in two steps:\n{plan}");

    let sql = "SELECT count(DISTINCT k), sum(v), sum(w) FROM (VALUES \
               (1, 1.25::DECIMAL(15, 2), 3::BIGINT UNSIGNED), \
               (1, 1.5::DECIMAL(15, 2), 4), (2, NULL, 5)) t(k, v, w)";
    check(sql, &["2", "2.75", "12"]).await;
    let (ours, plain) = (rows(&session(), sql).await, SessionContext::new().sql(sql).await);
    let plain = plain.unwrap().schema().as_arrow().clone();
    assert_eq!(ours.unwrap()[0].schema().fields(), plain.fields());

    let sql =
        "SELECT count(DISTINCT k), sum(v) FROM (VALUES (1, 9223372036854775807), (2, 1)) t(k, v)";
    let error = values(&session(), sql).await.expect_err(sql);
    assert_eq!(error.code, ErrorCode::NumericOutOfRange, "{error}");
}

#[tokio::test]
async fn what_changes_nothing_is_not_computed() {
    let plan = plan("SELECT x + 0, 0 + x, x - 0, x * 1, 1 * x FROM (VALUES (5)) t(x)").await;
    assert!(!plan.contains("checked_"), "{plan}");
}

#[tokio::test]
async fn other_types_are_left_to_datafusion() {
    let plan = plan(
        "SELECT x + 1.5, y * y, d - INTERVAL '1' DAY \
         FROM (VALUES (2.5::DECIMAL(5, 2), 1.5::DOUBLE, DATE '2026-01-02')) t(x, y, d)",
    )
    .await;
    assert!(!plan.contains("checked_"), "{plan}");
}

/// Arithmetic over two columns and constants.
#[derive(Debug, Clone)]
enum Tree {
    Column(char),
    Constant(i64),
    Negative(Box<Tree>),
    Binary(Box<Tree>, char, Box<Tree>),
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(name) => write!(f, "{name}"),
            Self::Constant(value) => write!(f, "arrow_cast('{value}', 'Int64')"),
            Self::Negative(tree) => write!(f, "(-{tree})"),
            Self::Binary(left, operator, right) => write!(f, "({left} {operator} {right})"),
        }
    }
}

impl Tree {
    /// The value in a row, or `None` when anything on the way does not fit.
    fn value(&self, a: i64, b: i64) -> Option<i64> {
        match self {
            Self::Column('a') => Some(a),
            Self::Column(_) => Some(b),
            Self::Constant(value) => Some(*value),
            Self::Negative(tree) => tree.value(a, b)?.checked_neg(),
            Self::Binary(left, operator, right) => {
                let (left, right) = (left.value(a, b)?, right.value(a, b)?);
                let (wide_left, wide_right) = (i128::from(left), i128::from(right));
                let exact = match operator {
                    '+' => wide_left + wide_right,
                    '-' => wide_left - wide_right,
                    _ => wide_left * wide_right,
                };
                i64::try_from(exact).ok()
            }
        }
    }
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => -4_i64..5,
        1 => Just(MAX),
        1 => Just(i64::MIN),
        1 => Just(MAX / 2 + 1),
        1 => Just(1_i64 << 31),
        1 => any::<i64>(),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Column('a')),
        Just(Tree::Column('b')),
        number().prop_map(Tree::Constant)
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|tree| Tree::Negative(Box::new(tree))),
            4 => (inner.clone(), prop::sample::select(vec!['+', '-', '*']), inner).prop_map(
                |(left, operator, right)| Tree::Binary(Box::new(left), operator, Box::new(right))
            ),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_expression_is_exact_or_an_error(
        tree in tree(),
        rows in prop::collection::vec((number(), number()), 1..4),
    ) {
        let expected: Option<Vec<i64>> = rows.iter().map(|(a, b)| tree.value(*a, *b)).collect();
        let batch = RecordBatch::try_from_iter([
            ("a", column(rows.iter().map(|row| row.0))),
            ("b", column(rows.iter().map(|row| row.1))),
        ]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let context = session();
        context.register_batch("t", batch).unwrap();
        let result = runtime.block_on(self::rows(&context, &format!("SELECT {tree} FROM t")));
        match (result, expected) {
            (Ok(batches), Some(expected)) => {
                let actual: Vec<i64> = batches
                    .iter()
                    .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
                    .collect();
                prop_assert_eq!(actual, expected, "{}", tree);
            }
            (Err(error), None) => {
                prop_assert_eq!(error.code, ErrorCode::NumericOutOfRange, "{}: {}", tree, error);
            }
            (result, expected) => {
                prop_assert!(false, "{tree} of {rows:?} is {expected:?} and was {result:?}");
            }
        }
    }
}

fn column(values: impl Iterator<Item = i64>) -> std::sync::Arc<dyn Array> {
    std::sync::Arc::new(Int64Array::from_iter_values(values))
}
