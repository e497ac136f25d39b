//! `LABEL 'key'`: where it is read, what it is taken off, and what goes on to mean itself.

use basalt_engine::dialect::{self, LABEL_BYTES_MAX, Statement};
use basalt_engine::error::{ErrorCode, Position};
use basalt_engine::settings::WriteConsistency;

/// The label of a statement, and the statement's text without it.
fn label(sql: &str) -> (Option<String>, String) {
    let parsed = dialect::parse_one(sql).unwrap_or_else(|e| panic!("{sql}\n{}", e.render(sql)));
    (parsed.label.as_ref().map(|label| label.key.clone()), parsed.text_without_label().to_owned())
}

#[test]
fn statements_that_write_end_in_a_label() {
    for sql in [
        "COPY t FROM '/x'",
        "COPY t (a, b) FROM '/x' FORMAT AS CSV DELIMITER '|' NULL 'none'",
        "COPY t FROM '/x' WITH (FORMAT csv)",
        "INSERT INTO t VALUES (1, 'a')",
        "INSERT INTO t (a) SELECT a FROM s",
        "INSERT INTO t SELECT 'a'",
        "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t VALUES (?)",
        "UPDATE t SET a = 'x'",
        "DELETE FROM t",
        "DELETE FROM t WHERE a = 'x'",
        "CREATE TABLE t (a TEXT)",
        "CREATE TABLE t AS SELECT 1 AS a SORTKEY (a)",
        "CREATE TABLE t AS SELECT a FROM s",
        "CREATE VIEW v AS SELECT a FROM s",
        "CREATE SCHEMA s",
        "DROP TABLE a, b",
        "DROP VIEW v",
        "DROP SCHEMA s CASCADE",
    ] {
        assert_eq!(label(sql), (None, sql.to_owned()));
        let labelled = format!("{sql} LABEL 'load 2026-11-28'");
        assert_eq!(label(&labelled), (Some("load 2026-11-28".to_owned()), sql.to_owned()));
        let labelled = format!("-- one\n{sql}\n  label 'ä''s' -- two\n;");
        assert_eq!(label(&labelled), (Some("ä's".to_owned()), sql.to_owned()));
    }
}

#[test]
fn every_statement_of_a_script_has_its_own() {
    let script = "INSERT INTO t VALUES (1) LABEL 'a'; INSERT INTO t VALUES (2);\n\
                  DELETE FROM t LABEL 'b'";
    let statements = dialect::parse(script).unwrap();
    let labels = statements.iter().map(|s| s.label.as_ref().map(|l| (l.key.as_str(), l.position)));
    let at = |line, column| Position { line, column };
    let expected = [Some(("a", at(1, 26))), None, Some(("b", at(2, 15)))];
    assert_eq!(labels.collect::<Vec<_>>(), expected);
    assert_eq!(statements[2].text_without_label(), "DELETE FROM t");
}

#[test]
fn what_is_called_label_goes_on_to_mean_itself() {
    for sql in [
        "SELECT label FROM t",
        "SELECT a label",
        "SELECT a AS label",
        "SELECT label \"k\" FROM t",
        "SELECT * FROM t label",
        "INSERT INTO t SELECT a label",
        "INSERT INTO t (label) VALUES ('k')",
        "UPDATE t SET label = 'k'",
        "DELETE FROM t WHERE label LIKE 'k'",
        "CREATE TABLE t (label TEXT DEFAULT 'k')",
        "COPY label FROM 'k'",
    ] {
        assert_eq!(label(sql).0, None, "{sql}");
    }
    let (key, text) = label("DELETE FROM t WHERE label = 'k' LABEL 'k'");
    assert_eq!((key.as_deref(), text.as_str()), (Some("k"), "DELETE FROM t WHERE label = 'k'"));
}

#[test]
fn the_text_of_a_view_has_no_label() {
    let parsed = dialect::parse_one("CREATE VIEW v AS SELECT 'a' AS a LABEL 'k'").unwrap();
    let Statement::CreateView(view) = parsed.statement else { panic!("no view") };
    assert_eq!(view.query_text, "SELECT 'a' AS a");
}

#[test]
fn a_label_has_at_most_255_bytes() {
    let insert = |key: &str| dialect::parse_one(&format!("INSERT INTO t VALUES (1) LABEL '{key}'"));
    assert!(insert(&"k".repeat(LABEL_BYTES_MAX)).is_ok());
    for key in ["k".repeat(LABEL_BYTES_MAX + 1), "ä".repeat(LABEL_BYTES_MAX / 2 + 1)] {
        let error = insert(&key).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParameter);
        assert_eq!(error.message, "the label is longer than 255 bytes");
        assert_eq!(error.position, Some(Position { line: 1, column: 32 }));
    }
}

#[test]
fn a_consistency_stands_before_the_label() {
    let consistency = |sql: &str| dialect::parse_one(sql).unwrap().consistency;
    for (sql, expected) in [
        ("INSERT INTO t VALUES (1)", None),
        ("INSERT INTO t VALUES (1) WITH CONSISTENCY one", Some(WriteConsistency::One)),
        ("DELETE FROM t with consistency 'quorum' LABEL 'k'", Some(WriteConsistency::Quorum)),
        ("CREATE TABLE u AS SELECT 1 AS a WITH CONSISTENCY ALL", Some(WriteConsistency::All)),
        ("INSERT INTO t SELECT a FROM consistency one", None),
        ("INSERT INTO t SELECT a consistency", None),
    ] {
        assert_eq!(consistency(sql), expected, "{sql}");
    }
    let labelled = "INSERT INTO t VALUES (1) WITH CONSISTENCY one LABEL 'k'";
    let parsed = dialect::parse_one(labelled).unwrap();
    assert_eq!(parsed.text_without_label(), "INSERT INTO t VALUES (1) WITH CONSISTENCY one");
    for (sql, message, column) in [
        ("SELECT 1 WITH CONSISTENCY one", "SELECT takes no WITH CONSISTENCY", 10),
        (
            "INSERT INTO t VALUES (1) WITH CONSISTENCY most",
            "setting \"write_consistency\" cannot be 'most'",
            43,
        ),
    ] {
        let error = dialect::parse_one(sql).unwrap_err();
        assert_eq!(error.message, message, "{sql}");
        assert_eq!(error.position, Some(Position { line: 1, column }), "{sql}");
    }
}
