//! SQL text to statements: what is understood, and where it is.

use basalt_engine::dialect::{
    self, CreateTable, DistributionSpec, ParsedStatement, SQL_BYTES_MAX, Statement,
};
use basalt_engine::error::{ErrorCode, Position};
use basalt_engine::files::{CsvOptions, FileFormat};
use datafusion::sql::parser::Statement as DFStatement;
use proptest::prelude::*;

fn one(sql: &str) -> ParsedStatement {
    dialect::parse_one(sql).unwrap_or_else(|e| panic!("{sql}\n{}", e.render(sql)))
}

fn table(sql: &str) -> CreateTable {
    match one(sql).statement {
        Statement::CreateTable(table) => *table,
        other => panic!("{sql}: {other:?}"),
    }
}

/// The query of a statement as sqlparser prints it.
fn query_text(sql: &str) -> String {
    match one(sql).statement {
        Statement::Query(DFStatement::Statement(query)) => query.to_string(),
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn queries_of_every_kind_are_queries() {
    for sql in [
        "select 1",
        "VALUES (1), (2)",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "FROM t SELECT a",
        "TABLE t",
        "SELECT * FROM read_parquet('/data/*.parquet')",
        "SELECT * FROM read_csv('/data/x.csv', delimiter => '|')",
        "SELECT a FROM t QUALIFY row_number() OVER (ORDER BY a) = 1",
        "SELECT * EXCLUDE (a) FROM t",
    ] {
        assert!(matches!(one(sql).statement, Statement::Query(_)), "{sql}");
    }
    assert_eq!(query_text("table s.t order by a"), "SELECT * FROM s.t ORDER BY a");
}

#[test]
fn a_script_is_split_at_semicolons_outside_of_strings_and_comments() {
    let sql = "select ';' ; -- one; two\n/* ; */ select \";\" from t;;\n ; select $$;$$";
    let statements = dialect::parse(sql).unwrap();
    let texts: Vec<_> = statements.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(texts, ["select ';'", "select \";\" from t", "select $$;$$"]);
    let starts: Vec<_> = statements.iter().map(|s| (s.start.line, s.start.column)).collect();
    assert_eq!(starts, [(1, 1), (2, 9), (3, 4)]);
}

#[test]
fn texts_without_a_statement_are_empty() {
    for sql in ["", "  \n", "-- nothing", "/* /* nested */ */", "\u{feff}", &";".repeat(10_000)] {
        assert_eq!(dialect::parse(sql).unwrap().len(), 0, "{sql:?}");
        assert_eq!(dialect::parse_one(sql).unwrap_err().code, ErrorCode::SyntaxError);
    }
}

#[test]
fn texts_with_wide_characters_are_sliced_correctly() {
    let statements = dialect::parse("select 'ü€𝄞';\r\nselect 'é' AS \"naïve\" ; ").unwrap();
    let texts: Vec<_> = statements.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(texts, ["select 'ü€𝄞'", "select 'é' AS \"naïve\""]);
}

#[test]
fn one_statement_is_one_statement() {
    assert!(matches!(one("select 1;").statement, Statement::Query(_)));
    let error = dialect::parse_one("select 1; drop table t").unwrap_err();
    assert_eq!(error.position, Some(Position { line: 1, column: 11 }));
}

#[test]
fn question_marks_are_numbered_in_order_but_not_in_strings_and_comments() {
    let sql = "select ?, '?', \"?\", $$?$$ /* ? */ -- ?\n from t where a = ? and b in (?, '??')";
    assert_eq!(one(sql).parameters, 3);
    assert_eq!(
        query_text(sql),
        "SELECT $1, '?', \"?\", $$?$$ FROM t WHERE a = $2 AND b IN ($3, '??')"
    );
}

#[test]
fn twelve_parameters_keep_their_order() {
    let sql = format!("select {}", ["?"; 12].join(", "));
    let expected: Vec<_> = (1..=12).map(|n| format!("${n}")).collect();
    assert_eq!(query_text(&sql), format!("SELECT {}", expected.join(", ")));
    assert_eq!(one("select $2, $1, $11, $10, $2").parameters, 11);
}

#[test]
fn each_statement_of_a_script_has_its_own_parameters() {
    let statements = dialect::parse("select ?; select ?, ?").unwrap();
    assert_eq!(statements.iter().map(|s| s.parameters).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn attributes_of_a_table_come_in_any_order_and_place() {
    let clauses = ["DISTSTYLE KEY", "DISTKEY (a)", "COMPOUND SORTKEY (b, a)", "REPLICAS 2"];
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]];
    for order in orders {
        let all: Vec<_> = order.iter().map(|&n| clauses[n]).collect();
        let (some, rest) = all.split_at(2);
        for sql in [
            format!("CREATE TABLE t (a INT, b INT) {}", all.join(" ")),
            format!("CREATE TABLE t {} AS SELECT a, b FROM s", all.join("\n")),
            format!("CREATE TABLE t AS SELECT a, b FROM s {}", all.join(" ")),
            format!("CREATE TABLE t {} AS SELECT a, b FROM s {}", some.join(" "), rest.join(" ")),
            format!("create table t as (select a, b from s) {}", all.join(" ").to_lowercase()),
        ] {
            let table = table(&sql);
            assert_eq!(table.distribution, Some(DistributionSpec::Key("a".into())), "{sql}");
            assert_eq!(table.sort_key, ["b", "a"], "{sql}");
            assert_eq!(table.replicas, Some(2), "{sql}");
        }
    }
}

#[test]
fn columns_can_carry_the_keys() {
    let table = table(
        "CREATE TABLE IF NOT EXISTS s.T (A BIGINT NOT NULL DISTKEY SORTKEY, \"B b\" VARCHAR(10) \
         DEFAULT 'x' NULL, c DECIMAL(12, 2) SORTKEY DEFAULT 1 + 2 NOT NULL)",
    );
    assert_eq!(table.name.to_string(), "s.t");
    assert!(table.if_not_exists && !table.or_replace);
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.data_type.to_string(), c.not_null, c.default.is_some()))
        .collect();
    assert_eq!(
        columns,
        [
            ("a", "BIGINT".to_owned(), true, false),
            ("B b", "VARCHAR(10)".to_owned(), false, true),
            ("c", "DECIMAL(12,2)".to_owned(), true, true),
        ]
    );
    assert_eq!(table.distribution, Some(DistributionSpec::Key("a".into())));
    assert_eq!(table.sort_key, ["a", "c"]);
    assert_eq!(table.columns[1].position, Position { line: 1, column: 68 });
}

#[test]
fn distribution_styles_are_read() {
    for (style, expected) in [
        ("AUTO", DistributionSpec::Auto),
        ("even", DistributionSpec::Even),
        ("All", DistributionSpec::All),
    ] {
        let sql = format!("CREATE OR REPLACE TABLE t (a INT) DISTSTYLE {style} SORTKEY AUTO");
        let table = table(&sql);
        assert!(table.or_replace);
        assert_eq!(table.distribution, Some(expected));
        assert!(table.sort_key.is_empty());
    }
}

#[test]
fn words_of_attributes_stay_names_where_a_query_uses_them() {
    let table =
        table("CREATE TABLE t AS SELECT sortkey, replicas FROM distkey WHERE diststyle > 1");
    assert_eq!(table.distribution, None);
    assert_eq!(
        table.query.unwrap().to_string(),
        "SELECT sortkey, replicas FROM distkey WHERE diststyle > 1"
    );
}

#[test]
fn views_keep_the_text_of_their_query() {
    let sql = "create or replace view s.V (\"X\", y) as\n  select a, -- first\n b from t ;";
    let Statement::CreateView(view) = one(sql).statement else { panic!() };
    assert_eq!(view.query_text, "select a, -- first\n b from t");
    assert_eq!(view.name.to_string(), "s.v");
    assert_eq!(view.columns, ["X", "y"]);
    assert!(view.or_replace);
}

#[test]
fn schemas_and_drops_are_read() {
    let Statement::CreateSchema(schema) = one("CREATE SCHEMA IF NOT EXISTS Sales").statement else {
        panic!()
    };
    assert!(schema.name == "sales" && schema.if_not_exists);
    let Statement::DropSchema(drop) = one("drop schema if exists basalt.a cascade").statement
    else {
        panic!()
    };
    assert!(drop.name == "a" && drop.if_exists && drop.cascade);
    let Statement::DropTable(drop) = one("DROP TABLE a, basalt.s.\"B\" RESTRICT").statement else {
        panic!()
    };
    let names: Vec<_> = drop.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "s.B"]);
    assert!(
        matches!(one("DROP VIEW IF EXISTS v").statement, Statement::DropView(d) if d.if_exists)
    );
}

#[test]
fn inserts_take_values_and_queries() {
    for (sql, columns, source) in [
        ("INSERT INTO t VALUES (1, ?)", vec![], "VALUES (1, $1)"),
        ("insert into s.t (A, \"B\") select 1, 2", vec!["a", "B"], "SELECT 1, 2"),
        ("INSERT INTO t (SELECT 1)", vec![], "(SELECT 1)"),
        (
            "INSERT INTO TABLE t WITH x AS (SELECT 1) SELECT * FROM x",
            vec![],
            "WITH x AS (SELECT 1) SELECT * FROM x",
        ),
        ("INSERT INTO t (values) VALUES (1)", vec!["values"], "VALUES (1)"),
    ] {
        let Statement::Insert(insert) = one(sql).statement else { panic!("{sql}") };
        assert_eq!(insert.columns, columns, "{sql}");
        assert_eq!(insert.source.unwrap().to_string(), source, "{sql}");
    }
}

#[test]
fn copies_take_options_of_both_dialects() {
    let plain = CsvOptions::default();
    let pipes = CsvOptions { delimiter: b'|', header: false, null: "\\N".into(), ..plain.clone() };
    for (sql, format, options) in [
        ("COPY t FROM '/d/*.parquet'", None, plain.clone()),
        ("COPY t FROM '/d' FORMAT AS PARQUET", Some(FileFormat::Parquet), plain.clone()),
        ("copy s.t (a, b) from 'x' csv", Some(FileFormat::Csv), plain.clone()),
        (
            "COPY t FROM 'x' FORMAT CSV DELIMITER AS '|' IGNOREHEADER 0 NULL AS '\\N'",
            Some(FileFormat::Csv),
            pipes.clone(),
        ),
        (
            "COPY t FROM 'x' WITH (FORMAT csv, DELIMITER '|', HEADER false, NULL '\\N')",
            Some(FileFormat::Csv),
            pipes.clone(),
        ),
        (
            "COPY t FROM 'x' (DELIMITER '\\t', QUOTE '''', ESCAPE '\\')",
            Some(FileFormat::Csv),
            CsvOptions { delimiter: b'\t', quote: b'\'', escape: Some(b'\\'), ..plain },
        ),
    ] {
        let Statement::CopyFrom(copy) = one(sql).statement else { panic!("{sql}") };
        assert_eq!((copy.format, copy.options), (format, options), "{sql}");
    }
}

#[test]
fn settings_are_read_as_text() {
    let set = |sql: &str| match one(sql).statement {
        Statement::Set { name, value } => (name, value),
        other => panic!("{sql}: {other:?}"),
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(set("SET Statement_Timeout = 10"), pair("statement_timeout", "10"));
    assert_eq!(set("set session a.b to 'Text'"), pair("a.b", "Text"));
    assert_eq!(set("SET search_path TO a, public"), pair("search_path", "a, public"));
    assert_eq!(set("SET TIME ZONE 'UTC'"), pair("timezone", "UTC"));
    assert_eq!(set("SET x = -1.5"), pair("x", "-1.5"));
    assert!(
        matches!(one("SET x TO DEFAULT").statement, Statement::Reset { name: Some(n) } if n == "x")
    );
    assert!(matches!(one("RESET ALL").statement, Statement::Reset { name: None }));
}

#[test]
fn what_can_be_shown_is_known() {
    assert!(matches!(one("SHOW ALL").statement, Statement::Show { name: None }));
    assert!(
        matches!(one("show Search_Path").statement, Statement::Show { name: Some(n) } if n == "search_path")
    );
    assert!(matches!(one("SHOW TABLES").statement, Statement::ShowTables));
    assert!(matches!(one("SHOW SCHEMAS").statement, Statement::ShowSchemas));
    assert!(
        matches!(one("SHOW COLUMNS FROM a.t").statement, Statement::ShowColumns(t) if t.to_string() == "a.t")
    );
    assert!(matches!(one("DESCRIBE t").statement, Statement::Describe(_)));
    assert!(matches!(one("desc table t").statement, Statement::Describe(_)));
}

#[test]
fn explanations_have_options_and_a_plan() {
    let explain = |sql: &str| match one(sql).statement {
        Statement::Explain(e) => {
            (e.analyze, e.verbose, e.format.map(|f| f.to_string()), e.statement.kind())
        }
        other => panic!("{sql}: {other:?}"),
    };
    let tree = Some("tree".to_owned());
    assert_eq!(explain("EXPLAIN SELECT 1"), (false, false, None, "SELECT"));
    assert_eq!(explain("EXPLAIN ANALYZE VERBOSE SELECT ?"), (true, true, None, "SELECT"));
    assert_eq!(explain("explain format tree select 1"), (false, false, tree.clone(), "SELECT"));
    assert_eq!(explain("EXPLAIN (ANALYZE, FORMAT tree) SELECT 1"), (true, false, tree, "SELECT"));
    assert_eq!(explain("EXPLAIN (SELECT 1)"), (false, false, None, "SELECT"));
    assert_eq!(explain("EXPLAIN INSERT INTO t SELECT 1"), (false, false, None, "INSERT"));
    assert_eq!(explain("EXPLAIN CREATE TABLE t AS SELECT 1").3, "CREATE TABLE AS");
    assert_eq!(explain("EXPLAIN COPY t FROM 'x'").3, "COPY");
}

#[test]
fn transactions_are_parsed() {
    for sql in [
        "BEGIN",
        "begin work",
        "START TRANSACTION READ ONLY",
        "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    ] {
        assert!(matches!(one(sql).statement, Statement::Begin), "{sql}");
    }
    for sql in ["COMMIT", "END", "commit transaction"] {
        assert!(matches!(one(sql).statement, Statement::Commit), "{sql}");
    }
    for sql in ["ROLLBACK", "ABORT WORK"] {
        assert!(matches!(one(sql).statement, Statement::Rollback), "{sql}");
    }
}

#[test]
fn names_of_paths_and_emoji_are_only_names() {
    for name in ["../../etc", ".", "a/b", "%2e%2e", " ", "CON", "🦀", "a\nb"] {
        assert_eq!(table(&format!("CREATE TABLE \"{name}\" (a INT)")).name.name, name);
    }
    let long = "x".repeat(255);
    assert_eq!(table(&format!("CREATE TABLE {long} (a INT)")).name.name, long);
}

#[test]
fn a_table_of_ten_thousand_columns_is_parsed() {
    let columns: Vec<_> = (0..10_000).map(|n| format!("c{n} INT")).collect();
    assert_eq!(table(&format!("CREATE TABLE t ({})", columns.join(","))).columns.len(), 10_000);
}

/// On a stack as small as a tokio worker's.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    on_a_small_stack(|| {
        for (open, close) in [
            ("(", ")"),
            ("CASE WHEN ", " THEN 1 END"),
            ("NOT ", ""),
            ("- ", ""),
            ("f(", ")"),
            ("(SELECT ", ")"),
            ("[", "]"),
            ("CAST(", " AS INT)"),
        ] {
            for depth in [60, 1_000, 10_000] {
                let sql = format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth));
                let error = dialect::parse(&sql).unwrap_err();
                let code = error.code;
                assert!(
                    matches!(code, ErrorCode::InvalidStatement | ErrorCode::SyntaxError),
                    "{open} {depth}"
                );
                assert!(error.position.is_some());
            }
        }
        for sql in [
            format!("SELECT * FROM {}t{}", "(".repeat(45), ")".repeat(45)),
            format!("SELECT * FROM {}", "(SELECT * FROM ".repeat(45)),
            format!("SELECT {}", "extract(".repeat(45)),
            format!("SELECT {}", "position(".repeat(45)),
            format!("SELECT {}", "CASE WHEN ".repeat(45)),
            format!("SELECT {}", "x IN (".repeat(45)),
            format!("SELECT {}", "exists(".repeat(45)),
            format!("SELECT {}", "f(a => ".repeat(45)),
            format!("SELECT {}", "struct(".repeat(45)),
            format!("CREATE TABLE t (a {} INT", "STRUCT<a ".repeat(45)),
            format!("CREATE TABLE t (a {} INT", "ARRAY<".repeat(5_000)),
        ] {
            let started = std::time::Instant::now();
            let _either_way = dialect::parse(&sql);
            assert!(started.elapsed().as_secs() < 20, "exponential: {sql}");
        }
    });
}

/// Brackets inside brackets, each the first of a chain: heights that only together are too much.
fn towers_of_brackets() -> String {
    let chain = " + 1".repeat(300);
    format!("SELECT {}1{}", "(".repeat(30), format!("{chain})").repeat(30))
}

/// The same with CASE, and with a column that is called like its end.
fn towers_of_cases() -> String {
    let chain = " + 1".repeat(300);
    format!("SELECT {}1{}", "CASE WHEN t.end THEN ".repeat(30), format!("{chain} END").repeat(30))
}

#[test]
fn long_chains_are_an_error_or_fine_and_no_stack_overflow() {
    on_a_small_stack(|| {
        for (sql, fine) in [
            (format!("SELECT 1 WHERE {}", vec!["a.b = 1"; 490].join(" OR ")), true),
            (format!("SELECT 1 WHERE {}", vec!["a = 1"; 3_000].join(" OR ")), false),
            (format!("SELECT 1 WHERE {}", vec!["a = 1"; 100_000].join(" OR ")), false),
            (format!("SELECT {}", vec!["1"; 490].join(" + ")), true),
            (format!("SELECT {}", vec!["1"; 3_000].join(" + ")), false),
            (format!("SELECT {}", vec![vec!["1"; 400].join(" + "); 100].join(", ")), true),
            (format!("SELECT CASE {} END", "WHEN a = 1 AND b THEN a + 1 ".repeat(1_000)), true),
            (towers_of_brackets(), false),
            (towers_of_cases(), false),
            (format!("SELECT {}", vec!["1"; 100_000].join(" + ")), false),
            (vec!["SELECT 1"; 1_500].join(" UNION ALL "), true),
            (vec!["SELECT 1"; 3_000].join(" UNION ALL "), false),
            (vec!["SELECT 1"; 50_000].join(" UNION ALL "), false),
            (format!("SELECT a{}", "[1]".repeat(50_000)), false),
            (format!("SELECT a{}", "::INT".repeat(50_000)), false),
            (format!("SELECT 1 WHERE a IN ({})", vec!["1"; 200_000].join(",")), true),
            (format!("SELECT * FROM {}", vec!["t"; 200].join(" CROSS JOIN ")), true),
            (format!("SELECT * FROM {}", vec!["t"; 3_000].join(" CROSS JOIN ")), false),
        ] {
            let start: String = sql.chars().take(40).collect();
            match dialect::parse(&sql) {
                Ok(_) => assert!(fine, "{start}"),
                Err(error) => {
                    assert!(!fine, "{start}: {error}");
                    assert_eq!(error.code, ErrorCode::InvalidStatement, "{start}: {error}");
                }
            }
        }
    });
}

#[test]
fn a_text_over_a_limit_is_refused_unparsed() {
    for (sql, part) in [
        (" ".repeat(SQL_BYTES_MAX + 1), "bytes"),
        (" ".repeat(SQL_BYTES_MAX), "words, signs and spaces"),
        (",".repeat(3_000_000), "words, signs and spaces"),
        (format!("SELECT {}", vec!["1"; 300_000].join(",")), "words and signs"),
    ] {
        let error = dialect::parse(&sql).unwrap_err();
        assert_eq!(error.code, ErrorCode::ResourcesExhausted);
        assert!(error.message.contains(part) && error.hint.is_some(), "{error:?}");
    }
    // One literal of many bytes is one word.
    let literal = format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX - 100));
    assert_eq!(dialect::parse(&literal).unwrap().len(), 1);
}

#[track_caller]
fn check_size(sql: &str, refusal: Option<&str>) {
    match (dialect::parse(sql), refusal) {
        (Ok(_), None) => {}
        (Err(error), Some(part)) => {
            assert_eq!(error.code, ErrorCode::InvalidStatement, "{error}");
            assert!(error.message.contains(part) && error.position.is_some(), "{error:?}");
        }
        (result, _) => panic!("{result:?}"),
    }
}

#[test]
fn with_clauses_count_as_often_as_they_are_named() {
    let tower = |levels: usize| {
        let mut sql = "WITH a0 AS (SELECT 1 AS x)".to_owned();
        for level in 1..=levels {
            let below = level - 1;
            sql += &format!(", a{level} AS (SELECT l.x FROM a{below} l, A{below} r)");
        }
        format!("{sql} SELECT * FROM a{levels}")
    };
    check_size(&tower(8), None);
    check_size(&tower(40), Some("WITH clauses written out"));
    // Clauses that nobody names, names of the same letters that are no clauses, and a clause
    // that is seen only inside of its own query.
    let many: Vec<_> = (0..500).map(|n| format!("a{n} AS (SELECT 1 AS x)")).collect();
    check_size(&format!("WITH {} SELECT * FROM a1, \"A1\", s.a1", many.join(", ")), None);
    let inner = tower(8).replace("SELECT * FROM a8", "SELECT 1 FROM a0");
    check_size(&format!("SELECT * FROM ({inner}) t, a8"), None);
}

#[test]
fn subqueries_in_each_other_and_grouping_sets_are_bounded() {
    let scalar =
        |depth: usize| format!("SELECT {}1{}", "(SELECT ".repeat(depth), ")".repeat(depth));
    check_size(&scalar(12), None);
    check_size(&scalar(13), Some("more than 12 subqueries are nested"));
    let each_in = |before: &str, depth: usize| {
        let one = format!("SELECT 1 FROM t WHERE {before} (");
        format!("{}SELECT 1{}", one.repeat(depth), ")".repeat(depth))
    };
    for before in ["a IN", "a NOT IN", "EXISTS", "a = ANY"] {
        check_size(&each_in(before, 12), None);
        check_size(&each_in(before, 13), Some("more than 12 subqueries are nested"));
    }
    check_size(&format!("SELECT {}", vec!["(SELECT 1)"; 100].join(", ")), None);
    let cube = |columns: usize| {
        let columns: Vec<_> = (0..columns).map(|n| format!("c{n}")).collect();
        format!("SELECT 1 FROM t GROUP BY CUBE ({})", columns.join(", "))
    };
    check_size(&cube(12), None);
    check_size(&cube(13), Some("GROUP BY makes 8192 sets"));
    check_size(&cube(70), Some("sets"));
    check_size(&format!("{}, ROLLUP (a, b)", cube(11)), Some("GROUP BY makes 6144 sets"));
    check_size("SELECT 1 FROM t GROUP BY GROUPING SETS ((a, b), (a), ())", None);
}

#[test]
fn joins_and_wildcards_of_one_select_are_bounded() {
    check_size(&format!("SELECT 1 FROM {}", vec!["t"; 200].join(", ")), None);
    check_size(&format!("SELECT 1 FROM {}", vec!["t"; 201].join(", ")), Some("201 relations"));
    check_size(&format!("SELECT {} FROM t", vec!["t.*"; 101].join(", ")), Some("101 wildcards"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_parsed_or_refused(sql in "\\PC{0,200}") {
        let _either_way = dialect::parse(&sql);
    }

    #[test]
    fn any_words_of_the_dialect_are_parsed_or_refused(
        words in prop::collection::vec(prop::sample::select(vec![
            "CREATE", "TABLE", "VIEW", "t", "(", ")", "a", "INT", ",", "DISTKEY", "SORTKEY", "AS",
            "SELECT", "1", "FROM", "COPY", "'x'", "WITH", "SET", "=", ";", "EXPLAIN", "DROP",
            "SHOW", "INSERT", "INTO", "VALUES", "?", "$1", "NOT", "NULL", "*", "REPLICAS", "ENCODE", "AUTO",
            "RAW", "ANALYZE", "COMPRESSION", "\n",
        ]), 0..30)
    ) {
        let sql = words.join(" ");
        if let Err(error) = dialect::parse(&sql) {
            let _rendered = error.render(&sql);
        }
    }
}
