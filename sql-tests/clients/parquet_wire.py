"""What a Parquet column is after it was loaded, stored and sent: the documented casts, once.

Three steps may change a type, and none changes a value:
- the storage form (storage/FORMAT.md 5): Float16 -> Float32, Date64 -> Date32, narrow decimals ->
  Decimal128, fixed-size lists -> lists, a column without a type -> Int32;
- Parquet has no timestamps of seconds: they are milliseconds, and those with a zone are in UTC;
- the wire form (FLIGHT_SQL.md 3.4, engine/src/types/wire.rs): Utf8 and Binary in their plain
  layout, no dictionaries, one kind of list, every field NULLable.
"""

import struct

import pyarrow as pa

NANOS_PER_MILLI = 1_000_000


def wire_type(source):
    """The type that clients see for a column that pyarrow reads as `source`."""
    t = pa.types
    if isinstance(source, pa.BaseExtensionType):
        return wire_type(source.storage_type)
    if t.is_dictionary(source):
        return wire_type(source.value_type)
    if t.is_large_string(source) or t.is_string_view(source):
        return pa.string()
    if t.is_large_binary(source) or t.is_binary_view(source):
        return pa.binary()
    if t.is_decimal(source):
        return pa.decimal128(source.precision, source.scale)
    if t.is_map(source):
        return pa.map_(wire_type(source.key_type), wire_type(source.item_type))
    if is_list(source):
        return pa.list_(pa.field("item", wire_type(source.value_type)))
    if t.is_struct(source):
        return pa.struct([pa.field(f.name, wire_type(f.type)) for f in source.fields])
    return {pa.float16(): pa.float32(), pa.date64(): pa.date32(), pa.null(): pa.int32()}.get(
        source, source
    )


def is_list(source):
    t = pa.types
    kinds = [t.is_list, t.is_large_list, t.is_fixed_size_list, t.is_list_view, t.is_large_list_view]
    return any(is_kind(source) for is_kind in kinds)


def values(array):
    """The values of an array as Python objects that are equal exactly when all bits are.

    Floats become text, which makes NaN equal to itself, and the engine has one zero; times become
    their integers, which Python's own types could not all hold.
    """
    t, source = pa.types, array.type
    if isinstance(array, pa.ChunkedArray):
        return [value for chunk in array.chunks for value in values(chunk)]
    if isinstance(source, pa.BaseExtensionType):
        return values(array.storage)
    if t.is_dictionary(source):
        return values(array.dictionary_decode())
    if t.is_map(source) or is_list(source):
        return [values(scalar.values) if scalar.is_valid else None for scalar in array]
    if t.is_struct(source):
        columns = [values(array.field(i)) for i in range(source.num_fields)]
        rows = zip(*columns, strict=True)
        return [row if valid else None for row, valid in zip(rows, array.is_valid(), strict=True)]
    if t.is_date64(source):
        return values(array.cast(pa.date32()))
    if t.is_date32(source) or t.is_time32(source):
        return array.cast(pa.int32()).to_pylist()
    if t.is_timestamp(source) or t.is_time64(source) or t.is_duration(source):
        return array.cast(pa.int64()).to_pylist()
    if t.is_floating(source):
        return [None if value is None else repr(float(value) + 0.0) for value in array.to_pylist()]
    if t.is_decimal(source):
        return [None if value is None else str(value) for value in array.to_pylist()]
    if t.is_interval(source):
        return [None if value is None else tuple(value) for value in array.to_pylist()]
    return array.to_pylist()


def check_equal(found, source, intervals=(), in_utc=()):
    """Whether rows that came over the wire are those of the file, as pyarrow reads it.

    pyarrow reads Parquet's INTERVAL as the 12 bytes that it is; `intervals` names such columns.
    `in_utc` names those of seconds with a zone, which pyarrow finds in a note of its own.
    """
    assert found.column_names == source.column_names
    for name in source.column_names:
        expected = source.column(name)
        if name in intervals:
            assert found.field(name).type == pa.month_day_nano_interval(), name
            expected = [interval(value) for value in expected.to_pylist()]
        elif name in in_utc:
            assert found.field(name).type == pa.timestamp("ms", "UTC"), name
            expected = values(expected)
        else:
            assert found.field(name).type == wire_type(expected.type), name
            expected = values(expected)
        assert found.field(name).nullable, name
        assert values(found.column(name)) == expected, name


def interval(stored):
    """Months, days and nanoseconds of Parquet's INTERVAL."""
    if stored is None:
        return None
    months, days, millis = struct.unpack("<III", stored)
    return (months, days, millis * NANOS_PER_MILLI)


def sql_type(source):
    """How CREATE TABLE spells the type that `source` is stored as; None when SQL has no name."""
    t = pa.types
    source = wire_type(source)
    names = {
        pa.bool_(): "BOOLEAN",
        pa.int8(): "TINYINT",
        pa.int16(): "SMALLINT",
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.uint8(): "TINYINT UNSIGNED",
        pa.uint16(): "SMALLINT UNSIGNED",
        pa.uint32(): "INTEGER UNSIGNED",
        pa.uint64(): "BIGINT UNSIGNED",
        pa.float32(): "REAL",
        pa.float64(): "DOUBLE",
        pa.date32(): "DATE",
        pa.time64("us"): "TIME(6)",
        pa.time64("ns"): "TIME(9)",
        pa.string(): "VARCHAR",
        pa.binary(): "BYTEA",
    }
    digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}
    if t.is_decimal(source):
        return f"DECIMAL({source.precision}, {source.scale})"
    if t.is_timestamp(source) and source.tz in (None, "UTC"):
        zone = " WITH TIME ZONE" if source.tz else ""
        return f"TIMESTAMP({digits[source.unit]}){zone}"
    if t.is_map(source):
        key, value = sql_type(source.key_type), sql_type(source.item_type)
        return f"MAP({key}, {value})" if key and value else None
    if is_list(source):
        item = sql_type(source.value_type)
        return f"ARRAY<{item}>" if item else None
    if t.is_struct(source):
        fields = [(quoted(field.name), sql_type(field.type)) for field in source.fields]
        known = all(name for _, name in fields)
        return f"STRUCT<{', '.join(map(' '.join, fields))}>" if known else None
    return names.get(source)


def quoted(name):
    return '"' + name.replace('"', '""') + '"'
