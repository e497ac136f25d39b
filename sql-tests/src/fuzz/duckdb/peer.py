"""Answers each line {"sql": ..., "seconds": ...} with a line {"bytes": n} and n bytes of an Arrow IPC
stream, or with a line {"class": ..., "error": ...}. Ends with its standard input."""

import io
import json
import sys
import threading
import warnings

warnings.simplefilter("ignore")


def say(answer, payload=b""):
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + payload)
    sys.stdout.buffer.flush()


try:
    import duckdb
    import pyarrow
except ImportError as missing:
    say({"error": str(missing)})
    sys.exit(1)

connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
connection.execute("SET order_by_non_integer_literal = true")
connection.execute("SET memory_limit = '1GB'")
say({"version": duckdb.__version__})
for line in sys.stdin:
    request = json.loads(line)
    limit = threading.Timer(request["seconds"], connection.interrupt)
    limit.start()
    try:
        table = connection.execute(request["sql"]).to_arrow_table()
        stream = io.BytesIO()
        with pyarrow.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        payload = stream.getvalue()
        say({"bytes": len(payload)}, payload)
    except Exception as error:
        say({"class": type(error).__name__, "error": str(error)})
    finally:
        limit.cancel()
