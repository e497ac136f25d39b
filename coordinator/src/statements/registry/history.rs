//! Ended statements on disk, so that `sys.queries`, `sys.query_stages` and `sys.query_alerts` know them after
//! a restart.
//!
//! ```text
//! run ends ─▶ channel ─▶ one thread ─▶ history/queries-7.jsonl, at 8 MiB the next; the last two stay
//! ```
//! One line of JSON for each run, in UTF-8. A record of work and not of data: nothing waits for it, it is not
//! fsynced, and a line that cannot be read is passed over. What comes faster than the disk takes it, or while it takes
//! nothing, is dropped, and how much that was is logged. Texts of statements may hold secrets: only the coordinator's
//! user can read the files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use basalt_engine::error::ErrorCode;
use serde::{Deserialize, Serialize};

use super::{QueryProfile, Run, RunState};
use crate::backend::{QueryId, SessionId};

/// The folder in the coordinator's.
const FOLDER: &str = "history";
/// Files that stay: the one that is written, and the one before.
const FILES: usize = 2;
/// Bytes of one file, about.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Runs that wait to be written.
const WAITING_MAX: usize = 1_024;
/// How long runs are gathered before they are written.
const GATHERED_FOR: Duration = Duration::from_millis(50);
/// How long somebody waits for what was handed on to be written.
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);

/// Where ended runs are written to. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct History {
    messages: SyncSender<Message>,
}

/// What the thread is told.
#[derive(Debug)]
enum Message {
    Ended(Box<Run>),
    /// To say when all before it is written.
    Flush(SyncSender<()>),
}

/// A run as it lies on disk. Fields are only ever added, with a default.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    query_id: String,
    session: u64,
    text: String,
    /// Microseconds since 1970.
    started_us: u64,
    elapsed_us: Option<u64>,
    planning_us: Option<u64>,
    fetched_us: Option<u64>,
    rows: u64,
    /// `done`, `cancelled`, or the name of an error's code.
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fallback: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_cached: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_plan_cached: bool,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<Arc<QueryProfile>>,
}

impl Line {
    fn of(run: &Run) -> Self {
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            query_id: run.query_id.to_string(),
            session: run.session.0,
            text: run.text.clone(),
            started_us: microseconds(run.started.duration_since(UNIX_EPOCH).unwrap_or_default()),
            elapsed_us: run.elapsed.map(microseconds),
            planning_us: run.planning.map(microseconds),
            fetched_us: run.fetched.map(microseconds),
            rows: run.rows,
            state: match run.state {
                RunState::Done => "done".to_owned(),
                RunState::Running | RunState::Cancelled => "cancelled".to_owned(),
                RunState::Failed(code) => code.name().to_owned(),
            },
            fallback: run.fallback.clone(),
            is_cached: run.is_cached,
            is_plan_cached: run.is_plan_cached,
            attempts: run.attempts,
            profile: run.profile.clone(),
        }
    }

    fn into_run(self) -> Option<Run> {
        let state = match self.state.as_str() {
            "done" => RunState::Done,
            "cancelled" => RunState::Cancelled,
            code => RunState::Failed(ErrorCode::from_name(code)?),
        };
        Some(Run {
            query_id: QueryId::try_parse(&self.query_id).ok()?,
            session: SessionId(self.session),
            text: self.text,
            started: SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(self.started_us))?,
            elapsed: self.elapsed_us.map(Duration::from_micros),
            planning: self.planning_us.map(Duration::from_micros),
            fetched: self.fetched_us.map(Duration::from_micros),
            rows: self.rows,
            state,
            fallback: self.fallback,
            is_cached: self.is_cached,
            is_plan_cached: self.is_plan_cached,
            attempts: self.attempts,
            write: None,
            profile: self.profile,
        })
    }
}

impl History {
    /// Opens the history in a coordinator's folder, and reads the last `most` runs of it, the oldest first.
    ///
    /// # Errors
    /// The folder or its file cannot be written.
    pub(super) fn open(data_dir: &Path, most: usize) -> std::io::Result<(Self, Vec<Run>)> {
        let folder = data_dir.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut known = Vec::new();
        for number in numbers(&folder)? {
            read(&path(&folder, number), &mut known);
        }
        let surplus = known.len().saturating_sub(most);
        known.drain(..surplus);
        let writer = Writer::open(folder)?;
        let (messages, told) = sync_channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("query-history".to_owned())
            .spawn(move || writer.run(&told))?;
        Ok((Self { messages }, known))
    }

    /// Hands a run on to be written; `false` if it is dropped.
    pub(super) fn add(&self, run: Run) -> bool {
        self.messages.try_send(Message::Ended(Box::new(run))).is_ok()
    }

    /// Waits until what was handed on is written, for a while. Blocks.
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        // Who is behind by a whole channel, perhaps for ever, is not waited for.
        if self.messages.try_send(Message::Flush(done)).is_ok() {
            // Whether it was in time or not: nothing depends on it.
            let _ = written.recv_timeout(FLUSHED_WITHIN);
        }
    }
}

/// The file with a number.
fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("queries-{number}.jsonl"))
}

/// The numbers of the files that are there, the oldest first.
fn numbers(folder: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("queries-"));
        let number = number.and_then(|rest| rest.strip_suffix(".jsonl")?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Adds the runs of a file that can be read.
fn read(file: &Path, known: &mut Vec<Run>) {
    let Ok(file) = File::open(file) else { return };
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    let runs = lines.filter_map(|line| serde_json::from_slice::<Line>(&line).ok()?.into_run());
    known.extend(runs);
}

struct Writer {
    folder: PathBuf,
    number: u64,
    file: BufWriter<File>,
    bytes: u64,
    /// Batches that could not be written.
    failures: u64,
}

impl Writer {
    /// Goes on with the newest file.
    fn open(folder: PathBuf) -> std::io::Result<Self> {
        let number = numbers(&folder)?.last().copied().unwrap_or(1);
        Self::with(folder, number)
    }

    /// Writes to a file, and removes those that are too many with it.
    fn with(folder: PathBuf, number: u64) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        let mut file = options.open(path(&folder, number))?;
        let known = numbers(&folder)?;
        for old in known.iter().rev().skip(FILES) {
            std::fs::remove_file(path(&folder, *old))?;
        }
        let bytes = file.metadata()?.len();
        if bytes > 0 {
            // Whatever the last line is, the next one begins anew.
            file.write_all(b"\n")?;
        }
        Ok(Self { folder, number, file: BufWriter::new(file), bytes, failures: 0 })
    }

    /// Writes what it is told, until nobody can tell it anything any more.
    fn run(mut self, told: &Receiver<Message>) {
        while let Ok(first) = told.recv() {
            if matches!(first, Message::Ended(_)) {
                std::thread::sleep(GATHERED_FOR);
            }
            let (mut ended, mut waiting) = (Vec::new(), Vec::new());
            for message in std::iter::once(first).chain(told.try_iter()) {
                match message {
                    Message::Ended(run) => ended.push(run),
                    Message::Flush(written) => waiting.push(written),
                }
            }
            if let Err(error) = self.write_all(&ended) {
                self.failures += 1;
                if self.failures.is_power_of_two() {
                    let (folder, failures) = (self.folder.display(), self.failures);
                    tracing::warn!(%error, %folder, failures, "the history of queries lacks some");
                }
            }
            for written in waiting {
                // Who asked may have gone.
                let _ = written.try_send(());
            }
        }
    }

    fn write_all(&mut self, runs: &[Box<Run>]) -> std::io::Result<()> {
        runs.iter().try_for_each(|run| self.write(run))?;
        self.file.flush()
    }

    fn write(&mut self, run: &Run) -> std::io::Result<()> {
        if self.bytes >= FILE_BYTES_MAX {
            self.file.flush()?;
            let failures = self.failures;
            *self = Self { failures, ..Self::with(self.folder.clone(), self.number + 1)? };
        }
        let mut line = serde_json::to_vec(&Line::of(run))?;
        line.push(b'\n');
        self.bytes += line.len() as u64;
        self.file.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use basalt_engine::distribute::{Alert, StageProfile};
    use uuid::Uuid;

    use super::*;

    fn run(text: &str, state: RunState) -> Run {
        Run {
            query_id: Uuid::new_v4(),
            session: SessionId(7),
            text: text.to_owned(),
            started: UNIX_EPOCH + Duration::from_micros(1_764_000_000_000_001),
            elapsed: Some(Duration::from_micros(1_234_567)),
            planning: Some(Duration::from_micros(890)),
            fetched: None,
            rows: 42,
            state,
            fallback: None,
            is_cached: false,
            is_plan_cached: false,
            attempts: 2,
            write: None,
            profile: None,
        }
    }

    fn stored(dir: &Path, most: usize) -> Vec<Run> {
        History::open(dir, most).unwrap().1
    }

    /// Writes runs, and waits until they are on disk.
    fn keep(dir: &Path, runs: &[Run]) {
        let writer = Writer::open(dir.join(FOLDER)).unwrap();
        let (sender, ended) = sync_channel(runs.len());
        let message = |run: &Run| Message::Ended(Box::new(run.clone()));
        runs.iter().for_each(|run| sender.send(message(run)).unwrap());
        drop(sender);
        writer.run(&ended);
    }

    #[test]
    fn what_ended_is_known_after_a_restart_with_its_stages_and_alerts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(stored(dir.path(), 10).len(), 0);
        let stage = StageProfile {
            part: Some("shared_1".to_owned()),
            stage: 1,
            tasks: 3,
            exchange: "shuffle".to_owned(),
            operators: "Aggregate".to_owned(),
            tables: vec!["public.t".to_owned()],
            rows_assigned: 5,
            rows_assigned_max: 2,
            rows_estimated: Some(9),
            measured: Some(basalt_engine::distribute::Measured { rows: 4, ..Default::default() }),
        };
        let alert =
            Alert { kind: "skew".to_owned(), event: "e".to_owned(), remedy: "r".to_owned() };
        let profile = QueryProfile { stages: vec![stage], alerts: vec![alert] };
        let first =
            Run { profile: Some(Arc::new(profile)), ..run("SELECT 'ä\n\"'", RunState::Done) };
        let second = run("SELECT 1/0", RunState::Failed(ErrorCode::DataException));
        let third = run("SELECT 2", RunState::Cancelled);
        keep(dir.path(), &[first.clone(), second.clone()]);
        keep(dir.path(), std::slice::from_ref(&third));
        let known = stored(dir.path(), 10);
        assert_eq!(format!("{known:?}"), format!("{:?}", [first, second, third.clone()]));
        let last = stored(dir.path(), 1);
        assert_eq!(format!("{last:?}"), format!("{:?}", [third]));
    }

    #[test]
    fn only_the_coordinators_user_can_read_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        stored(dir.path(), 10);
        let folder = dir.path().join(FOLDER);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path(&folder, 1))), (0o700, 0o600));
    }

    #[test]
    fn what_was_handed_on_is_there_after_a_flush() {
        let dir = tempfile::tempdir().unwrap();
        let (history, _) = History::open(dir.path(), 10).unwrap();
        let run = run("SELECT 1", RunState::Done);
        assert!(history.add(run.clone()));
        history.flush();
        assert_eq!(stored(dir.path(), 10)[0].query_id, run.query_id);
    }

    #[test]
    fn lines_that_cannot_be_read_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        stored(dir.path(), 10);
        let path = path(&dir.path().join(FOLDER), 1);
        let torn = b"not a line\n{\"query_id\": 7}\n{\"text\": \"\xC3";
        std::fs::write(&path, torn).unwrap();
        let whole = run("SELECT 1", RunState::Done);
        keep(dir.path(), std::slice::from_ref(&whole));
        let known = stored(dir.path(), 10);
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].query_id, whole.query_id);
    }

    #[test]
    fn files_stay_small_and_the_newest_runs_stay_known() {
        let dir = tempfile::tempdir().unwrap();
        stored(dir.path(), 10);
        let long = "x".repeat(4_000);
        let runs: Vec<_> = (0..6_000).map(|_| run(&long, RunState::Done)).collect();
        keep(dir.path(), &runs);
        let folder = dir.path().join(FOLDER);
        let kept = numbers(&folder).unwrap();
        assert!(kept.len() == FILES && kept[0] > 1, "{kept:?}");
        for number in kept {
            let bytes = std::fs::metadata(path(&folder, number)).unwrap().len();
            assert!(bytes < FILE_BYTES_MAX + 10_000, "file {number} has {bytes} bytes");
        }
        let known = stored(dir.path(), 100);
        assert_eq!(known.len(), 100);
        assert_eq!(known[99].query_id, runs[5_999].query_id);
    }
}
