#!/usr/bin/env python3
"""Whether narrower physical types would make queries faster: TPC-H in plain DataFusion, tables in memory.

    target/compare/bin/python sql-tests/compare/narrow_types.py DIR     # DIR has TPC-H's Parquet files

The same rows as they are (texts as views, as scans hand them on), and
- decimals: in 64 bits, which operators then compute with;
- integers: in as few bits as their values need;
- dictionaries: texts of at most DICTIONARY_VALUES_MAX different values as dictionaries;
- widened: decimals and integers kept narrow, and cast to their logical types by every scan, as
  a column cache of narrow types would have to for answers to stay what they are.
Nothing is decoded, so the first three are the most that such types could give. Queries are those of
cli/src/tpch, medians of RUNS hot runs, the variants in turn within each run; ratios to plain. Answers are
compared with those of the plain tables.
"""

import pathlib
import statistics
import sys
import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datafusion import SessionConfig, SessionContext

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RUNS = 5
PARTITIONS = 2
BATCH_ROWS = 8192
DICTIONARY_VALUES_MAX = 1000


def is_text(column):
    return pa.types.is_string(column.type) or pa.types.is_string_view(column.type)


def plain(column):
    return column.cast(pa.string_view()) if is_text(column) else column


def narrow_decimals(column):
    if pa.types.is_decimal(column.type) and column.type.precision <= 18:
        return column.cast(pa.decimal64(column.type.precision, column.type.scale))
    return plain(column)


def narrow_integers(column):
    if not pa.types.is_integer(column.type):
        return plain(column)
    bounds = pc.min_max(column).as_py()
    for narrow, bits in ((pa.int8(), 7), (pa.int16(), 15), (pa.int32(), 31)):
        if -(2**bits) <= bounds["min"] and bounds["max"] < 2**bits:
            return column.cast(narrow)
    return column


def dictionaries(column):
    if is_text(column):
        texts = column.cast(pa.string())
        if pc.count_distinct(texts).as_py() <= DICTIONARY_VALUES_MAX:
            return texts.combine_chunks().dictionary_encode()
    return plain(column)


def narrow(column):
    return narrow_decimals(column) if pa.types.is_decimal(column.type) else narrow_integers(column)


VARIANTS = {
    "plain": plain,
    "decimals": narrow_decimals,
    "integers": narrow_integers,
    "dictionaries": dictionaries,
    "widened": narrow,
}


def sql_type(data_type):
    if pa.types.is_decimal(data_type):
        return f"DECIMAL({data_type.precision}, {data_type.scale})"
    return {pa.int64(): "BIGINT", pa.int32(): "INT", pa.date32(): "DATE"}.get(data_type, "VARCHAR")


def wide_view(name, schema):
    """A view of the narrow rows with the types that they are of."""
    columns = ", ".join(f"CAST({field.name} AS {sql_type(field.type)}) AS {field.name}" for field in schema)
    return f"CREATE VIEW {name} AS SELECT {columns} FROM {name}_narrow"


def context(tables, change, is_widened):
    context = SessionContext(SessionConfig().with_target_partitions(PARTITIONS).with_batch_size(BATCH_ROWS))
    size = 0
    for name, table in tables.items():
        columns = [change(column) for column in table.columns]
        changed = pa.table(columns, names=table.column_names).combine_chunks()
        size += changed.nbytes
        batches = changed.to_batches(max_chunksize=BATCH_ROWS)
        half = (len(batches) + 1) // 2
        partitions = [part for part in (batches[:half], batches[half:]) if part]
        context.register_record_batches(f"{name}_narrow" if is_widened else name, partitions)
        if is_widened:
            context.sql(wide_view(name, table.schema)).collect()
    return context, size


def last_rows(session, text):
    """Runs the statements of a text, of which q15 has several; the rows of those that have some."""
    answers = [session.sql(statement).collect() for statement in text.split(";") if statement.strip()]
    return next((answer for answer in answers if any(batch.num_rows for batch in answer)), [])


def rows(batches):
    return sorted(str(row) for batch in batches for row in zip(*batch.to_pydict().values()))


def main():
    folder = pathlib.Path(sys.argv[1])
    tables = {file.stem: pq.read_table(file) for file in sorted(folder.glob("*.parquet"))}
    texts = sorted((ROOT / "cli" / "src" / "tpch").glob("q*.sql"), key=lambda file: int(file.stem[1:]))
    contexts = {}
    for name, change in VARIANTS.items():
        contexts[name], size = context(tables, change, name == "widened")
        print(f"{name}: {size / 2**20:.0f} MiB", flush=True)
    print(f"\n{'query':>6} | {'plain ms':>9}" + "".join(f" | {name:>12}" for name in VARIANTS if name != "plain"))
    totals = dict.fromkeys(VARIANTS, 0.0)
    for text in texts:
        sql, times, answers = text.read_text(), {name: [] for name in VARIANTS}, {}
        for run in range(RUNS + 1):
            for name, session in contexts.items():
                started = time.perf_counter()
                try:
                    answer = last_rows(session, sql)
                except Exception as error:
                    if name == "plain":
                        raise
                    times.pop(name, None)
                    if run == 0:
                        print(f"{text.stem}: {name}: {str(error).splitlines()[0][:150]}")
                    continue
                if run == 0:
                    answers[name] = rows(answer)
                else:
                    times[name].append(time.perf_counter() - started)
        for name, answer in answers.items():
            if answer != answers["plain"]:
                print(f"{text.stem}: {name} has another answer")
        medians = {name: statistics.median(of) * 1000 for name, of in times.items()}
        for name in VARIANTS:
            totals[name] += medians.get(name, medians["plain"])
        ratio = lambda name: f"{medians[name] / medians['plain']:.2f}" if name in medians else "fails"
        shown = "".join(f" | {ratio(name):>12}" for name in VARIANTS if name != "plain")
        print(f"{text.stem:>6} | {medians['plain']:9.1f}{shown}", flush=True)
    shown = "".join(f" | {totals[name] / totals['plain']:12.2f}" for name in VARIANTS if name != "plain")
    print(f"{'total':>6} | {totals['plain']:9.1f}{shown}")


if __name__ == "__main__":
    main()
