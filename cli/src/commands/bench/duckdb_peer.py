"""DuckDB for `basalt bench --duckdb`: a line of JSON in, a line of JSON out.

    python duckdb_peer.py FILES FOLDER TABLE...

A request is "load" or a list of statements. Loading makes a new database below FOLDER from
FILES/<table>.parquet, up to the checkpoint: the rows are as durable then as an acknowledged COPY.
Answers hold the milliseconds and the rows of the statements that have any, or an error.
"""

import json
import os
import sys
import time

import duckdb

files, folder, tables = sys.argv[1], sys.argv[2], sys.argv[3:]
database = os.path.join(folder, "duckdb.db")
connection = None


def load():
    global connection
    if connection is not None:
        connection.close()
        os.remove(database)
    start = time.perf_counter()
    connection = duckdb.connect(database)
    # Its progress bar goes to standard output, where only answers may be.
    connection.execute("SET enable_progress_bar = false")
    for table in tables:
        file = os.path.join(files, f"{table}.parquet").replace("'", "''")
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{file}')")
    connection.execute("CHECKPOINT")
    return {"ms": (time.perf_counter() - start) * 1000, "rows": 0}


def run(statements):
    start, rows = time.perf_counter(), 0
    for statement in statements:
        if not statement.lstrip().lower().startswith(("select", "with")):
            connection.execute(statement)
        else:
            # Columnar to the last row, as Basalt's clients get it.
            rows += connection.sql(statement).to_arrow_table().num_rows
    return {"ms": (time.perf_counter() - start) * 1000, "rows": rows}


print(json.dumps({"version": duckdb.__version__}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = load() if request == "load" else run(request)
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
