//! DELETE and UPDATE of real processes that are killed with SIGKILL in the middle: an acknowledged
//! change is there and made once, one without an answer is there whole or not at all, and no
//! reader ever sees half of one (RULES 3, 8, 9).
//!
//! ```text
//! cell      500 rows (g, n) of one group g and one parity of n, on all slices of both workers
//! value     of a cell is the v of all its rows; a cell that was deleted has none
//! writers   two at a time, each with groups of its own in the one table, and a VACUUM now and then
//! reader    asks during all of it, and finds whole cells, and those of a group that nobody deletes
//! ```
//! After each kill the cells of a writer are those of its acknowledged statements, or those with
//! its last statement, which had no answer. `BASALT_KILL_ROUNDS` (4) and `BASALT_KILL_SEED` (1)
//! choose another run; what is random beside them is when the kill comes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use basalt_sql_tests::client::{Client, ClientError};
use tokio::sync::mpsc::UnboundedSender;

use crate::killable::{
    Choices, Cluster, KILL_AFTER_MAX_MS, RECOVERY_MAX, VICTIMS, from_environment, integers, numbers,
};

const WRITERS: usize = 2;
const GROUPS_OF_WRITER: u64 = 4;
/// Rows of a group; half of them have an even n.
const GROUP_ROWS: i64 = 1_000;
const CELL_ROWS: i64 = GROUP_ROWS / 2;

/// A cell: its group and the parity of its rows.
type Cell = (i64, i64);
/// The value of each cell that there is.
type Cells = BTreeMap<Cell, i64>;

/// A statement, what the cells of its writer are after it, and how many rows it says it changed.
struct Step {
    sql: String,
    after: Cells,
    rows: i64,
}

fn groups_of(writer: usize) -> Range<i64> {
    let groups = i64::try_from(GROUPS_OF_WRITER).unwrap();
    let first = i64::try_from(writer).unwrap() * groups;
    first..first + groups
}

/// Whether a group is never deleted: once it is there, nobody may ever find it gone.
fn stays(group: i64) -> bool {
    group % i64::try_from(GROUPS_OF_WRITER).unwrap() == 0
}

/// The next statement of a writer. `value` is one that no cell has had.
fn step(writer: usize, choices: &mut Choices, before: &Cells, value: i64) -> Step {
    let groups = groups_of(writer);
    let mut below = |end| i64::try_from(choices.below(end)).unwrap();
    let group = groups.start + below(GROUPS_OF_WRITER);
    let (parity, kind) = (below(2), below(8));
    let (condition, chosen): (String, Vec<Cell>) = match kind {
        0 | 1 => (format!("g = {group}"), vec![(group, 0), (group, 1)]),
        2..=5 => (format!("g = {group} AND n % 2 = {parity}"), vec![(group, parity)]),
        _ => (
            format!("g BETWEEN {} AND {}", groups.start, groups.end - 1),
            groups.clone().flat_map(|group| [(group, 0), (group, 1)]).collect(),
        ),
    };
    let there: Vec<_> = chosen.iter().filter(|cell| before.contains_key(cell)).collect();
    let mut after = before.clone();
    let (sql, cells) = if there.is_empty() {
        after.extend(chosen.iter().map(|cell| (*cell, value)));
        let (first, last) = (groups.start, groups.end - 1);
        let all = format!(
            "generate_series({first}, {last}) AS a(g) CROSS JOIN generate_series(1, {GROUP_ROWS}) AS b(n)"
        );
        let sql = format!("INSERT INTO cells SELECT g, n, {value} FROM {all} WHERE {condition}");
        (sql, chosen.len())
    } else {
        match kind {
            0 | 2 if !stays(group) => {
                after.retain(|cell, _| !chosen.contains(cell));
                (format!("DELETE FROM cells WHERE {condition}"), there.len())
            }
            // Made twice, it would show.
            3 | 7 => {
                there.iter().for_each(|cell| *after.entry(**cell).or_default() += 1);
                (format!("UPDATE cells SET v = v + 1 WHERE {condition}"), there.len())
            }
            _ => {
                after.extend(there.iter().map(|cell| (**cell, value)));
                (format!("UPDATE cells SET v = {value} WHERE {condition}"), there.len())
            }
        }
    };
    Step { sql, after, rows: CELL_ROWS * i64::try_from(cells).unwrap() }
}

/// What a writer knows when it stops.
struct Stopped {
    /// Cells after its acknowledged statements.
    cells: Cells,
    /// Its last statement, which failed, and the cells if it was made all the same.
    unanswered: (String, Cells),
    acknowledged: usize,
}

/// Changes a writer's cells until a statement fails, telling of each that is acknowledged.
async fn change_until_it_fails(
    url: String,
    (writer, mut choices): (usize, Choices),
    mut cells: Cells,
    first_value: i64,
    told: UnboundedSender<usize>,
) -> Stopped {
    let mut acknowledged = 0;
    let mut client = Client::connect(&url).await.unwrap();
    // Values are far apart: adding one to one never makes another.
    for value in (first_value..).step_by(1_000) {
        let Step { sql, after, rows } = step(writer, &mut choices, &cells, value);
        match client.execute_update(&sql).await {
            Ok(changed) => assert_eq!(i64::try_from(changed).unwrap(), rows, "{sql}"),
            Err(_) => return Stopped { cells, unanswered: (sql, after), acknowledged },
        }
        cells = after;
        acknowledged += 1;
        let _killed_already = told.send(writer);
        if choices.below(4) == 0 && client.execute_update("VACUUM cells").await.is_err() {
            return Stopped {
                unanswered: ("VACUUM".to_owned(), cells.clone()),
                cells,
                acknowledged,
            };
        }
    }
    unreachable!("values do not end")
}

const CELLS: &str = "SELECT g, n % 2, count(*), count(DISTINCT n), min(v), max(v) \
                     FROM cells GROUP BY g, n % 2";

/// Cells from their rows, all of which must be whole.
fn whole_cells(rows: &[Vec<i64>]) -> Cells {
    let cell = |row: &Vec<i64>| {
        let [group, parity, rows, different, least, most] = row[..] else { panic!("{row:?}") };
        assert_eq!(
            (rows, different, least),
            (CELL_ROWS, CELL_ROWS, most),
            "half a change: {row:?}"
        );
        ((group, parity), least)
    };
    rows.iter().map(cell).collect()
}

/// Reads cells until the cluster is gone or the writers have ended: with one worker gone it goes on
/// to answer. Returns how often it did.
async fn read_until_it_fails(
    url: String,
    writers_ended: Arc<AtomicBool>,
) -> Result<usize, ClientError> {
    let mut client = Client::connect(&url).await?;
    let (mut answers, mut staying) = (0, Cells::new());
    while let Ok((_, batches)) = client.query_all(CELLS).await {
        if writers_ended.load(Ordering::Relaxed) {
            break;
        }
        let cells = whole_cells(&integers(&batches));
        let gone = staying.keys().find(|cell| !cells.contains_key(cell));
        assert_eq!(gone, None, "an UPDATE is seen without its new rows");
        staying.extend(cells.into_iter().filter(|((group, _), _)| stays(*group)));
        answers += 1;
    }
    Ok(answers)
}

/// Which of the two states that a writer's cells may be in, they are in.
fn found_of(writer: usize, found: &Cells, stopped: Stopped) -> (Cells, bool) {
    let groups = groups_of(writer);
    let own: Cells = found
        .iter()
        .filter(|((group, _), _)| groups.contains(group))
        .map(|(cell, value)| (*cell, *value))
        .collect();
    let (sql, after) = stopped.unanswered;
    assert!(
        own == stopped.cells || own == after,
        "writer {writer}: {own:?} is neither {:?} nor, after {sql}, {after:?}",
        stopped.cells
    );
    let made = own != stopped.cells;
    (own, made)
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_sigkill_whole() {
    let rounds = from_environment("BASALT_KILL_ROUNDS", 4);
    let seed = from_environment("BASALT_KILL_SEED", 1);
    let mut choices = Choices(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let mut client = Client::connect(&cluster.url).await.unwrap();
    let create = "CREATE TABLE cells (g BIGINT, n BIGINT, v BIGINT) DISTKEY(n) SORTKEY(g)";
    client.execute_update(create).await.unwrap();
    let mut cells = vec![Cells::new(); WRITERS];
    let (mut acknowledged, mut made, mut not_made, mut read) = (0, 0, 0, 0);
    let mut victims: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..rounds {
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let first_value = 1 + i64::try_from(round).unwrap() * 1_000_000_000;
        let mut writers = Vec::new();
        for (writer, cells) in cells.iter().enumerate() {
            let own = (writer, Choices(choices.below(u64::from(u32::MAX))));
            let url = cluster.url.clone();
            let writes =
                change_until_it_fails(url, own, cells.clone(), first_value, sender.clone());
            writers.push(tokio::spawn(writes));
        }
        drop(sender);
        let writers_ended = Arc::new(AtomicBool::new(false));
        let reads = read_until_it_fails(cluster.url.clone(), Arc::clone(&writers_ended));
        let reader = tokio::spawn(reads);
        // Kill in the middle of the changes: after each writer had an answer, while others run.
        let mut answered = [false; WRITERS];
        while answered.contains(&false) {
            match told.recv().await {
                Some(writer) => answered[writer] = true,
                None => break, // The writers' errors are told below.
            }
        }
        // The moment is the fault that is injected, not a wait for something.
        tokio::time::sleep(Duration::from_millis(choices.below(KILL_AFTER_MAX_MS))).await;
        let victim = if round < VICTIMS { round } else { choices.below(VICTIMS) };
        *victims.entry(cluster.kill(victim)).or_default() += 1;
        let mut stopped = Vec::new();
        for writer in writers {
            let writer = tokio::time::timeout(RECOVERY_MAX, writer);
            stopped.push(writer.await.expect("a statement hangs").unwrap());
        }
        writers_ended.store(true, Ordering::Relaxed);
        let reader = tokio::time::timeout(RECOVERY_MAX, reader).await;
        read += reader.expect("a query hangs").unwrap().unwrap();
        cluster.start_what_is_missing();
        let found = whole_cells(&numbers(&cluster.url, CELLS).await);
        for (writer, stopped) in stopped.into_iter().enumerate() {
            acknowledged += stopped.acknowledged;
            let (own, was_made) = found_of(writer, &found, stopped);
            cells[writer] = own;
            *(if was_made { &mut made } else { &mut not_made }) += 1;
        }
    }
    println!(
        "{rounds} kills, seed {seed}, {victims:?}: {acknowledged} changes acknowledged, all there; \
         {made} without an answer made, {not_made} not made, none by half; {read} reads between"
    );
}
