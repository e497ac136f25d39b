//! Signals to single processes, by their id: pausing, resuming, killing.
//!
//! Invariant: what a [`Paused`] stopped goes on when it is dropped, also when a test panics.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the kernel may take to stop all threads of a process.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a signal to one process.
///
/// # Errors
/// When there is no such process, or it is not ours to signal.
pub fn send(process: u32, signal: Signal) -> anyhow::Result<()> {
    let id = i32::try_from(process).context("a process id beyond 31 bits")?;
    kill(Pid::from_raw(id), signal)
        .with_context(|| format!("process {process} cannot be sent {signal}"))
}

/// The state letter of a process (`S` sleeps, `T` is stopped, `Z` is dead and not waited for), or
/// `None` when it is gone.
pub fn state(process: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Waits until a process is stopped: all its threads stand still then. `false` when it goes on for
/// so long.
///
/// # Errors
/// When it is gone.
pub fn wait_stopped_for(process: u32, timeout: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        match state(process) {
            Some('T' | 't') => return Ok(true),
            None | Some('Z') => bail!("process {process} is gone"),
            _ if Instant::now() > deadline => return Ok(false),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Processes that stand still (SIGSTOP) until this is dropped.
#[derive(Debug)]
pub struct Paused(Vec<u32>);

impl Paused {
    /// Stops processes, and returns when all stand still.
    ///
    /// # Errors
    /// When one cannot be stopped; the others go on then.
    pub fn new(processes: &[u32]) -> anyhow::Result<Self> {
        let mut paused = Self(Vec::new());
        for process in processes {
            send(*process, Signal::SIGSTOP)?;
            paused.0.push(*process);
        }
        for process in processes {
            ensure!(wait_stopped_for(*process, STOP_TIMEOUT)?, "process {process} does not stop");
        }
        Ok(paused)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for process in &self.0 {
            // One that was killed meanwhile is gone.
            let _gone = send(*process, Signal::SIGCONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_paused_process_stands_still_until_the_pause_is_dropped() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let paused = Paused::new(&[sleeper.id()]).unwrap();
        assert_eq!(state(sleeper.id()), Some('T'));
        drop(paused);
        assert_ne!(state(sleeper.id()), Some('T'));
        send(sleeper.id(), Signal::SIGKILL).unwrap();
        sleeper.wait().unwrap();
        assert_eq!(state(sleeper.id()), None);
        assert!(Paused::new(&[sleeper.id()]).is_err());
    }
}
