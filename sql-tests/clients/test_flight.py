"""pyarrow.flight by itself, which knows nothing of Flight SQL."""

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from conftest import one


def test_c56_the_server_is_available(client):
    client.wait_for_available(timeout=10)


def test_c56_tables_are_flights(client, digits):
    [info] = [f for f in client.list_flights() if f.descriptor.path[-1:] == [digits.encode()]]
    assert info.descriptor.path == [b"public", digits.encode()]
    assert info.schema.names == ["x"]
    assert client.do_get(info.endpoints[0].ticket).read_all().num_rows == 10


def test_c56_actions_are_listed(client):
    actions = {action.type for action in client.list_actions()}
    assert {
        "CancelFlightInfo",
        "CloseSession",
        "CreatePreparedStatement",
        "GetSessionOptions",
        "SetSessionOptions",
    } <= actions


def test_c56_a_path_names_a_table(client, digits):
    for path in [(digits,), ("public", digits)]:
        descriptor = flight.FlightDescriptor.for_path(*path)
        info = client.get_flight_info(descriptor)
        assert info.schema.equals(client.get_schema(descriptor).schema)
        table = client.do_get(info.endpoints[0].ticket).read_all()
        assert sorted(table["x"].to_pylist()) == list(range(10))


def test_c56_a_path_can_be_appended_to(client, cursor, digits):
    more = pa.table({"x": [10, 11]})
    descriptor = flight.FlightDescriptor.for_path("public", digits)
    writer, _ = client.do_put(descriptor, more.schema)
    writer.write_table(more)
    writer.close()
    assert one(cursor, f"SELECT sum(x) FROM {digits}") == 45 + 21


def test_c56_what_makes_no_sense_is_refused(client):
    with pytest.raises(pa.ArrowInvalid, match="path of 3"):
        client.get_flight_info(flight.FlightDescriptor.for_path("a", "b", "c"))
    with pytest.raises(pa.ArrowInvalid):
        client.do_get(flight.Ticket(b"\xff\xfe")).read_all()
    with pytest.raises(pa.ArrowInvalid):
        client.get_flight_info(flight.FlightDescriptor.for_command(b""))
    with pytest.raises(NotImplementedError):
        list(client.do_action(("NoSuchAction", b"")))
