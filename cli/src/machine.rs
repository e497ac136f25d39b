//! What a measurement was made on: without it a number means nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The machine, the build and the time of a measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The processor's own name.
    pub processor: String,
    /// Memory of the machine in bytes; `None` where the system does not say.
    pub memory_bytes: Option<u64>,
    /// Operating system and architecture.
    pub system: String,
    /// The commit that this binary was built of, with `+` where the sources had changes; `unknown`
    /// of debug builds, and of sources outside of a repository (`build.rs`).
    pub commit: &'static str,
    /// The profile of this binary: `debug` figures are worth nothing.
    pub profile: &'static str,
    /// When, in UTC.
    pub date: String,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        Self {
            cores: cores(),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            memory_bytes: memory_bytes(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            commit: option_env!("BASALT_COMMIT").unwrap_or("unknown"),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            date: date(),
        }
    }
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

fn memory_bytes() -> Option<u64> {
    let text = field("/proc/meminfo", "MemTotal")?;
    let kibibytes: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The first `name: value` line of a file in /proc.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    utc(i64::try_from(seconds).unwrap_or(0))
}

/// A time in seconds since 1970, for people; empty where there is no such date.
pub(crate) fn utc(seconds: i64) -> String {
    arrow::temporal_conversions::timestamp_s_to_datetime(seconds)
        .map_or_else(String::new, |date| date.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}
