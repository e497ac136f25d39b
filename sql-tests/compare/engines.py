"""The engines that are compared: a Basalt cluster of its own, DuckDB, plain DataFusion."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time

from texts import is_query, statements

# A mix of layouts on purpose: co-located, spread and replicated tables meet in most queries.
LAYOUTS = {
    "lineitem": "DISTKEY(l_orderkey)",
    "orders": "DISTKEY(o_orderkey)",
    "partsupp": "DISTKEY(ps_partkey)",
    "part": "DISTKEY(p_partkey)",
    "nation": "DISTSTYLE ALL",
    "region": "DISTSTYLE ALL",
    "store_sales": "DISTKEY(ss_item_sk)",
    "store_returns": "DISTKEY(sr_item_sk)",
    "catalog_sales": "DISTKEY(cs_item_sk)",
    "web_sales": "DISTKEY(ws_order_number)",
    "item": "DISTKEY(i_item_sk)",
    "date_dim": "DISTSTYLE ALL",
    "store": "DISTSTYLE ALL",
    "warehouse": "DISTSTYLE ALL",
}


class DuckDB:
    """In this process, over views of the files."""

    name = "DuckDB"

    def __init__(self, files):
        import duckdb

        self.con = duckdb.connect()
        # As PostgreSQL, DataFusion and Basalt have it: NULL is larger than every value.
        self.con.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'")
        for table, file in files.items():
            self.con.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{file}')")

    def run(self, statement):
        if not is_query(statement):
            self.con.execute(statement)
            return None
        return self.con.sql(statement).to_arrow_table()


class DataFusion:
    """In this process, as the Python package has it, over the files."""

    name = "plain DataFusion"

    def __init__(self, files):
        from datafusion import SessionContext

        self.context = SessionContext()
        for table, file in files.items():
            self.context.register_parquet(table, str(file))

    def run(self, statement):
        frame = self.context.sql(statement)
        if not is_query(statement):
            frame.collect()
            return None
        return frame.to_arrow_table()


class Basalt:
    """A cluster in a process of its own, through the ADBC driver."""

    def __init__(self, binary, workers, data, files):
        import adbc_driver_flightsql.dbapi as flightsql

        self.dir = tempfile.mkdtemp(prefix="basalt-compare-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = open(f"{self.dir}/log", "w+b")
        command = [binary, "start", "--workers", str(workers), "--data-dir", f"{self.dir}/data"]
        command += ["--listen", f"127.0.0.1:{port}", "--allow-path", str(data)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.dir)
        url = f"grpc://127.0.0.1:{port}"
        self.connection = self.connect(flightsql, url)
        self.cursor = self.connection.cursor()
        started = time.perf_counter()
        for table, file in files.items():
            layout = LAYOUTS.get(table, "DISTSTYLE EVEN")
            self.cursor.execute(f"CREATE TABLE {table} {layout} AS SELECT * FROM read_parquet('{file}')")
        self.load_seconds = time.perf_counter() - started

    def connect(self, flightsql, url):
        deadline = time.monotonic() + 120
        while True:
            try:
                connection = flightsql.connect(url, autocommit=True)
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                    cursor.fetchall()
                return connection
            except Exception as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.log.seek(0)
                    raise SystemExit(f"the cluster does not serve: {error}\n{self.log.read().decode()}")
                time.sleep(0.1)

    def run(self, statement):
        self.cursor.execute(statement)
        return self.cursor.fetch_arrow_table() if is_query(statement) else None

    def fallbacks(self):
        self.cursor.execute("SELECT text, fallback FROM sys.queries WHERE fallback IS NOT NULL")
        return self.cursor.fetchall()

    def stop(self):
        self.cursor.close()
        self.connection.close()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        self.log.close()
        shutil.rmtree(self.dir)


def answer(engine, sql):
    """The rows of the last query of a text."""
    rows = None
    for statement in statements(sql):
        found = engine.run(statement)
        rows = found if found is not None else rows
    return rows


PEERS = {"duckdb": DuckDB, "datafusion": DataFusion}
