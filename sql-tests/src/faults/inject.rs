//! Failing system calls of a running process, by `strace`: errors of fsync, write and rename, slow
//! calls, and death at a call. The program that is tested is the one that is shipped.
//!
//! Invariant: when an [`Injection`] is dropped, strace has let go of the process, which then runs
//! on as before. What was injected is counted from strace's own log.
//! Limit: strace counts calls per thread: `first(3)` is the third call of *each* thread. Everything
//! that is not traced runs at full speed (seccomp-bpf is not used: it cannot be attached).

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::signals;

/// How long strace may take to attach to all threads.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);

/// What happens in place of, or before, a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error (`EIO`, `ENOSPC`, `EMFILE`), and does nothing.
    Error(&'static str),
    /// It takes this much longer.
    Delay(Duration),
    /// The process dies there (SIGKILL).
    Kill,
}

/// A fault of some system calls.
#[derive(Debug, Clone)]
pub struct FailingCalls {
    /// Their names, as strace knows them: `fsync`, `write`, `renameat2`, `openat`.
    pub calls: &'static [&'static str],
    /// What happens.
    pub fault: Fault,
    /// From which call of a thread on, counted from 1.
    pub from: u32,
    /// Whether it happens once per thread, or again and again.
    pub once: bool,
    /// Only calls on this file or folder, or on descriptors that were opened by it.
    pub path: Option<PathBuf>,
}

impl FailingCalls {
    /// Every call of these names has the fault.
    pub fn all(calls: &'static [&'static str], fault: Fault) -> Self {
        Self { calls, fault, from: 1, once: false, path: None }
    }
}

impl fmt::Display for FailingCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inject={}:", self.calls.join(","))?;
        match self.fault {
            Fault::Error(name) => write!(f, "error={name}")?,
            Fault::Delay(delay) => write!(f, "delay_enter={}", delay.as_micros())?,
            Fault::Kill => write!(f, "signal=KILL")?,
        }
        write!(f, ":when={}{}", self.from, if self.once { "" } else { "+" })
    }
}

/// A process whose system calls fail as long as this lives.
#[derive(Debug)]
pub struct Injection {
    strace: Child,
    log: tempfile::TempPath,
}

impl Injection {
    /// Whether `strace` can make system calls fail on this machine: tried on a process of its own.
    ///
    /// # Errors
    /// What is missing, for [`skip`](super::skip::skip).
    pub fn possible() -> Result<(), String> {
        let sleeper = Command::new("sleep").arg("60").spawn();
        let mut sleeper = sleeper.map_err(|error| format!("sleep cannot be started: {error}"))?;
        let calls = FailingCalls::all(&["fsync"], Fault::Error("EIO"));
        let tried = Self::attach(sleeper.id(), &[calls]).map(drop);
        let _gone = sleeper.kill().and_then(|()| sleeper.wait());
        tried.map_err(|error| format!("{error:#} (Debian's package is called strace)"))
    }

    /// Attaches to a process and all its threads, and returns when their calls fail.
    ///
    /// # Errors
    /// When strace is missing or may not attach.
    pub fn attach(process: u32, failing: &[FailingCalls]) -> anyhow::Result<Self> {
        let log = tempfile::NamedTempFile::new()?.into_temp_path();
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &process.to_string(), "-o"]).arg(&log);
        let calls: Vec<_> = failing.iter().flat_map(|failing| failing.calls.to_vec()).collect();
        command.args(["-e", &format!("trace={}", calls.join(","))]);
        for failing in failing {
            command.args(["-e", &failing.to_string()]);
            if let Some(path) = &failing.path {
                command.arg("-P").arg(path);
            }
        }
        let strace = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("strace cannot be started")?;
        let mut injection = Self { strace, log };
        injection.wait_attached(process)?;
        Ok(injection)
    }

    /// How many calls had their fault so far.
    pub fn injected(&self) -> usize {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)")).count()
    }

    /// Waits for strace's word that it is attached.
    fn wait_attached(&mut self, process: u32) -> anyhow::Result<()> {
        let stderr = self.strace.stderr.take().context("standard error was piped")?;
        let (sender, lines) = mpsc::channel();
        // Reads to the end, so that strace never waits for somebody to read.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _nobody_waits = sender.send(line);
            }
        });
        let mut said = VecDeque::new();
        loop {
            match lines.recv_timeout(ATTACH_TIMEOUT) {
                Ok(line) if line.contains("attached") => return Ok(()),
                Ok(line) => said.push_back(line),
                Err(_) => {
                    let said: Vec<_> = said.into();
                    bail!("strace does not attach to process {process}: {}", said.join("; "))
                }
            }
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // SIGINT makes it detach; SIGKILL would too, but leave a stopped thread stopped.
        let _gone = signals::send(self.strace.id(), Signal::SIGINT);
        let _waited = self.strace.wait();
    }
}

#[cfg(test)]
mod tests;
