"""pandas and polars, as the README shows them."""

import pandas
import polars
from conftest import URL, connect


def test_c58_pandas_reads_sql(digits):
    with connect() as connection:
        frame = pandas.read_sql(f"SELECT x FROM {digits} ORDER BY x", connection)
    assert list(frame["x"]) == list(range(10))


def test_c58_polars_reads_a_connection(digits):
    with connect() as connection:
        frame = polars.read_database(f"SELECT x FROM {digits} ORDER BY x", connection)
    assert frame["x"].to_list() == list(range(10))


def test_c58_polars_reads_a_uri(digits):
    frame = polars.read_database_uri(
        f"SELECT x FROM {digits} ORDER BY x",
        URL,
        engine="adbc",
    )
    assert frame["x"].to_list() == list(range(10))
