//! Generating the tables and queries of the differential test, from a seed.
//!
//! Every relation has the columns k, g (integers of either width), s (a string) and d (a decimal),
//! so that any can stand where any other can: tables, filters, joins of all kinds, groups, set
//! operations, windows, limits under a total order, common table expressions.
//!
//! Invariant: the rows of a query are defined. A LIMIT is under an order over all columns, a
//! window that depends on an order has all columns in it, and nothing computes with floats.

use crate::random::Random;

/// A table of the test.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static str,
    pub(super) style: &'static str,
    /// Rows of each INSERT; several of them spread an EVEN table.
    loads: &'static [u64],
    seed: u64,
}

pub(super) const TABLES: [Table; 4] = [
    Table {
        name: "a",
        columns: "k INTEGER, g INTEGER, s VARCHAR, d DECIMAL(12, 2)",
        style: "DISTKEY(k)",
        loads: &[48],
        seed: 101,
    },
    Table {
        name: "b",
        columns: "k BIGINT, g INTEGER, s VARCHAR, d DECIMAL(12, 2)",
        style: "DISTSTYLE EVEN",
        loads: &[9, 9, 9, 9],
        seed: 202,
    },
    Table {
        name: "c",
        columns: "k BIGINT, g BIGINT, s VARCHAR, d DECIMAL(12, 2)",
        style: "DISTSTYLE ALL",
        loads: &[14],
        seed: 303,
    },
    Table {
        name: "e",
        columns: "k INTEGER, g BIGINT, s VARCHAR, d DECIMAL(12, 2)",
        style: "DISTKEY(s)",
        loads: &[22],
        seed: 404,
    },
];

impl Table {
    /// The statements that fill it.
    pub(super) fn inserts(&self) -> Vec<String> {
        let mut random = Random::new(self.seed);
        let mut load = |rows: &u64| {
            let rows: Vec<_> = (0..*rows).map(|_| random_row(&mut random)).collect();
            format!("INSERT INTO {} VALUES {}", self.name, rows.join(", "))
        };
        self.loads.iter().map(&mut load).collect()
    }
}

fn or_null(random: &mut Random, value: String) -> String {
    if random.one_in(5) { "NULL".to_owned() } else { value }
}

fn random_row(random: &mut Random) -> String {
    // A third of the keys is 0, the rest is spread.
    let k = if random.one_in(3) { 0 } else { random.below(30) };
    let g = random.below(4);
    let s = random.pick(&["", "x", "y", "long string", "Z"]);
    let d = random.below(2000);
    let k = or_null(random, k.to_string());
    let g = or_null(random, g.to_string());
    let s = or_null(random, format!("'{s}'"));
    let d = or_null(random, format!("{}.{:02}", d / 100, d % 100));
    format!("({k}, {g}, {s}, {d})")
}

/// A query with a summary on top now and then, and all rows otherwise.
pub(super) fn random_query(random: &mut Random) -> String {
    let depth = 1 + random.below(3);
    if random.one_in(6) {
        let shared = narrow(random, 1);
        let kind = join_kind(random);
        let on = join_condition(random);
        return format!(
            "WITH w AS ({shared}) SELECT x.k, y.g, x.s, y.d FROM w x {kind} JOIN w y ON {on}"
        );
    }
    let source = relation(random, depth);
    match random.below(6) {
        0 => format!("SELECT count(*), count(k), sum(g), min(s), max(d) FROM ({source}) q"),
        1 => format!(
            "SELECT count(DISTINCT k), count(DISTINCT s), sum(DISTINCT g) FROM ({source}) q"
        ),
        2 => format!(
            "SELECT k, count(*) FILTER (WHERE g > 1), count(DISTINCT s) FROM ({source}) q GROUP BY k"
        ),
        _ => source,
    }
}

/// A SELECT of k, g, s, d, with at most `depth` operators below it.
fn relation(random: &mut Random, depth: u64) -> String {
    if depth == 0 {
        let table = random.pick(&["a", "b", "c", "e"]);
        return format!("SELECT k, g, s, d FROM {table}");
    }
    match random.below(9) {
        0..=3 => join(random, depth - 1),
        4 => filtered(random, depth - 1),
        5 => set_operation(random, depth - 1),
        6 => window(random, depth - 1),
        _ => narrow(random, depth - 1),
    }
}

/// A relation of few rows, whatever is below: joins of those stay small.
fn narrow(random: &mut Random, depth: u64) -> String {
    match random.below(4) {
        0 => limited(random, depth),
        1 => format!("SELECT DISTINCT k, g, s, d FROM ({}) q", relation(random, depth)),
        _ => grouped(random, depth),
    }
}

fn operand(random: &mut Random, depth: u64) -> String {
    if depth == 0 || random.one_in(2) {
        return relation(random, 0);
    }
    match random.below(3) {
        0 => filtered(random, depth - 1),
        _ => narrow(random, depth - 1),
    }
}

fn join_kind(random: &mut Random) -> &'static str {
    random.pick(&["INNER", "LEFT", "RIGHT", "FULL", "LEFT", "FULL"])
}

fn join_condition(random: &mut Random) -> String {
    let equal = random.pick(&[
        "x.k = y.k",
        "x.k = y.k",
        "x.g = y.k",
        "x.s = y.s AND x.g = y.g",
        "x.k = y.k AND x.s = y.s",
        "x.d = y.d",
        "(x.k IS NOT DISTINCT FROM y.k) AND x.g = y.g",
        "x.k > y.k + 22",
        "x.g = 1",
    ]);
    match random.below(4) {
        0 => format!("{equal} AND {}", random.pick(&["x.g < y.g", "x.d > 10", "y.s <> 'x'"])),
        _ => equal.to_owned(),
    }
}

fn join(random: &mut Random, depth: u64) -> String {
    let (left, right) = (operand(random, depth), operand(random, depth));
    let on = join_condition(random);
    if random.one_in(4) {
        let kind = random.pick(&["LEFT SEMI", "LEFT ANTI"]);
        return format!(
            "SELECT x.k, x.g, x.s, x.d FROM ({left}) x {kind} JOIN ({right}) y ON {on}"
        );
    }
    let kind = join_kind(random);
    let columns = random.pick(&[
        "x.k, y.g, coalesce(x.s, y.s) AS s, y.d",
        "coalesce(x.k, y.k) AS k, x.g, y.s, x.d",
        "y.k, y.g, x.s, x.d",
    ]);
    format!("SELECT {columns} FROM ({left}) x {kind} JOIN ({right}) y ON {on}")
}

fn filtered(random: &mut Random, depth: u64) -> String {
    let source = operand(random, depth);
    let other = operand(random, 0);
    let condition = match random.below(10) {
        0 => format!("k IN (SELECT k FROM ({other}) i)"),
        1 => format!("k NOT IN (SELECT k FROM ({other}) i WHERE k > 3)"),
        2 => format!("g NOT IN (SELECT k FROM ({other}) i WHERE d > 5)"),
        3 => format!("EXISTS (SELECT 1 FROM ({other}) i WHERE i.k = q.k AND i.s <> q.s)"),
        4 => format!("NOT EXISTS (SELECT 1 FROM ({other}) i WHERE i.k = q.k)"),
        5 => format!("k > (SELECT min(k) + 2 FROM ({other}) i)"),
        6 => format!("d >= (SELECT max(d) FROM ({other}) i WHERE i.g = q.g)"),
        7 => "s > 'm' OR d IS NULL".to_owned(),
        8 => "g = 2".to_owned(),
        _ => "k BETWEEN 0 AND 9 AND s IS NOT NULL".to_owned(),
    };
    format!("SELECT k, g, s, d FROM ({source}) q WHERE {condition}")
}

fn set_operation(random: &mut Random, depth: u64) -> String {
    let kind = random.pick(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "UNION ALL"]);
    let columns = random.pick(&["k, g, s, d", "k, g, s, d", "k, g, NULL AS s, d"]);
    let (left, right) = (operand(random, depth), operand(random, depth));
    format!("SELECT {columns} FROM ({left}) l {kind} SELECT {columns} FROM ({right}) r")
}

fn grouped(random: &mut Random, depth: u64) -> String {
    let source = relation(random, depth);
    let total = "CAST(sum(d) % 1000 AS DECIMAL(12, 2)) AS d";
    match random.below(5) {
        0 => format!("SELECT k, count(*) AS g, max(s) AS s, {total} FROM ({source}) q GROUP BY k"),
        1 => format!(
            "SELECT k, g, min(s) AS s, {total} FROM ({source}) q GROUP BY k, g HAVING count(*) < 9"
        ),
        2 => {
            format!("SELECT count(DISTINCT k) AS k, g, s, {total} FROM ({source}) q GROUP BY g, s")
        }
        3 => format!("SELECT k, g, max(s) AS s, {total} FROM ({source}) q GROUP BY ROLLUP (k, g)"),
        _ => format!(
            "SELECT max(k) AS k, count(k) FILTER (WHERE g < 2) AS g, min(s) AS s, {total} \
             FROM ({source}) q"
        ),
    }
}

fn window(random: &mut Random, depth: u64) -> String {
    let source = operand(random, depth);
    let order = "ORDER BY k NULLS FIRST, g NULLS FIRST, s NULLS FIRST, d NULLS FIRST";
    let partition = random.pick(&["PARTITION BY k", "PARTITION BY g, s", ""]);
    let value = match random.below(8) {
        0 => format!("row_number() OVER ({partition} {order})"),
        5 => format!("lag(g) IGNORE NULLS OVER ({partition} {order})"),
        6 => format!("count(k) FILTER (WHERE g > 0) OVER ({partition} {order})"),
        7 => format!("nth_value(g, 2) OVER ({partition} {order} DESC)"),
        1 => format!("rank() OVER ({partition} ORDER BY d DESC NULLS LAST)"),
        2 => format!("count(*) OVER ({partition})"),
        3 => format!("lag(k, 1, -1) OVER ({partition} {order})"),
        _ => format!("sum(g) OVER ({partition} {order} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)"),
    };
    format!("SELECT k, {value} AS g, s, d FROM ({source}) q")
}

fn limited(random: &mut Random, depth: u64) -> String {
    let source = relation(random, depth);
    let (first, rest) = (random.pick(&["k", "d DESC"]), "k, g, s, d");
    let nulls = random.pick(&["NULLS FIRST", "NULLS LAST"]);
    let rows = 1 + random.below(12);
    let offset =
        if random.one_in(3) { format!(" OFFSET {}", random.below(8)) } else { String::new() };
    format!(
        "SELECT k, g, s, d FROM ({source}) q ORDER BY {first} {nulls}, {rest} LIMIT {rows}{offset}"
    )
}
