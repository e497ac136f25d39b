//! Damage to files of a cluster with one copy of everything (FAULTS F20 to F26): an answer is
//! right, or an error that names the table; and once the files are back, all is as before.
//!
//! With copies elsewhere the same damage has to be repaired: see `replicas`.

use std::time::{Duration, Instant};

use basalt_sql_tests::faults::choices::Choices;
use basalt_sql_tests::faults::cluster::{Cluster, NodeId};
use basalt_sql_tests::faults::disk::{Damage, FileKind, MutationKind, Wanted};
use basalt_sql_tests::faults::figures::{DamageSeen, Figures};
use basalt_sql_tests::faults::runner::Repro;
use basalt_sql_tests::faults::session::Session;
use basalt_sql_tests::faults::violation::{Kind, Violation, expect};

use super::{Run, report, shape};

const WORKERS: usize = 2;

/// How long an error may be that of a process that has just started.
const SETTLED_AFTER: Duration = Duration::from_secs(20);

/// Tables of wide and of packed segments, with deleted rows. COPIES stands for what is asked for.
const TABLES: [&str; 5] = [
    "CREATE TABLE wide (k BIGINT, a BIGINT, b BIGINT, t VARCHAR) DISTKEY(k) COPIES",
    "INSERT INTO wide SELECT 1, value, 7 * value, 'text ' || (value % 1000) \
     FROM generate_series(1, 70000)",
    "INSERT INTO wide SELECT 2, value, 9 * value, 'more ' || (value % 1000) \
     FROM generate_series(1, 70000)",
    "CREATE TABLE packed COPIES AS SELECT value AS n, 3 * value AS m FROM generate_series(1, 2000)",
    "DELETE FROM packed WHERE n % 10 = 0",
];

/// Queries that read every column of every table, and the table of each.
pub(super) const QUERIES: [(&str, &str); 2] = [
    ("wide", "SELECT count(*), sum(k), sum(a), sum(b), sum(length(t)) FROM wide"),
    ("packed", "SELECT count(*), sum(n), sum(m) FROM packed"),
];

/// What an undamaged cluster answers.
pub(super) type Answers = Vec<Vec<Vec<i64>>>;

/// Makes the tables with so many copies, and returns what they answer.
pub(super) async fn load(session: &mut Session, copies: u16) -> Result<Answers, Violation> {
    for sql in TABLES {
        let sql = sql.replace("COPIES", &format!("REPLICAS {copies}"));
        session.write_until_acknowledged(&sql).await?;
    }
    let mut answers = Vec::new();
    for (_, sql) in QUERIES {
        answers.push(session.read_until_answered(sql).await?);
    }
    Ok(answers)
}

/// Whether a query was refused by an error that names its table; otherwise its answer was right.
async fn is_refused(
    session: &mut Session,
    (table, sql): (&str, &str),
    right: &Vec<Vec<i64>>,
) -> Result<bool, Violation> {
    let started = Instant::now();
    loop {
        match session.read(sql).await? {
            Ok(rows) if rows == *right => return Ok(false),
            Ok(rows) => {
                let detail = format!("{sql} gives {rows:?}, not {right:?}");
                return Err(Violation::new(Kind::WrongAnswer, detail));
            }
            Err(error) => {
                let named = matches!(error.code(), Some("DATA_CORRUPTED" | "UNAVAILABLE"))
                    && error.to_string().contains(table);
                if named {
                    return Ok(true);
                }
                // A connection from before a restart, or something that must not be.
                expect(started.elapsed() < SETTLED_AFTER, Kind::Unavailable, || {
                    format!("{sql} fails without a word of the table: {error}")
                })?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Which damage a trial does, and whose files it hits.
fn choose(cluster: &Cluster, trial: u64, choices: &mut Choices) -> (NodeId, Damage) {
    let kinds = [FileKind::Column, FileKind::Pack, FileKind::SegmentMeta, FileKind::Catalog];
    let kind = kinds[usize::try_from(trial % kinds.len() as u64).unwrap()];
    let mut mutation = *choices.pick(&MutationKind::ALL);
    let node = match kind {
        // An older catalog is a valid one, and there is no other copy to know better.
        FileKind::Catalog => {
            mutation =
                if mutation == MutationKind::Swap { MutationKind::FlipBit } else { mutation };
            NodeId::Coordinator
        }
        _ => *choices.pick(&cluster.workers()),
    };
    let wanted = Wanted { file: Some(kind), mutation: Some(mutation), older: None };
    let nodes = if kind == FileKind::Catalog { vec![node] } else { cluster.workers() };
    // One of the workers has none of the two wide segments, maybe.
    let others = nodes.iter().copied().filter(|other| *other != node);
    let places = std::iter::once(node).chain(others);
    let chosen = places.map(|node| (node, Damage::choose(cluster.home(node), &wanted, choices)));
    let mut chosen = chosen.filter_map(|(node, damage)| Some((node, damage.unwrap()?)));
    chosen.next().unwrap()
}

/// One damage: what the cluster makes of it, and that nothing is left of it afterwards.
async fn trial(
    cluster: &mut Cluster,
    (node, damage): &(NodeId, Damage),
    answers: &Answers,
) -> anyhow::Result<DamageSeen> {
    // Nothing of the file is in the memory of a process when it is read.
    cluster.kill(&[*node])?;
    let undo = damage.apply()?;
    let mut seen = DamageSeen { injected: 1, ..DamageSeen::default() };
    let mut session = Session::new(&cluster.url());
    match cluster.start_missing() {
        Ok(()) => {
            let mut refused = 0;
            for (query, right) in QUERIES.into_iter().zip(answers) {
                refused += u64::from(is_refused(&mut session, query, right).await?);
            }
            seen.refused = u64::from(refused > 0);
            seen.right = u64::from(refused == 0);
        }
        Err(error) => {
            let error = format!("{error:#}");
            let named = ["catalog", "log", "chunks"].iter().any(|name| error.contains(name));
            expect(named, Kind::Unavailable, || format!("{node} does not start: {error}"))?;
            seen.refused = 1;
        }
    }
    cluster.kill(&[*node])?;
    undo.undo()?;
    cluster.start_missing()?;
    for ((_, sql), right) in QUERIES.into_iter().zip(answers) {
        let rows = session.read_until_answered(sql).await?;
        expect(rows == *right, Kind::WrongAnswer, || format!("{sql} gives {rows:?} afterwards"))?;
    }
    Ok(seen)
}

/// Damages one file after another.
pub(super) async fn damages(run: Run) -> anyhow::Result<Figures> {
    let dir = tempfile::tempdir()?;
    let mut cluster = Cluster::start(shape(WORKERS), dir.path())?;
    // Without other copies, what is damaged is refused by name; with them see `replicas`.
    let answers = load(&mut Session::new(&cluster.url()), 1).await?;
    let mut figures = Figures::default();
    let first = run.seed.wrapping_sub(1);
    for number in 0..run.trials {
        let seed = run.seed.wrapping_add(number);
        let mut choices = Choices::new(seed);
        let chosen = choose(&cluster, first.wrapping_add(number), &mut choices);
        let result = trial(&mut cluster, &chosen, &answers).await;
        let seen = result.inspect_err(|error| {
            let test = "faults::damage::damage_is_noticed_and_never_answered".to_owned();
            Repro { test, seed, fault: chosen.1.to_string() }.print(&format!("FAILED {error:#}"));
        })?;
        *figures.trials.entry("damage to a file").or_default() += 1;
        let kind = figures.damage.entry(chosen.1.file_kind()).or_default();
        kind.injected += seen.injected;
        kind.refused += seen.refused;
        kind.right += seen.right;
    }
    Ok(figures)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_noticed_and_never_answered() {
    let run = Run::of(8);
    report("damage", run, &damages(run).await.unwrap());
}
