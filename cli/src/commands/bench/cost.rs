//! What this process has spent, where the measured cluster is in it.

use std::time::Duration;

use basalt_storage::segment_reader::verification_time;
use serde::Serialize;

/// Ticks of `/proc/self/stat` in a second: what Linux tells programs, whatever its timer does.
const TICKS_PER_SECOND: u64 = 100;

/// Time of all threads of this process; in a measurement, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Cost {
    /// On processors, to a hundredth of a second.
    pub(super) cpu_ms: f64,
    /// On checksums of column chunks that were read.
    pub(super) verification_ms: f64,
}

impl Cost {
    /// All until now.
    pub(super) fn now() -> Self {
        let verification_ms = super::milliseconds(verification_time());
        Self { cpu_ms: super::milliseconds(cpu_time().unwrap_or_default()), verification_ms }
    }

    /// What came on top since.
    pub(super) fn since(self) -> Self {
        let now = Self::now();
        Self {
            cpu_ms: now.cpu_ms - self.cpu_ms,
            verification_ms: now.verification_ms - self.verification_ms,
        }
    }
}

fn cpu_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may have spaces and brackets; utime and stime are the
    // twelfth and thirteenth field behind it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_of_the_processor() {
        let before = cpu_time().unwrap();
        let mut value = 1u64;
        while cpu_time().unwrap() < before + Duration::from_millis(30) {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
    }
}
