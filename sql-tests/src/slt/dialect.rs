//! The dialects of the format, and how a file's is found out.
//!
//! | dialect    | expected rows | a value is written by |
//! |------------|---------------|-----------------------|
//! | `postgres` | a row per line, values separated by blanks | its own type ([`super::text`]) |
//! | `sqlite`   | a value per line, or a digest of them | the letter of the `query` line ([`super::letters`]) |
//! | `duckdb`   | a row per line, values separated by tabs, or a value per line | its own type |
//! | `datafusion` | a row per line, a last value of several lines as lines with numbers | its own type ([`super::datafusion`]) |
//!
//! The rule of [`Dialect::detect`], from the text of the file alone, first match wins. Directives
//! stand at the start of a paragraph, or behind a comment or a condition:
//!
//! 1. `duckdb` if there is a directive that only DuckDB has: `require`, `loop`, `foreach`,
//!    `mode`, `test-env`, `statement maybe`, or if the file opens with DuckDB's `# name: `.
//! 2. `sqlite` if there is a `hash-threshold`, or a `skipif` or `onlyif` with one of the engines
//!    that SQLite's files know (`sqlite`, `mysql`, `mssql`, `oracle`), or an expected result is
//!    `N values hashing to <md5>`.
//! 3. `sqlite` if some query of two or more letters has an expected result, and every such query
//!    has a multiple of its letters in lines, each of one word.
//! 4. `postgres` otherwise. `datafusion` is never found out: its files say nothing of it.

use std::fmt;
use std::str::FromStr;

use super::digest;

/// How a file writes expected results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A row per line, as PostgreSQL-like engines (DataFusion, RisingWave, ours) write them.
    Postgres,
    /// SQLite's own.
    Sqlite,
    /// DuckDB's own.
    DuckDb,
    /// DataFusion's own test files.
    DataFusion,
}

/// Directives that only DuckDB's files have.
const DUCKDB_WORDS: [&str; 8] = [
    "require",
    "loop",
    "foreach",
    "concurrentloop",
    "concurrentforeach",
    "mode",
    "test-env",
    "require-env",
];
/// Engines that the conditions of SQLite's files name.
const SQLITE_LABELS: [&str; 4] = ["sqlite", "mysql", "mssql", "oracle"];

impl Dialect {
    /// The dialect of a file by its text.
    pub fn detect(text: &str) -> Self {
        if text.starts_with("# name: ") || directives(text).any(is_duckdb) {
            Self::DuckDb
        } else if directives(text).any(is_sqlite)
            || text.lines().any(digest::is_digest)
            || has_values_by_line(text)
        {
            Self::Sqlite
        } else {
            Self::Postgres
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
            Self::DuckDb => "duckdb",
            Self::DataFusion => "datafusion",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Postgres, Self::Sqlite, Self::DuckDb, Self::DataFusion]
            .into_iter()
            .find(|dialect| dialect.name() == text)
            .ok_or_else(|| {
                format!("{text:?} is no dialect: postgres, sqlite, duckdb or datafusion")
            })
    }
}

/// The lines where a directive can stand.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    let mut is_open = true;
    text.lines().filter(move |line| {
        let is_directive = is_open;
        let is_condition = line.starts_with("skipif") || line.starts_with("onlyif");
        is_open = line.trim().is_empty() || line.starts_with('#') || is_open && is_condition;
        is_directive
    })
}

fn is_duckdb(line: &str) -> bool {
    let mut words = line.split_whitespace();
    match words.next() {
        Some("statement") => words.next() == Some("maybe"),
        Some(word) => DUCKDB_WORDS.contains(&word) && words.next().is_some(),
        None => false,
    }
}

fn is_sqlite(line: &str) -> bool {
    let mut words = line.split_whitespace();
    match words.next() {
        Some("hash-threshold") => true,
        Some("skipif" | "onlyif") => words.next().is_some_and(|l| SQLITE_LABELS.contains(&l)),
        _ => false,
    }
}

/// Rule 3: whether all results of several columns can only be values by line.
fn has_values_by_line(text: &str) -> bool {
    let mut lines = text.lines();
    let mut seen = false;
    while let Some(line) = lines.next() {
        let mut words = line.split_whitespace();
        if words.next() != Some("query") {
            continue;
        }
        let columns = words.next().filter(|word| *word != "error").map_or(0, str::len);
        let mut record = lines.by_ref().take_while(|line| !line.is_empty());
        let results: Vec<&str> =
            record.by_ref().skip_while(|line| *line != "----").skip(1).collect();
        if columns < 2 || results.is_empty() {
            continue;
        }
        let one_word = results.iter().all(|line| line.split_whitespace().count() == 1);
        if !one_word || !results.len().is_multiple_of(columns) {
            return false;
        }
        seen = true;
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Dialect) {
        assert_eq!(Dialect::detect(text), expected, "{text}");
    }

    #[test]
    fn values_by_line_are_sqlites() {
        check("query II nosort\nSELECT 1, 2\n----\n1\n2\n", Dialect::Sqlite);
        check("query II nosort\nSELECT 1, 2\n----\n1 2\n", Dialect::Postgres);
        let mixed = "query II\nSELECT 1, 2\n----\n1\n2\n\nquery II\nSELECT 1, 2\n----\n1 2\n";
        check(mixed, Dialect::Postgres);
        check("query II\nSELECT 1, 2\n----\n1\n2\n3\n", Dialect::Postgres);
    }

    #[test]
    fn one_column_says_nothing() {
        check("query I\nSELECT 1\n----\n1\n", Dialect::Postgres);
        check("query error\nSELECT\n", Dialect::Postgres);
        check("", Dialect::Postgres);
    }

    #[test]
    fn directives_of_one_engine_tell() {
        check("hash-threshold 8\n", Dialect::Sqlite);
        check("skipif mysql # not compatible\nstatement ok\nSELECT 1\n", Dialect::Sqlite);
        check("onlyif basalt\nstatement ok\nSELECT 1\n", Dialect::Postgres);
        let digest =
            "query I\nSELECT 1\n----\n9 values hashing to 0123456789abcdef0123456789abcdef";
        check(digest, Dialect::Sqlite);
        check("require parquet\n", Dialect::DuckDb);
        check("# name: test/sql/a.test\n", Dialect::DuckDb);
        check("statement maybe\nSELECT 1\n", Dialect::DuckDb);
        check("query TT\nSELECT 'mode', 'skip'\n----\nmode skip\n", Dialect::Postgres);
        check("query T\nSELECT 'x'\n----\nhash-threshold 8\n", Dialect::Postgres);
    }
}
