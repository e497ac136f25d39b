//! Tables and queries in DuckDB's words, so that both engines are asked the same.
//!
//! What is said otherwise, and why:
//!
//! - `/` of integers divides floats in DuckDB, `//` is its division of integers
//! - literals: integers are BIGINT in ours and fit in what stands beside them in DuckDB, `0.5` is DOUBLE
//!   in ours and a DECIMAL in DuckDB
//! - the sum of integers is a BIGINT in ours, and overflows; a HUGEINT in DuckDB
//! - DATE and INTERVAL make a DATE in ours, a TIMESTAMP in DuckDB
//! - LIKE escapes by a backslash in ours, by nothing in DuckDB unless it is told
//! - `IGNORE NULLS` stands inside the parentheses, semi joins are of the left side only, columns of
//!   VALUES have other names, arrays and types too
//! - the square root of a REAL is one in ours, a DOUBLE in DuckDB
//! - a TIMESTAMP as text has a `T` in ours, a space in DuckDB
//! - a cast of text to an integer takes fractions and spaces in DuckDB

use crate::fuzz::ast::{Body, Expr, Family, Query, Relation, Select};
use crate::fuzz::data::Table;

/// Types that DuckDB calls otherwise.
const TYPES: [(&str, &str); 4] = [
    ("TINYINT UNSIGNED", "UTINYINT"),
    ("INT UNSIGNED", "UINTEGER"),
    ("BIGINT UNSIGNED", "UBIGINT"),
    ("TIMESTAMP(3)", "TIMESTAMP_MS"),
];

/// What stands in templates of ours, and what DuckDB calls it.
const WORDS: [(&str, &str); 10] = [
    ("{} / 3)", "{} // 3::BIGINT)"),
    ("{} * 3)", "{} * 3::BIGINT)"),
    ("(0 - {}", "(0::BIGINT - {}"),
    ("{} * 0.5)", "{} * 0.5e0)"),
    ("{} / 3.0)", "{} / 3.0e0)"),
    ("{} * -1.0)", "{} * -1.0e0)"),
    (") IGNORE NULLS OVER", " IGNORE NULLS) OVER"),
    ("make_array(", "list_value("),
    ("TRY_CAST({} AS BIGINT)", "TRY_CAST(regexp_extract({}, '^[+-]?[0-9]+$') AS BIGINT)"),
    ("'_\\%%')", "'_\\%%' ESCAPE '\\')"),
];

/// The statements that make a table and fill it, in the place of one of its name.
pub fn statements(table: &Table) -> Vec<String> {
    let name = &table.name;
    let column = |column: &crate::fuzz::data::Column| {
        let known = TYPES.iter().find(|(ours, _)| *ours == column.sql_type);
        format!("{} {}", column.name, known.map_or(column.sql_type, |(_, theirs)| theirs))
    };
    let columns: Vec<_> = table.columns.iter().map(column).collect();
    let mut statements = vec![format!("CREATE OR REPLACE TABLE {name} ({})", columns.join(", "))];
    let inserts = table.inserts().into_iter();
    statements.extend(inserts.map(|insert| insert.replace("make_array(", "list_value(")));
    statements
}

/// The query in DuckDB's words.
pub fn query(query: &Query) -> Query {
    let with = query.with.iter().map(|(name, inner)| (name.clone(), self::query(inner))).collect();
    let order_by = query.order_by.iter().map(|(key, direction)| (expr(key), *direction)).collect();
    let body = match &query.body {
        Body::Select(inner) => Body::Select(Box::new(select(inner))),
        Body::SetOperation { operator, left, right } => {
            let (left, right) = (self::query(left), self::query(right));
            Body::SetOperation { operator, left: Box::new(left), right: Box::new(right) }
        }
        Body::Values(rows) => Body::Values(rows.iter().map(|row| exprs(row)).collect()),
    };
    Query { with, body, order_by, ..query.clone() }
}

fn select(select: &Select) -> Select {
    Select {
        items: select.items.iter().map(|(item, name)| (expr(item), name.clone())).collect(),
        from: select.from.as_ref().map(relation),
        filter: select.filter.as_ref().map(expr),
        group: exprs(&select.group),
        having: select.having.as_ref().map(expr),
        ..select.clone()
    }
}

fn relation(of: &Relation) -> Relation {
    match of {
        Relation::Table { .. } => of.clone(),
        Relation::Derived { query, alias } => {
            let alias = match &query.body {
                Body::Values(rows) => {
                    let count = rows.first().map_or(0, Vec::len);
                    let names: Vec<_> = (1..=count).map(|n| format!("column{n}")).collect();
                    format!("{alias}({})", names.join(", "))
                }
                _ => alias.clone(),
            };
            Relation::Derived { query: Box::new(self::query(query)), alias }
        }
        Relation::Join { kind, left, right, on } => {
            let (mut left, mut right) = (Box::new(relation(left)), Box::new(relation(right)));
            let kind = match *kind {
                "LEFT SEMI JOIN" => "SEMI JOIN",
                "LEFT ANTI JOIN" => "ANTI JOIN",
                "RIGHT SEMI JOIN" | "RIGHT ANTI JOIN" => {
                    std::mem::swap(&mut left, &mut right);
                    if *kind == "RIGHT SEMI JOIN" { "SEMI JOIN" } else { "ANTI JOIN" }
                }
                other => other,
            };
            Relation::Join { kind, left, right, on: exprs(on) }
        }
    }
}

fn exprs(of: &[Expr]) -> Vec<Expr> {
    of.iter().map(expr).collect()
}

fn expr(of: &Expr) -> Expr {
    let query = of.query.as_ref().map(|inner| Box::new(query(inner)));
    Expr { template: template(of), args: exprs(&of.args), query, ..of.clone() }
}

fn template(of: &Expr) -> String {
    let text = of.template.as_str();
    if of.args.is_empty() && of.query.is_none() {
        return match of.family {
            Family::Int if text.parse::<i64>().is_ok() => format!("CAST({text} AS BIGINT)"),
            Family::Float if text.parse::<f64>().is_ok() => format!("{text}e0"),
            Family::Float if text == "(-0.0)" => "(-0.0e0)".to_owned(),
            _ => text.replace("make_array(", "list_value("),
        };
    }
    let is_of_text = of.args.first().is_some_and(|arg| arg.family == Family::Text);
    let mut spelled = text.to_owned();
    for (ours, theirs) in WORDS {
        if is_of_text || !ours.starts_with("TRY_CAST") {
            spelled = spelled.replace(ours, theirs);
        }
    }
    // REAL beside a DECIMAL or an integer is compared as DOUBLE in ours, as REAL in DuckDB.
    let mixed: Vec<_> = of.args.iter().map(|arg| arg.family).collect();
    match mixed.as_slice() {
        [Family::Decimal | Family::Int, Family::Float] if spelled.ends_with(" {})") => {
            spelled = format!("{}CAST({{}} AS DOUBLE))", spelled.trim_end_matches("{})"));
        }
        [Family::Float, Family::Decimal | Family::Int] if spelled.starts_with("({} ") => {
            spelled = format!("(CAST({{}} AS DOUBLE){}", spelled.trim_start_matches("({}"));
        }
        _ => {}
    }
    match of.family {
        // Only of integers: a sum of decimals is one in both.
        Family::Int if spelled.starts_with("sum(") => format!("CAST({spelled} AS BIGINT)"),
        Family::Int if spelled == "({} % 7)" => "({} % 7::BIGINT)".to_owned(),
        Family::Float if spelled == SQUARE_ROOT && of.args.iter().all(is_real) => {
            format!("CAST({spelled} AS REAL)")
        }
        // `date_trunc` of a DATE is a TIMESTAMP in both.
        Family::Text if spelled == "CAST({} AS VARCHAR)" && mixed == [Family::Date] => {
            "replace(CAST({} AS VARCHAR), ' ', 'T')".to_owned()
        }
        Family::Date if spelled.contains("INTERVAL") => format!("CAST({spelled} AS DATE)"),
        _ => spelled,
    }
}

const SQUARE_ROOT: &str = "sqrt(abs({}))";

/// Whether an expression is a REAL column, or a root of one: a REAL in ours, a DOUBLE in DuckDB.
fn is_real(of: &Expr) -> bool {
    match of.args.as_slice() {
        [] => of.template.ends_with(".f32"),
        [inner] => of.template == SQUARE_ROOT && is_real(inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::data;

    #[track_caller]
    fn check(family: Family, template: &str, arg: Option<Expr>, expected: &str) {
        let spelled = expr(&Expr::new(family, template, arg.into_iter().collect()));
        assert_eq!(spelled.to_string(), expected);
    }

    fn column(family: Family) -> Option<Expr> {
        Some(Expr::leaf(family, "t1.c"))
    }

    #[test]
    fn integers_are_divided_and_summed_as_ours_are() {
        check(Family::Int, "({} / 3)", column(Family::Int), "(t1.c // 3::BIGINT)");
        check(Family::Int, "sum({})", column(Family::Int), "CAST(sum(t1.c) AS BIGINT)");
        check(Family::Decimal, "sum({})", column(Family::Decimal), "sum(t1.c)");
        check(
            Family::Int,
            "sum({}) OVER (ORDER BY 1)",
            column(Family::Int),
            "CAST(sum(t1.c) OVER (ORDER BY 1) AS BIGINT)",
        );
        check(Family::Float, "({} / 3.0)", column(Family::Float), "(t1.c / 3.0e0)");
    }

    #[test]
    fn literals_have_the_types_of_ours() {
        check(Family::Int, "-1", None, "CAST(-1 AS BIGINT)");
        check(Family::Float, "3.25", None, "3.25e0");
        check(Family::Float, "t1.c", None, "t1.c");
        check(Family::Int, "t1.c", None, "t1.c");
        check(Family::Text, "'10'", None, "'10'");
        check(Family::List, "make_array(1, 2)", None, "list_value(1, 2)");
    }

    #[test]
    fn a_date_stays_a_date_and_a_text_is_read_as_ours_is() {
        check(
            Family::Date,
            "({} - INTERVAL '1 month')",
            column(Family::Date),
            "CAST((t1.c - INTERVAL '1 month') AS DATE)",
        );
        check(
            Family::Int,
            "TRY_CAST({} AS BIGINT)",
            column(Family::Text),
            "TRY_CAST(regexp_extract(t1.c, '^[+-]?[0-9]+$') AS BIGINT)",
        );
        check(
            Family::Text,
            "CAST({} AS VARCHAR)",
            column(Family::Date),
            "replace(CAST(t1.c AS VARCHAR), ' ', 'T')",
        );
        check(
            Family::Bool,
            "({} LIKE '_\\%%')",
            column(Family::Text),
            "(t1.c LIKE '_\\%%' ESCAPE '\\')",
        );
        check(
            Family::Int,
            "lag({}) IGNORE NULLS OVER (ORDER BY 1)",
            column(Family::Int),
            "lag(t1.c IGNORE NULLS) OVER (ORDER BY 1)",
        );
    }

    #[test]
    fn roots_of_reals_are_reals() {
        let root = |of| Expr::new(Family::Float, SQUARE_ROOT, vec![of]);
        let real = root(Expr::leaf(Family::Float, "t1.f32"));
        assert_eq!(expr(&real).to_string(), "CAST(sqrt(abs(t1.f32)) AS REAL)");
        let double = root(Expr::leaf(Family::Float, "t1.f64"));
        assert_eq!(expr(&double).to_string(), "sqrt(abs(t1.f64))");
    }

    #[test]
    fn floats_beside_other_numbers_are_doubles() {
        let of = |family, name: &str| Expr::leaf(family, name);
        let compared = |left, right| {
            let args = vec![of(left, "a"), of(right, "b")];
            expr(&Expr::new(Family::Bool, "({} < {})", args)).to_string()
        };
        assert_eq!(compared(Family::Decimal, Family::Float), "(a < CAST(b AS DOUBLE))");
        assert_eq!(compared(Family::Float, Family::Int), "(CAST(a AS DOUBLE) < b)");
        assert_eq!(compared(Family::Float, Family::Float), "(a < b)");
    }

    #[test]
    fn semi_joins_are_of_the_left_side() {
        let table = |name: &str| {
            let (name, alias) = ("f".to_owned(), name.to_owned());
            Box::new(Relation::Table { name, alias })
        };
        let on = vec![Expr::leaf(Family::Bool, "a.id = b.id")];
        let join = |kind| {
            relation(&Relation::Join { kind, left: table("a"), right: table("b"), on: on.clone() })
        };
        assert_eq!(join("LEFT SEMI JOIN").to_string(), "f a SEMI JOIN f b ON a.id = b.id");
        assert_eq!(join("RIGHT ANTI JOIN").to_string(), "f b ANTI JOIN f a ON a.id = b.id");
        assert_eq!(join("FULL JOIN").to_string(), "f a FULL JOIN f b ON a.id = b.id");
    }

    #[test]
    fn columns_of_values_are_named() {
        let rows = vec![vec![Expr::leaf(Family::Int, "1"), Expr::leaf(Family::Text, "'a'")]];
        let values = Query { body: Body::Values(rows), ..Query::default() };
        let derived = Relation::Derived { query: Box::new(values), alias: "t1".to_owned() };
        let expected = "(VALUES (CAST(1 AS BIGINT), 'a')) t1(column1, column2)";
        assert_eq!(relation(&derived).to_string(), expected);
    }

    #[test]
    fn tables_have_duckdbs_types() {
        let tables = data::tables(0, false);
        let all: Vec<_> = tables.iter().flat_map(statements).collect();
        let all = all.join("\n");
        for wanted in ["UTINYINT", "UINTEGER", "UBIGINT", "TIMESTAMP_MS", "list_value("] {
            assert!(all.contains(wanted), "{wanted}");
        }
        assert!(!all.contains("UNSIGNED") && !all.contains("DISTKEY"), "{all}");
    }
}
