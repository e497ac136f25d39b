//! When a coordinator suspects workers, gives them up, and clears away.

use std::time::Duration;

use basalt_coordinator::membership::Liveness;
use basalt_coordinator::reconcile::ReconcileOptions;

use crate::exit::UsageError;

/// Flags of a coordinator beside the common ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct TimingFlags {
    /// Silence after which a worker gets no more work [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub suspect_after: Option<Duration>,
    /// Silence after which a worker's copies are made again elsewhere [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub repair_after: Option<Duration>,
    /// How long files stay that no snapshot names [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub garbage_after: Option<Duration>,
    /// Within which time every copy is read again and checked [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub scrub_every: Option<Duration>,
}

impl TimingFlags {
    /// From the texts of a configuration file.
    ///
    /// # Errors
    /// A text that is no time.
    pub fn parse(
        suspect_after: Option<String>,
        repair_after: Option<String>,
        garbage_after: Option<String>,
        scrub_every: Option<String>,
    ) -> Result<Self, UsageError> {
        let parse = |name: &str, text: Option<String>| {
            let parsed = text.map(|text| duration(&text)).transpose();
            parsed.map_err(|error| UsageError(format!("{name} in the config file: {error}")))
        };
        Ok(Self {
            suspect_after: parse("suspect-after", suspect_after)?,
            repair_after: parse("repair-after", repair_after)?,
            garbage_after: parse("garbage-after", garbage_after)?,
            scrub_every: parse("scrub-every", scrub_every)?,
        })
    }

    /// These, and what `other` says where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            suspect_after: self.suspect_after.or(other.suspect_after),
            repair_after: self.repair_after.or(other.repair_after),
            garbage_after: self.garbage_after.or(other.garbage_after),
            scrub_every: self.scrub_every.or(other.scrub_every),
        }
    }

    /// When silent workers are suspected and given up.
    pub fn liveness(self) -> Liveness {
        let default = Liveness::default();
        let suspect_after = self.suspect_after.unwrap_or(default.suspect_after);
        // A worker that is suspect at once after its heartbeat would never be given work.
        let heartbeat_every = default.heartbeat_every.min(suspect_after / 4);
        let dead_after = default.dead_after.min(suspect_after * 5);
        Liveness { heartbeat_every, suspect_after, dead_after }
    }

    /// How copies are kept where they should be.
    pub fn reconcile(self) -> ReconcileOptions {
        let default = ReconcileOptions::default();
        let lost_after = self.repair_after.unwrap_or(default.lost_after);
        ReconcileOptions {
            lost_after,
            every: default.every.min(lost_after / 4).max(Duration::from_millis(50)),
            garbage_after: self.garbage_after.unwrap_or(default.garbage_after),
            scrub_every: self.scrub_every.unwrap_or(default.scrub_every),
            ..default
        }
    }
}

/// A time as people write it: a whole number and a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => None,
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(60 * 60),
        "d" => Some(24 * 60 * 60),
        _ => return Err("a time is a number with ms, s, m, h or d, such as 60s".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| format!("{number:?} is no whole number"))?;
    if number == 0 {
        return Err("a time must be above 0".to_owned());
    }
    Ok(seconds.map_or(Duration::from_millis(number.into()), |unit| {
        Duration::from_secs(u64::from(number) * unit)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "60", "s", "0s", "-1s", "1.5h", "1 s", "99999999999s", "1w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_follows_from_a_short_time_is_shorter_still() {
        let flags =
            TimingFlags { suspect_after: Some(Duration::from_millis(400)), ..Default::default() };
        let liveness = flags.liveness();
        assert!(liveness.heartbeat_every * 2 < liveness.suspect_after);
        assert!(liveness.suspect_after < liveness.dead_after);
    }
}
