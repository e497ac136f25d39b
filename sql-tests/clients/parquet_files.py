"""Parquet files as the writers that people use make them, with values at the edges of each type.

Every file has the column `id`, by which rows are ordered, and a row of NULLs.
"""

import datetime
import decimal
import uuid

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq

INF, NAN = float("inf"), float("nan")
FLOATS = [0.0, -0.0, INF, -INF, NAN, 0.1, None]


def decimals(precision, scale):
    largest = decimal.Decimal((0, (9,) * precision, -scale))
    smallest = decimal.Decimal((0, (1,), -scale))
    return [largest, largest.copy_negate(), smallest, decimal.Decimal((0, (0,), -scale)), None]


def table(columns):
    """A table with an id; shorter columns end in NULLs."""
    rows = max(len(column) for column in columns.values())
    padded = {"id": pa.array(range(rows), pa.int64())}
    for name, column in columns.items():
        nulls = pa.nulls(rows - len(column), column.type)
        padded[name] = pa.concat_arrays([column, nulls]) if len(nulls) else column
    return pa.table(padded)


def numbers():
    columns = {"bool": pa.array([True, False, None])}
    for bits in (8, 16, 32, 64):
        signed, unsigned = getattr(pa, f"int{bits}")(), getattr(pa, f"uint{bits}")()
        columns[f"int{bits}"] = pa.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0, None], signed)
        columns[f"uint{bits}"] = pa.array([2**bits - 1, 0, 1, None], unsigned)
    columns["float16"] = pa.array(FLOATS, pa.float16())
    columns["float32"] = pa.array([*FLOATS, 1e-45, 3.4028234663852886e38], pa.float32())
    columns["float64"] = pa.array([*FLOATS, 5e-324, 1.7976931348623157e308], pa.float64())
    for precision, scale in [(1, 0), (9, 2), (18, 18), (19, 4), (38, 0), (38, 10), (38, 38)]:
        of = pa.decimal128(precision, scale)
        columns[f"decimal_{precision}_{scale}"] = pa.array(decimals(precision, scale), of)
    columns["decimal32"] = pa.array(decimals(9, 3), pa.decimal32(9, 3))
    columns["decimal64"] = pa.array(decimals(18, 3), pa.decimal64(18, 3))
    columns["decimal256"] = pa.array(decimals(38, 3), pa.decimal256(38, 3))
    return table(columns)


# 0001-01-01, 1677-09-22, 1969-12-31T23:59:59.999999, 1970, 9999-12-31 in microseconds.
MICROS = [-62_135_596_800_000_000, -9_223_286_400_000_000, -1, 0, 253_402_300_799_999_999, None]


def times():
    columns = {
        "date32": pa.array([-719_162, 0, 2_932_896, None], pa.date32()),
        "date64": pa.array([-86_400_000, 0, 86_400_000, None], pa.date64()),
        "time32_s": pa.array([0, 86_399, None], pa.time32("s")),
        "time32_ms": pa.array([0, 86_399_999, None], pa.time32("ms")),
        "time64_us": pa.array([0, 86_399_999_999, None], pa.time64("us")),
        "time64_ns": pa.array([0, 86_399_999_999_999, None], pa.time64("ns")),
    }
    for unit in ("s", "ms", "us", "ns"):
        micros = {"s": 1_000_000, "ms": 1_000, "us": 1}.get(unit)
        # Nanoseconds do not reach that far: their own ends instead.
        counts = [-(2**63) + 1, -1, 0, 1, 2**63 - 1, None]
        if micros:
            counts = [None if count is None else count // micros for count in MICROS]
        for zone in (None, "UTC", "Europe/Berlin", "+05:30"):
            suffix = f"_{zone}" if zone else ""
            columns[f"timestamp_{unit}{suffix}"] = pa.array(counts, pa.timestamp(unit, zone))
        columns[f"duration_{unit}"] = pa.array([-(2**62), 0, 2**62, None], pa.duration(unit))
    return table(columns)


TEXTS = ["", "a", "ü", "日本語", "\U0001f600", "nul\0byte", "x" * 300, "a", None]
BYTES = [b"", b"\x00\xff", b"x" * 300, None]


def texts():
    columns = {
        "string": pa.array(TEXTS),
        "large_string": pa.array(TEXTS, pa.large_string()),
        "string_view": pa.array(TEXTS, pa.string_view()),
        "binary": pa.array(BYTES, pa.binary()),
        "large_binary": pa.array(BYTES, pa.large_binary()),
        "binary_view": pa.array(BYTES, pa.binary_view()),
        "fixed": pa.array([b"12345", b"\0\0\0\0\0", None], pa.binary(5)),
        "dictionary": pa.array(TEXTS).dictionary_encode(),
        "dictionary8": pa.array(["a", "b", None], pa.dictionary(pa.int8(), pa.large_string())),
        "dictionary_of_int": pa.array([7, 7, None]).dictionary_encode(),
        "dictionary_of_binary": pa.array([b"\x00", None]).dictionary_encode(),
        "uuid": pa.array([uuid.UUID(int=2**128 - 1).bytes, None], pa.uuid()),
        "json": pa.array(['{"a": 1}', None], pa.json_()),
        "untyped": pa.nulls(1),
    }
    return table(columns)


def nested():
    numbers, words = [[1, None, 3], [], None, [4]], [["ü", None], [], None, [""]]
    people = [{"name": "ü", "tags": ["a", None]}, {"name": None, "tags": None}, None]
    person = pa.struct([("name", pa.string()), ("tags", pa.list_(pa.large_string()))])
    moment = pa.timestamp("us", "UTC")
    word = pa.dictionary(pa.int16(), pa.string())
    columns = {
        "list": pa.array(numbers, pa.list_(pa.int64())),
        "list_of_text": pa.array(words, pa.list_(pa.string())),
        "large_list": pa.array(words, pa.large_list(pa.large_string())),
        "list_view": pa.array(numbers, pa.list_view(pa.int32())),
        "fixed_list": pa.array([[1.0, NAN], None, [-0.0, None]], pa.list_(pa.float32(), 2)),
        "list_of_list": pa.array([[[1], [], None], [], None], pa.list_(pa.list_(pa.int8()))),
        "list_of_word": pa.array(words, pa.list_(word)),
        "list_of_binary": pa.array([[b"\xff", None], None], pa.list_(pa.binary())),
        "list_of_float": pa.array([FLOATS, None], pa.list_(pa.float64())),
        "list_of_decimal": pa.array([decimals(38, 5), None], pa.list_(pa.decimal128(38, 5))),
        "list_of_moment": pa.array([MICROS, None], pa.list_(moment)),
        "list_of_nothing": pa.array([[None], [], None], pa.list_(pa.null())),
        "struct": pa.array(people, person),
        "list_of_struct": pa.array([people, [], None], pa.list_(person)),
        "struct_of_struct": pa.array(
            [{"p": people[0]}, {"p": None}, None], pa.struct([("p", person)])
        ),
        "map": pa.array([[("a", 1), ("b", None)], [], None], pa.map_(pa.string(), pa.int64())),
        "sorted_map": pa.array(
            [[("a", 1)], None], pa.map_(pa.string(), pa.int64(), keys_sorted=True)
        ),
        "map_of_struct": pa.array([[(1, people[0])], None], pa.map_(pa.int32(), person)),
        "map_of_list": pa.array(
            [[("k", [1, None])], None], pa.map_(pa.string(), pa.list_(pa.int64()))
        ),
    }
    return table(columns)


def mixed():
    """A little of everything, for the options of writers."""
    rows = 1_000
    moments = [i * 86_400_000_000 for i in range(rows)]
    amounts = [decimal.Decimal(i) / 100 for i in range(rows)]
    return table(
        {
            "number": pa.array([None if i % 7 == 0 else i - 500 for i in range(rows)]),
            "float": pa.array([FLOATS[i % len(FLOATS)] for i in range(rows)]),
            "text": pa.array([TEXTS[i % len(TEXTS)] for i in range(rows)]),
            "amount": pa.array(amounts, pa.decimal128(12, 2)),
            "moment": pa.array(moments, pa.timestamp("us")),
            "list": pa.array([[i] * (i % 3) for i in range(rows)]),
            "flag": pa.array([i % 2 == 0 for i in range(rows)]),
        }
    )


def pyarrow_writes(make, **options):
    return lambda path: pq.write_table(make(), path, **options)


DUCKDB_TYPES = """
    SELECT * FROM (VALUES
        (0::BIGINT, true, (-128)::TINYINT, (-32768)::SMALLINT, (-2147483648)::INTEGER,
         255::UTINYINT, 65535::USMALLINT, 4294967295::UINTEGER, 18446744073709551615::UBIGINT,
         'nan'::FLOAT, '-0.0'::DOUBLE, 99.99::DECIMAL(4, 2), 1234567.89::DECIMAL(9, 2),
         (-12345678901234.5678)::DECIMAL(18, 4),
         '-9999999999999999999999999999.9999999999'::DECIMAL(38, 10),
         '0001-01-01'::DATE, '23:59:59.999999'::TIME, '01:02:03+05'::TIMETZ,
         '9999-12-31 23:59:59'::TIMESTAMP_S, '9999-12-31 23:59:59.999'::TIMESTAMP_MS,
         '9999-12-31 23:59:59.999999'::TIMESTAMP, '2262-04-11 23:47:16.854775806'::TIMESTAMP_NS,
         '0001-01-01 00:00:00+00'::TIMESTAMPTZ,
         INTERVAL '14 months 3 days 23 hours 5 milliseconds', 'ü'::VARCHAR, 'happy'::mood,
         '\\x00\\xFF'::BLOB, '00000000-0000-0000-0000-0000000000ff'::UUID,
         '101'::BIT, '{"a": 1}'::JSON),
        (1::BIGINT, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
         NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
         NULL)
    ) AS t(id, bool, int8, int16, int32, uint8, uint16, uint32, uint64, float, double,
        decimal_4_2, decimal_9_2, decimal_18_4, decimal_38_10, date, time, timetz, timestamp_s,
        timestamp_ms, timestamp, timestamp_ns, timestamptz, interval, text, mood, blob, uuid, bit,
        json)
"""

DUCKDB_NESTED = """
    SELECT * FROM (VALUES
        (0::BIGINT, [1, NULL, 3], ['ü', NULL], [[1], [], NULL], ['nan', '-0.0']::FLOAT[],
         {'a': 1, 'b': ['x', NULL]}, [{'a': 1}, NULL], MAP {'k': 1, 'l': NULL},
         MAP {1: [{'x': 'y'}]}, [9.99::DECIMAL(38, 2)], NULL),
        (1::BIGINT, [], [], [], NULL, {'a': NULL, 'b': NULL}, [], MAP {}, MAP {}, [], NULL),
        (2::BIGINT, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
    ) AS t(id, list, list_of_text, list_of_list, list_of_float, struct, list_of_struct, map,
        map_of_list, list_of_decimal, untyped)
"""


def duckdb_writes(query, options="", zone="UTC"):
    def write(path):
        with duckdb.connect() as connection:
            connection.execute(f"SET TimeZone = '{zone}'")
            connection.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
            connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet{options})")

    return write


DUCKDB_MANY = "SELECT i AS id, i % 7 AS n, 'v' || i AS s, i / 3 AS d FROM range(5000) AS t(i)"


def polars_frame():
    p = polars
    day, delta = datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime.timedelta(days=-1)
    person = p.Struct({"a": p.Int64, "b": p.List(p.String)})
    columns = {
        "id": p.Series([0, 1, 2]),
        "bool": p.Series([True, False, None]),
        "int8": p.Series([-128, 127, None], dtype=p.Int8),
        "uint64": p.Series([2**64 - 1, 0, None], dtype=p.UInt64),
        "float32": p.Series([NAN, -0.0, None], dtype=p.Float32),
        "float64": p.Series([INF, -0.0, None]),
        "decimal": p.Series(decimals(38, 9)[:2] + [None], dtype=p.Decimal(38, 9)),
        "small_decimal": p.Series(decimals(9, 2)[:2] + [None], dtype=p.Decimal(9, 2)),
        "date": p.Series([day.date(), datetime.date.min, None]),
        "time": p.Series([day.time(), datetime.time.min, None]),
        "text": p.Series(["ü", "", None]),
        "binary": p.Series([b"\x00\xff", b"", None]),
        "category": p.Series(["a", "b", None], dtype=p.Categorical),
        "enum": p.Series(["b", "a", None], dtype=p.Enum(["a", "b"])),
        "untyped": p.Series([None, None, None], dtype=p.Null),
        "list": p.Series([[1, None], [], None]),
        "list_of_text": p.Series([["ü", None], [], None], dtype=p.List(p.String)),
        "list_of_category": p.Series([["ü", None], [], None], dtype=p.List(p.Categorical)),
        "array": p.Series([[1, 2], [3, None], None], dtype=p.Array(p.Int64, 2)),
        "struct": p.Series(
            [{"a": 1, "b": ["x", None]}, {"a": None, "b": None}, None], dtype=person
        ),
        "list_of_struct": p.Series([[{"a": 1, "b": []}, None], [], None], dtype=p.List(person)),
    }
    for unit in ("ms", "us", "ns"):
        for zone in (None, "UTC", "Europe/Berlin"):
            series = p.Series([day, None, None], dtype=p.Datetime(unit))
            if zone:
                series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
            columns[f"datetime_{unit}_{zone or 'naive'}"] = series
        columns[f"duration_{unit}"] = p.Series([delta, None, None], dtype=p.Duration(unit))
    return p.DataFrame(columns)


def polars_writes(**options):
    return lambda path: polars_frame().write_parquet(path, **options)


def polars_float16(path):
    halves = polars.Series([NAN, -0.0, None], dtype=polars.Float16)
    polars.DataFrame({"id": [0, 1, 2], "f": halves}).write_parquet(path)


# How pyarrow must be told to read what it wrote itself.
READ = {"pyarrow INT96": {"coerce_int96_timestamp_unit": "us"}}

FILES = {
    "pyarrow numbers": pyarrow_writes(numbers),
    "pyarrow times": pyarrow_writes(times),
    "pyarrow texts": pyarrow_writes(texts),
    "pyarrow nested": pyarrow_writes(nested),
    "pyarrow numbers, no Arrow schema": pyarrow_writes(numbers, store_schema=False),
    "pyarrow texts, no dictionary pages": pyarrow_writes(texts, use_dictionary=False),
    "pyarrow nested, row groups of one": pyarrow_writes(nested, row_group_size=1),
    "pyarrow version 1.0": pyarrow_writes(mixed, version="1.0", compression="gzip"),
    "pyarrow data pages 2.0": pyarrow_writes(mixed, data_page_version="2.0", compression="zstd"),
    "pyarrow brotli": pyarrow_writes(mixed, compression="brotli", write_statistics=False),
    "pyarrow lz4": pyarrow_writes(mixed, compression="lz4", data_page_size=512),
    "pyarrow uncompressed": pyarrow_writes(mixed, compression="none", row_group_size=17),
    "pyarrow INT96": pyarrow_writes(mixed, use_deprecated_int96_timestamps=True),
    "pyarrow byte streams": pyarrow_writes(
        mixed, use_dictionary=False, use_byte_stream_split=["float"]
    ),
    "pyarrow delta": pyarrow_writes(
        mixed,
        use_dictionary=False,
        column_encoding={
            "id": "DELTA_BINARY_PACKED",
            "moment": "DELTA_BINARY_PACKED",
            "text": "DELTA_BYTE_ARRAY",
        },
    ),
    "duckdb types": duckdb_writes(DUCKDB_TYPES),
    "duckdb nested": duckdb_writes(DUCKDB_NESTED),
    "duckdb row groups": duckdb_writes(DUCKDB_MANY, ", ROW_GROUP_SIZE 2048"),
    "duckdb version 2": duckdb_writes(DUCKDB_MANY, ", PARQUET_VERSION v2, CODEC zstd"),
    "polars types": polars_writes(),
    "polars row groups of one": polars_writes(row_group_size=1, compression="lz4"),
    "polars uncompressed": polars_writes(compression="uncompressed", statistics=False),
    "polars float16": polars_float16,
}
