"""Loading Parquet: names, order, differences, losses, empty and wide files, and globs."""

import decimal

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import basalt_load, one, rows
from parquet_wire import check_equal, quoted


AWKWARD = [
    "a b",
    " around ",
    'quo"te',
    "it's",
    "a.b",
    "a..b",
    "..",
    "UPPER",
    "upper",
    "Upper",
    "select",
    "ünïcödé",
    "日本語",
    "\U0001f600",
    "e\u0301",
    "é",
    "%_",
    "a;b -- c",
    "back\\slash",
    "new\nline",
    "$1",
    "?",
    "*",
    "x" * 255,
]


def check_refused(cursor, table, path, *parts):
    """COPY and load both fail, their errors have all parts, and nothing is loaded."""
    before = one(cursor, f"SELECT count(*) FROM {table}")
    with pytest.raises(flightsql.Error) as caught:
        cursor.execute(f"COPY {table} FROM '{path}' FORMAT PARQUET")
    load = basalt_load(table, path)
    assert load.returncode == 1, load.stdout
    for text in (str(caught.value), load.stderr):
        for part in parts:
            assert part in text
    assert one(cursor, f"SELECT count(*) FROM {table}") == before


def check_loaded_both_ways(cursor, name, path):
    """The file reads back equal from a table of COPY and from one of load."""
    source = pq.read_table(path)
    copied, loaded = name("copied"), name("loaded")
    cursor.execute(f"CREATE TABLE {copied} AS SELECT * FROM read_parquet('{path}') LIMIT 0")
    cursor.execute(f"COPY {copied} FROM '{path}' FORMAT PARQUET")
    load = basalt_load(loaded, path)
    assert load.returncode == 0, load.stderr
    for table in (copied, loaded):
        cursor.execute(f"SELECT * FROM {table} ORDER BY id")
        check_equal(cursor.fetch_arrow_table(), source)


def test_awkward_names_are_kept(cursor, name, tmp_path):
    path = tmp_path / "names.parquet"
    columns = {column: [i, -i] for i, column in enumerate(AWKWARD)}
    pq.write_table(pa.table({"id": [0, 1], **columns}), path)
    check_loaded_both_ways(cursor, name, path)
    declared = name("declared")
    names = ", ".join(f"{quoted(column)} BIGINT" for column in ["id", *AWKWARD])
    cursor.execute(f"CREATE TABLE {declared} ({names})")
    cursor.execute(f"COPY {declared} FROM '{path}' FORMAT PARQUET")
    cursor.execute(f"SELECT * FROM {declared} ORDER BY id")
    check_equal(cursor.fetch_arrow_table(), pq.read_table(path))
    for index, column in enumerate(AWKWARD):
        assert one(cursor, f"SELECT sum({quoted(column)}) FROM {declared} WHERE id = 0") == index


@pytest.mark.parametrize(("column", "problem"), [("", "empty"), ("x" * 256, "255 characters")])
def test_names_that_no_column_can_have_are_refused(cursor, name, tmp_path, column, problem):
    path = tmp_path / "names.parquet"
    pq.write_table(pa.table({"id": [0], column: [1]}), path)
    table = name()
    with pytest.raises(flightsql.Error, match=problem):
        cursor.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{path}')")
    load = basalt_load(table, path)
    assert load.returncode == 1 and problem in load.stderr
    with pytest.raises(flightsql.ProgrammingError):
        cursor.execute(f"SELECT * FROM {table}")


def test_awkward_names_of_files_and_folders(cursor, name, tmp_path):
    folder = tmp_path / "ein Ordner ü [1] 'x'"
    folder.mkdir()
    path = folder / "da..ta 日本 *.parquet"
    pq.write_table(pa.table({"id": [1]}), path)
    table = name()
    load = basalt_load(table, path)
    assert load.returncode == 0, load.stderr
    text = str(path).replace("'", "''")
    cursor.execute(f"COPY {table} FROM '{text}' FORMAT PARQUET")
    assert one(cursor, f"SELECT count(*) FROM {table}") == 2


def test_columns_are_found_by_name_in_any_order(cursor, name, tmp_path):
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"c": ["x"], "ID": [1], "b": [2.5]}), path)
    table = name()
    cursor.execute(f"CREATE TABLE {table} (b DOUBLE, c VARCHAR, id BIGINT)")
    cursor.execute(f"COPY {table} FROM '{path}' FORMAT PARQUET")
    assert basalt_load(table, path).returncode == 0
    assert rows(cursor, f"SELECT id, b, c FROM {table}") == [(1, 2.5, "x")] * 2


def test_one_error_lists_every_difference(cursor, name, tmp_path):
    path = tmp_path / "file.parquet"
    data = {"nmae": ["x"], "when": ["2020-01-01"], "n": [1.5], "more": [1], "list": [["a"]]}
    pq.write_table(pa.table({**data, "id": [1]}), path)
    table = name()
    cursor.execute(
        f"CREATE TABLE {table} (id BIGINT, name VARCHAR, \"when\" TIMESTAMP, n INT, list BIGINT[])"
    )
    cursor.execute(f"INSERT INTO {table} (id) VALUES (7)")
    check_refused(
        cursor,
        table,
        path,
        'column "name" is not in the files (is it their "nmae"?)',
        'column "nmae" is not in the table',
        'column "more" is not in the table',
        'column "when" is Timestamp(ns) in the table and Utf8',
        'column "n" is Int32 in the table and Float64 in the files',
        'column "list" is List(Int64) in the table and List(Utf8) in the files',
    )


def test_a_bad_file_of_a_glob_stops_the_whole_load(cursor, name, tmp_path):
    for part in range(5):
        pq.write_table(pa.table({"id": [part], "n": [part]}), tmp_path / f"{part}.parquet")
    pq.write_table(pa.table({"id": ["3"], "m": [3]}), tmp_path / "3.parquet")
    table = name()
    cursor.execute(f"CREATE TABLE {table} (id BIGINT, n BIGINT)")
    cursor.execute(f"INSERT INTO {table} VALUES (7, 7)")
    parts = ['column "id"', '3.parquet', '"m"', "extra", '"n"', "missing"]
    check_refused(cursor, table, f"{tmp_path}/*.parquet", *parts)


def test_a_bad_value_in_the_last_file_of_a_glob_stops_the_whole_load(cursor, name, tmp_path):
    for part in range(4):
        numbers = list(range(part * 1000, part * 1000 + 1000))
        pq.write_table(pa.table({"n": numbers}), tmp_path / f"{part}.parquet")
    pq.write_table(pa.table({"n": [1, None, 2**31]}), tmp_path / "9.parquet")
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n INT)")
    check_refused(cursor, table, f"{tmp_path}/*.parquet", 'column "n"', "2147483648")


def test_a_damaged_file_of_a_glob_stops_the_whole_load(cursor, name, tmp_path):
    for part in range(3):
        pq.write_table(pa.table({"n": list(range(1000))}), tmp_path / f"{part}.parquet")
    whole = (tmp_path / "1.parquet").read_bytes()
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    broken = [b"", b"PAR1", whole[:-20], whole[:100] + b"\xff" * 200 + whole[300:]]
    for content in broken:
        (tmp_path / "1.parquet").write_bytes(content)
        check_refused(cursor, table, f"{tmp_path}/*.parquet", "1.parquet")


def test_a_glob_is_one_commit(cursor, name, tmp_path):
    for part in range(5):
        numbers = list(range(part * 20_000, part * 20_000 + 20_000))
        pq.write_table(pa.table({"n": numbers}), tmp_path / f"{part}.parquet")
    copied, loaded = name("copied"), name("loaded")
    cursor.execute(f"CREATE TABLE {copied} (n BIGINT)")
    cursor.execute(f"COPY {copied} FROM '{tmp_path}/*.parquet' FORMAT PARQUET")
    assert cursor.rowcount == 100_000
    load = basalt_load(loaded, f"{tmp_path}/*.parquet")
    assert "loaded 100,000 rows" in load.stdout and "from 5 files" in load.stdout
    for table in (copied, loaded):
        found = rows(cursor, f"SELECT count(*), count(DISTINCT n), sum(n) FROM {table}")
        assert found == [(100_000, 100_000, 99_999 * 50_000)]
        segments = f"FROM sys.segments WHERE table_name = '{table}'"
        assert one(cursor, f"SELECT count(*) {segments}") > 1
        assert one(cursor, f"SELECT count(DISTINCT txn) {segments}") == 1


def test_no_file_is_an_error(cursor, name, tmp_path):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    check_refused(cursor, table, f"{tmp_path}/*.parquet", "match", f"{tmp_path}/*.parquet")
    check_refused(cursor, table, tmp_path, "match")


def empty_of_groups(path):
    with pq.ParquetWriter(path, pa.schema({"id": pa.int64(), "s": pa.string()})):
        pass
    assert pq.ParquetFile(path).num_row_groups == 0


def empty_of_rows(path):
    schema = pa.schema({"id": pa.int64(), "s": pa.string()})
    pq.write_table(schema.empty_table(), path)


@pytest.mark.parametrize("write", [empty_of_groups, empty_of_rows])
def test_files_of_no_rows_make_and_fill_tables(cursor, name, tmp_path, write):
    path = tmp_path / "empty.parquet"
    write(path)
    check_loaded_both_ways(cursor, name, path)
    # Beside others they add nothing.
    pq.write_table(pa.table({"s": ["x"], "id": [1]}), tmp_path / "one.parquet")
    table = name()
    cursor.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{tmp_path}/*.parquet')")
    assert basalt_load(table, tmp_path).returncode == 0
    assert rows(cursor, f"SELECT id, s FROM {table}") == [(1, "x")] * 2


def test_row_groups_of_one_row(cursor, name, tmp_path):
    path = tmp_path / "groups.parquet"
    count = 500
    data = {"id": list(range(count)), "s": [None if i % 3 else str(i) for i in range(count)]}
    pq.write_table(pa.table(data), path, row_group_size=1)
    assert pq.ParquetFile(path).num_row_groups == count
    check_loaded_both_ways(cursor, name, path)


def test_ten_thousand_columns(cursor, name, tmp_path):
    path = tmp_path / "wide.parquet"
    columns = {f"c{i}": [i, None, -i] for i in range(1, 10_000)}
    source = pa.table({"id": [0, 1, 2], **columns})
    pq.write_table(source, path)
    table = name()
    load = basalt_load(table, path)
    assert load.returncode == 0, load.stderr
    cursor.execute(f"COPY {table} FROM '{path}' FORMAT PARQUET")
    assert one(cursor, f"SELECT columns FROM sys.tables WHERE table_name = '{table}'") == 10_000
    # In parts: planning takes time by the square of a query's columns.
    for first in range(0, 10_000, 500):
        part = source.column_names[first : first + 500]
        cursor.execute(f"SELECT {', '.join(part)} FROM {table} ORDER BY id DESC")
        found = cursor.fetch_arrow_table()
        check_equal(found, source.select(part).take([2, 2, 1, 1, 0, 0]))


def test_a_value_that_would_change_is_an_error_that_names_column_and_value(cursor, name, tmp_path):
    path = tmp_path / "file.parquet"
    moment = pa.array([1_000, 1_001], pa.timestamp("ns"))
    cases = [
        ("INT", pa.array([1, 2**31]), "2147483648"),
        ("TINYINT UNSIGNED", pa.array([1, -1]), "-1"),
        ("BIGINT", pa.array([1, 2**63], pa.uint64()), str(2**63)),
        ("DECIMAL(10, 1)", pa.array([decimal.Decimal("1.00"), decimal.Decimal("1.25")]), "1.25"),
        ("DECIMAL(3, 2)", pa.array([decimal.Decimal("1.00"), decimal.Decimal("12.25")]), "12.25"),
        ("TIMESTAMP(6)", moment, "00:00:00.000001001"),
        ("TIMESTAMP", pa.array([0, 2**62], pa.timestamp("us")), ""),
        ("TIME(6)", pa.array([0, 1], pa.time64("ns")), "00:00:00.000000001"),
    ]
    for declared, column, value in cases:
        pq.write_table(pa.table({"c": column}), path)
        table = name()
        cursor.execute(f"CREATE TABLE {table} (c {declared})")
        check_refused(cursor, table, path, 'column "c"', value, "does not fit")
        # The same without the value that is lost.
        pq.write_table(pa.table({"c": column[:1]}), path)
        cursor.execute(f"COPY {table} FROM '{path}' FORMAT PARQUET")
        assert one(cursor, f"SELECT count(*) FROM {table}") == 1


def test_a_null_in_a_column_that_has_none_is_an_error(cursor, name, tmp_path):
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"c": [1, None]}), path)
    table = name()
    cursor.execute(f"CREATE TABLE {table} (c BIGINT NOT NULL)")
    check_refused(cursor, table, path, 'column "c"', "does not allow NULL")


def test_a_column_that_is_there_twice_is_an_error(cursor, name, tmp_path):
    path = tmp_path / "file.parquet"
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["c", "c"])
    pq.write_table(twice, path)
    table = name()
    cursor.execute(f"CREATE TABLE {table} (c BIGINT)")
    check_refused(cursor, table, path, 'more than one column "c"')
