//! Averages of integers: exact, whatever the order of rows and the plan.

use super::{check, rows, session, values};

/// Integers whose sum is 16 in any order, and which DOUBLEs lose.
const CANCELLING: &str = "(VALUES (1, 1), (1, 15), (1, -9223372036854775807), (1, 9223372036854775807), (2, NULL)) t(g, x)";

#[tokio::test]
async fn large_integers_that_cancel_out_leave_the_small_ones() {
    check(&format!("SELECT avg(x) FROM {CANCELLING}"), &["4.0"]).await;
    check(
        &format!("SELECT g, avg(x) FROM {CANCELLING} GROUP BY g ORDER BY g"),
        &["1", "4.0", "2", ""],
    )
    .await;
    check(&format!("SELECT avg(DISTINCT x) FROM {CANCELLING}"), &["4.0"]).await;
    let filtered =
        format!("SELECT avg(x) FILTER (WHERE x <> 1) FROM {CANCELLING} GROUP BY g ORDER BY g");
    check(&filtered, &["5.0", ""]).await;
    let beside = format!("SELECT avg(x), avg(DISTINCT x), count(DISTINCT x) FROM {CANCELLING}");
    check(&beside, &["4.0", "4.0", "4"]).await;
}

#[tokio::test]
async fn what_leaves_a_frame_leaves_its_average() {
    let sql = "SELECT avg(x) OVER (ORDER BY at ROWS 1 PRECEDING) FROM \
               (VALUES (1, 9223372036854775807), (2, 1), (3, 2)) t(at, x) ORDER BY at";
    check(sql, &["9.223372036854776e18", "4.611686018427388e18", "1.5"]).await;
    let distinct = "SELECT avg(DISTINCT x) OVER (ORDER BY at ROWS 2 PRECEDING) FROM \
                    (VALUES (1, 5), (2, 5), (3, 2), (4, 3)) t(at, x) ORDER BY at";
    check(distinct, &["5.0", "5.0", "3.5", "3.3333333333333335"]).await;
}

#[tokio::test]
async fn every_type_that_had_an_average_has_it() {
    for (argument, average, result) in [
        ("CAST(3 AS TINYINT)", "3.0", "Float64"),
        ("CAST(3 AS SMALLINT)", "3.0", "Float64"),
        ("CAST(3 AS INT UNSIGNED)", "3.0", "Float64"),
        ("CAST(18446744073709551615 AS BIGINT UNSIGNED)", "1.8446744073709552e19", "Float64"),
        ("CAST(0.5 AS REAL)", "0.5", "Float64"),
        ("CAST(1.5 AS DOUBLE)", "1.5", "Float64"),
        ("CAST(1.5 AS DECIMAL(3, 1))", "1.50000", "Decimal128(7, 5)"),
        ("NULL", "", "Float64"),
        ("CAST(NULL AS BIGINT)", "", "Float64"),
    ] {
        let sql = format!("SELECT avg({argument}), arrow_typeof(avg({argument}))");
        check(&sql, &[average, result]).await;
    }
}

#[tokio::test]
async fn many_groups_that_give_up_on_grouping_have_the_same_averages() {
    let context = session();
    // Partial aggregation hands rows on as they are once most of them are groups of their own.
    let sql = "SELECT count(*), sum(CASE WHEN a = g + 0.5 THEN 1 ELSE 0 END) FROM ( \
               SELECT g, avg(x) AS a FROM ( \
               SELECT value AS g, value AS x FROM range(0, 300000) UNION ALL \
               SELECT value AS g, value + 1 AS x FROM range(0, 300000)) GROUP BY g)";
    assert_eq!(values(&context, sql).await.unwrap(), ["300000", "300000"]);
    assert!(
        !rows(&context, "SELECT avg(value) FROM range(0, 9) WHERE value > 9")
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn nothing_known_has_a_sum_and_an_average() {
    check(
        "SELECT sum(NULL), avg(NULL), sum(x), avg(x) FROM (VALUES (NULL)) t(x)",
        &["", "", "", ""],
    )
    .await;
    check("SELECT arrow_typeof(sum(NULL)), arrow_typeof(avg(NULL))", &["Int64", "Float64"]).await;
}
