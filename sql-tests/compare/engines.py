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

# As a user would declare them who knows the joins of the facts: dimensions are left to AUTO.
TIMED_LAYOUTS = {
    "lineitem": "DISTKEY(l_orderkey)",
    "orders": "DISTKEY(o_orderkey)",
    "store_sales": "DISTKEY(ss_item_sk)",
    "store_returns": "DISTKEY(sr_item_sk)",
    "catalog_sales": "DISTKEY(cs_item_sk)",
    "catalog_returns": "DISTKEY(cr_item_sk)",
    "web_sales": "DISTKEY(ws_item_sk)",
    "web_returns": "DISTKEY(wr_item_sk)",
    "inventory": "DISTKEY(inv_item_sk)",
}

# Segments that should be with every worker and are not yet.
NOT_EVERYWHERE = (
    "SELECT count(*) FROM sys.segments s JOIN sys.tables t USING (table_id) WHERE t.colocation = 'all workers' AND "
    "length(s.holders) - length(replace(s.holders, ',', '')) + 1 < (SELECT count(*) FROM sys.workers)"
)


class DuckDB:
    """In this process, over views of the files, or with tables of its own."""

    name = "DuckDB"

    def __init__(self, files, has_tables=False):
        import duckdb

        self.dir = tempfile.mkdtemp(prefix="basalt-duckdb-") if has_tables else None
        self.con = duckdb.connect(f"{self.dir}/duckdb.db" if has_tables else ":memory:")
        # As PostgreSQL, DataFusion and Basalt have it: NULL is larger than every value.
        self.con.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'")
        kind = "TABLE" if has_tables else "VIEW"
        for table, file in files.items():
            self.con.execute(f"CREATE {kind} {table} AS SELECT * FROM read_parquet('{file}')")
        if has_tables:
            self.con.execute("CHECKPOINT")

    def stop(self):
        self.con.close()
        if self.dir is not None:
            shutil.rmtree(self.dir)

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
    """A cluster in a process of its own, or in one for each worker, through the ADBC driver."""

    def __init__(self, binary, workers, data, files, has_processes=False):
        import adbc_driver_flightsql.dbapi as flightsql

        self.dir = tempfile.mkdtemp(prefix="basalt-compare-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = open(f"{self.dir}/log", "w+b")
        # What is asked again is run again.
        serve = ["--listen", f"127.0.0.1:{port}", "--data-dir", f"{self.dir}/data", "--result-cache", "0"]
        url = f"grpc://127.0.0.1:{port}"
        role = ["coordinator"] if has_processes else ["start", "--workers", str(workers)]
        self.processes = [self.spawn(binary, data, [*role, *serve])]
        if has_processes:
            self.until(self.serves, "the coordinator does not serve")
        for number in range(workers if has_processes else 0):
            join = ["--coordinator", url, "--secret-file", f"{self.dir}/data/cluster.secret"]
            worker = ["worker", "--data-dir", f"{self.dir}/worker-{number}", *join]
            self.processes.append(self.spawn(binary, data, worker))
        self.connection = self.connect(flightsql, url)
        self.cursor = self.connection.cursor()
        self.wait(f"SELECT {workers} - count(*) FROM sys.workers WHERE state = 'live'")
        started = time.perf_counter()
        for table, file in files.items():
            layout = TIMED_LAYOUTS.get(table, "") if has_processes else LAYOUTS.get(table, "DISTSTYLE EVEN")
            self.cursor.execute(f"CREATE TABLE {table} {layout} AS SELECT * FROM read_parquet('{file}')")
        self.load_seconds = time.perf_counter() - started
        if has_processes:
            self.cursor.execute("ANALYZE")
            self.wait(NOT_EVERYWHERE)

    def spawn(self, binary, data, arguments):
        command = [binary, *arguments, "--allow-path", str(data)]
        return subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.dir)

    def serves(self):
        with open(f"{self.dir}/log") as log:
            return "coordinator ready" in log.read()

    def wait(self, left):
        """Waits until a query gives 0."""

        def is_none_left():
            self.cursor.execute(left)
            return self.cursor.fetchone()[0] == 0

        self.until(is_none_left, f"the cluster is not ready: {left}")

    def until(self, is_so, problem):
        deadline = time.monotonic() + 120
        while not is_so():
            if time.monotonic() > deadline:
                for process in self.processes:
                    process.kill()
                raise SystemExit(problem)
            time.sleep(0.1)

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
                if self.processes[0].poll() is not None or time.monotonic() > deadline:
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
        for process in reversed(self.processes):
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
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
