//! The most memory that processes had: their resident sets, as Linux counts them.

use std::path::PathBuf;

use serde::Serialize;

/// Peaks of the processes of a cluster, in bytes, each counted from the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Peaks {
    /// While tables were loaded, and vacuumed if they were.
    pub(super) load: u64,
    /// While queries ran.
    pub(super) queries: u64,
}

/// The processes that are watched.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched(Vec<u32>);

impl Watched {
    /// These, from now on.
    pub(super) fn new(processes: Vec<u32>) -> Self {
        Self(processes)
    }

    /// The sum of the peaks since they began, or since this was asked before; `None` where nobody
    /// is watched or the system does not tell.
    pub(super) fn peak(&self) -> Option<u64> {
        let peaks: Option<Vec<u64>> = self.0.iter().map(|id| peak_of(*id)).collect();
        for id in &self.0 {
            // 5 sets the peak to what it is now (proc_pid_clear_refs(5)); where that is not
            // allowed the next answer is of all the time, which is not too little.
            std::fs::write(file(*id, "clear_refs"), "5").ok();
        }
        peaks.filter(|peaks| !peaks.is_empty()).map(|peaks| peaks.into_iter().sum())
    }
}

fn file(id: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{id}/{name}"))
}

fn peak_of(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(file(id, "status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_what_there_was_at_most() {
        let watched = Watched::new(vec![std::process::id()]);
        drop(std::hint::black_box(vec![1u8; 64 << 20]));
        assert!(watched.peak().unwrap() >= 64 << 20);
        assert_eq!(Watched::default().peak(), None);
    }
}
