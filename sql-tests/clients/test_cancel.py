"""Cancelling, partitions, and other processes."""

import subprocess
import sys
import textwrap
import threading
import time

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow.flight as flight
import pytest
from conftest import connect, counting, one
from wire import field


def test_c49_a_fetch_is_cancelled(cursor, digits):
    cursor.execute(counting(digits, 12))
    reader = cursor.fetch_record_batch()
    reader.read_next_batch()
    started = time.monotonic()
    cursor.adbc_cancel()
    with pytest.raises((flightsql.Error, OSError)):
        for _ in reader:
            pass
    assert time.monotonic() - started < 5
    assert one(cursor, "SELECT 1") == 1


def test_c49_an_aggregate_that_takes_for_ever_is_cancelled(digits):
    with connect() as connection, connection.cursor() as cursor:
        # Cancelled from another thread as soon as the query runs.
        timer = threading.Timer(0.3, cursor.adbc_cancel)
        timer.start()
        started = time.monotonic()
        with pytest.raises((flightsql.Error, OSError)):
            cursor.execute(f"SELECT sum(n % 7) FROM ({counting(digits, 12)}) AS t")
            cursor.fetchall()
        timer.join()
        assert time.monotonic() - started < 5


def test_c50_cancel_flight_info_ends_a_query_of_plain_flight(client, digits):
    info = client.get_flight_info(flight.FlightDescriptor.for_command(counting(digits, 12)))
    reader = client.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    [result] = client.do_action(("CancelFlightInfo", field(1, info.serialize())))
    assert result.body.to_pybytes() == field(1, 1)
    with pytest.raises(flight.FlightCancelledError):
        while True:
            reader.read_chunk()


def test_c52_a_fetch_timeout_ends_the_query(digits):
    timeout = {"adbc.flight.sql.rpc.timeout_seconds.fetch": "0.5"}
    with connect(conn_kwargs=timeout) as connection, connection.cursor() as cursor:
        started = time.monotonic()
        with pytest.raises((flightsql.Error, OSError)):
            cursor.execute(f"SELECT sum(n % 7) FROM ({counting(digits, 12)}) AS t")
            cursor.fetchall()
        assert time.monotonic() - started < 5


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
