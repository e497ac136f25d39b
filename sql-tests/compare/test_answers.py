"""The comparison itself: what it must find, and what it must let pass."""

import datetime
from decimal import Decimal

import pyarrow as pa
from answers import check, first_difference
from texts import order_keys, split_limit, statements, without_limit


def table(**columns):
    return pa.table(columns)


def test_the_order_of_rows_does_not_matter_but_their_number_does():
    ours = table(a=[1, 2, 2])
    assert first_difference(ours, table(a=[2, 1, 2])) is None
    assert "2 rows instead of 3" in first_difference(table(a=[1, 2]), ours)
    assert first_difference(ours, table(a=[1, 1, 2])) is not None


def test_null_is_only_null():
    assert first_difference(table(a=[None, 1]), table(a=[1, None])) is None
    assert first_difference(table(a=[0]), table(a=pa.array([None], pa.int64()))) is not None


def test_decimals_of_one_scale_are_equal_to_the_last_digit():
    ours = table(a=pa.array([Decimal("1.10")], pa.decimal128(15, 2)))
    theirs = table(a=pa.array([Decimal("1.11")], pa.decimal128(15, 2)))
    assert first_difference(ours, theirs) is not None


def test_a_float_beside_a_decimal_agrees_at_the_digits_of_the_decimal():
    ours = table(a=pa.array([Decimal("25.522006")], pa.decimal128(19, 6)))
    assert first_difference(ours, table(a=[25.522005853])) is None
    assert first_difference(ours, table(a=[25.5219])) is not None
    percent = table(a=pa.array([Decimal("52.68389800")], pa.decimal128(30, 8)))
    assert first_difference(percent, table(a=[52.68389862695996])) is None


def test_midnight_is_a_date():
    assert first_difference(
        table(a=[datetime.date(2026, 1, 1)]), table(a=[datetime.datetime(2026, 1, 1)])
    ) is None


def test_the_order_that_the_query_asks_for_is_checked():
    rows, upside_down = table(a=[1, 2, 3]), table(a=[3, 2, 1])
    sql = "select a from t order by a"
    assert check(sql, rows, rows, rows) is None
    assert "before its turn" in check(sql, upside_down, upside_down, rows)


def test_a_limit_must_take_the_first_rows():
    whole = table(a=[1, 2, 3])
    sql = "select a from t order by a limit 2"
    assert check(sql, whole, table(a=[1, 2]), whole) is None
    assert "not the first rows" in check(sql, whole, table(a=[2, 3]), whole)
    assert "1 rows instead of 2" in check(sql, whole, table(a=[1]), whole)
    assert "not in the whole answer" in check(sql, whole, table(a=[1, 7]), whole)


def test_texts_are_taken_apart():
    sql = "select a, b from (select 1 limit 5) t order by b desc, a limit 10"
    assert split_limit(sql)[1] == 10
    assert order_keys(sql, ["a", "b"]) == [(1, True), (0, False)]
    assert statements("create view v as select 1; select 2;") == ["create view v as select 1", "select 2"]
    assert without_limit("select 1 limit 2; select 3") == "select 1 ;\nselect 3"
