"""Cancelling, partitions, and other processes."""

import contextlib
import subprocess
import sys
import textwrap
import threading
import time

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow.flight as flight
import pytest
from conftest import connect, one
from wire import field


@contextlib.contextmanager
def within(seconds):
    """What is cancelled ends soon: also on the server, which has two cores for the next test."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def test_c49_a_fetch_is_cancelled(cursor, endless):
    cursor.execute(f"SELECT a.n FROM {endless}")
    reader = cursor.fetch_record_batch()
    reader.read_next_batch()
    with within(seconds=5):
        cursor.adbc_cancel()
        with pytest.raises((flightsql.Error, OSError)):
            for _ in reader:
                pass
        assert one(cursor, "SELECT 1") == 1


def test_c49_an_aggregate_that_takes_for_ever_is_cancelled(endless):
    with within(seconds=5), connect() as connection, connection.cursor() as cursor:
        # Cancelled from another thread while the query runs.
        timer = threading.Timer(0.3, cursor.adbc_cancel)
        timer.start()
        with pytest.raises((flightsql.Error, OSError)):
            cursor.execute(f"SELECT sum((a.n + b.n) % 7) FROM {endless}")
            cursor.fetchall()
        timer.join()


def test_c50_cancel_flight_info_ends_a_query_of_plain_flight(client, endless):
    query = f"SELECT a.n FROM {endless}"
    info = client.get_flight_info(flight.FlightDescriptor.for_command(query))
    reader = client.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    [result] = client.do_action(("CancelFlightInfo", field(1, info.serialize())))
    assert result.body.to_pybytes() == field(1, 1)
    with pytest.raises(flight.FlightCancelledError):
        while True:
            reader.read_chunk()


def test_c52_a_fetch_timeout_ends_the_query(endless):
    timeout = {"adbc.flight.sql.rpc.timeout_seconds.fetch": "0.5"}
    with within(seconds=5), connect(conn_kwargs=timeout) as connection:
        with connection.cursor() as cursor, pytest.raises((flightsql.Error, OSError)):
            cursor.execute(f"SELECT sum((a.n + b.n) % 7) FROM {endless}")
            cursor.fetchall()


def test_c54_a_partition_is_read_by_another_process(url, cursor, digits):
    partitions, schema = cursor.adbc_execute_partitions(f"SELECT x FROM {digits} ORDER BY x")
    assert schema.names == ["x"]
    [partition] = partitions
    script = f"""
        import adbc_driver_flightsql.dbapi as flightsql
        with flightsql.connect({url!r}, autocommit=True) as connection:
            with connection.cursor() as cursor:
                cursor.adbc_read_partition({partition!r})
                assert [x for [x] in cursor.fetchall()] == list(range(10))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    with pytest.raises(flightsql.Error, match="fetched already"):
        cursor.adbc_read_partition(partition)
        cursor.fetchall()


def test_c55_incremental_execution_is_complete_at_the_first_poll(connection, digits):
    options = {"adbc.statement.exec.incremental": "true"}
    with connection.cursor(adbc_stmt_kwargs=options) as cursor:
        partitions, _ = cursor.adbc_execute_partitions(f"SELECT x FROM {digits}")
        assert len(partitions) == 1
