//! The settings that SQL may change: an allow-list, each with its bounds.
//!
//! A setting changes how one session's statements are planned. None of them is a resource limit of
//! the server, and DataFusion's own options cannot be reached by name (RULES 29).

use std::sync::LazyLock;

use datafusion::error::DataFusionError;
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{DistributedConfig, DistributedExt};

use crate::error::{ErrorCode, SqlError};
use crate::snapshot::DEFAULT_SCHEMA;
use crate::types::identifier;

/// The setting that names without a schema are looked up along.
pub const SEARCH_PATH: &str = "search_path";

/// Schemas of one search path: every name without a schema is looked for in each of them.
const PATH_LENGTH_MAX: usize = 100;

/// What a reader of one exchanged partition holds before it stops asking for more, in bytes. There
/// is a stream for each pair of tasks and each partition (`channels`), so this is a part of the
/// library's 64 MiB for all partitions of a pair; two megabytes more wait in the connection.
const EXCHANGE_BUFFER_BYTES: usize = 4 << 20;

/// Rows of a scan that one task reads all of, unless the session says otherwise: one batch.
pub(crate) const ONE_TASK_ROWS: usize = 8_192;

/// What one session has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Partitions per task; 1 is raised to 2, because plans for one partition cannot be cut into
    /// tasks (DESIGN.md, traps).
    pub target_partitions: usize,
    /// Rows per batch.
    pub batch_rows: usize,
    /// A scan of at most so many rows is one task, wherever its segments lie, and of 128 times as many where
    /// every worker has them; 0: only if one worker alone has all of them, or they cannot be cut.
    pub one_task_rows: usize,
    /// The zone that timestamps with time zone are read and shown in.
    pub time_zone: String,
    /// Compression of exchanges between workers.
    pub exchange_compression: ExchangeCompression,
    /// The schemas that a name without one is looked for in, in order; what is created without
    /// one goes into the first.
    pub search_path: Vec<String>,
    /// Copies that must be durable before a write is acknowledged.
    pub write_consistency: WriteConsistency,
    /// What scans may leave out.
    pub scans: ScanSwitches,
    /// Whether plans are made by what ANALYZE found.
    pub statistics: bool,
    /// Whether inner joins are ordered by cost.
    pub join_order: bool,
    /// Whether rows are joined and grouped where they lie, if that can be.
    pub colocation: bool,
    /// Whether joins within a task may build one hash table.
    pub whole_builds: bool,
    /// Whether joins are built on the side that clearly has fewer rows.
    pub smaller_builds: bool,
    /// Whether what a statement has several times is computed once.
    pub shared_subplans: bool,
    /// Where groups are made before joins.
    pub eager_aggregation: EagerAggregation,
    /// Whether plans of before are used while what they were made of stays the same.
    pub plan_cache: bool,
    /// Whether it is noted what the tasks of queries do.
    pub profile: bool,
    /// Whether queries whose tables have not changed are answered with the rows of before.
    pub result_cache: bool,
}

/// What makes scans faster and changes no answer: each can be left out, to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScanSwitches {
    /// Filters are evaluated in scans.
    pub filter_pushdown: bool,
    /// What zone maps rule out is not read.
    pub pruning: bool,
    /// Sorts are left out where scans can read in the order of the sort key.
    pub sorted_scans: bool,
    /// How decoded columns are used.
    pub column_cache: CacheUse,
}

/// How scans use the column cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheUse {
    /// Columns are found there, and kept there once they are decoded.
    On,
    /// They are kept and not found: as if it were empty.
    Refresh,
    /// Neither.
    Off,
}

impl CacheUse {
    fn parse(value: &str) -> Option<Self> {
        match value.to_ascii_lowercase().as_str() {
            "on" | "true" => Some(Self::On),
            "refresh" => Some(Self::Refresh),
            "off" | "false" => Some(Self::Off),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Refresh => "refresh",
            Self::Off => "off",
        }
    }
}

/// Where groups are made before joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EagerAggregation {
    /// Where that is estimated to be clearly cheaper.
    On,
    /// Nowhere.
    Off,
    /// Wherever it can be: to test it.
    Always,
}

impl EagerAggregation {
    fn parse(value: &str) -> Option<Self> {
        match value.to_ascii_lowercase().as_str() {
            "on" | "true" => Some(Self::On),
            "off" | "false" => Some(Self::Off),
            "always" => Some(Self::Always),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Always => "always",
        }
    }
}

impl Default for ScanSwitches {
    fn default() -> Self {
        Self {
            filter_pushdown: true,
            pruning: true,
            sorted_scans: true,
            column_cache: CacheUse::On,
        }
    }
}

/// How many of the copies that a table wants are durable when a write of it is acknowledged. What
/// is lacking then is made by repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteConsistency {
    /// All of them: no loss of as many workers but one loses a row.
    All,
    /// More than half of them.
    Quorum,
    /// One: the loss of one worker may lose the row until repair has copied it.
    One,
}

impl WriteConsistency {
    /// How many of `wanted` copies are required.
    pub fn required(self, wanted: usize) -> usize {
        match self {
            Self::All => wanted,
            Self::Quorum => wanted / 2 + 1,
            Self::One => 1,
        }
    }

    /// The value of a setting or clause.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`].
    pub fn parse(value: &str) -> Result<Self, SqlError> {
        match value.to_ascii_lowercase().as_str() {
            "all" => Ok(Self::All),
            "quorum" => Ok(Self::Quorum),
            "one" => Ok(Self::One),
            _ => Err(invalid("write_consistency", value, "all, quorum or one")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Quorum => "quorum",
            Self::One => "one",
        }
    }
}

/// How exchanges between workers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeCompression {
    /// Not at all: right on loopback and fast networks.
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl ExchangeCompression {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// One setting as SHOW lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its value in this session.
    pub value: String,
    /// What it does.
    pub description: &'static str,
}

/// Names and descriptions, in alphabetical order.
const SETTINGS: [(&str, &str); 21] = [
    ("batch_rows", "rows per batch, 1 to 65536"),
    ("colocation", "whether rows are joined and grouped where they lie, if they can: on or off"),
    (
        "column_cache",
        "whether scans keep decoded columns and find them: on, refresh (keep only) or off",
    ),
    (
        "eager_aggregation",
        "whether rows are grouped before they are joined with what only names their groups: on, off or always",
    ),
    ("exchange_compression", "compression between workers: none, lz4 or zstd"),
    ("filter_pushdown", "whether scans evaluate filters themselves: on or off"),
    (
        "join_order",
        "whether inner joins are ordered by what they cost, or stay as they are written: on or off",
    ),
    (
        "one_task_rows",
        "scans of at most so many rows, and stages above few, run as one task on one worker; 0 for none",
    ),
    (
        "plan_cache",
        "whether what was asked before is planned as it was then, while its tables stay the same: on or off",
    ),
    (
        "profile",
        "whether what the tasks of each query do is measured, for sys.query_stages: on or off",
    ),
    ("pruning", "whether scans pass over what zone maps rule out: on or off"),
    (
        "result_cache",
        "whether what was asked before is answered from memory while its tables stay the same: on or off",
    ),
    (SEARCH_PATH, "schemas of names without one; the first is where CREATE goes"),
    (
        "shared_subplans",
        "whether what a query has several times, as a WITH query that is named twice, is computed once: on or off",
    ),
    (
        "smaller_builds",
        "whether joins build the side that clearly has fewer rows, or that of fewer bytes: on or off",
    ),
    (
        "sorted_scans",
        "whether scans read in the order of the sort key where that is wanted: on or off",
    ),
    ("statistics", "whether plans are made by what ANALYZE found: on or off"),
    ("target_partitions", "parallel partitions per task, 1 (raised to 2) to 256"),
    ("timezone", "time zone of TIMESTAMP WITH TIME ZONE, an IANA name or an offset"),
    (
        "whole_builds",
        "whether joins within a worker may build one hash table and not one per partition: on or off",
    ),
    (
        "write_consistency",
        "copies that are durable when a write is acknowledged: all, quorum or one",
    ),
];

/// Asked once: the answer comes from several files of the system, and every statement needs it.
static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(2, usize::from));

impl Default for Settings {
    fn default() -> Self {
        Self {
            target_partitions: CORES.clamp(2, 256),
            batch_rows: 8192,
            one_task_rows: ONE_TASK_ROWS,
            time_zone: "+00:00".to_owned(),
            exchange_compression: ExchangeCompression::None,
            search_path: vec![DEFAULT_SCHEMA.to_owned()],
            write_consistency: WriteConsistency::All,
            scans: ScanSwitches::default(),
            statistics: true,
            join_order: true,
            colocation: true,
            whole_builds: true,
            smaller_builds: true,
            shared_subplans: true,
            eager_aggregation: EagerAggregation::On,
            plan_cache: true,
            profile: false,
            result_cache: true,
        }
    }
}

impl Settings {
    /// Changes a setting by name.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        match canonical(name)? {
            "batch_rows" => self.batch_rows = number(name, value, 1, 65_536)?,
            "one_task_rows" => self.one_task_rows = number(name, value, 0, 1 << 20)?,
            "target_partitions" => self.target_partitions = number(name, value, 1, 256)?.max(2),
            "timezone" => {
                value.parse::<arrow::array::timezone::Tz>().map_err(|_| {
                    invalid(
                        name,
                        value,
                        "an IANA name such as 'Europe/Berlin' or an offset such as '+02:00'",
                    )
                })?;
                self.time_zone = value.to_owned();
            }
            SEARCH_PATH => self.search_path = path_of(value)?,
            "write_consistency" => self.write_consistency = WriteConsistency::parse(value)?,
            "column_cache" => {
                let parsed = CacheUse::parse(value);
                self.scans.column_cache =
                    parsed.ok_or_else(|| invalid(name, value, "on, refresh or off"))?;
            }
            "filter_pushdown" => self.scans.filter_pushdown = switch(name, value)?,
            "pruning" => self.scans.pruning = switch(name, value)?,
            "sorted_scans" => self.scans.sorted_scans = switch(name, value)?,
            "statistics" => self.statistics = switch(name, value)?,
            "join_order" => self.join_order = switch(name, value)?,
            "colocation" => self.colocation = switch(name, value)?,
            "whole_builds" => self.whole_builds = switch(name, value)?,
            "smaller_builds" => self.smaller_builds = switch(name, value)?,
            "shared_subplans" => self.shared_subplans = switch(name, value)?,
            "eager_aggregation" => {
                let parsed = EagerAggregation::parse(value);
                self.eager_aggregation =
                    parsed.ok_or_else(|| invalid(name, value, "on, off or always"))?;
            }
            "plan_cache" => self.plan_cache = switch(name, value)?,
            "profile" => self.profile = switch(name, value)?,
            "result_cache" => self.result_cache = switch(name, value)?,
            _ => {
                self.exchange_compression = match value.to_ascii_lowercase().as_str() {
                    "none" => ExchangeCompression::None,
                    "lz4" => ExchangeCompression::Lz4,
                    "zstd" => ExchangeCompression::Zstd,
                    _ => return Err(invalid(name, value, "none, lz4 or zstd")),
                }
            }
        }
        Ok(())
    }

    /// Sets a setting, or all of them, back to the default.
    pub fn reset(&mut self, name: &str) -> Result<(), SqlError> {
        let defaults = Self::default();
        if name.eq_ignore_ascii_case("all") {
            *self = defaults;
            return Ok(());
        }
        let value = defaults.get(name)?.value;
        self.set(name, &value)
    }

    /// One setting.
    pub fn get(&self, name: &str) -> Result<Setting, SqlError> {
        let name = canonical(name)?;
        let value = match name {
            "batch_rows" => self.batch_rows.to_string(),
            "one_task_rows" => self.one_task_rows.to_string(),
            "target_partitions" => self.target_partitions.to_string(),
            "timezone" => self.time_zone.clone(),
            SEARCH_PATH => {
                let names: Vec<_> = self.search_path.iter().map(|name| identifier(name)).collect();
                names.join(", ")
            }
            "write_consistency" => self.write_consistency.name().to_owned(),
            "column_cache" => self.scans.column_cache.name().to_owned(),
            "filter_pushdown" => on_or_off(self.scans.filter_pushdown),
            "pruning" => on_or_off(self.scans.pruning),
            "sorted_scans" => on_or_off(self.scans.sorted_scans),
            "statistics" => on_or_off(self.statistics),
            "join_order" => on_or_off(self.join_order),
            "colocation" => on_or_off(self.colocation),
            "whole_builds" => on_or_off(self.whole_builds),
            "smaller_builds" => on_or_off(self.smaller_builds),
            "shared_subplans" => on_or_off(self.shared_subplans),
            "eager_aggregation" => self.eager_aggregation.name().to_owned(),
            "plan_cache" => on_or_off(self.plan_cache),
            "profile" => on_or_off(self.profile),
            "result_cache" => on_or_off(self.result_cache),
            _ => self.exchange_compression.name().to_owned(),
        };
        let (name, description) =
            SETTINGS.into_iter().find(|(known, _)| *known == name).unwrap_or(SETTINGS[0]);
        Ok(Setting { name, value, description })
    }

    /// All settings.
    pub fn all(&self) -> Vec<Setting> {
        SETTINGS.iter().filter_map(|(name, _)| self.get(name).ok()).collect()
    }

    /// Puts the settings into a session's configuration.
    pub(crate) fn apply(
        &self,
        mut config: SessionConfig,
    ) -> Result<SessionConfig, DataFusionError> {
        let options = config.options_mut();
        options.execution.target_partitions = self.target_partitions.max(2);
        options.set("datafusion.execution.batch_size", &self.batch_rows.to_string())?;
        options.execution.time_zone = Some(self.time_zone.clone());
        let mut distributed = DistributedConfig::default();
        self.exchange_compression.name().clone_into(&mut distributed.compression);
        distributed.collect_metrics = self.profile;
        distributed.children_isolator_unions = false;
        distributed.worker_connection_buffer_budget_bytes = EXCHANGE_BUFFER_BYTES;
        config.set_distributed_option_extension(distributed);
        Ok(config)
    }
}

/// The names of a search path as [`Settings::get`] shows it: separated by commas, those that need
/// it in double quotes.
fn path_of(value: &str) -> Result<Vec<String>, SqlError> {
    let mut path: Vec<String> = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => name.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => path.push(std::mem::take(&mut name)),
            ' ' if !quoted => {}
            c => name.push(c),
        }
    }
    path.push(name);
    let mut seen = std::collections::HashSet::new();
    path.retain(|name| seen.insert(name.clone()));
    if quoted || path.len() > PATH_LENGTH_MAX || path.iter().any(String::is_empty) {
        let allowed = format!("1 to {PATH_LENGTH_MAX} names of schemas with commas between them");
        return Err(invalid(SEARCH_PATH, value, &allowed));
    }
    Ok(path)
}

/// Whether a name, in whatever spelling, is one of a setting.
pub(crate) fn is_setting(name: &str) -> bool {
    canonical(name).is_ok()
}

/// The name a setting is listed under; other spellings are accepted.
fn canonical(name: &str) -> Result<&'static str, SqlError> {
    let lower = name.to_ascii_lowercase();
    let lower = match lower.as_str() {
        "time zone" | "time_zone" => "timezone",
        "batch_size" => "batch_rows",
        "datafusion.execution.target_partitions" => "target_partitions",
        "datafusion.execution.batch_size" => "batch_rows",
        "datafusion.execution.time_zone" => "timezone",
        other => other,
    };
    SETTINGS.iter().map(|(known, _)| *known).find(|known| *known == lower).ok_or_else(|| {
        let names: Vec<_> = SETTINGS.iter().map(|(name, _)| *name).collect();
        SqlError::new(ErrorCode::InvalidParameter, format!("setting \"{name}\" does not exist"))
            .with_hint(format!("SHOW ALL lists the settings: {}", names.join(", ")))
    })
}

fn switch(name: &str, value: &str) -> Result<bool, SqlError> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(invalid(name, value, "on or off")),
    }
}

fn on_or_off(switch: bool) -> String {
    if switch { "on" } else { "off" }.to_owned()
}

fn number(name: &str, value: &str, min: usize, max: usize) -> Result<usize, SqlError> {
    value
        .parse()
        .ok()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| invalid(name, value, &format!("a whole number from {min} to {max}")))
}

fn invalid(name: &str, value: &str, allowed: &str) -> SqlError {
    let message = format!("setting \"{name}\" cannot be '{value}'");
    SqlError::new(ErrorCode::InvalidParameter, message).with_hint(format!("it takes {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_partition_is_raised_to_two() {
        let mut settings = Settings::default();
        settings.set("target_partitions", "1").unwrap();
        assert_eq!(settings.target_partitions, 2);
    }

    #[test]
    fn values_out_of_bounds_and_unknown_names_are_refused() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("target_partitions", "0"),
            ("target_partitions", "100000"),
            ("batch_rows", "-1"),
            ("timezone", "Mars/Olympus"),
            ("exchange_compression", "rar"),
            ("pruning", "maybe"),
            ("sorted_scans", "maybe"),
            ("column_cache", "1"),
            ("datafusion.runtime.memory_limit", "1G"),
            ("datafusion.execution.enable_file_stream_work_stealing", "true"),
        ] {
            let error = settings.set(name, value).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParameter, "{name}");
            assert!(error.hint.is_some());
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn every_setting_can_be_shown_and_reset() {
        let mut settings = Settings::default();
        settings.set("timezone", "Europe/Berlin").unwrap();
        for setting in settings.all() {
            settings.reset(setting.name).unwrap();
        }
        assert_eq!(settings, Settings::default());
    }
}
