//! Keys, defaults, the search path and the names of views, as they are parsed.

use basalt_engine::dialect::{self, CreateTable, KeySpecKind, Statement};
use basalt_engine::error::{ErrorCode, Position};
use basalt_engine::settings::{SEARCH_PATH, Settings};
use basalt_engine::types::split_length;

fn one(sql: &str) -> Statement {
    dialect::parse_one(sql).unwrap_or_else(|e| panic!("{sql}: {}", e.message)).statement
}

fn table(sql: &str) -> CreateTable {
    match one(sql) {
        Statement::CreateTable(table) => *table,
        other => panic!("{sql}: {}", other.kind()),
    }
}

#[test]
fn keys_are_read_from_columns_and_from_the_table() {
    let table = table(
        "CREATE TABLE c (a INT PRIMARY KEY, b INT CONSTRAINT b_once UNIQUE NOT ENFORCED NOT NULL, \
         c INT REFERENCES s.p (x), UNIQUE (b, c), d INT, \
         CONSTRAINT up FOREIGN KEY (c, d) REFERENCES p)",
    );
    let keys: Vec<_> = table
        .keys
        .iter()
        .map(|key| {
            let columns: Vec<_> = key.columns.iter().map(|(name, _)| name.as_str()).collect();
            let kind = match &key.kind {
                KeySpecKind::Primary => "primary".to_owned(),
                KeySpecKind::Unique => "unique".to_owned(),
                KeySpecKind::Foreign { table, columns } => format!("{table} {columns:?}"),
            };
            format!("{} {columns:?} {kind}", key.name.as_deref().unwrap_or("-"))
        })
        .collect();
    assert_eq!(
        keys,
        [
            "- [\"a\"] primary",
            "b_once [\"b\"] unique",
            "- [\"c\"] s.p [\"x\"]",
            "- [\"b\", \"c\"] unique",
            "up [\"c\", \"d\"] p []",
        ]
    );
    let not_null: Vec<_> = table.columns.iter().map(|column| column.not_null).collect();
    assert_eq!(not_null, [true, true, false, false]);
}

#[test]
fn columns_may_be_called_like_constraints() {
    let table = table("CREATE TABLE t (\"unique\" INT, constraint INT, \"check\" INT, key INT)");
    assert_eq!(table.columns.len(), 4);
    assert!(table.keys.is_empty());
}

#[test]
fn a_default_is_kept_as_it_is_written() {
    let table = table(
        "CREATE TABLE t (a INT DEFAULT 1 +  2 NOT NULL, b TEXT DEFAULT 'it''s', \
         c DATE DEFAULT current_date)",
    );
    let texts: Vec<_> = table.columns.iter().filter_map(|c| c.default.clone()).collect();
    let at = |column| Position { line: 1, column };
    assert_eq!(
        texts,
        [
            ("1 +  2".to_owned(), at(31)),
            ("'it''s'".to_owned(), at(63)),
            ("current_date".to_owned(), at(87))
        ]
    );
    for (text, _) in texts {
        assert_eq!(dialect::parse_expression(&text).unwrap().to_string(), text.replace("  ", " "));
    }
    assert!(dialect::parse_expression("1; 2").is_err());
    assert!(dialect::parse_expression("1 2").is_err());
    assert!(dialect::parse_expression("").is_err());
}

#[test]
fn default_values_are_an_insert_without_a_source() {
    let Statement::Insert(insert) = one("INSERT INTO t DEFAULT VALUES") else { panic!() };
    assert!(insert.source.is_none() && insert.columns.is_empty());
    // With columns it is not in the standard either.
    assert!(dialect::parse_one("INSERT INTO t (a) DEFAULT VALUES").is_err());
}

#[track_caller]
fn check_path(sql: &str, path: &[&str]) {
    let Statement::Set { name, value } = one(sql) else { panic!("{sql}") };
    assert_eq!(name, SEARCH_PATH);
    let mut settings = Settings::default();
    settings.set(&name, &value).unwrap();
    assert_eq!(settings.search_path, path, "{sql}");
    let shown = settings.get(SEARCH_PATH).unwrap().value;
    settings.set(SEARCH_PATH, &shown).unwrap();
    assert_eq!(settings.search_path, path, "{sql}: shown as {shown}");
}

#[test]
fn a_search_path_is_a_list_of_names() {
    check_path("SET search_path TO a, Public", &["a", "public"]);
    check_path("set SEARCH_PATH = \"A b\", 'x, y', \"q\"\"q\"", &["A b", "x, y", "q\"q"]);
    check_path("SET search_path TO a, b, a", &["a", "b"]);
    check_path("SET SCHEMA 'Sales'", &["Sales"]);
    check_path("SET SCHEMA sales", &["sales"]);
    check_path("SET SCHEMA = \"user\"", &["user"]);
    for sql in ["SET search_path TO", "SET search_path TO a b", "SET SCHEMA", "SET SCHEMA ''"] {
        assert!(dialect::parse_one(sql).is_err(), "{sql}");
    }
    let mut settings = Settings::default();
    for value in ["", "a,,b", "\"a"] {
        let error = settings.set(SEARCH_PATH, value).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParameter, "{value}");
    }
    assert_eq!(settings, Settings::default());
    let Statement::Reset { name } = one("SET search_path TO DEFAULT") else { panic!() };
    assert_eq!(name.as_deref(), Some(SEARCH_PATH));
}

/// The view's text with `<>` before each name that a search path decides about.
fn marked(query: &str) -> String {
    let Statement::CreateView(view) = one(&format!("CREATE VIEW v AS {query}")) else { panic!() };
    let mut text = view.query_text.clone();
    for (name, start) in view.unqualified.iter().rev() {
        assert!(text[*start..].trim_start_matches('"').starts_with(name), "{name} in {text}");
        text.insert_str(*start, "<>");
    }
    text
}

#[test]
fn a_view_knows_its_names_without_a_schema() {
    for (query, expected) in [
        ("SELECT 1", "SELECT 1"),
        ("SELECT t.a FROM t, s.u", "SELECT t.a FROM <>t, s.u"),
        ("TABLE t", "TABLE <>t"),
        (
            "SELECT * FROM t x JOIN \"T\" ON x.a IN (SELECT a\n  FROM t)",
            "SELECT * FROM <>t x JOIN <>\"T\" ON x.a IN (SELECT a\n  FROM <>t)",
        ),
        // The first query of a WITH clause does not see its own name, what follows does.
        (
            "WITH t AS (SELECT * FROM t), u AS (SELECT * FROM t) SELECT * FROM t, u, w",
            "WITH t AS (SELECT * FROM <>t), u AS (SELECT * FROM t) SELECT * FROM t, u, <>w",
        ),
        (
            "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t",
            "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t",
        ),
        (
            "SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) x, t",
            "SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) x, <>t",
        ),
        (
            "SELECT * FROM generate_series(1, 2) g, t AS \"ä\" JOIN u ON true",
            "SELECT * FROM generate_series(1, 2) g, <>t AS \"ä\" JOIN <>u ON true",
        ),
    ] {
        assert_eq!(marked(query), expected);
    }
}

#[test]
fn lengths_of_text_are_split_off() {
    for (name, chars) in [
        ("VARCHAR(10)", Some(10)),
        ("CHARACTER VARYING(3)", Some(3)),
        ("CHAR", Some(1)),
        ("CHAR(2)", Some(2)),
        ("VARCHAR", None),
        ("TEXT", None),
        ("INTEGER", None),
    ] {
        let table = table(&format!("CREATE TABLE t (a {name})"));
        assert_eq!(split_length(&table.columns[0].data_type).unwrap().1, chars, "{name}");
    }
    for name in ["VARCHAR(0)", "CHAR(10485761)", "VARCHAR(3 OCTETS)"] {
        let table = table(&format!("CREATE TABLE t (a {name})"));
        let error = split_length(&table.columns[0].data_type).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParameter, "{name}");
    }
}

#[test]
fn a_column_that_comes_twice_gets_a_name_of_its_own() {
    for (sql, expected) in [
        ("SELECT a, 1, A FROM t", "SELECT a, 1, A AS \"\u{2}0\u{2}2\" FROM t"),
        ("SELECT 1::INT, 1::TEXT", "SELECT 1::INT, 1::TEXT AS \"\u{2}0\u{2}1\""),
        ("SELECT 'a', 'A'", "SELECT 'a', 'A'"),
        ("SELECT a AS x, b AS x", "SELECT a AS x, b AS \"\u{2}0\u{2}1\""),
        // What could be meant by ORDER BY or by an outer query stays an error.
        ("SELECT a AS x, b AS x ORDER BY x", "SELECT a AS x, b AS x ORDER BY x"),
        ("SELECT x FROM (SELECT a AS x, b AS x)", "SELECT x FROM (SELECT a AS x, b AS x)"),
        // What a wildcard has is not known.
        (
            "SELECT *, A, t.a FROM t",
            "SELECT *, A AS \"\u{2}=a\u{2}1\", t.a AS \"\u{2}=a\u{2}2\" FROM t",
        ),
        (
            "SELECT *, a, t.a FROM t ORDER BY a",
            "SELECT *, a AS \"\u{2}=a\u{2}1\", t.a FROM t ORDER BY a",
        ),
        // Columns that are matched by their names keep them.
        (
            "SELECT *, x FROM t, u UNION ALL BY NAME SELECT x FROM u",
            "SELECT *, x FROM t, u UNION ALL BY NAME SELECT x FROM u",
        ),
        ("SELECT t.*, a FROM t, u ORDER BY u.a", "SELECT t.*, a FROM t, u ORDER BY u.a"),
    ] {
        let Statement::Query(query) = one(sql) else { panic!() };
        assert_eq!(query.to_string(), expected);
    }
}

#[test]
fn expressions_of_later_branches_are_not_called_like_columns() {
    let named = |sql: &str| format!("SELECT a, 1 FROM t {sql}");
    for (sql, expected) in [
        ("UNION SELECT 2, a FROM u", "UNION SELECT 2 AS \"?column?1\", a FROM u"),
        ("UNION ALL BY NAME SELECT 2, a FROM u", "UNION ALL BY NAME SELECT 2, a FROM u"),
        // ORDER BY of several branches goes by the names of their first.
        (
            "UNION ALL (SELECT max(a), 2 FROM t UNION ALL SELECT 3, a FROM u ORDER BY 1)",
            "UNION ALL (SELECT max(a), 2 FROM t UNION ALL SELECT 3 AS \"?column?1\", a FROM u ORDER BY 1)",
        ),
        // ORDER BY of DISTINCT rows finds them by what they are.
        (
            "EXCEPT (SELECT DISTINCT 2, a FROM u ORDER BY 2, a)",
            "EXCEPT (SELECT DISTINCT 2, a FROM u ORDER BY 2, a)",
        ),
    ] {
        let Statement::Query(query) = one(&named(sql)) else { panic!() };
        assert_eq!(query.to_string(), named(expected));
    }
}

#[test]
fn a_long_list_of_rows_is_joined_where_each_place_has_one_kind_of_constant() {
    let in_list = |last: &str, count: usize| {
        let rows: Vec<_> = (1..count).map(|k| format!("({k}, 'x')")).collect();
        format!("SELECT a FROM t WHERE (a, b) IN ({}, {last})", rows.join(", "))
    };
    for (sql, is_joined) in [
        (in_list("(0, NULL)", 33), true),
        (in_list("(0, 'y')", 32), false),
        (in_list("('0', 'y')", 33), false),
        (in_list("(0, 1.5)", 33), false),
    ] {
        let Statement::Query(query) = one(&sql) else { panic!() };
        assert_eq!(query.to_string().contains("compare_rows"), is_joined, "{sql}");
    }
}

#[test]
fn what_is_joined_to_a_lateral_table_is_joined_to_those_before_it() {
    let all = |from: &str| format!("SELECT a FROM {from}");
    for (from, expected) in [
        (
            "t, u JOIN w ON u.a = w.a, LATERAL (SELECT t.a) AS v LEFT JOIN x ON x.a = v.a",
            "t CROSS JOIN (u JOIN w ON u.a = w.a) CROSS JOIN LATERAL (SELECT t.a) AS v LEFT JOIN x ON x.a = v.a",
        ),
        (
            "t, LATERAL (SELECT t.a) AS v FULL JOIN x ON x.a = v.a",
            "t, LATERAL (SELECT t.a) AS v FULL JOIN x ON x.a = v.a",
        ),
        ("t, LATERAL (SELECT t.a) AS v", "t, LATERAL (SELECT t.a) AS v"),
        // A name that v is known to have, and one that t might have.
        (
            "t, LATERAL (SELECT t.a AS m) AS v JOIN x ON x.a = m",
            "t CROSS JOIN LATERAL (SELECT t.a AS m) AS v JOIN x ON x.a = m",
        ),
        (
            "t, LATERAL (SELECT t.a AS m) AS v JOIN x ON a = m",
            "t, LATERAL (SELECT t.a AS m) AS v JOIN x ON a = m",
        ),
        // v calls it otherwise.
        (
            "t, LATERAL (SELECT t.a AS m) AS v (n) JOIN x ON x.a = m",
            "t, LATERAL (SELECT t.a AS m) AS v (n) JOIN x ON x.a = m",
        ),
    ] {
        let Statement::Query(query) = one(&all(from)) else { panic!() };
        assert_eq!(query.to_string(), all(expected));
    }
}

#[test]
fn a_cast_to_a_length_cuts() {
    for (sql, expected) in [
        ("SELECT CAST(a AS VARCHAR(3))", "SELECT left(CAST(a AS TEXT), 3)"),
        ("SELECT a::CHAR(2)::VARCHAR", "SELECT left(a::TEXT, 2)::TEXT"),
        ("SELECT TRY_CAST(a AS INTEGER)", "SELECT TRY_CAST(a AS INTEGER)"),
        (
            "SELECT current_schema, \"current_schema\"",
            "SELECT current_schema(), \"current_schema\"",
        ),
    ] {
        let Statement::Query(query) = one(sql) else { panic!() };
        assert_eq!(query.to_string(), expected);
    }
}
