//! Calls fail while an injection lives, and work again afterwards. Tried on a small Python
//! process, so that nothing here depends on what our own processes call when.

use std::io::Write;
use std::process::{ChildStdin, ChildStdout};

use super::*;
use crate::faults::skip::skip;

/// Syncs a file whenever it is told to, and says what came of it.
const SYNCER: &str = "
import os, sys
file = open(sys.argv[1], 'w')
for line in sys.stdin:
    try:
        os.fsync(file.fileno())
        print('synced', flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
";

struct Syncer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _file: tempfile::NamedTempFile,
}

impl Syncer {
    fn start() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("python3");
        let command = command.args(["-c", SYNCER]).arg(file.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output), _file: file }
    }

    fn sync(&mut self) -> String {
        writeln!(self.input).unwrap();
        let mut said = String::new();
        self.output.read_line(&mut said).unwrap();
        said.trim_end().to_owned()
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn check_failing(calls: FailingCalls, expected: &[&str]) {
    if let Err(reason) = Injection::possible() {
        return skip("a failing system call", &reason);
    }
    let mut syncer = Syncer::start();
    assert_eq!(syncer.sync(), "synced");
    let injection = Injection::attach(syncer.child.id(), &[calls]).unwrap();
    let said: Vec<_> = expected.iter().map(|_| syncer.sync()).collect();
    assert_eq!(said, expected);
    let failed = expected.iter().filter(|said| **said != "synced").count();
    assert!(injection.injected() >= failed, "{} calls failed", injection.injected());
    drop(injection);
    assert_eq!(syncer.sync(), "synced", "the process runs on as before");
}

#[test]
fn a_sync_fails_as_long_as_it_is_told_to() {
    let eio = FailingCalls::all(&["fsync"], Fault::Error("EIO"));
    check_failing(eio, &["Input/output error", "Input/output error"]);
}

#[test]
fn the_second_sync_alone_fails() {
    let once = FailingCalls {
        from: 2,
        once: true,
        ..FailingCalls::all(&["fsync", "fdatasync"], Fault::Error("ENOSPC"))
    };
    check_failing(once, &["synced", "No space left on device", "synced"]);
}

#[test]
fn a_slow_sync_is_late_and_works() {
    let started = std::time::Instant::now();
    let slow = FailingCalls::all(&["fsync"], Fault::Delay(Duration::from_millis(150)));
    check_failing(slow, &["synced", "synced"]);
    if Injection::possible().is_ok() {
        assert!(started.elapsed() >= Duration::from_millis(300));
    }
}

#[test]
fn a_process_dies_at_a_call() {
    if let Err(reason) = Injection::possible() {
        return skip("death at a system call", &reason);
    }
    let mut syncer = Syncer::start();
    let kill = FailingCalls::all(&["fsync"], Fault::Kill);
    let _injection = Injection::attach(syncer.child.id(), &[kill]).unwrap();
    assert_eq!(syncer.sync(), "");
    assert!(!syncer.child.wait().unwrap().success());
}
