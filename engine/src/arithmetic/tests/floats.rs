//! Whole plans with floats: one NaN, one zero, and frames that move.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::Float64Type;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::{check, rows, session};
use crate::arithmetic::normalize_floats;

#[tokio::test]
async fn every_nan_is_equal_and_greater_than_every_number() {
    let infinity = "CAST('Infinity' AS DOUBLE)";
    for nan in [
        format!("{infinity} - {infinity}"),
        format!("{infinity} * 0.0"),
        "CAST(0 AS DOUBLE) / CAST(0 AS DOUBLE)".to_owned(),
        "CAST(0 AS REAL) % CAST(0 AS REAL)".to_owned(),
        "-CAST('NaN' AS DOUBLE)".to_owned(),
        "CAST('-nan' AS DOUBLE)".to_owned(),
        "TRY_CAST('-nan' AS REAL)".to_owned(),
        "ln(CAST(-1 AS DOUBLE))".to_owned(),
        "power(CAST(-1 AS DOUBLE), CAST(0.5 AS DOUBLE))".to_owned(),
    ] {
        let of_constants = format!("SELECT {nan} > 1, {nan} = CAST('NaN' AS DOUBLE)");
        check(&of_constants, &["true", "true"]).await;
        let of_rows = nan.replace("CAST(0 AS", "CAST(value AS").replace("Infinity", "inf");
        let of_rows = of_rows.replace("CAST(-1 AS", "CAST(value - 1 AS");
        check(&format!("SELECT {of_rows} > 1 FROM generate_series(0, 0)"), &["true"]).await;
    }
    let values = "(VALUES (CAST('Infinity' AS DOUBLE)), ('-Infinity'), (1)) v(f)";
    check(
        &format!("SELECT sum(f) > 0, avg(f) > 0, stddev(f) > 0, var_pop(f) > 0 FROM {values}"),
        &["true"; 4],
    )
    .await;
    check(
        &format!("SELECT sum(f) > 0, avg(f) > 0, stddev(f) > 0 FROM {values} GROUP BY abs(f) > 5 ORDER BY stddev(f)"),
        &["true", "true", "true", "true", "true", ""],
    )
    .await;
    check(&format!("SELECT count(*) FROM {values} GROUP BY f - f ORDER BY 1"), &["1", "2"]).await;
}

#[tokio::test]
async fn every_zero_is_the_positive_one() {
    for zero in [
        "-0.0",
        "CAST('-0' AS DOUBLE)",
        "TRY_CAST('-0.0' AS REAL)",
        "CAST(-1e-60 AS REAL)",
        "-CAST(value AS DOUBLE)",
        "CAST(value AS DOUBLE) * -1",
        "CAST(value AS DOUBLE) / -1",
        "-CAST(value AS DOUBLE) + -CAST(value AS DOUBLE)",
        "CAST(value - 4 AS DOUBLE) % 2",
        "CAST(CAST(value - 1 AS DOUBLE) * 1e-60 AS REAL)",
        "round(CAST(value AS DOUBLE) - 0.2)",
        "ceil(CAST(value AS REAL) - 0.2)",
        "sum(-CAST(value AS DOUBLE))",
        "avg(DISTINCT -CAST(value AS DOUBLE))",
        "min(CAST(value AS DOUBLE) * -1)",
    ] {
        let sql =
            format!("SELECT CAST({zero} AS VARCHAR), 1 / ({zero}) FROM generate_series(0, 0)");
        check(&sql, &["0.0", "inf"]).await;
    }
    // A sign that is lost on the way has no effect on what it is lost in.
    let sql = "SELECT 1 / -f, 1 / (f * -1), atan2(-f, -1.0) > 0, CAST([-f] AS VARCHAR) FROM (VALUES (0.0)) v(f)";
    check(sql, &["inf", "inf", "true", "[0.0]"]).await;
}

#[test]
fn what_is_inside_of_a_list_is_normal_too() {
    let list = |values: [f64; 3]| {
        let values = values.map(Some);
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(values), None]);
        Arc::new(list) as ArrayRef
    };
    let normal = normalize_floats(list([-0.0, -f64::NAN, -1.5]));
    // By bits: equality of arrays tells zeros apart, and no NaN.
    let values = normal.as_list::<i32>().values().as_primitive::<Float64Type>().clone();
    let bits: Vec<_> = values.values().iter().map(|value| value.to_bits()).collect();
    assert_eq!(bits, [0.0, f64::NAN, -1.5].map(f64::to_bits));
    assert!(normal.is_null(1));
}

#[tokio::test]
async fn what_gives_one_nan_keeps_its_name() {
    let context = session();
    let sql =
        "SELECT f + 1, -f, ln(f), sum(f), sum(f * 2) FROM (VALUES (1.5::DOUBLE)) v(f) GROUP BY f";
    let names = rows(&context, sql).await.unwrap();
    let plain = SessionContext::new().sql(sql).await.unwrap().collect().await.unwrap();
    assert_eq!(names[0].schema().fields(), plain[0].schema().fields());
}

proptest! {
    /// Sums of small integers are exact as floats, so DataFusion's sum of integers is the judge.
    #[test]
    fn frames_that_move_give_what_their_rows_give(
        values in prop::collection::vec(prop::option::of(-9_i8..9), 1..60),
        before in 0_u8..9,
        after in -3_i8..9,
    ) {
        prop_assume!(i16::from(after) >= -i16::from(before));
        let rows = values.iter().enumerate().map(|(position, value)| {
            let value = value.map_or_else(|| "NULL".to_owned(), |value| value.to_string());
            format!("({position}, {value})")
        });
        let rows = rows.collect::<Vec<_>>().join(", ");
        let end = match after {
            0.. => format!("{after} FOLLOWING"),
            _ => format!("{} PRECEDING", -after),
        };
        let sql = format!(
            "SELECT CAST(sum(f) OVER w AS BIGINT) AS floats, sum(v) OVER w, \
             avg(f) OVER w IS NOT DISTINCT FROM \
             CAST(sum(v) OVER w AS DOUBLE) / nullif(count(v) OVER w, 0) \
             FROM (SELECT i, CAST(v AS BIGINT) AS v, CAST(v AS DOUBLE) AS f FROM (VALUES {rows}) t(i, v)) t \
             WINDOW w AS (ORDER BY i ROWS BETWEEN {before} PRECEDING AND {end})"
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let actual = runtime.block_on(super::values(&session(), &sql)).unwrap();
        for row in actual.chunks(3) {
            prop_assert_eq!(&row[0], &row[1]);
            prop_assert_eq!(&row[2], "true");
        }
    }
}

#[tokio::test]
async fn what_left_a_frame_is_not_in_its_sum() {
    check(
        "SELECT sum(f) OVER w, avg(f) OVER w, max(f) OVER w FROM \
         (VALUES (1, 'NaN'::DOUBLE), (2, 1), (3, 2), (4, 'Infinity'), (5, 3), (6, 4), (7, 1e20), \
         (8, 1), (9, 1)) v(i, f) \
         WINDOW w AS (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) ORDER BY i",
        &[
            "NaN", "NaN", "NaN", "NaN", "NaN", "NaN", "3.0", "1.5", "2.0", "inf", "inf", "inf",
            "inf", "inf", "inf", "7.0", "3.5", "4.0", "1e20", "5e19", "1e20", "1e20", "5e19",
            "1e20", "2.0", "1.0", "1.0",
        ],
    )
    .await;
}
