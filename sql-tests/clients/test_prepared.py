"""Prepared statements and parameters."""

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
from conftest import connect, one, rows


def test_c21_twelve_question_marks_beside_ones_in_texts_and_comments(cursor):
    marks = ", ".join(["CAST(? AS BIGINT)"] * 12)
    sql = f"SELECT {marks}, '?' AS q /* ? */ -- ?\n"
    assert rows(cursor, sql, list(range(12))) == [(*range(12), "?")]


def test_c21_the_same_mark_twice_is_two_parameters(cursor, digits):
    sql = f"SELECT x FROM {digits} WHERE x > ? AND x < ? ORDER BY x"
    assert rows(cursor, sql, (3, 6)) == [(4,), (5,)]


def test_c22_numbered_parameters_are_ordered_by_number(cursor):
    marks = ", ".join(f"CAST(${i} AS BIGINT)" for i in [10, 2, 11, 1, 3, 4, 5, 6, 7, 8, 9])
    values = [i * 100 for i in range(1, 12)]
    expected = (1000, 200, 1100, 100, 300, 400, 500, 600, 700, 800, 900)
    assert rows(cursor, f"SELECT {marks}", values) == [expected]


def test_c23_a_null_parameter(cursor, digits):
    sql = f"SELECT count(*) FROM {digits} WHERE x = ?"
    nothing = pa.record_batch({"0": pa.array([None], pa.int64())})
    assert one(cursor, sql, nothing) == 0


@pytest.mark.parametrize("values", [(1,), (1, 2, 3)])
def test_c24_a_wrong_number_of_values_is_refused(cursor, digits, values):
    sql = f"SELECT x FROM {digits} WHERE x > ? AND x < ?"
    with pytest.raises(flightsql.ProgrammingError, match="2 parameters"):
        cursor.execute(sql, values)


def test_c24_no_values_at_all_are_refused(cursor, digits):
    with pytest.raises(flightsql.ProgrammingError, match="1 parameter"):
        cursor.execute(f"SELECT x FROM {digits} WHERE x > ?")


def test_c25_parameter_types_are_told_where_they_are_known(cursor, digits):
    known = cursor.adbc_prepare(f"SELECT x FROM {digits} WHERE x > ?")
    assert known.types == [pa.int64()]
    unknown = cursor.adbc_prepare("SELECT ?")
    assert unknown.types == [pa.null()]
    assert cursor.adbc_prepare("SELECT 1") in (None, pa.schema([]))


def test_c26_many_rows_for_a_query_are_refused_with_a_remedy(cursor, digits):
    batch = pa.record_batch({"0": pa.array([1, 2], pa.int64())})
    with pytest.raises(flightsql.ProgrammingError, match="one row of parameters"):
        cursor.execute(f"SELECT x FROM {digits} WHERE x = ?", batch)


def test_c27_a_statement_runs_again_with_other_values(cursor, digits):
    sql = f"SELECT x + ? FROM {digits} WHERE x = ?"
    for i in range(5):
        assert one(cursor, sql, (10, i)) == 10 + i


def test_c27_cursors_of_one_connection_do_not_disturb_each_other(connection, digits):
    with connection.cursor() as first, connection.cursor() as second:
        sql = f"SELECT x FROM {digits} WHERE x = ?"
        first.execute(sql, (1,))
        second.execute(sql, (2,))
        assert first.fetchall() == [(1,)]
        assert second.fetchall() == [(2,)]


def test_c28_a_statement_prepared_before_a_drop_fails_clearly(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    cursor.execute(f"SELECT * FROM {table}")
    cursor.fetchall()
    with connect() as other, other.cursor() as dropping:
        dropping.execute(f"DROP TABLE {table}")
    with pytest.raises(flightsql.ProgrammingError, match=table):
        cursor.execute(f"SELECT * FROM {table}")


def test_c28_a_statement_prepared_before_a_change_sees_todays_columns(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    assert rows(cursor, f"SELECT * FROM {table}") == []
    with connect() as other, other.cursor() as changing:
        changing.execute(f"DROP TABLE {table}")
        changing.execute(f"CREATE TABLE {table} (a VARCHAR, b BIGINT)")
        changing.execute(f"INSERT INTO {table} VALUES ('x', 1)")
    assert rows(cursor, f"SELECT * FROM {table}") == [("x", 1)]


def test_preparing_runs_nothing(cursor, name):
    table = name()
    cursor.adbc_prepare(f"CREATE TABLE {table} (n BIGINT)")
    with pytest.raises(flightsql.ProgrammingError) as caught:
        cursor.execute(f"SELECT * FROM {table}")
    assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.INVALID_ARGUMENT
