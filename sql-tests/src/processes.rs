//! Clusters of real processes: spawned from a `basalt` binary, known by the line they print.
//!
//! Used by `basalt bench --processes` and by process tests. A process is ready when it prints
//! `basalt <role> ready: <url>`; it listens on port 0, so that any number of clusters fit on one
//! machine.
//!
//! Invariant: no process outlives its [`Process`]: dropping one kills it by its id.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a process may take to stop in order before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Lines of standard error kept to explain a process that died.
const STDERR_LINES_MAX: usize = 40;

/// A running `basalt` process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    role: String,
    url: String,
    stderr: Arc<Mutex<VecDeque<String>>>,
    /// Ends with standard error.
    stderr_reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `binary` with `args`, whose first is the role, and waits until it is ready.
    ///
    /// # Errors
    /// A binary that cannot be started, exits, or is not ready within a minute; the error holds
    /// the end of its standard error. It is killed then.
    pub fn spawn(binary: &Path, args: &[String]) -> anyhow::Result<Self> {
        Self::spawn_known(binary, args, |_| ())
    }

    /// As [`Self::spawn`]; tells `known` the process id before anything waits for the process, for
    /// who has to know it by its first connection.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_known(
        binary: &Path,
        args: &[String],
        known: impl FnOnce(u32),
    ) -> anyhow::Result<Self> {
        let role = args.first().cloned().unwrap_or_default();
        let mut child = Command::new(binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        known(child.id());
        let stdout = child.stdout.take().context("standard output was piped")?;
        let stderr = child.stderr.take().context("standard error was piped")?;
        let (stderr, reader) = keep_last_lines(stderr);
        let (url, stderr_reader) = (String::new(), Some(reader));
        let mut process = Self { child, stderr, stderr_reader, url, role: role.clone() };
        let ready = wait_for_line(stdout, format!("basalt {role} ready: "));
        process.url = process.wait_ready(&ready)?;
        Ok(process)
    }

    /// The address it serves on.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, by itself or by somebody else.
    pub fn has_ended(&mut self) -> bool {
        // An error means that it was waited for already.
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it wrote to standard error.
    pub fn last_words(&self) -> String {
        let lines = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold(String::new(), |text, line| format!("{text}\n    {line}"))
    }

    /// Asks it to stop (SIGTERM), waits, and kills it when that takes too long.
    ///
    /// # Errors
    /// When it had to be killed, or ended with an exit code other than 0.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                self.kill()?;
                bail!("the {} process did not stop within {STOP_TIMEOUT:?}: killed", self.role);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        if status.success() { Ok(()) } else { Err(self.died(status)) }
    }

    /// Kills it at once (SIGKILL), as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        // A process that is gone already is what was asked for: `kill` says Ok then.
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal, for tests that pause (SIGSTOP) and resume it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).context("a process id beyond 31 bits")?;
        kill(Pid::from_raw(id), signal)
            .with_context(|| format!("the {} process {id} cannot be signalled", self.role))
    }

    fn wait_ready(&mut self, ready: &Receiver<String>) -> anyhow::Result<String> {
        match ready.recv_timeout(READY_TIMEOUT) {
            Ok(url) => Ok(url),
            Err(RecvTimeoutError::Timeout) => Err(anyhow!(
                "the {} process was not ready within {READY_TIMEOUT:?}{}",
                self.role,
                self.last_words()
            )),
            // Standard output ended without the line.
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                Err(self.died(status))
            }
        }
    }

    fn died(&mut self, status: ExitStatus) -> anyhow::Error {
        // Its last words may be on their way still.
        if let Some(reader) = self.stderr_reader.take() {
            let _panicked = reader.join();
        }
        anyhow!("the {} process ended with {status}{}", self.role, self.last_words())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(role = self.role, %error, "a process cannot be killed");
        }
    }
}

/// A coordinator and its workers, each a process of its own, with their data below one folder.
pub struct ProcessCluster {
    /// Workers stop before the coordinator: fields are dropped in this order.
    workers: Vec<Process>,
    coordinator: Process,
}

/// What a [`ProcessCluster`] is made of.
#[derive(Debug, Clone)]
pub struct ProcessClusterConfig {
    /// The `basalt` binary.
    pub binary: PathBuf,
    /// Where the data folders go: `coordinator`, `worker-1`, ...
    pub data_dir: PathBuf,
    /// How many worker processes.
    pub workers: usize,
    /// Folders that server-side COPY may read.
    pub allow_path: Vec<PathBuf>,
    /// More flags of every worker.
    pub worker_args: Vec<String>,
}

impl ProcessCluster {
    /// Starts the coordinator and then every worker, each ready before the next.
    ///
    /// # Errors
    /// As [`Process::spawn`]; what was started is killed then.
    pub fn start(config: &ProcessClusterConfig) -> anyhow::Result<Self> {
        let home = config.data_dir.join("coordinator");
        let mut args = arguments("coordinator", &home, &config.allow_path);
        // What is asked for again is run again: answers of before would hide what the processes do.
        args.extend(["--result-cache".into(), "0".into()]);
        let coordinator = Process::spawn(&config.binary, &args)?;
        let mut cluster = Self { workers: Vec::new(), coordinator };
        for _ in 0..config.workers {
            cluster.add_worker(config)?;
        }
        Ok(cluster)
    }

    /// Starts one more worker, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn add_worker(&mut self, config: &ProcessClusterConfig) -> anyhow::Result<()> {
        let number = self.workers.len() + 1;
        let data_dir = config.data_dir.join(format!("worker-{number}"));
        let secret = config.data_dir.join("coordinator").join("cluster.secret");
        let mut args = arguments("worker", &data_dir, &config.allow_path);
        args.extend(["--coordinator".into(), self.coordinator.url.clone()]);
        args.extend(["--secret-file".into(), text(&secret)]);
        args.extend(config.worker_args.iter().cloned());
        self.workers.push(Process::spawn(&config.binary, &args)?);
        Ok(())
    }

    /// The coordinator's Flight SQL address.
    pub fn url(&self) -> &str {
        self.coordinator.url()
    }

    /// The coordinator.
    pub fn coordinator(&mut self) -> &mut Process {
        &mut self.coordinator
    }

    /// The workers, in the order they were started.
    pub fn workers(&mut self) -> &mut Vec<Process> {
        &mut self.workers
    }

    /// The ids of all processes, the coordinator's first.
    pub fn process_ids(&self) -> Vec<u32> {
        std::iter::once(&self.coordinator).chain(&self.workers).map(Process::id).collect()
    }

    /// Stops workers and coordinator in order.
    ///
    /// # Errors
    /// The first that did not end well; all are gone nevertheless.
    pub fn stop(self) -> anyhow::Result<()> {
        let stopped: Vec<_> = self.workers.into_iter().map(Process::stop).collect();
        let coordinator = self.coordinator.stop();
        stopped.into_iter().collect::<anyhow::Result<()>>().and(coordinator)
    }
}

fn arguments(role: &str, data_dir: &Path, allow_path: &[PathBuf]) -> Vec<String> {
    let mut args = vec![role.to_owned()];
    args.extend(["--data-dir".into(), text(data_dir)]);
    args.extend(["--listen".into(), "127.0.0.1:0".into()]);
    for path in allow_path {
        args.extend(["--allow-path".into(), text(path)]);
    }
    args
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Sends what follows `prefix` on the first line that starts with it, and reads on to the end so
/// that the process never blocks on a full pipe.
fn wait_for_line(stdout: impl Read + Send + 'static, prefix: String) -> Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(url) = line.strip_prefix(&prefix)
                && let Some(sender) = sender.take()
            {
                // Nobody waits any more after the timeout.
                let _ = sender.send(url.trim().to_owned());
            }
        }
    });
    receiver
}

fn keep_last_lines(
    stderr: impl Read + Send + 'static,
) -> (Arc<Mutex<VecDeque<String>>>, JoinHandle<()>) {
    let kept = Arc::new(Mutex::new(VecDeque::new()));
    let lines = kept.clone();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == STDERR_LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    });
    (kept, reader)
}
