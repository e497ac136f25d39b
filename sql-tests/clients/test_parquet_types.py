"""Parquet of every writer and type is loaded, stored and sent back without a changed value."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import basalt_load, rows
from parquet_files import FILES, READ, duckdb_writes
from parquet_wire import check_equal, quoted, sql_type


# Columns whose types pyarrow's reader does not tell: see check_equal.
SPECIAL = {"intervals": {"interval"}, "in_utc": {"timestamp_s_Europe/Berlin", "timestamp_s_+05:30"}}


def create(cursor, table, path, source):
    """A table for the file: with declared columns when SQL has names for all of their types."""
    columns = [(quoted(field.name), sql_type(field.type)) for field in source.schema]
    if all(name for _, name in columns):
        cursor.execute(f"CREATE TABLE {table} ({', '.join(map(' '.join, columns))})")
    else:
        cursor.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{path}') LIMIT 0")


def fetch(cursor, table):
    cursor.execute(f"SELECT * FROM {table} ORDER BY id")
    return cursor.fetch_arrow_table()


@pytest.mark.parametrize("file", FILES)
def test_a_file_reads_back_equal_after_copy_and_after_load(cursor, name, tmp_path, file):
    path = tmp_path / "file.parquet"
    FILES[file](str(path))
    source = pq.read_table(path, **READ.get(file, {}))
    copied, loaded = name("copied"), name("loaded")

    create(cursor, copied, path, source)
    cursor.execute(f"COPY {copied} FROM '{path}' FORMAT PARQUET")
    assert cursor.rowcount == source.num_rows
    check_equal(fetch(cursor, copied), source, **SPECIAL)

    load = basalt_load(loaded, path)
    assert load.returncode == 0, load.stderr
    check_equal(fetch(cursor, loaded), source, **SPECIAL)

    # What is read without being stored is the same as well.
    cursor.execute(f"SELECT * FROM read_parquet('{path}') ORDER BY id")
    assert cursor.fetch_arrow_table().num_rows == source.num_rows


def test_intervals_keep_months_days_and_milliseconds_inside_nested_types(cursor, name, tmp_path):
    path = tmp_path / "intervals.parquet"
    duckdb_writes("""
        SELECT 0 AS id, [INTERVAL '14 months', NULL, INTERVAL '3 days 1 millisecond'] AS list,
            {'i': INTERVAL '1 month 2 days 23 hours'} AS struct,
            MAP {'k': INTERVAL '1 day'} AS map
    """)(path)
    pair = [(14, 0, 0), None, (0, 3, 1_000_000)]
    expected = [0, pair, {"i": (1, 2, 23 * 3_600_000_000_000)}, [("k", (0, 1, 0))]]
    copied, loaded = name("copied"), name("loaded")
    cursor.execute(f"CREATE TABLE {copied} AS SELECT * FROM read_parquet('{path}')")
    assert basalt_load(loaded, path).returncode == 0
    for table in (copied, loaded):
        [row] = fetch(cursor, table).to_pylist()
        assert list(row.values()) == expected


def test_a_timestamp_of_12_bytes_that_does_not_fit_is_an_error(cursor, name, tmp_path):
    path = tmp_path / "int96.parquet"
    moments = pa.array([0, 253_402_300_799_999_999], pa.timestamp("us"))
    write = {"use_deprecated_int96_timestamps": True}
    pq.write_table(pa.table({"id": [0, 1], "m": moments}), path, **write)
    table = name()
    cursor.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{path}')")
    assert fetch(cursor, table).column("m").combine_chunks() == moments
    # Without pyarrow's note that they are microseconds they are nanoseconds.
    pq.write_table(pa.table({"id": [0, 1], "m": moments}), path, store_schema=False, **write)
    with pytest.raises(Exception, match='column "m" has an INT96 timestamp, day 2932896'):
        cursor.execute(f"COPY {table} FROM '{path}' FORMAT PARQUET")
    load = basalt_load(table, path)
    assert load.returncode == 1 and 'column "m" has an INT96 timestamp' in load.stderr
    assert rows(cursor, f"SELECT count(*) FROM {table}") == [(2,)]


def test_fixed_size_arrays_of_duckdb_keep_their_nulls(cursor, name, tmp_path):
    # pyarrow 26 cannot read this column: DuckDB itself says what is in it.
    path = tmp_path / "arrays.parquet"
    values = "(0, [1, 2]::INT[2]), (1, NULL), (2, [3, NULL]::INT[2])"
    duckdb_writes(f"SELECT * FROM (VALUES {values}) AS t(id, a)")(path)
    expected = duckdb.sql(f"SELECT * FROM '{path}' ORDER BY id").fetchall()
    table = name()
    assert basalt_load(table, path).returncode == 0
    found = rows(cursor, f"SELECT * FROM {table} ORDER BY id")
    assert found == [(row, array and list(array)) for row, array in expected]
    cursor.execute(f"COPY {table} FROM '{path}' FORMAT PARQUET")
    assert rows(cursor, f"SELECT count(*), count(a) FROM {table}") == [(6, 4)]


@pytest.mark.parametrize("into", ["VARCHAR", "BIGINT", "TIMESTAMP", "DECIMAL(38, 9)", "BIGINT[]"])
def test_a_column_without_values_fits_every_type(cursor, name, tmp_path, into):
    path = tmp_path / "untyped.parquet"
    pq.write_table(pa.table({"id": [1, 2], "c": pa.nulls(2)}), path)
    table = name()
    cursor.execute(f"CREATE TABLE {table} (id BIGINT, c {into})")
    cursor.execute(f"COPY {table} FROM '{path}' FORMAT PARQUET")
    load = basalt_load(table, path)
    assert load.returncode == 0, load.stderr
    assert rows(cursor, f"SELECT count(*), count(c) FROM {table}") == [(4, 0)]


def test_a_file_without_a_type_for_a_column_takes_that_of_the_other_files(cursor, name, tmp_path):
    pq.write_table(pa.table({"id": [1], "c": pa.nulls(1)}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"id": [2], "c": ["x"]}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"id": [3], "c": pa.nulls(1)}), tmp_path / "3.parquet")
    copied, loaded = name("copied"), name("loaded")
    cursor.execute(f"CREATE TABLE {copied} AS SELECT * FROM read_parquet('{tmp_path}/*.parquet')")
    load = basalt_load(loaded, tmp_path)
    assert load.returncode == 0, load.stderr
    for table in (copied, loaded):
        found = rows(cursor, f"SELECT * FROM {table} ORDER BY id")
        assert found == [(1, None), (2, "x"), (3, None)]


def test_files_of_different_writers_are_one_load(cursor, name, tmp_path):
    # They name list items differently, and nest with other offsets.
    lists = [["a", None], [], None]
    pq.write_table(pa.table({"id": [0, 1, 2], "l": lists}), tmp_path / "pyarrow.parquet")
    large = pa.array(lists, pa.large_list(pa.large_string()))
    pq.write_table(pa.table({"l": large, "id": [3, 4, 5]}), tmp_path / "large.parquet")
    values = "(6::BIGINT, ['a', NULL]), (7, []), (8, NULL)"
    duckdb_writes(f"SELECT * FROM (VALUES {values}) AS t(id, l)")(tmp_path / "duckdb.parquet")
    copied, loaded = name("copied"), name("loaded")
    cursor.execute(f"CREATE TABLE {copied} (id BIGINT, l VARCHAR[])")
    cursor.execute(f"COPY {copied} FROM '{tmp_path}/*.parquet' FORMAT PARQUET")
    load = basalt_load(loaded, tmp_path)
    assert load.returncode == 0, load.stderr
    for table in (copied, loaded):
        assert rows(cursor, f"SELECT * FROM {table} ORDER BY id") == list(enumerate(lists * 3))


def test_types_that_cannot_be_stored_are_named_with_a_remedy(cursor, name, tmp_path):
    path = tmp_path / "wide.parquet"
    wide = pa.array([1, None], pa.decimal256(50, 2))
    pq.write_table(pa.table({"id": [1, 2], "a": wide, "b": wide}), path)
    table = name()
    with pytest.raises(Exception, match="NOT_IMPLEMENTED") as caught:
        cursor.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{path}')")
    load = basalt_load(table, path)
    assert load.returncode == 1
    for text in (str(caught.value), load.stderr):
        for part in ['column "a": type Decimal256(50, 2)', 'column "b"', "HINT", "CAST"]:
            assert part in text
    # The remedy works.
    cast = "CAST(a AS DECIMAL(38, 2)) AS a"
    cursor.execute(f"CREATE TABLE {table} AS SELECT id, {cast} FROM read_parquet('{path}')")
    assert rows(cursor, f"SELECT count(a) FROM {table}") == [(1,)]
