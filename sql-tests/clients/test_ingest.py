"""Bulk loads."""

import subprocess
import sys
import textwrap

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as flightsql
import pandas
import polars
import pyarrow as pa
import pytest
from conftest import basalt_load, connect, one, rows

DATA = pa.table({"n": [1, 2, 3], "s": ["a", None, "c"]})


@pytest.mark.parametrize("mode", ["create", "replace", "create_append"])
def test_c33_a_missing_table_is_created(cursor, name, mode):
    table = name()
    assert cursor.adbc_ingest(table, DATA, mode=mode) == 3
    assert rows(cursor, f"SELECT * FROM {table} ORDER BY n") == [(1, "a"), (2, None), (3, "c")]


def test_c33_append_wants_a_table(cursor, name):
    table = name()
    with pytest.raises(flightsql.Error, match=table):
        cursor.adbc_ingest(table, DATA, mode="append")


def test_c33_create_wants_no_table(cursor, name):
    table = name()
    cursor.adbc_ingest(table, DATA, mode="create")
    with pytest.raises(flightsql.Error, match=table):
        cursor.adbc_ingest(table, DATA, mode="create")
    assert one(cursor, f"SELECT count(*) FROM {table}") == 3


@pytest.mark.parametrize("mode", ["append", "create_append"])
def test_c33_rows_are_appended_to_a_table(cursor, name, mode):
    table = name()
    cursor.adbc_ingest(table, DATA, mode="create")
    assert cursor.adbc_ingest(table, DATA, mode=mode) == 3
    assert one(cursor, f"SELECT count(*) FROM {table}") == 6


def test_c33_replace_drops_what_was_there(cursor, name):
    table = name()
    cursor.adbc_ingest(table, DATA, mode="create")
    other = pa.table({"m": [1.5]})
    assert cursor.adbc_ingest(table, other, mode="replace") == 1
    assert rows(cursor, f"SELECT * FROM {table}") == [(1.5,)]


def test_c33_a_schema_can_be_named(cursor, name):
    table = name()
    cursor.adbc_ingest(table, DATA, mode="create", db_schema_name="public")
    assert one(cursor, f"SELECT count(*) FROM public.{table}") == 3


def test_c33_frames_of_pandas_and_polars(cursor, name):
    first, second = name(), name()
    cursor.adbc_ingest(first, pandas.DataFrame({"n": [1, 2]}), mode="create")
    cursor.adbc_ingest(second, polars.DataFrame({"s": ["x", "y", "z"]}), mode="create")
    assert one(cursor, f"SELECT sum(n) FROM {first}") == 3
    assert one(cursor, f"SELECT count(s) FROM {second}") == 3


def test_c34_zero_batches_are_explained_and_do_not_hang(cursor, name):
    empty = pa.RecordBatchReader.from_batches(DATA.schema, [])
    with pytest.raises(flightsql.Error, match="zero batches"):
        cursor.adbc_ingest(name(), empty, mode="create")


def test_c34_one_batch_of_zero_rows_creates_the_table(cursor, name):
    table = name()
    batch = pa.RecordBatch.from_arrays([[], []], schema=DATA.schema)
    assert cursor.adbc_ingest(table, batch, mode="create") == 0
    cursor.execute(f"SELECT * FROM {table}")
    assert cursor.fetch_arrow_table().schema.equals(DATA.schema)


def test_c35_an_error_lists_every_column_that_does_not_fit(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT, s VARCHAR, d DATE)")
    wrong = pa.table({"n": ["text"], "s": ["x"], "extra": [1]})
    with pytest.raises(flightsql.Error) as caught:
        cursor.adbc_ingest(table, wrong, mode="append")
    for column in ['"d"', '"extra"', '"n"']:
        assert column in str(caught.value)
    assert one(cursor, f"SELECT count(*) FROM {table}") == 0


def test_c36_batches_of_50_mib(name):
    table = name()
    values = pa.array(["x" * 1024] * (50 << 10))
    batch = pa.record_batch({"s": values})
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch, batch])
    limit = {driver.DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(80 << 20)}
    with connect(db_kwargs=limit) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest(table, reader, mode="create") == 100 << 10
        assert one(cursor, f"SELECT sum(length(s)) FROM {table}") == 100 << 20


def test_c36_a_batch_above_the_servers_limit_is_refused(name):
    batch = pa.record_batch({"s": pa.array(["x" * 1024] * (70 << 10))})
    limit = {driver.DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(200 << 20)}
    with connect(db_kwargs=limit) as connection, connection.cursor() as cursor:
        with pytest.raises(flightsql.Error, match="smaller batches"):
            cursor.adbc_ingest(name(), batch, mode="create")
        assert one(cursor, "SELECT 1") == 1


def test_c37_a_reader_that_fails_half_way_leaves_nothing(cursor, name):
    table = name()

    def batches():
        yield pa.record_batch({"n": [1, 2, 3]})
        raise RuntimeError("the source broke")

    broken = pa.RecordBatchReader.from_batches(pa.schema({"n": pa.int64()}), batches())
    with pytest.raises(Exception, match="the source broke"):
        cursor.adbc_ingest(table, broken, mode="create")
    with connect() as connection, connection.cursor() as other:
        with pytest.raises(flightsql.ProgrammingError):
            other.execute(f"SELECT * FROM {table}")


def test_c37_a_client_that_dies_half_way_leaves_nothing(url, cursor, name):
    table = name()
    script = f"""
        import os
        import adbc_driver_flightsql.dbapi as flightsql
        import pyarrow as pa
        def batches():
            for _ in range(20):
                yield pa.record_batch({{"s": ["x" * 1000] * 1000}})
            os._exit(7)
        reader = pa.RecordBatchReader.from_batches(pa.schema({{"s": pa.string()}}), batches())
        connection = flightsql.connect({url!r}, autocommit=True)
        connection.cursor().adbc_ingest({table!r}, reader, mode="create")
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert died.returncode == 7
    with pytest.raises(flightsql.ProgrammingError):
        cursor.execute(f"SELECT * FROM {table}")


def test_c39_temporary_tables_and_other_catalogs_are_refused(cursor, name):
    with pytest.raises(flightsql.NotSupportedError):
        cursor.adbc_ingest(name(), DATA, mode="create", temporary=True)
    with pytest.raises(flightsql.ProgrammingError, match="catalog"):
        cursor.adbc_ingest(name(), DATA, mode="create", catalog_name="elsewhere")


def test_ingested_types_come_back_as_they_were(cursor, name):
    table = name()
    data = pa.table(
        {
            "bool": pa.array([True, None]),
            "int8": pa.array([-1, None], pa.int8()),
            "uint64": pa.array([2**64 - 1, None], pa.uint64()),
            "float32": pa.array([0.5, None], pa.float32()),
            "decimal": pa.array([None, 12], pa.decimal128(20, 3)),
            "date": pa.array([0, None], pa.date32()),
            "timestamp": pa.array([1, None], pa.timestamp("us")),
            "zoned": pa.array([1, None], pa.timestamp("us", tz="UTC")),
            "text": pa.array(["é", None]),
            "binary": pa.array([b"\x00\xff", None]),
            "list": pa.array([[1, None], None], pa.list_(pa.int64())),
        }
    )
    cursor.adbc_ingest(table, data, mode="create")
    cursor.execute(f"SELECT * FROM {table}")
    assert cursor.fetch_arrow_table().to_pylist() == data.to_pylist()


def test_large_batches_of_the_client_are_loaded(cursor, name):
    table = name()
    numbers = pa.table({"n": pa.array(range(500_000))})
    assert cursor.adbc_ingest(table, numbers, mode="create") == 500_000
    assert one(cursor, f"SELECT sum(n) FROM {table}") == 499_999 * 500_000 // 2


KEY = "adbc.flight.sql.rpc.call_header.x-basalt-request"


def test_c40_an_ingest_sent_again_under_its_key_has_one_effect(cursor, name):
    table = name()
    cursor.adbc_statement.set_options(**{KEY: table})
    for _ in range(2):
        assert cursor.adbc_ingest(table, DATA, mode="create_append") == 3
    with pytest.raises(flightsql.Error, match="was used for another statement"):
        cursor.adbc_ingest(table, DATA.slice(1), mode="create_append")
    with connect() as connection, connection.cursor() as other:
        assert one(other, f"SELECT count(*) FROM {table}") == 3


def test_c40_statements_sent_again_under_their_key_have_one_effect(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    with connect() as connection:
        for _ in range(2):
            with connection.cursor() as keyed:
                keyed.adbc_statement.set_options(**{KEY: f"{table} execute"})
                keyed.execute(f"INSERT INTO {table} VALUES (1), (2)")
                assert keyed.rowcount == 2
        for _ in range(2):
            with connection.cursor() as keyed:
                keyed.adbc_statement.set_options(**{KEY: f"{table} many"})
                keyed.executemany(f"INSERT INTO {table} VALUES (?)", [(3,), (4,)])
        with connection.cursor() as keyed:
            keyed.adbc_statement.set_options(**{KEY: f"{table} select"})
            with pytest.raises(flightsql.Error, match="SELECT cannot have a request key"):
                keyed.execute(f"SELECT n FROM {table}")
    assert rows(cursor, f"SELECT n FROM {table} ORDER BY n") == [(1,), (2,), (3,), (4,)]


def test_c40_basalt_load_takes_a_label(cursor, name, tmp_path):
    table = name()
    path = tmp_path / "rows.csv"
    path.write_text("n\n1\n2\n")
    for _ in range(2):
        done = basalt_load(table, path, options=["--label", table])
        assert done.returncode == 0, done.stderr
    assert one(cursor, f"SELECT count(*) FROM {table}") == 2
    path.write_text("n\n1\n3\n")
    other = basalt_load(table, path, options=["--label", table])
    assert other.returncode == 1
    assert f'request key "{table}" was used for another statement' in other.stderr
