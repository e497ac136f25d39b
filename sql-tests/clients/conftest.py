"""Client tests of Basalt's Flight SQL endpoint, with the drivers that users have.

They run against any endpoint: BASALT_URL=grpc://host:port python -m pytest sql-tests/clients.
Every test makes its own tables, with names of their own, and drops them. The names of tests
start with the number of the entry in the compliance checklist that they cover.
"""

import os
import subprocess
import uuid

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow.flight as flight
import pytest

URL = os.environ.get("BASALT_URL", "grpc://127.0.0.1:50051")


def basalt_load(table, *paths, options=()):
    """Runs `basalt load`, the program of the build that is tested."""
    program = os.environ.get("BASALT_BIN")
    assert program, "BASALT_BIN must name the basalt program"
    arguments = [program, "load", "--url", URL, "--table", table, *options, *map(str, paths)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def connect(**options):
    return flightsql.connect(URL, autocommit=True, **options)


@pytest.fixture
def url():
    return URL


@pytest.fixture
def connection():
    with connect() as connection:
        yield connection


@pytest.fixture
def cursor(connection):
    with connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def client():
    """A pyarrow.flight client: Flight without Flight SQL."""
    with flight.connect(URL) as client:
        yield client


@pytest.fixture
def name():
    """Hands out names of tables that are dropped at the end."""
    names = []

    def new(prefix="t"):
        names.append(f"{prefix}_{uuid.uuid4().hex[:12]}")
        return names[-1]

    yield new
    with connect() as connection, connection.cursor() as cursor:
        for table in names:
            cursor.executescript(f'DROP TABLE IF EXISTS "{table}"')


@pytest.fixture
def digits(name, cursor):
    """A table with the column x and the rows 0 to 9."""
    table = name("digits")
    cursor.execute(f"CREATE TABLE {table} (x BIGINT)")
    cursor.execute(f"INSERT INTO {table} VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)")
    return table


def counting(digits, powers):
    """A query of the numbers 0 to 10**powers - 1 in the column n, in no order."""
    places = " + ".join(f"d{i}.x * {10**i}" for i in range(powers))
    tables = " CROSS JOIN ".join(f"{digits} AS d{i}" for i in range(powers))
    return f"SELECT {places} AS n FROM {tables}"


@pytest.fixture
def numbers(name, cursor, digits):
    """A table with the column n and the rows 0 to 99,999."""
    table = name("numbers")
    cursor.execute(f"CREATE TABLE {table} AS {counting(digits, 5)}")
    return table


@pytest.fixture
def endless(numbers):
    """A FROM clause of 10**10 rows with a.n and b.n, which nothing fetches in a test's time.

    It streams: an engine that runs it holds the 100,000 rows of the table and little more.
    """
    return f"{numbers} AS a CROSS JOIN {numbers} AS b"


def rows(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetchall()


def one(cursor, sql, parameters=None):
    [[value]] = rows(cursor, sql, parameters)
    return value
