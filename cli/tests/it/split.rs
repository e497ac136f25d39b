//! The shell's statement splitter.

use basalt_cli::shell::Splitter;

fn split(text: &str) -> Vec<(u64, String)> {
    let mut splitter = Splitter::default();
    let mut statements = Vec::new();
    for line in text.split_inclusive('\n') {
        statements.extend(splitter.push_line(line));
    }
    statements.extend(splitter.finish());
    statements.into_iter().map(|statement| (statement.line, statement.text)).collect()
}

fn check(text: &str, expected: &[(u64, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
    assert_eq!(split(text), expected, "{text}");
}

#[test]
fn statements_end_at_semicolons() {
    check(
        "select 1; select 2;\n\nselect\n  3",
        &[(1, "select 1"), (1, "select 2"), (3, "select\n  3")],
    );
    check(" ; ;; \n", &[]);
}

#[test]
fn semicolons_in_quotes_are_no_end() {
    check("select ';', 'it''s;', \";\"\"\";", &[(1, "select ';', 'it''s;', \";\"\"\"")]);
    check("select 'a\n;b'; select 2", &[(1, "select 'a\n;b'"), (2, "select 2")]);
    check(r"select E'\';', e'\\'; select 2", &[(1, r"select E'\';', e'\\'"), (1, "select 2")]);
    check(r"select '\'; select 2", &[(1, r"select '\'"), (1, "select 2")]);
    check(r"select type'\'; select 2", &[(1, r"select type'\'"), (1, "select 2")]);
}

#[test]
fn semicolons_in_comments_are_no_end_and_comments_alone_are_no_statement() {
    check("select 1 -- one; two\n + 1; -- done;\n", &[(1, "select 1 -- one; two\n + 1")]);
    check("/* a; /* b; */ c; */ select 1;", &[(1, "/* a; /* b; */ c; */ select 1")]);
    check("-- only;\n/* this; */\n", &[]);
    check("select 4 - -1; select 8/ 2", &[(1, "select 4 - -1"), (1, "select 8/ 2")]);
}

#[test]
fn semicolons_in_dollar_quotes_are_no_end_and_parameters_are_no_quotes() {
    check("select $$a;b$$; select 2", &[(1, "select $$a;b$$"), (1, "select 2")]);
    check("select $x$ $$;$y$; $x$; select 2", &[(1, "select $x$ $$;$y$; $x$"), (1, "select 2")]);
    check("select $1; select $2", &[(1, "select $1"), (1, "select $2")]);
    check("select a$1$b; select 2", &[(1, "select a$1$b"), (1, "select 2")]);
}

#[test]
fn lines_are_those_of_the_text_and_nothing_is_changed() {
    check("\n-- why\nselect\t'ä' ;\nselect 2\n", &[(2, "-- why\nselect\t'ä'"), (4, "select 2")]);
}

#[test]
fn the_prompt_knows_what_is_open() {
    let mut splitter = Splitter::default();
    assert!(splitter.is_at_start());
    for (line, open) in [("select 'a", '\''), ("b' /* c", '*'), ("*/ \"d", '"'), ("\" $$", '$')] {
        assert!(splitter.push_line(line).is_empty());
        assert!(!splitter.is_at_start());
        assert_eq!(splitter.open(), open, "after {line}");
    }
    assert_eq!(splitter.push_line("$$;").len(), 1);
    assert!(splitter.is_at_start());
    splitter.push_line("select 'typo");
    splitter.clear();
    assert!(splitter.is_at_start(), "Ctrl-C forgets what is open");
}
