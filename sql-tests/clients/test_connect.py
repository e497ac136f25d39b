"""Connecting, and what the server says of itself."""

import warnings

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from conftest import one
from wire import command, field


def test_c01_any_user_name_is_let_in_while_there_is_no_authentication(url):
    credentials = {"username": "anybody", "password": "anything"}
    with flightsql.connect(url, db_kwargs=credentials, autocommit=True) as connection:
        with connection.cursor() as cursor:
            assert one(cursor, "SELECT 1") == 1


def test_c01_pyarrow_gets_a_token_for_padded_credentials(client):
    header, value = client.authenticate_basic_token("anybody", "anything")
    assert header == b"authorization"
    assert value.startswith(b"Bearer ")
    options = flight.FlightCallOptions(headers=[(header, value)])
    assert list(client.list_actions(options))


def test_c02_a_bearer_header_is_accepted(url):
    header = {"adbc.flight.sql.authorization_header": "Bearer whatever"}
    with flightsql.connect(url, db_kwargs=header, autocommit=True) as connection:
        with connection.cursor() as cursor:
            assert one(cursor, "SELECT 1") == 1


def test_c05_the_current_catalog_and_schema_are_told_and_only_they_can_be_set(connection):
    assert connection.adbc_current_catalog == "basalt"
    assert connection.adbc_current_db_schema == "public"
    connection.adbc_current_db_schema = "public"
    connection.adbc_current_catalog = "basalt"
    with pytest.raises(flightsql.Error):
        connection.adbc_current_db_schema = "no_such_schema"
    assert connection.adbc_current_db_schema == "public"


def test_c05_an_unqualified_table_resolves_through_the_current_schema(connection):
    with connection.cursor() as cursor:
        cursor.execute('CREATE SCHEMA "C 05"')
        cursor.execute('CREATE TABLE "C 05".c05_here AS SELECT 5 AS n')
        connection.adbc_current_db_schema = "C 05"
        assert connection.adbc_current_db_schema == "C 05"
        assert one(cursor, "SELECT n FROM c05_here") == 5
        connection.adbc_current_db_schema = "public"
        with pytest.raises(flightsql.Error):
            cursor.execute("SELECT n FROM c05_here")
        cursor.execute('DROP SCHEMA "C 05" CASCADE')


def test_c09_a_default_connection_warns_that_there_are_no_transactions_and_works(url):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with flightsql.connect(url) as connection, connection.cursor() as cursor:
            assert one(cursor, "SELECT 1") == 1
    assert any("autocommit" in str(warning.message) for warning in caught)


def test_c09_an_autocommit_connection_does_not_warn(url):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with flightsql.connect(url, autocommit=True) as connection:
            with connection.cursor() as cursor:
                assert one(cursor, "SELECT 1") == 1


def test_c10_the_server_names_itself_and_its_versions(connection):
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "basalt"
    assert info["vendor_version"]
    assert info["vendor_arrow_version"]


def sql_info(client, *ids):
    packed = field(1, b"".join(_id.to_bytes(1, "little") for _id in ids)) if ids else b""
    descriptor = flight.FlightDescriptor.for_command(command("CommandGetSqlInfo", packed))
    info = client.get_flight_info(descriptor)
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert table.schema.equals(info.schema)
    return dict(zip(table["info_name"].to_pylist(), table["value"].to_pylist()))


def test_c10_an_unknown_info_is_left_out_and_no_ids_ask_for_all(client):
    assert sql_info(client, 0, 99) == {0: "basalt"}
    everything = sql_info(client)
    assert everything[0] == "basalt"
    assert everything[3] is False
    assert everything[8] == 0
    assert everything[504] == '"'


def test_c10_the_transaction_info_is_an_int32(client):
    descriptor = flight.FlightDescriptor.for_command(
        command("CommandGetSqlInfo", field(1, b"\x08"))
    )
    info = client.get_flight_info(descriptor)
    [value] = client.do_get(info.endpoints[0].ticket).read_all()["value"]
    assert value.type_code == 3
    assert value.value.type == pa.int32()
