#!/usr/bin/env python3
"""Whether narrower physical types would make queries faster: TPC-H in plain DataFusion, tables in memory.

    target/compare/bin/python sql-tests/compare/narrow_types.py DIR     # DIR has TPC-H's Parquet files

The same rows as they are, with decimals in 64 bits, with integers in as few bits as their values need,
and with texts of few different values as dictionaries. In memory nothing is decoded, so this is the most that a
column cache of such types could give: what it would cost to widen them again for operators that
want the logical types is not in it. Queries are those of cli/src/tpch, medians of RUNS hot runs, the
variants in turn within each run. Answers are compared with those of the plain tables.
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


def plain(column):
    return column.cast(pa.string_view()) if pa.types.is_string(column.type) else column


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
    if pa.types.is_string(column.type) and pc.count_distinct(column).as_py() <= DICTIONARY_VALUES_MAX:
        return column.combine_chunks().dictionary_encode()
    return plain(column)


VARIANTS = {
    "plain": plain,
    "decimals": narrow_decimals,
    "integers": narrow_integers,
    "dictionaries": dictionaries,
}


def context(tables, change):
    context = SessionContext(SessionConfig().with_target_partitions(PARTITIONS).with_batch_size(BATCH_ROWS))
    size = 0
    for name, table in tables.items():
        columns = [change(column) for column in table.columns]
        changed = pa.table(columns, names=table.column_names).combine_chunks()
        size += changed.nbytes
        batches = changed.to_batches(max_chunksize=BATCH_ROWS)
        half = (len(batches) + 1) // 2
        partitions = [part for part in (batches[:half], batches[half:]) if part]
        context.register_record_batches(name, partitions)
    return context, size


def rows(batches):
    return sorted(str(row) for batch in batches for row in zip(*batch.to_pydict().values()))


def main():
    folder = pathlib.Path(sys.argv[1])
    tables = {file.stem: pq.read_table(file) for file in sorted(folder.glob("*.parquet"))}
    texts = sorted((ROOT / "cli" / "src" / "tpch").glob("q*.sql"), key=lambda file: int(file.stem[1:]))
    contexts = {}
    for name, change in VARIANTS.items():
        contexts[name], size = context(tables, change)
        print(f"{name}: {size / 2**20:.0f} MiB", flush=True)
    print(f"\n{'query':>6} | {'plain ms':>9}" + "".join(f" | {name:>12}" for name in VARIANTS if name != "plain"))
    totals = dict.fromkeys(VARIANTS, 0.0)
    for text in texts:
        sql, times, answers = text.read_text(), {name: [] for name in VARIANTS}, {}
        for run in range(RUNS + 1):
            for name, session in contexts.items():
                started = time.perf_counter()
                try:
                    answer = session.sql(sql).collect()
                except Exception as error:
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
