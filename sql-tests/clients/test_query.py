"""Queries: schemas, types, sizes, names."""

import datetime
import decimal

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from conftest import connect, one, rows

ALL_TYPES = """SELECT
    true AS a_bool,
    CAST(-8 AS TINYINT) AS a_int8,
    CAST(-16 AS SMALLINT) AS a_int16,
    CAST(-32 AS INTEGER) AS a_int32,
    CAST(-64 AS BIGINT) AS a_int64,
    CAST(1.5 AS REAL) AS a_float32,
    CAST(2.5 AS DOUBLE) AS a_float64,
    CAST('12345678901234567890.12' AS DECIMAL(38, 2)) AS a_decimal,
    CAST('2024-02-29' AS DATE) AS a_date,
    CAST('12:34:56.789012' AS TIME) AS a_time,
    CAST('2024-02-29T12:34:56.789012' AS TIMESTAMP) AS a_timestamp,
    'grüße 🦀' AS a_text,
    CAST('abc' AS BYTEA) AS a_binary,
    NULL AS a_null,
    CAST(NULL AS BIGINT) AS a_null_int64
"""


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        ALL_TYPES,
        "SELECT count(*), min(x), max(x), sum(x), avg(x) FROM {t}",
        "SELECT x, count(*) OVER () FROM {t} ORDER BY x LIMIT 3",
        "SELECT a.x, b.x FROM {t} a LEFT JOIN {t} b ON a.x = b.x + 5",
        "SELECT x % 2 AS k, sum(x) FROM {t} GROUP BY 1 HAVING sum(x) > 0",
        "SELECT x FROM {t} UNION ALL SELECT NULL",
        "SELECT CASE WHEN x > 5 THEN 'big' END FROM {t}",
        "SELECT * FROM {t} WHERE false",
    ],
)
def test_c11_the_schema_is_the_same_wherever_it_is_told(cursor, client, digits, sql):
    sql = sql.format(t=digits)
    prepared = cursor.adbc_execute_schema(sql)
    cursor.execute(sql)
    fetched = cursor.fetch_record_batch()
    descriptor = flight.FlightDescriptor.for_command(sql)
    info = client.get_flight_info(descriptor)
    streamed = client.do_get(info.endpoints[0].ticket).read_all()
    described = client.get_schema(descriptor).schema
    for schema in [fetched.schema, info.schema, streamed.schema, described]:
        assert schema.equals(prepared)
    assert all(field.nullable for field in prepared)
    fetched.read_all()


def test_c12_an_empty_result_keeps_its_schema(cursor, digits):
    cursor.execute(f"SELECT x, 'a' AS s FROM {digits} WHERE x > 100")
    table = cursor.fetch_arrow_table()
    assert table.num_rows == 0
    assert table.schema == pa.schema({"x": pa.int64(), "s": pa.string()})


def test_c14_every_type_arrives_as_it_was_written(cursor):
    cursor.execute(ALL_TYPES)
    [row] = cursor.fetch_arrow_table().to_pylist()
    assert row == {
        "a_bool": True,
        "a_int8": -8,
        "a_int16": -16,
        "a_int32": -32,
        "a_int64": -64,
        "a_float32": 1.5,
        "a_float64": 2.5,
        "a_decimal": decimal.Decimal("12345678901234567890.12"),
        "a_date": datetime.date(2024, 2, 29),
        "a_time": datetime.time(12, 34, 56, 789012),
        "a_timestamp": datetime.datetime(2024, 2, 29, 12, 34, 56, 789012),
        "a_text": "grüße 🦀",
        "a_binary": b"abc",
        "a_null": None,
        "a_null_int64": None,
    }


def test_c14_the_types_on_the_wire_are_the_ones_that_every_client_knows(cursor):
    cursor.execute(ALL_TYPES)
    schema = cursor.fetch_arrow_table().schema
    assert schema.field("a_text").type == pa.string()
    assert schema.field("a_binary").type == pa.binary()
    assert schema.field("a_decimal").type == pa.decimal128(38, 2)
    assert schema.field("a_date").type == pa.date32()
    assert pa.types.is_time64(schema.field("a_time").type)
    assert pa.types.is_timestamp(schema.field("a_timestamp").type)


def test_c15_a_row_of_20_mib_exceeds_the_default_limit_of_the_client(cursor):
    cursor.execute("SELECT repeat('x', 20971520) AS s")
    with pytest.raises(flightsql.Error, match="larger than max|with_max_msg_size"):
        cursor.fetchall()


def test_c15_a_row_of_20_mib_arrives_once_the_client_allows_it():
    limit = {driver.DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(80 << 20)}
    with connect(db_kwargs=limit) as connection, connection.cursor() as cursor:
        assert len(one(cursor, "SELECT repeat('x', 20971520) AS s")) == 20 << 20


def test_c15_a_row_that_no_message_can_hold_is_refused_by_name():
    limit = {driver.DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(200 << 20)}
    with connect(db_kwargs=limit) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT repeat('x', 73400320) AS s")
        with pytest.raises(flightsql.Error, match="with_max_msg_size"):
            cursor.fetchall()


def test_c15_wide_rows_are_cut_into_messages_that_the_default_client_takes(cursor, digits):
    sql = f"SELECT repeat('x', 3000000) AS s FROM {digits}"
    cursor.execute(sql)
    assert [len(s) for [s] in cursor.fetchall()] == [3_000_000] * 10


def test_c16_ten_million_rows_stream_through(cursor, digits, numbers):
    places = "a.n * 100 + b.x * 10 + c.x"
    tables = f"{numbers} AS a CROSS JOIN {digits} AS b CROSS JOIN {digits} AS c"
    cursor.execute(f"SELECT {places} AS n FROM {tables}")
    count = total = 0
    for batch in cursor.fetch_record_batch():
        count += batch.num_rows
        total += pa.compute.sum(batch["n"]).as_py()
    assert (count, total) == (10_000_000, 9_999_999 * 10_000_000 // 2)


def test_c17_plain_sql_in_a_descriptor_and_in_a_ticket(client, digits):
    info = client.get_flight_info(
        flight.FlightDescriptor.for_command(f"SELECT sum(x) AS s FROM {digits}")
    )
    assert len(info.endpoints) == 1
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"s": 45}]
    ticket = flight.Ticket(f"SELECT max(x) AS m FROM {digits}")
    for _ in range(2):
        assert client.do_get(ticket).read_all().to_pylist() == [{"m": 9}]


def test_c17_a_ticket_changes_nothing(client, cursor, digits):
    with pytest.raises((pa.ArrowInvalid, pa.ArrowNotImplementedError)):
        client.do_get(flight.Ticket(f"DELETE FROM {digits}")).read_all()
    with pytest.raises(pa.ArrowInvalid):
        client.do_get(flight.Ticket(f"DROP TABLE {digits}")).read_all()
    assert one(cursor, f"SELECT count(*) FROM {digits}") == 10


def test_c18_aggregates_over_a_not_null_column(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT NOT NULL)")
    cursor.execute(f"INSERT INTO {table} VALUES (3), (1), (2)")
    assert rows(cursor, f"SELECT min(n), max(n), count(n), count(*) FROM {table}") == [(1, 3, 3, 3)]
    assert rows(cursor, f"SELECT n FROM {table} ORDER BY n") == [(1,), (2,), (3,)]


def test_c19_duplicate_quoted_and_foreign_names(cursor):
    cursor.execute('SELECT 1 AS a, 2 AS "A", 3 AS "größe", 4 AS "a b", 5 AS "q""q", 6 AS "🦀"')
    assert [column[0] for column in cursor.description] == ["a", "A", "größe", "a b", 'q"q', "🦀"]
    assert cursor.fetchall() == [(1, 2, 3, 4, 5, 6)]


def test_c19_two_columns_of_one_name(cursor, digits):
    cursor.execute(f"SELECT a.x, b.x FROM {digits} a JOIN {digits} b ON a.x = b.x WHERE a.x = 3")
    assert [column[0] for column in cursor.description] == ["x", "x"]
    assert cursor.fetchall() == [(3, 3)]


def test_c19_newlines_ampersands_and_comments_in_the_text(cursor):
    sql = "SELECT 1 & 3 AS a, -- a comment with ' and \"\n'&amp;\n' AS b /* and ? here */"
    assert rows(cursor, sql) == [(1, "&amp;\n")]


def test_c20_the_row_count_is_unknown_or_exact(cursor, digits):
    cursor.execute(f"SELECT * FROM {digits}")
    assert cursor.rowcount in (-1, 10)


def test_c51_errors_are_of_the_class_that_dbapi_has_for_them(cursor, digits):
    for sql in ["SELEKT 1", "SELECT nothing", "SELECT * FROM no_such_table", "SELECT no_such_fn(1)"]:
        with pytest.raises(flightsql.ProgrammingError) as caught:
            cursor.execute(sql)
        assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.INVALID_ARGUMENT
    with pytest.raises(flightsql.Error) as caught:
        cursor.execute(f"CREATE TABLE {digits} (x BIGINT)")
    assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.ALREADY_EXISTS


def test_c51_an_error_carries_its_code_and_sqlstate(cursor):
    with pytest.raises(flightsql.ProgrammingError) as caught:
        cursor.execute("SELECT * FROM no_such_table")
    details = dict(caught.value.details)
    assert details[b"x-error-code"] == b"UNDEFINED_TABLE"
    assert details[b"x-sqlstate"] == b"42P01"
    assert "no_such_table" in str(caught.value)


def test_c51_an_error_after_many_rows_is_the_error_and_not_an_end(cursor, numbers):
    sql = f"SELECT 1 / (99990 - n) AS q FROM {numbers}"
    cursor.execute(sql)
    with pytest.raises(flightsql.Error, match="(?i)divi") as caught:
        cursor.fetchall()
    assert dict(caught.value.details)[b"x-query-id"]
