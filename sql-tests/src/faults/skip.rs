//! Saying that a fault cannot be made on this machine, so that nobody takes a skip for a pass.
//!
//! Invariant: a skip is written past the test runner's capture of output, and is a failure when
//! `BASALT_FAULTS_NO_SKIP` is set, as it is where every fault is known to be possible.

use std::io::Write;

/// Reports that `what` is not tested, because of `reason`.
///
/// # Panics
/// When `BASALT_FAULTS_NO_SKIP` is set.
pub fn skip(what: &str, reason: &str) {
    let strict = std::env::var_os("BASALT_FAULTS_NO_SKIP").is_some();
    assert!(!strict, "{what} cannot be tested here: {reason}");
    // Not `eprintln!`, which the test runner shows for failed tests only.
    let _closed = writeln!(std::io::stderr(), "\nSKIPPED {what}: {reason}");
}
