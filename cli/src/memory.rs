//! Memory of a process: what queries and the column cache may have.

use basalt_sql_tests::cluster::machine_memory_bytes;

use crate::exit::UsageError;

/// The least memory that queries can work with, in bytes.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Rows of writes take no more unless somebody says so: to fill more memory for the first time takes
/// longer than the larger segments are worth (ARCHITECTURE, "Loads").
const LOAD_MEMORY_BYTES: u64 = 2 << 30;

/// The least memory that one query can work with, in bytes.
const QUERY_MEMORY_BYTES_MIN: u64 = 8 << 20;

/// The least memory that rows of writes can work with, in bytes.
const LOAD_MEMORY_BYTES_MIN: u64 = 4 << 20;

/// Flags of processes that run queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct MemoryFlags {
    /// Memory for queries, like 8GiB [default: half of the machine's for a cluster in one process, a
    /// quarter for a worker]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    pub memory: Option<u64>,
    /// How much of it one query may use, so that others are answered beside it [default: three quarters]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    pub query_memory: Option<u64>,
    /// How much of it may hold decoded columns while queries do not need it; 0 for none [default: half]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    pub column_cache: Option<u64>,
    /// How much of it rows of loads and other writes may take until they are on the disk [default: a
    /// quarter, at most 2 GiB]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    pub load_memory: Option<u64>,
}

/// The coordinator's memory for answers, by default.
const RESULT_CACHE_BYTES: u64 = 64 << 20;

/// The flag of processes that answer queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct ResultCacheFlag {
    /// Memory for answers that may be asked for again, like 64MiB; 0 for none [default: 64 MiB]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    pub result_cache: Option<u64>,
}

impl ResultCacheFlag {
    /// In bytes; what the configuration file says where the flag says nothing, then the default.
    ///
    /// # Errors
    /// A text in the file that is no size.
    pub(crate) fn resolve(self, in_file: Option<String>) -> Result<usize, UsageError> {
        let in_file = in_file
            .map(|text| byte_size(&text))
            .transpose()
            .map_err(|error| UsageError(format!("result-cache in the config file: {error}")))?;
        let bytes = self.result_cache.or(in_file).unwrap_or(RESULT_CACHE_BYTES);
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

/// What a process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Of queries, in bytes.
    pub memory_bytes: usize,
    /// How much of it one query may use.
    pub query_memory_bytes: usize,
    /// How much of it may hold decoded columns.
    pub column_cache_bytes: u64,
    /// How much of it rows of writes may take.
    pub load_memory_bytes: usize,
}

/// Memory of processes as a configuration file has it.
#[derive(Debug, Default)]
pub(crate) struct MemoryTexts {
    pub(crate) memory: Option<String>,
    pub(crate) query_memory: Option<String>,
    pub(crate) column_cache: Option<String>,
    pub(crate) load_memory: Option<String>,
}

impl MemoryFlags {
    /// From the texts of a configuration file.
    ///
    /// # Errors
    /// A text that is no size.
    pub(crate) fn parse(texts: MemoryTexts) -> Result<Self, UsageError> {
        let parse = |name: &str, text: Option<String>| {
            let parsed = text.map(|text| byte_size(&text)).transpose();
            parsed.map_err(|error| UsageError(format!("{name} in the config file: {error}")))
        };
        Ok(Self {
            memory: parse("memory", texts.memory)?,
            query_memory: parse("query-memory", texts.query_memory)?,
            column_cache: parse("column-cache", texts.column_cache)?,
            load_memory: parse("load-memory", texts.load_memory)?,
        })
    }

    /// These, and what `other` says where these say nothing; then the defaults: the machine's memory
    /// divided by `part`, and half of what queries have.
    ///
    /// # Errors
    /// Sizes that make no sense together.
    pub fn resolve(self, other: Self, part: usize) -> Result<Memory, UsageError> {
        let memory = self.memory.or(other.memory);
        let memory = memory.unwrap_or((machine_memory_bytes() / part) as u64);
        if memory < MEMORY_BYTES_MIN {
            return Err(UsageError(format!(
                "memory must be at least {} MiB",
                MEMORY_BYTES_MIN >> 20
            )));
        }
        let query_memory = self.query_memory.or(other.query_memory).unwrap_or(memory / 4 * 3);
        if query_memory > memory || query_memory < QUERY_MEMORY_BYTES_MIN {
            return Err(UsageError(format!(
                "query-memory is a part of memory: {} MiB at least, and not more than all of it",
                QUERY_MEMORY_BYTES_MIN >> 20
            )));
        }
        let column_cache_bytes = self.column_cache.or(other.column_cache).unwrap_or(memory / 2);
        if column_cache_bytes > memory {
            return Err(UsageError(
                "column-cache is a part of memory, so it cannot be more".to_owned(),
            ));
        }
        let load_memory = self.load_memory.or(other.load_memory);
        let load_memory = load_memory.unwrap_or((memory / 4).min(LOAD_MEMORY_BYTES));
        if load_memory > memory || load_memory < LOAD_MEMORY_BYTES_MIN {
            return Err(UsageError(format!(
                "load-memory is a part of memory: {} MiB at least, and not more than all of it",
                LOAD_MEMORY_BYTES_MIN >> 20
            )));
        }
        let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Memory {
            memory_bytes: bytes(memory),
            query_memory_bytes: bytes(query_memory),
            column_cache_bytes,
            load_memory_bytes: bytes(load_memory),
        })
    }
}

/// Bytes: a whole number with a unit (`512MiB`, `8GB`), or without one.
fn byte_size(text: &str) -> Result<u64, String> {
    let problem = || format!("\"{text}\" is no size: write it like 512MiB or 8GiB");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| problem())?;
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(problem()),
    };
    number.checked_mul(unit).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_or_is_bytes() {
        assert_eq!(byte_size("0"), Ok(0));
        assert_eq!(byte_size("1000"), Ok(1_000));
        assert_eq!(byte_size("512MiB"), Ok(512 << 20));
        assert_eq!(byte_size("8 gib"), Ok(8 << 30));
        assert_eq!(byte_size("8GB"), Ok(8_000_000_000));
        for wrong in ["", "GiB", "-1", "1.5GiB", "8 apples", "99999999999TiB"] {
            assert!(byte_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_cache_is_a_part_of_the_memory() {
        let flags =
            |memory, column_cache| MemoryFlags { memory, column_cache, ..MemoryFlags::default() };
        let none = MemoryFlags::default();
        let resolved = flags(Some(1 << 30), None).resolve(none, 4).unwrap();
        let (column_cache_bytes, load_memory_bytes) = (1 << 29, 1 << 28);
        let (memory_bytes, query_memory_bytes) = (1 << 30, 3 << 28);
        let expected =
            Memory { memory_bytes, query_memory_bytes, column_cache_bytes, load_memory_bytes };
        assert_eq!(resolved, expected);
        let in_file = flags(Some(1 << 30), Some(0));
        assert_eq!(none.resolve(in_file, 4).unwrap().column_cache_bytes, 0);
        assert!(flags(Some(1 << 30), Some(1 << 31)).resolve(none, 4).is_err());
        assert!(flags(Some(1 << 20), None).resolve(none, 4).is_err());
        assert!(none.resolve(none, 4).unwrap().memory_bytes > 0);
        let load = |load_memory| MemoryFlags { load_memory: Some(load_memory), ..none };
        let in_file = flags(Some(1 << 30), None);
        assert_eq!(load(1 << 23).resolve(in_file, 4).unwrap().load_memory_bytes, 1 << 23);
        assert!(load(1 << 31).resolve(in_file, 4).is_err());
        assert!(load(1).resolve(in_file, 4).is_err());
        let query = |query_memory| MemoryFlags { query_memory: Some(query_memory), ..none };
        assert_eq!(query(1 << 30).resolve(in_file, 4).unwrap().query_memory_bytes, 1 << 30);
        assert!(query((1 << 30) + 1).resolve(in_file, 4).is_err());
        assert!(query(1 << 20).resolve(in_file, 4).is_err());
    }
}
