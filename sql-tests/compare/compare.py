#!/usr/bin/env python3
"""Compares Basalt's answers with DuckDB's and plain DataFusion's on the same Parquet files.

    cargo build --release
    python3 -m venv target/compare && target/compare/bin/pip install -r sql-tests/compare/requirements.txt
    target/compare/bin/python sql-tests/compare/compare.py tpch --scale 1 --workers 1,2,3,5 --partitions 1,2,4
    target/compare/bin/python sql-tests/compare/compare.py tpcds --scale 1 --queries QUERIES --workers 3
    target/compare/bin/python sql-tests/compare/compare.py tpcds --scale 1 --queries QUERIES --workers 3 --time 3

Files that are not in --data are generated there. Each topology is a cluster of its own, started
as `basalt start`, loaded from the files, asked through the unmodified ADBC driver and stopped.
An answer is right when it has the rows of the peer, whatever the order of ties, and stands in the
order that the query asks for. Where a query has a LIMIT, it is also run without it and compared
whole: then no tie can hide a difference. Numbers are equal when their values are; a peer that
answers in floats where Basalt has decimals is compared at the precision of the decimals.

With --time N the queries are timed as they are written, each N times after one to warm up: on a coordinator and
worker processes, whose dimensions are left to AUTO, and on DuckDB with tables of its own, in turns. Each --set is a
column of its own: the same cluster with these settings, also in turns.

Exit status: 0 when every answer agrees, 1 otherwise.
"""

import argparse
import datetime
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

from answers import check
from engines import PEERS, Basalt, DuckDB, answer
from texts import last_query, split_limit, without_limit

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DATA_COMMANDS = {
    "tpch": ["tpchgen-cli", "parquet"],
    "tpcds": ["tpcgen-cli", "tpcds", "parquet"],
}


def data_files(suite, scale, folder):
    folder = pathlib.Path(folder or ROOT / "target" / f"{suite}-sf{scale:g}").resolve()
    if not list(folder.glob("*.parquet")):
        tool, *arguments = DATA_COMMANDS[suite]
        tool = pathlib.Path(sys.executable).parent / tool
        subprocess.run([tool, *arguments, "-s", f"{scale:g}", "--output-dir", folder], check=True)
    files = {file.stem: file for file in sorted(folder.glob("*.parquet"))}
    if not files:
        raise SystemExit(f"no Parquet files in {folder}")
    return folder, files


def query_files(suite, folder):
    folder = pathlib.Path(folder or ROOT / "cli" / "src" / "tpch")
    files = sorted(folder.glob("q*.sql"), key=lambda file: int(file.stem[1:]))
    if not files:
        raise SystemExit(f"no q*.sql in {folder}: name the folder of the {suite} texts with --queries")
    return {file.stem: file.read_text() for file in files}


def numbers(text):
    return [int(part) for part in text.split(",")]


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def expected_answers(peers, files, queries):
    """{query: {peer: rows}}, the rows without a last LIMIT."""
    expected = {name: {} for name in queries}
    for peer in (PEERS[key](files) for key in peers):
        started = time.perf_counter()
        for name, sql in queries.items():
            try:
                expected[name][peer.name] = answer(peer, without_limit(sql))
            except Exception as error:  # The peer's own limit, told below as such.
                print(f"  {name}: {peer.name} cannot answer: {str(error).splitlines()[0][:160]}")
        print(f"{peer.name}: {time.perf_counter() - started:.1f} s for the answers without LIMIT", flush=True)
    return expected


def faults_of(basalt, sql, expected):
    """What is wrong with Basalt's answer to one query, a line for each peer."""
    try:
        limited = answer(basalt, sql)
        whole = answer(basalt, without_limit(sql)) if split_limit(last_query(sql))[1] else limited
    except Exception as error:
        return [f"ERROR {str(error).splitlines()[0][:300]}"]
    if not expected:
        return ["no peer answers"]
    faults = ((peer, check(last_query(sql), whole, limited, rows)) for peer, rows in expected.items())
    return [f"DIFFERS from {peer}: {fault}"[:1500] for peer, fault in faults if fault]


def compare_topology(basalt, topology, queries, expected):
    """Prints what differs, and a line of totals; returns the number of faults."""
    faults, started = 0, time.perf_counter()
    for name, sql in queries.items():
        for fault in faults_of(basalt, sql, expected[name]):
            print(f"  {name}: {fault}", flush=True)
            faults += 1
    compared = sum(len(answers) for answers in expected.values())
    seconds = time.perf_counter() - started
    print(f"{topology}: {compared} comparisons of {len(queries)} queries, {faults} faults, {seconds:.1f} s", flush=True)
    return faults


def seconds_of(engine, sql):
    started = time.perf_counter()
    answer(engine, sql)
    return time.perf_counter() - started


def use(basalt, settings, partitions=None):
    """Gives the session these settings ("name=value,...") and the defaults for all others."""
    basalt.run("RESET ALL")
    if partitions:
        basalt.run(f"SET target_partitions = {partitions}")
    for setting in filter(None, settings.split(",")):
        basalt.run("SET {} = {}".format(*setting.split("=", 1)))


def time_queries(basalt, files, queries, runs, settings):
    """Prints the medians of both engines, query by query, and their totals."""
    duckdb = DuckDB(files, has_tables=True)
    try:
        print_times(basalt, duckdb, queries, runs, settings)
    finally:
        duckdb.stop()


def print_times(basalt, duckdb, queries, runs, settings):
    print(f"{len(basalt.processes) - 1} worker processes: loaded in {basalt.load_seconds:.1f} s")
    print(f"{'':6}{'Basalt ms':>12}{'DuckDB ms':>12}{'ratio':>8}" + "".join(f"  {of} ms" for of in settings), flush=True)
    kinds = ["", *settings]
    totals, ratios = [0.0] * (len(kinds) + 1), []
    for name, sql in queries.items():
        times = [[] for _ in totals]
        for run in range(runs + 1):
            for kind, measured in zip(kinds, times):
                if settings:
                    use(basalt, kind)
                measured.append(seconds_of(basalt, sql))
            times[-1].append(seconds_of(duckdb, sql))
        medians = [statistics.median(measured[1:]) for measured in times]
        totals = [total + median for total, median in zip(totals, medians)]
        ratios.append(medians[0] / medians[-1])
        print(times_line(name, medians, settings), flush=True)
    print(times_line("total", totals, settings))
    print(f"geometric mean of the ratios {statistics.geometric_mean(ratios):.2f}, largest {max(ratios):.2f}")


def times_line(name, seconds, settings):
    ours, *others, theirs = (of * 1000 for of in seconds)
    line = f"{name:6}{ours:12.1f}{theirs:12.1f}{ours / theirs:8.2f}"
    return line + "".join(f"{of:{len(kind) + 5}.1f}" for kind, of in zip(settings, others))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(DATA_COMMANDS))
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--data", help="folder of <table>.parquet [target/<suite>-sf<scale>]")
    parser.add_argument("--queries", help="folder of q<n>.sql [the 22 of TPC-H in cli/src/tpch]")
    parser.add_argument("--only", help="names of queries, with commas")
    parser.add_argument("--workers", type=numbers, default=[3])
    parser.add_argument("--partitions", type=numbers, default=[2])
    parser.add_argument("--peers", type=lambda text: text.split(","), default=sorted(PEERS))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE,...", help="compare in a session with these settings too")
    parser.add_argument("--time", type=int, metavar="N", help="time every query N times beside DuckDB, and compare nothing")
    parser.add_argument("--basalt", default=str(ROOT / "target" / "release" / "basalt"))
    return parser.parse_args()


def main():
    options = parse_arguments()
    folder, files = data_files(options.suite, options.scale, options.data)
    queries = query_files(options.suite, options.queries)
    if options.only:
        queries = {name: queries[name] for name in options.only.split(",")}
    print(f"{options.suite} scale {options.scale:g}: {len(queries)} queries, {datetime.date.today()}, {machine()}")
    if options.time:
        for workers in options.workers:
            basalt = Basalt(options.basalt, workers, folder, files, has_processes=True)
            try:
                time_queries(basalt, files, queries, options.time, options.set)
            finally:
                basalt.stop()
        return 0
    expected = expected_answers(options.peers, files, queries)
    faults = 0
    for workers in options.workers:
        basalt = Basalt(options.basalt, workers, folder, files)
        print(f"{workers} workers: loaded in {basalt.load_seconds:.1f} s", flush=True)
        for partitions in options.partitions:
            for settings in ["", *options.set]:
                use(basalt, settings, partitions)
                topology = ", ".join(filter(None, [f"{workers} workers", f"target_partitions {partitions}", settings]))
                faults += compare_topology(basalt, topology, queries, expected)
        for text, reason in basalt.fallbacks():
            print(f"  one-task fallback: {reason}: {text[:80]!r}")
            faults += 1
        basalt.stop()
    print("all answers agree, no fallback" if faults == 0 else f"{faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
