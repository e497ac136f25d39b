"""pandas and polars, as the README shows them."""

import warnings

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
    # polars takes the driver's name from the scheme; without the transport it would be TLS.
    uri = URL.replace("grpc://", "flightsql://") + "?transport=tcp"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = polars.read_database_uri(f"SELECT x FROM {digits} ORDER BY x", uri, engine="adbc")
    assert frame["x"].to_list() == list(range(10))
