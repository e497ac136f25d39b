//! INSERT, UPDATE and DELETE of whole cells, over several columns that depend on each other
//! (FAULTS A8, delete/update vs scan).
//!
//! ```text
//! cells (g, n, v, w, x, y)   w = 3v + n, x = 7v - n, y = -v in every row, whatever happens
//! cell      500 rows of one group g and one parity of n, on all slices of all workers
//! value     of a cell is the v of all its rows; a cell that was deleted has none
//! writers   each with groups of its own in the one table, and a VACUUM now and then
//! reader    finds whole cells, and those of a group that nobody deletes, never older than before
//! ```
//! A vertical layout is in danger of one thing most of all: the new version of one column beside
//! the old one of another. Such a row breaks the rule between `v` and the others.
//!
//! A writer stops at its first statement without an answer: its cells are then as they were
//! before, or as they are after it, and the check finds out which.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{Unanswered, Workload, all};
use crate::faults::choices::Choices;
use crate::faults::session::{Outcome, Session};
use crate::faults::traffic::Traffic;
use crate::faults::violation::{Kind, Violation, expect};

const GROUPS_OF_WRITER: i64 = 4;
/// Rows of a group; half of them have an even n.
const GROUP_ROWS: i64 = 1_000;
const CELL_ROWS: i64 = GROUP_ROWS / 2;
/// Between two values: adding one to one never makes another.
const VALUE_STEP: usize = 1_000;

const FOUND: &str = "SELECT g, n % 2, count(*), count(DISTINCT n), min(v), max(v), \
     sum(CASE WHEN w = 3 * v + n AND x = 7 * v - n AND y = -v THEN 0 ELSE 1 END) \
     FROM cells GROUP BY g, n % 2";

/// A cell: its group and the parity of its rows.
pub type Cell = (i64, i64);
/// The value of each cell that there is.
pub type Values = BTreeMap<Cell, i64>;

/// The workload.
#[derive(Debug)]
pub struct Cells {
    readers: usize,
    /// What each writer's cells are.
    values: Vec<Values>,
    /// What each writer's cells are if its last statement, which had no answer, was made.
    unanswered: Vec<Option<(String, Values)>>,
    next_value: i64,
}

impl Cells {
    /// So many clients that change cells, and so many that read all of them.
    pub fn new(writers: usize, readers: usize) -> Self {
        let values = vec![Values::new(); writers];
        Self { readers, values, unanswered: vec![None; writers], next_value: 1 }
    }
}

/// A statement, what the cells of its writer are after it, and how many rows it changes.
struct Step {
    sql: String,
    after: Values,
    rows: u64,
}

fn groups_of(writer: usize) -> Range<i64> {
    let first = i64::try_from(writer).unwrap_or(0) * GROUPS_OF_WRITER;
    first..first + GROUPS_OF_WRITER
}

/// Whether a group is never deleted: once it is there, nobody may ever find it gone.
fn stays(group: i64) -> bool {
    group % GROUPS_OF_WRITER == 0
}

/// The next statement of a writer. `value` is one that no cell has had.
fn step(writer: usize, choices: &mut Choices, before: &Values, value: i64) -> Step {
    let groups = groups_of(writer);
    let mut below = |end: i64| choices.below(end.unsigned_abs()).cast_signed();
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
        let columns = format!("g, n, {value}, 3 * {value} + n, 7 * {value} - n, -{value}");
        let sql = format!("INSERT INTO cells SELECT {columns} FROM {all} WHERE {condition}");
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
                let set = "v = v + 1, w = w + 3, x = x + 7, y = y - 1";
                (format!("UPDATE cells SET {set} WHERE {condition}"), there.len())
            }
            _ => {
                after.extend(there.iter().map(|cell| (**cell, value)));
                let set =
                    format!("v = {value}, w = 3 * {value} + n, x = 7 * {value} - n, y = -{value}");
                (format!("UPDATE cells SET {set} WHERE {condition}"), there.len())
            }
        }
    };
    Step { sql, after, rows: CELL_ROWS.unsigned_abs() * cells as u64 }
}

/// Cells from the rows of [`FOUND`], all of which must be whole.
///
/// # Errors
/// Half a change, or a row whose columns are of different versions.
pub fn whole_cells(rows: &[Vec<i64>]) -> Result<Values, Violation> {
    let mut cells = Values::new();
    for row in rows {
        let [group, parity, rows, different, least, most, mixed] = row[..] else {
            return Err(Violation::new(Kind::WrongAnswer, format!("a row {row:?}")));
        };
        expect(mixed == 0, Kind::WrongAnswer, || {
            format!("{mixed} rows of cell ({group}, {parity}) mix versions of columns")
        })?;
        let kind = if rows > different { Kind::Duplicate } else { Kind::Partial };
        expect((rows, different, least) == (CELL_ROWS, CELL_ROWS, most), kind, || {
            format!(
                "cell ({group}, {parity}): {rows} rows, {different} different, v {least} to {most}"
            )
        })?;
        cells.insert((group, parity), least);
    }
    Ok(cells)
}

/// What a writer knows when it stops.
struct Stopped {
    writer: usize,
    values: Values,
    unanswered: Option<(String, Values)>,
    next_value: i64,
}

async fn change(
    mut session: Session,
    mut stopped: Stopped,
    traffic: Arc<Traffic>,
    mut choices: Choices,
) -> Result<Option<Stopped>, Violation> {
    for value in (stopped.next_value..).step_by(VALUE_STEP) {
        stopped.next_value = value;
        if traffic.is_over() {
            break;
        }
        let Step { sql, after, rows } = step(stopped.writer, &mut choices, &stopped.values, value);
        match traffic.write(&mut session, &sql).await? {
            Outcome::Acknowledged(changed) => {
                expect(changed == rows, Kind::Partial, || {
                    format!("{changed} rows, not {rows}, are changed by {sql}")
                })?;
                stopped.values = after;
            }
            // Not made, and the next statement is chosen anew.
            Outcome::Refused(_) => {}
            Outcome::Unknown(_) => {
                stopped.unanswered = Some((sql, after));
                break;
            }
        }
        if choices.below(4) == 0 {
            traffic.write(&mut session, "VACUUM cells").await?;
        }
    }
    Ok(Some(stopped))
}

async fn read(mut session: Session, traffic: Arc<Traffic>) -> Result<Option<Stopped>, Violation> {
    let mut before = Values::new();
    while !traffic.is_over() {
        let Some(rows) = traffic.read(&mut session, FOUND).await? else { continue };
        let cells = whole_cells(&rows)?;
        let gone = before.keys().find(|cell| stays(cell.0) && !cells.contains_key(cell));
        expect(gone.is_none(), Kind::Lost, || format!("a reader misses cell {gone:?}"))?;
        // Values only grow: a smaller one is of an earlier commit than the one seen before.
        let back = cells.iter().find(|(cell, value)| before.get(cell) > Some(value));
        expect(back.is_none(), Kind::WrongAnswer, || {
            format!("a reader goes back in time: {back:?}, and before {before:?}")
        })?;
        before = cells;
    }
    Ok(None)
}

#[async_trait]
impl Workload for Cells {
    async fn prepare(&mut self, session: &mut Session) -> Result<(), Violation> {
        let columns =
            ["g", "n", "v", "w", "x", "y"].map(|name| format!("{name} BIGINT")).join(", ");
        let table = format!("CREATE TABLE IF NOT EXISTS cells ({columns}) DISTKEY(n) SORTKEY(g)");
        session.write_until_acknowledged(&table).await.map(|_| ())
    }

    async fn run(
        &mut self,
        url: &str,
        traffic: &Arc<Traffic>,
        choices: &mut Choices,
    ) -> Result<(), Violation> {
        let mut tasks = JoinSet::new();
        for (writer, values) in self.values.iter().enumerate() {
            let (values, next_value) = (values.clone(), self.next_value);
            let stopped = Stopped { writer, values, unanswered: None, next_value };
            tasks.spawn(change(Session::new(url), stopped, Arc::clone(traffic), choices.fork()));
        }
        for _ in 0..self.readers {
            tasks.spawn(read(Session::new(url), Arc::clone(traffic)));
        }
        for stopped in all(tasks).await?.into_iter().flatten() {
            self.values[stopped.writer] = stopped.values;
            self.unanswered[stopped.writer] = stopped.unanswered;
            let next = stopped.next_value + i64::try_from(VALUE_STEP).unwrap_or(i64::MAX);
            self.next_value = self.next_value.max(next);
        }
        Ok(())
    }

    async fn check(&mut self, session: &mut Session) -> Result<Unanswered, Violation> {
        let found = whole_cells(&session.read_until_answered(FOUND).await?)?;
        let mut unanswered = Unanswered::default();
        for (writer, values) in self.values.iter_mut().enumerate() {
            let last = self.unanswered[writer].take();
            let (own, made) = judge(writer, &found, values, last.as_ref())?;
            *values = own;
            match (last, made) {
                (None, _) => {}
                (Some(_), true) => unanswered.made += 1,
                (Some(_), false) => unanswered.not_made += 1,
            }
        }
        Ok(unanswered)
    }
}

/// Which of the two states that a writer's cells may be in, they are in.
///
/// # Errors
/// Neither.
pub fn judge(
    writer: usize,
    found: &Values,
    acknowledged: &Values,
    unanswered: Option<&(String, Values)>,
) -> Result<(Values, bool), Violation> {
    let groups = groups_of(writer);
    let own = found.iter().filter(|((group, _), _)| groups.contains(group));
    let own: Values = own.map(|(cell, value)| (*cell, *value)).collect();
    let made = unanswered.is_some_and(|(_, after)| own == *after);
    expect(made || own == *acknowledged, Kind::Lost, || {
        format!("cells of writer {writer}: {own:?} is neither {acknowledged:?} nor {unanswered:?}")
    })?;
    Ok((own, made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_change_and_mixed_columns_are_seen() {
        let kind = |row: [i64; 7]| whole_cells(&[row.to_vec()]).map_err(|error| error.kind);
        let rows = CELL_ROWS;
        assert_eq!(kind([0, 1, rows, rows, 5, 5, 0]), Ok([((0, 1), 5)].into()));
        assert_eq!(kind([0, 1, rows, rows, 5, 6, 0]), Err(Kind::Partial), "two values");
        assert_eq!(kind([0, 1, rows - 1, rows - 1, 5, 5, 0]), Err(Kind::Partial), "a row less");
        assert_eq!(kind([0, 1, rows + 1, rows, 5, 5, 0]), Err(Kind::Duplicate), "a row twice");
        assert_eq!(kind([0, 1, rows, rows, 5, 5, 3]), Err(Kind::WrongAnswer), "mixed columns");
    }

    #[test]
    fn a_change_without_an_answer_is_made_or_not_and_an_acknowledged_one_is_there() {
        let before = Values::from([((0, 0), 1)]);
        let after = Values::from([((0, 0), 2)]);
        let last = ("UPDATE".to_owned(), after.clone());
        assert!(!judge(0, &before, &before, Some(&last)).unwrap().1);
        assert!(judge(0, &after, &before, Some(&last)).unwrap().1);
        assert_eq!(judge(0, &after, &before, None).unwrap_err().kind, Kind::Lost);
        assert_eq!(judge(0, &Values::new(), &before, Some(&last)).unwrap_err().kind, Kind::Lost);
    }

    #[test]
    fn a_step_changes_what_it_says() {
        let mut choices = Choices::new(1);
        let mut values = Values::new();
        for value in (1..).step_by(VALUE_STEP).take(200) {
            let Step { after, rows, sql } = step(1, &mut choices, &values, value);
            let added = after.len().abs_diff(values.len()) as u64;
            assert!(rows > 0 && added * CELL_ROWS.unsigned_abs() <= rows, "{sql}");
            assert!(after.keys().all(|cell| groups_of(1).contains(&cell.0)), "{sql}");
            values = after;
        }
    }
}
