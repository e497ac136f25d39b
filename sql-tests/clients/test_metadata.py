"""What tools ask about the database."""

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from conftest import connect
from wire import command, field


@pytest.fixture
def tables(cursor, name):
    """A table and a view on it."""
    table = name("meta")
    view = name("meta_view")
    cursor.execute(f"CREATE TABLE {table} (id BIGINT NOT NULL, note VARCHAR, price DECIMAL(12,2))")
    cursor.execute(f"CREATE VIEW {view} AS SELECT id, note FROM {table}")
    yield table, view
    cursor.executescript(f"DROP VIEW {view}")


def objects(connection, **filters):
    reader = connection.adbc_get_objects(**filters)
    return reader.read_all().to_pylist()


def listed(connection, **filters):
    """The tables by name, of the one catalog and the schema public."""
    [catalog] = objects(connection, **filters)
    [schema] = [s for s in catalog["catalog_db_schemas"] if s["db_schema_name"] == "public"]
    return {table["table_name"]: table for table in schema["db_schema_tables"]}


def test_c44_catalogs(connection):
    [catalog] = objects(connection, depth="catalogs")
    assert catalog["catalog_name"] == "basalt"


def test_c44_schemas(connection):
    [catalog] = objects(connection, depth="db_schemas")
    assert "public" in [schema["db_schema_name"] for schema in catalog["catalog_db_schemas"]]


def test_c44_tables_and_views(connection, tables):
    table, view = tables
    found = listed(connection, depth="tables")
    assert found[table]["table_type"] == "TABLE"
    assert found[view]["table_type"] == "VIEW"


def test_c44_columns(connection, tables):
    table, view = tables
    found = listed(connection, depth="all", table_name_filter=table)
    assert list(found) == [table]
    columns = found[table]["table_columns"]
    assert [column["column_name"] for column in columns] == ["id", "note", "price"]
    assert [column["ordinal_position"] for column in columns] == [1, 2, 3]
    found = listed(connection, depth="all", table_name_filter=view)
    assert [column["column_name"] for column in found[view]["table_columns"]] == ["id", "note"]


def test_c44_filters(connection, tables):
    table, view = tables
    only_views = listed(connection, depth="tables", table_types_filter=["VIEW"])
    assert view in only_views and table not in only_views
    by_pattern = listed(connection, depth="tables", table_name_filter="meta%")
    assert table in by_pattern and view in by_pattern
    assert objects(connection, depth="tables", catalog_filter="elsewhere") == []
    [catalog] = objects(connection, depth="db_schemas", db_schema_filter="no_such%")
    assert not catalog["catalog_db_schemas"]


def test_c45_the_schema_of_a_table(connection, tables):
    table, _ = tables
    schema = connection.adbc_get_table_schema(table)
    assert schema.names == ["id", "note", "price"]
    assert schema.types == [pa.int64(), pa.string(), pa.decimal128(12, 2)]
    assert connection.adbc_get_table_schema(table, db_schema_filter="public").names == schema.names


def test_c45_names_with_wildcards_in_them(connection, cursor, name):
    underscore, other, percent = name("a_c"), name("abc"), name("p%c")
    decoy = name("x").replace("x_", "", 1)
    for table, column in [(underscore, "one"), (other, "two"), (percent, "three")]:
        cursor.execute(f'CREATE TABLE "{table}" ("{column}" BIGINT)')
    assert decoy
    assert connection.adbc_get_table_schema(underscore).names == ["one"]
    assert connection.adbc_get_table_schema(percent).names == ["three"]


def test_c45_a_pattern_that_matches_a_sibling_finds_the_exact_name(connection, cursor, name):
    table = name("w_w")
    sibling = table.replace("w_w", "wXw", 1)
    cursor.execute(f'CREATE TABLE "{sibling}" (wrong BIGINT)')
    cursor.execute(f'CREATE TABLE "{table}" (good BIGINT)')
    try:
        assert connection.adbc_get_table_schema(table).names == ["good"]
    finally:
        cursor.executescript(f'DROP TABLE "{sibling}"')


def test_c45_a_table_that_does_not_exist(connection):
    with pytest.raises(Exception, match="no_such_table"):
        connection.adbc_get_table_schema("no_such_table")


def test_c46_table_types(connection):
    assert connection.adbc_get_table_types() == ["TABLE", "VIEW"]


def ask(client, message, *fields):
    descriptor = flight.FlightDescriptor.for_command(command(message, *fields))
    info = client.get_flight_info(descriptor)
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert table.schema.equals(info.schema)
    assert client.get_schema(descriptor).schema.equals(info.schema)
    return table


@pytest.mark.parametrize(
    ("message", "columns"),
    [
        ("CommandGetPrimaryKeys", 6),
        ("CommandGetImportedKeys", 13),
        ("CommandGetExportedKeys", 13),
    ],
)
def test_c47_there_are_no_keys(client, message, columns):
    table = ask(client, message, field(3, "t"))
    assert (table.num_rows, table.num_columns) == (0, columns)


def test_c47_there_are_no_cross_references(client):
    table = ask(client, "CommandGetCrossReference", field(3, "a"), field(6, "b"))
    assert (table.num_rows, table.num_columns) == (0, 13)


def test_c47_the_types(client):
    table = ask(client, "CommandGetXdbcTypeInfo")
    assert table.num_columns == 19
    assert {"BIGINT", "VARCHAR", "DECIMAL", "DATE", "TIMESTAMP"} <= set(
        table["type_name"].to_pylist()
    )


def test_c48_a_tree_of_the_database_opens(client, tables):
    """What DBeaver asks, by way of JDBC."""
    table, view = tables
    assert ask(client, "CommandGetCatalogs").to_pylist() == [{"catalog_name": "basalt"}]
    schemas = ask(client, "CommandGetDbSchemas", field(1, "basalt")).to_pylist()
    assert {"catalog_name": "basalt", "db_schema_name": "public"} in schemas
    found = ask(
        client,
        "CommandGetTables",
        field(1, "basalt"),
        field(2, "public"),
        field(3, "%"),
        field(5, 1),
    )
    names = found["table_name"].to_pylist()
    assert names == sorted(names)
    assert {table, view} <= set(names)
    encoded = found["table_schema"][names.index(table)].as_py()
    schema = pa.ipc.read_schema(pa.py_buffer(encoded))
    metadata = schema.field("price").metadata
    assert metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"DECIMAL"
    assert metadata[b"ARROW:FLIGHT:SQL:PRECISION"] == b"12"
    assert ask(client, "CommandGetTables", field(1, "")).num_rows == 0


def test_metadata_of_a_second_connection_is_the_same(tables):
    table, _ = tables
    with connect() as connection:
        assert table in listed(connection, depth="tables")
