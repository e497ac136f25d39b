"""Statements that change something: exactly once, whatever the client does."""

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from conftest import connect, one, rows
from wire import command, field


def test_c29_execute_runs_once_when_nothing_is_fetched(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    cursor.execute(f"INSERT INTO {table} VALUES (1), (2)")
    assert cursor.rowcount == 2
    assert one(cursor, f"SELECT count(*) FROM {table}") == 2


def test_c29_execute_runs_once_when_something_is_fetched(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    cursor.execute(f"INSERT INTO {table} VALUES (1)")
    assert cursor.fetchall() == []
    assert one(cursor, f"SELECT count(*) FROM {table}") == 1


def test_c29_the_same_text_again_runs_again(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    for _ in range(3):
        cursor.execute(f"INSERT INTO {table} VALUES (1)")
    assert one(cursor, f"SELECT count(*) FROM {table}") == 3


def test_c29_a_client_that_leaves_after_get_flight_info_ran_it_once(url, cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    with flight.connect(url) as client:
        info = client.get_flight_info(
            flight.FlightDescriptor.for_command(f"INSERT INTO {table} VALUES (1)")
        )
        assert info.total_records == 1
        assert info.endpoints == []
        assert len(info.schema) == 0
    assert one(cursor, f"SELECT count(*) FROM {table}") == 1


def test_c29_insert_with_parameters_counts_its_rows(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT, s VARCHAR)")
    cursor.execute(f"INSERT INTO {table} VALUES (?, ?)", (7, "x"))
    assert rows(cursor, f"SELECT * FROM {table}") == [(7, "x")]


def test_c29_create_table_as_and_drop(cursor, digits, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} AS SELECT x, x * x AS y FROM {digits}")
    assert one(cursor, f"SELECT sum(y) FROM {table}") == 285
    cursor.execute(f"DROP TABLE {table}")
    with pytest.raises(flightsql.ProgrammingError):
        cursor.execute(f"SELECT * FROM {table}")


def test_c30_a_script_of_several_statements(cursor, name):
    table = name()
    cursor.executescript(
        f"CREATE TABLE {table} (n BIGINT); -- the first\n"
        f"INSERT INTO {table} VALUES (1), (2);\n"
        f"INSERT INTO {table} SELECT n + 10 FROM {table};"
    )
    assert rows(cursor, f"SELECT n FROM {table} ORDER BY n") == [(1,), (2,), (11,), (12,)]


def test_c30_a_script_stops_at_its_first_error(cursor, name):
    table = name()
    with pytest.raises(flightsql.ProgrammingError):
        cursor.executescript(
            f"CREATE TABLE {table} (n BIGINT); "
            f"INSERT INTO no_such_table VALUES (1); "
            f"INSERT INTO {table} VALUES (1);"
        )
    cursor.executescript(f"CREATE TABLE IF NOT EXISTS {table} (n BIGINT)")
    assert one(cursor, f"SELECT count(*) FROM {table}") == 0


def check_executemany(cursor, table, count):
    cursor.execute(f"CREATE TABLE {table} (n BIGINT, s VARCHAR)")
    values = pa.record_batch(
        {"0": pa.array(range(count)), "1": pa.array(map(str, range(count)))}
    )
    cursor.executemany(f"INSERT INTO {table} VALUES (?, ?)", values)
    assert cursor.rowcount == count
    assert one(cursor, f"SELECT count(DISTINCT n) FROM {table}") == count


def test_c31_executemany_inserts_every_row(cursor, name):
    check_executemany(cursor, name(), 100)


def test_c31_executemany_inserts_10_000_rows_in_one_commit(cursor, name):
    check_executemany(cursor, name(), 10_000)


def test_c31_executemany_of_nothing_sends_nothing(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    cursor.executemany(f"INSERT INTO {table} VALUES (?)", [])
    assert one(cursor, f"SELECT count(*) FROM {table}") == 0


def test_c31_executemany_is_all_or_nothing(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT NOT NULL)")
    values = pa.record_batch({"0": pa.array([1, None, 3], pa.int64())})
    with pytest.raises(flightsql.Error):
        cursor.executemany(f"INSERT INTO {table} VALUES (?)", values)
    assert one(cursor, f"SELECT count(*) FROM {table}") == 0


def test_c31_an_update_that_returns_rows_is_refused(cursor):
    with pytest.raises(flightsql.ProgrammingError, match="query"):
        cursor.executemany("SELECT 1", None)


def test_c32_an_update_is_answered_before_the_client_is_done_writing(client, cursor, name):
    table = name()
    script = f"CREATE TABLE {table} (n BIGINT); INSERT INTO {table} VALUES (1), (2), (3)"
    descriptor = flight.FlightDescriptor.for_command(
        command("CommandStatementUpdate", field(1, script))
    )
    writer, reader = client.do_put(descriptor, pa.schema([]))
    result = reader.read().to_pybytes()
    assert result == field(1, 3)
    writer.close()
    assert one(cursor, f"SELECT count(*) FROM {table}") == 3


def test_tables_are_shared_between_connections(cursor, name):
    table = name()
    cursor.execute(f"CREATE TABLE {table} (n BIGINT)")
    with connect() as other, other.cursor() as writing:
        writing.execute(f"INSERT INTO {table} VALUES (5)")
    assert one(cursor, f"SELECT n FROM {table}") == 5


def test_c31_executemany_takes_the_defaults_of_columns_it_leaves_out(connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE c31_defaults (k INTEGER, s VARCHAR(2) DEFAULT 'no', t TIMESTAMPTZ DEFAULT now())")
        cursor.executemany("INSERT INTO c31_defaults (s, k) VALUES (DEFAULT, ?)", [(1,), (2,), (3,)])
        cursor.execute("SELECT count(*), count(DISTINCT t), min(s), max(s), sum(k) FROM c31_defaults")
        assert cursor.fetchone() == (3, 1, "no", "no", 6)
        cursor.execute("DROP TABLE c31_defaults")
