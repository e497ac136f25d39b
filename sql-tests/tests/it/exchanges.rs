//! Exchanges under slow readers: every query ends, whoever else stalls (RULES 21 and 23).
//!
//! Each query moves more than all buffers between two processes hold, and its answer is larger
//! than those between coordinator and client. One driver reads several answers, a few batches of
//! one, then of another, in an order from a seed: whoever is not being read stalls. So a reader
//! waits on the progress of others and never on a clock, and if one query's progress needs
//! another's reader, or one partition's another partition's, the deadline says so.

use std::path::Path;
use std::time::{Duration, Instant};

use basalt_sql_tests::client::{Client, ClientError, QueryStream};
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};
use basalt_sql_tests::fuzz::random::Random;
use basalt_sql_tests::slt::text;

/// Rows of the table: four runs of 16,384 that lie one after another, so that the partitions of a
/// sorted scan hold ranges and a merge reads one to its end before it reads the next.
const ROWS: usize = 65_536;
/// Bytes of the long string in a row: 64 MiB in all, of which each of at most six exchanged
/// partitions is larger than what a stream between two processes holds.
const PAD_BYTES: usize = 1_000;
/// Rows per batch: batches far smaller than any buffer.
const BATCH_ROWS: usize = 1_024;
/// How long one batch may take; a deadlock takes for ever, a busy machine far less.
const DEADLINE: Duration = Duration::from_secs(120);

/// A query, and the rows of its answer.
struct Case {
    sql: &'static str,
    rows: usize,
}

/// `p` is a view of the table with the long string.
const CASES: [Case; 7] = [
    // A merge of sorted partitions that are ranges.
    Case { sql: "SELECT k, pad FROM p ORDER BY k", rows: ROWS },
    // A self join whose build side is broadcast.
    Case { sql: "SELECT a.k, b.pad FROM p a JOIN p b ON a.k = b.k AND a.pad <= b.pad", rows: ROWS },
    // A self join whose sides are both shuffled.
    Case { sql: "SELECT a.k, b.pad FROM p a LEFT JOIN p b ON a.k = b.k + 1", rows: ROWS },
    // A FULL join on a key of which half the rows have one value.
    Case {
        sql: "SELECT a.k, b.pad FROM p a FULL JOIN p b ON a.k = b.half AND a.k > 0",
        rows: ROWS + ROWS / 2 - 1,
    },
    // A common table expression used twice.
    Case {
        sql: "WITH w AS (SELECT k, max(pad) AS pad FROM p GROUP BY k) \
              SELECT x.k, y.pad FROM w x JOIN w y ON x.k = y.k",
        rows: ROWS,
    },
    // A union of two shuffles, merged.
    Case {
        sql: "SELECT k, pad FROM (SELECT k, max(pad) AS pad FROM p WHERE k % 2 = 0 GROUP BY k \
              UNION ALL SELECT k, min(pad) FROM p WHERE k % 2 = 1 GROUP BY k) ORDER BY k",
        rows: ROWS,
    },
    // A window over a shuffle.
    Case {
        sql: "SELECT k, pad, row_number() OVER (PARTITION BY k % 50 ORDER BY k) AS r FROM p",
        rows: ROWS,
    },
];

async fn start(
    dir: &Path,
    workers: u16,
    links: Links,
    memory_bytes: Option<usize>,
) -> EmbeddedCluster {
    let mut config = EmbeddedConfig { links, ..EmbeddedConfig::new(dir, workers) };
    if let Some(memory_bytes) = memory_bytes {
        config.memory_bytes = memory_bytes;
    }
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    for sql in [
        format!(
            "CREATE TABLE t AS SELECT value AS k, CASE WHEN value % 2 = 0 THEN 2 ELSE value END \
             AS half FROM generate_series(1, {ROWS})"
        ),
        format!("CREATE VIEW p AS SELECT k, half, repeat('x', {PAD_BYTES}) || k AS pad FROM t"),
    ] {
        client.execute_update(&sql).await.unwrap();
    }
    cluster
}

/// One answer on its way to one reader.
struct Reader {
    case: &'static Case,
    stream: QueryStream,
    rows: usize,
}

impl Reader {
    async fn open(url: &str, case: &'static Case) -> Result<Self, ClientError> {
        let mut client = Client::connect(url).await?;
        client.run("SET target_partitions = 2").await?;
        client.run(&format!("SET batch_rows = {BATCH_ROWS}")).await?;
        Ok(Self { case, stream: client.query(case.sql).await?, rows: 0 })
    }

    /// Reads up to `batches` batches; `true` at the end of the answer.
    async fn read(&mut self, batches: u64) -> Result<bool, ClientError> {
        for _ in 0..batches {
            let next = tokio::time::timeout(DEADLINE, self.stream.next_batch()).await;
            let next =
                next.unwrap_or_else(|_| panic!("stuck at row {}: {}", self.rows, self.case.sql));
            match next? {
                Some(batch) => self.rows += batch.num_rows(),
                None => {
                    assert_eq!(self.rows, self.case.rows, "{}", self.case.sql);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// What the driver does to the readers.
#[derive(Clone, Copy)]
struct Drive {
    seed: u64,
    /// Whether a reader may go away in the middle.
    drops: bool,
    /// Whether a query may fail for want of memory.
    may_lack_memory: bool,
}

/// Reads all answers, in turns that the seed decides. Returns how many were read to their end.
async fn drive(url: &str, cases: &'static [Case], how: Drive) -> usize {
    let mut random = Random::new(how.seed);
    let mut readers = Vec::new();
    for case in cases {
        readers.push(Reader::open(url, case).await.unwrap());
    }
    let mut ended = 0;
    while !readers.is_empty() {
        let turn = usize::try_from(random.below(readers.len() as u64)).unwrap();
        // A query whose answer was never asked for waits for its ticket to expire.
        if how.drops && readers[turn].rows > 0 && random.one_in(5) {
            readers.swap_remove(turn);
            continue;
        }
        // Mostly a batch or two, at times all of the answer.
        let batches = if random.one_in(8) { u64::MAX } else { 1 + random.below(2) };
        match readers[turn].read(batches).await {
            Ok(false) => {}
            Ok(true) => {
                ended += 1;
                readers.swap_remove(turn);
            }
            Err(error) => {
                let lacks_memory = error.code() == Some("RESOURCES_EXHAUSTED");
                assert!(how.may_lack_memory && lacks_memory, "{}: {error}", readers[turn].case.sql);
                readers.swap_remove(turn);
            }
        }
    }
    ended
}

async fn all_answers_end(workers: u16, links: Links, seeds: std::ops::Range<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path(), workers, links, None).await;
    for seed in seeds {
        let how = Drive { seed, drops: false, may_lack_memory: false };
        assert_eq!(drive(&cluster.url(), &CASES, how).await, CASES.len(), "seed {seed}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_read_in_turns_all_end_on_two_workers() {
    all_answers_end(2, Links::Network, 1..2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_read_in_turns_all_end_on_three_workers() {
    all_answers_end(3, Links::InProcess, 2..3).await;
}

/// Statements that `sys.queries` shows as running, this one excepted.
async fn running(client: &mut Client) -> Vec<String> {
    let sql = "SELECT text FROM sys.queries WHERE state = 'running' AND text NOT LIKE '%sys.%'";
    let (_, batches) = client.query_all(sql).await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        text::append_rows(batch, &mut rows).unwrap();
    }
    rows.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_go_away_leave_nothing_behind_in_one_process() {
    nothing_is_left_behind(Links::InProcess, 10..12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_go_away_leave_nothing_behind_over_the_network() {
    nothing_is_left_behind(Links::Network, 12..14).await;
}

async fn nothing_is_left_behind(links: Links, seeds: std::ops::Range<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path(), 2, links, Some((2 * 256) << 20)).await;
    for seed in seeds {
        let how = Drive { seed, drops: true, may_lack_memory: true };
        drive(&cluster.url(), &CASES, how).await;
    }
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let given_up = Instant::now() + DEADLINE;
    while !running(&mut client).await.is_empty() {
        assert!(Instant::now() < given_up, "still running: {:?}", running(&mut client).await);
        tokio::task::yield_now().await;
    }
    // The build side of this join takes most of a worker's memory and cannot spill: it fits again
    // once the workers have let go of what the readers left.
    let hungry = "SELECT count(*) FROM p a JOIN p b ON a.k = b.k AND a.pad <= b.pad";
    loop {
        match client.query_all(hungry).await {
            Ok((_, batches)) => {
                let mut rows = Vec::new();
                text::append_rows(&batches[0], &mut rows).unwrap();
                assert_eq!(rows, [[ROWS.to_string()]]);
                break;
            }
            Err(error) => assert!(Instant::now() < given_up, "{error}"),
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_little_memory_answers_end_or_fail_for_want_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path(), 2, Links::Network, Some((2 * 48) << 20)).await;
    let how = Drive { seed: 20, drops: false, may_lack_memory: true };
    drive(&cluster.url(), &CASES, how).await;
    // The cluster is well afterwards.
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let (_, batches) = client.query_all("SELECT sum(k) FROM t").await.unwrap();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
    cluster.stop().await;
}
