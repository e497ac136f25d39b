//! Generated tables: every scalar type that the engine stores, skewed and full of NULLs.
//!
//! Every table has a unique `id`, a key `k` whose most frequent value is a third of all, and a text
//! `s`; the other columns differ. One table is empty and one has one row. Tables differ in their
//! distribution, and come in several INSERTs, so that they have several segments.
//!
//! Invariant: fractions of floats are quarters, so that a sum is exact in whatever order it is
//! taken.

use super::ast::Family;
use super::random::Random;

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name, unique in its table.
    pub name: String,
    /// Its type in SQL.
    pub sql_type: &'static str,
    /// Its family.
    pub family: Family,
}

/// A table with its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns; the first is `id`, never NULL and unique.
    pub columns: Vec<Column>,
    /// How it is distributed and sorted, in our dialect.
    pub style: String,
    /// The rows of each INSERT, as literals.
    pub loads: Vec<Vec<Vec<String>>>,
    /// Whether we VACUUM it when it is filled: one segment of each slice is left then.
    pub is_compacted: bool,
}

/// Rows of the tables.
const ROWS: [usize; 8] = [0, 1, 6, 15, 40, 90, 200, 600];

/// Kinds of columns beside `id`, `k` and `s`.
const KINDS: [(&str, &str, Family); 19] = [
    ("b", "BOOLEAN", Family::Bool),
    ("i8", "TINYINT", Family::Int),
    ("i16", "SMALLINT", Family::Int),
    ("i64", "BIGINT", Family::Int),
    ("u8", "TINYINT UNSIGNED", Family::Int),
    ("u32", "INT UNSIGNED", Family::Int),
    ("u64", "BIGINT UNSIGNED", Family::Int),
    ("f32", "REAL", Family::Float),
    ("f64", "DOUBLE", Family::Float),
    ("dn", "DECIMAL(9, 2)", Family::Decimal),
    ("dw", "DECIMAL(30, 5)", Family::Decimal),
    ("dt", "DATE", Family::Date),
    ("tm", "TIME", Family::Time),
    ("ts", "TIMESTAMP", Family::Timestamp),
    ("tms", "TIMESTAMP(3)", Family::Timestamp),
    ("tz", "TIMESTAMPTZ", Family::TimestampTz),
    ("iv", "INTERVAL", Family::Interval),
    ("y", "BYTEA", Family::Binary),
    ("l", "BIGINT[]", Family::List),
];

/// Kinds that the table of each index has at least, so that every round has every kind.
const KINDS_PER_TABLE: usize = 5;

const TEXTS: [&str; 14] = [
    "''",
    "'a'",
    "'ab'",
    "'B'",
    "'b'",
    "'some long text, longer than a view'",
    "'ä€'",
    "'%'",
    "'_x'",
    "'10'",
    "'-3'",
    "' pad '",
    "'it''s'",
    "'Z'",
];

impl Table {
    /// The statement that makes it, in our dialect or in plain DataFusion's.
    pub fn create(&self, is_ours: bool) -> String {
        let columns: Vec<_> = (0..)
            .zip(&self.columns)
            .map(|(place, column)| {
                let encode = if is_ours { self.encode(place, column) } else { "" };
                format!("{} {}{encode}", column.name, column.sql_type)
            })
            .collect();
        let style = if is_ours { self.style.as_str() } else { "" };
        format!("CREATE TABLE {} ({}) {style}", self.name, columns.join(", ")).trim_end().to_owned()
    }

    /// What a column declares of its encoding, another one in each table: no answer may depend on it.
    fn encode(&self, place: usize, column: &Column) -> &'static str {
        const ALL: [&str; 6] =
            ["", " ENCODE raw", " ENCODE lz4", " ENCODE zstd", " ENCODE bytedict", " ENCODE delta"];
        let fitting = match column.family {
            Family::Bool | Family::Interval | Family::List => 4,
            Family::Decimal if column.sql_type == "DECIMAL(30, 5)" => 4,
            Family::Float | Family::Text | Family::Binary => 5,
            _ => 6,
        };
        let table = usize::from(self.name.bytes().last().unwrap_or_default());
        ALL[..fitting][(place + table) % fitting]
    }

    /// The statements that fill it.
    pub fn inserts(&self) -> Vec<String> {
        let insert = |rows: &Vec<Vec<String>>| {
            let rows: Vec<_> = rows.iter().map(|row| format!("({})", row.join(", "))).collect();
            format!("INSERT INTO {} VALUES {}", self.name, rows.join(", "))
        };
        self.loads.iter().filter(|rows| !rows.is_empty()).map(insert).collect()
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.loads.iter().map(Vec::len).sum()
    }
}

/// The tables of a seed, in several segments or compacted.
pub fn tables(seed: u64, is_compacted: bool) -> Vec<Table> {
    // Far from the seeds of queries.
    let mut random = Random::new(seed ^ 0x5eed_0000_0000_0000);
    let first_kind = random.index(KINDS.len());
    let table = |(index, rows): (usize, &usize)| {
        let mut columns = vec![column("id", "INT", Family::Int), key(&mut random)];
        columns.push(column("s", "VARCHAR", Family::Text));
        for offset in 0..KINDS_PER_TABLE {
            let kind = KINDS[(first_kind + index * KINDS_PER_TABLE + offset) % KINDS.len()];
            columns.push(column(kind.0, kind.1, kind.2));
        }
        let style = style(index, &columns, &mut random);
        let has_extremes = random.one_in(6);
        let loads = loads(*rows, &columns, has_extremes, &mut random);
        Table { name: format!("fuzz_{index}"), columns, style, loads, is_compacted }
    };
    ROWS.iter().enumerate().map(table).collect()
}

fn column(name: &str, sql_type: &'static str, family: Family) -> Column {
    Column { name: name.to_owned(), sql_type, family }
}

/// Keys of different widths are joined with each other.
fn key(random: &mut Random) -> Column {
    column("k", random.pick(&["INT", "BIGINT", "SMALLINT"]), Family::Int)
}

fn style(index: usize, columns: &[Column], random: &mut Random) -> String {
    let key = |random: &mut Random| {
        let may: Vec<_> = columns.iter().filter(|column| may_distribute(column)).collect();
        random.pick(&may).name.clone()
    };
    let distribution = match (index + random.index(2)) % 6 {
        0 => String::new(),
        1 | 4 => "DISTKEY(k)".to_owned(),
        2 => "DISTSTYLE EVEN".to_owned(),
        3 => "DISTSTYLE ALL".to_owned(),
        _ => format!("DISTKEY({})", key(random)),
    };
    let sorting = match random.below(4) {
        0 => format!(" SORTKEY({})", key(random)),
        1 => " SORTKEY(k, s)".to_owned(),
        _ => String::new(),
    };
    format!("{distribution}{sorting}").trim_start().to_owned()
}

fn may_distribute(column: &Column) -> bool {
    matches!(
        column.family,
        Family::Int | Family::Text | Family::Decimal | Family::Date | Family::Timestamp
    )
}

fn loads(
    rows: usize,
    columns: &[Column],
    has_extremes: bool,
    random: &mut Random,
) -> Vec<Vec<Vec<String>>> {
    let parts = if rows < 4 { 1 } else { 2 + random.index(3) };
    let all_null = random.index(columns.len() * 4);
    let mut loads = vec![Vec::new(); parts];
    for id in 0..rows {
        let value = |(index, column): (usize, &Column)| match column.name.as_str() {
            "id" => id.to_string(),
            // Now and then a column is nothing but NULLs.
            _ if index == all_null || random.one_in(6) => "NULL".to_owned(),
            _ => value(column, has_extremes && random.one_in(40), random),
        };
        loads[id * parts / rows].push(columns.iter().enumerate().map(value).collect());
    }
    loads
}

/// A literal of the column's type.
fn value(column: &Column, is_extreme: bool, random: &mut Random) -> String {
    let small = if random.one_in(3) { 0 } else { random.below(25) };
    let sign = if random.one_in(3) { "-" } else { "" };
    match column.sql_type {
        "BOOLEAN" => random.pick(&["true", "false", "true"]).to_owned(),
        "TINYINT" if is_extreme => random.pick(&["127", "-128"]).to_owned(),
        "BIGINT" if is_extreme => {
            random.pick(&["9223372036854775807", "-9223372036854775807"]).to_owned()
        }
        "TINYINT UNSIGNED" | "INT UNSIGNED" | "BIGINT UNSIGNED" => small.to_string(),
        "REAL" | "DOUBLE" if random.one_in(30) => {
            let special = random.pick(&["NaN", "Infinity", "-Infinity"]);
            format!("CAST('{special}' AS {})", column.sql_type)
        }
        "REAL" | "DOUBLE" if small == 0 => random.pick(&["0.0", "0.0", "-0.0"]).to_owned(),
        "REAL" | "DOUBLE" => format!("{sign}{small}.{}", random.pick(&["0", "25", "5", "75"])),
        "DECIMAL(9, 2)" => format!("{sign}{}.{:02}", random.below(30), random.below(4) * 25),
        "DECIMAL(30, 5)" => {
            let large = random.pick(&["", "", "1234567890123456"]);
            format!(
                "CAST('{sign}{large}{small}.{:05}' AS DECIMAL(30, 5))",
                random.below(4) * 25_000
            )
        }
        "DATE" => format!("DATE '{}'", date(random)),
        "TIME" => format!("CAST('{}' AS TIME)", time(random)),
        "TIMESTAMP" | "TIMESTAMP(3)" => format!("TIMESTAMP '{}'", instant(random)),
        "TIMESTAMPTZ" => {
            let zone = random.pick(&["Z", "+02:00", "-05:30"]);
            format!("CAST('{}{zone}' AS TIMESTAMPTZ)", instant(random))
        }
        "INTERVAL" => format!(
            "INTERVAL '{} months {} days {} hours'",
            random.below(3),
            random.below(3),
            random.below(2)
        ),
        "VARCHAR" => random.pick(&TEXTS).to_owned(),
        "BYTEA" => random.pick(&["X''", "X'00'", "X'6162'", "X'ff00ff'"]).to_owned(),
        "BIGINT[]" => {
            random.pick(&["make_array(1, 2)", "make_array(3)", "make_array(1, NULL, 5)"]).to_owned()
        }
        _ => format!("{sign}{small}"),
    }
}

/// A date, often one of few; one of them before 1970.
pub(super) fn date(random: &mut Random) -> String {
    match random.below(4) {
        0 => random.pick(&["2024-02-29", "1969-12-31", "2024-01-01"]).to_owned(),
        _ => format!(
            "20{:02}-{:02}-{:02}",
            20 + random.below(6),
            1 + random.below(12),
            1 + random.below(28)
        ),
    }
}

/// A time of day.
pub(super) fn time(random: &mut Random) -> String {
    random.pick(&["00:00:00", "10:30:00", "23:59:59.999", "12:00:00.5"]).to_owned()
}

/// A date and a time.
pub(super) fn instant(random: &mut Random) -> String {
    format!("{}T{}", date(random), time(random))
}
