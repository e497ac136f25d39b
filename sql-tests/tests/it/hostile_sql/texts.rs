//! Texts that are long, deep, odd, or grow when they are planned (FAULTS A5: 1 to 5, 15, 16, 25).

use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, Any, CommandStatementQuery, CommandStatementUpdate,
    ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor};
use prost::Message;

use super::arena::Arena;

/// `open` some times, a one, `close` as often.
fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth))
}

/// An expression of one operator, `count` operands long.
fn chain(operand: &str, operator: &str, count: usize) -> String {
    vec![operand; count].join(operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_endless_and_broken_texts_are_refused() {
    let mut arena = Arena::start().await;
    for empty in ["", "   \n", "-- nothing", "/* nothing */", "\u{feff}", &";".repeat(10_000)] {
        arena.refuses(empty, "SYNTAX_ERROR", "there is no statement").await;
    }
    for (text, part) in [
        (" ".repeat(100 << 20), "the request is too large"),
        (" ".repeat((16 << 20) + 1), "16777217 bytes"),
        (" ".repeat(16 << 20), "words, signs and spaces"),
        (format!("SELECT {}", chain("1", ",", 300_000)), "words and signs"),
        (format!("SELECT n IN ({}) FROM small", chain("7", ",", 1_000_000)), "words, signs"),
        (format!("INSERT INTO small VALUES {}", chain("(1,'x')", ",", 200_000)), "words and signs"),
    ] {
        arena.refuses(&text, "RESOURCES_EXHAUSTED", part).await;
    }
    arena.refuses("SELECT 1\0", "SYNTAX_ERROR", "\\u{0}").await;
    arena.refuses("SELECT \"a\0b\" FROM small", "UNDEFINED_COLUMN", "a\\u{0}b").await;
    arena.refuses("SELECT n\u{200b} FROM small", "SYNTAX_ERROR", "\\u{200b}").await;
    arena.refuses("SELECT \"\u{202e}n\" FROM small", "UNDEFINED_COLUMN", "\\u{202e}n").await;
    arena.refuses("SELECT 1; DROP TABLE small", "SYNTAX_ERROR", "more than one statement").await;
    arena.answers("\u{feff}SELECT 'ü\u{200b}'", "ü\u{200b}").await;
    arena.stop().await;
}

/// A command with bytes in the place of its question marks that are no UTF-8.
fn not_utf8(command: Any) -> Vec<u8> {
    let mut value = command.value.to_vec();
    for byte in value.iter_mut().filter(|byte| **byte == b'?') {
        *byte = 0xff;
    }
    Any { value: value.into(), ..command }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_not_utf8_is_refused() {
    let mut arena = Arena::start().await;
    let (query, transaction_id) = ("DELETE FROM small WHERE s <> '??'".to_owned(), None);
    let run = CommandStatementQuery { query: query.clone(), transaction_id: None };
    let update = CommandStatementUpdate { query: query.clone(), transaction_id: None };
    let prepare = ActionCreatePreparedStatementRequest { query, transaction_id };
    let flight = arena.client.flight().inner_mut();
    let mut refused = Vec::new();
    for bytes in [not_utf8(run.as_any()), b"SELECT '\xff\xff'".to_vec()] {
        let descriptor = FlightDescriptor::new_cmd(bytes);
        refused.push(flight.get_flight_info(descriptor).await.map(drop));
    }
    let descriptor = Some(FlightDescriptor::new_cmd(not_utf8(update.as_any())));
    let message = FlightData { flight_descriptor: descriptor, ..FlightData::default() };
    refused.push(match flight.do_put(futures::stream::iter([message])).await {
        Ok(answers) => answers.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    });
    let action = Action::new("CreatePreparedStatement", not_utf8(prepare.as_any()));
    refused.push(match flight.do_action(action).await {
        Ok(answers) => answers.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    });
    for refused in refused {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
        assert!(status.metadata().contains_key("x-error-code"), "{status:?}");
        arena.is_alive("a text that is not UTF-8").await;
    }
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_texts_are_refused_or_answered() {
    let mut arena = Arena::start().await;
    for (open, close) in [
        ("(", ")"),
        ("CASE WHEN true THEN ", " END"),
        ("(SELECT ", ")"),
        ("abs(", ")"),
        ("[", "]"),
        ("NOT ", ""),
        ("- ", ""),
        ("CAST(", " AS INT)"),
    ] {
        arena.refuses_with(&nested(open, close, 10_000), "INVALID_STATEMENT").await;
        // Somewhere between what people write and what is refused, all of it must hold.
        for depth in [10, 20, 30, 40, 45] {
            arena.survives(&nested(open, close, depth)).await;
            let on_rows = nested(open, close, depth).replace('1', "n") + " FROM small";
            arena.survives(&on_rows).await;
        }
    }
    let derived =
        format!("SELECT * FROM {}small{}", "(SELECT * FROM ".repeat(40), ") t".repeat(40));
    arena.survives(&derived).await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chains_are_refused_or_answered() {
    let mut arena = Arena::start().await;
    let too_long = [
        format!("SELECT 1 FROM small WHERE {}", chain("n = 7", " OR ", 100_000)),
        format!("SELECT {} FROM small", chain("n", " + ", 50_000)),
        format!("SELECT n FROM small WHERE {}", "NOT ".repeat(50_000) + "true"),
    ];
    for sql in too_long {
        arena.refuses(&sql, "INVALID_STATEMENT", "more than 500 operators upon each other").await;
    }
    let unions = chain("SELECT 1", " UNION ALL ", 50_000);
    arena.refuses(&unions, "INVALID_STATEMENT", "joins and set operations").await;
    for count in [100, 490] {
        let or = format!("SELECT count(*) FROM small WHERE {}", chain("n = 2", " OR ", count));
        arena.survives(&or).await;
        let mixed = format!(
            "SELECT count(*) FROM small WHERE {}",
            (0..count)
                .map(|k| format!("n <> {k} AND length(s) < {k}"))
                .collect::<Vec<_>>()
                .join(" OR ")
        );
        arena.survives(&mixed).await;
        arena.survives(&format!("SELECT {} FROM small", chain("n", " - ", count))).await;
        arena.survives(&format!("SELECT {} FROM small", chain("s", " || ", count))).await;
    }
    let branches = (0..1_000).map(|k| format!("WHEN n = {k} THEN {k}")).collect::<String>();
    arena.survives(&format!("SELECT CASE {branches} END FROM small")).await;
    let list = (0..50_000).map(|k| k.to_string()).collect::<Vec<_>>().join(",");
    arena.answers(&format!("SELECT count(*) FROM small WHERE n IN ({list})"), "3").await;
    arena.survives(&format!("SELECT concat({}) FROM small", chain("s", ",", 10_000))).await;
    arena.survives(&format!("SELECT coalesce({}) FROM small", chain("s", ",", 10_000))).await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grows_when_it_is_planned_is_refused() {
    let mut arena = Arena::start().await;
    let aliases = |count: usize| {
        (0..count).map(|k| format!("small AS t{k}")).collect::<Vec<_>>().join(" CROSS JOIN ")
    };
    let joined = format!("SELECT 1 FROM {}", aliases(1_000));
    arena.refuses(&joined, "INVALID_STATEMENT", "1000 relations in one FROM clause").await;
    let branches = chain("SELECT n FROM small", " UNION ALL ", 3_000);
    arena.refuses(&branches, "INVALID_STATEMENT", "more than 2000 SELECTs and relations").await;
    let stars = format!("SELECT {} FROM small", chain("*", ",", 100_000));
    arena.refuses(&stars, "INVALID_STATEMENT", "100000 wildcards").await;
    // A thousand million relations in thirty lines.
    let mut laughs = "WITH l0 AS (SELECT n FROM small)".to_owned();
    for level in 1..30 {
        let below = level - 1;
        laughs +=
            &format!(", l{level} AS (SELECT a.n FROM l{below} a JOIN l{below} b ON a.n = b.n)");
    }
    let laughs = laughs + " SELECT count(*) FROM l29";
    arena.refuses(&laughs, "INVALID_STATEMENT", "WITH clauses written out").await;
    let columns = (0..24).map(|k| format!("n + {k}")).collect::<Vec<_>>().join(", ");
    let cube = format!("SELECT count(*) FROM small GROUP BY CUBE ({columns})");
    arena.refuses(&cube, "INVALID_STATEMENT", "GROUP BY makes 16777216 sets").await;
    let cube = cube.replace(&columns, "n, s, n + 1, n + 2, n + 3");
    arena.survives(&cube).await;
    // USING is written out, and subqueries of IN are joined more than once.
    let using = chain("n", ", ", 7_000);
    arena.survives(&format!("SELECT 1 FROM small AS a JOIN small AS b USING ({using})")).await;
    let full: String = (1..100).map(|k| format!(" FULL JOIN small AS t{k} USING (n)")).collect();
    let full = format!("SELECT n, n FROM small AS t0{full}");
    arena.refuses(&full, "FEATURE_NOT_SUPPORTED", "JOIN with USING").await;
    let nested = |levels: usize, after: &str| {
        let mut inside = "n IN (SELECT n FROM small)".to_owned();
        for _ in 1..levels {
            inside = format!("(n IN (SELECT n FROM small WHERE {inside})){after}");
        }
        format!("SELECT count(*) FROM small WHERE {inside}")
    };
    arena.survives(&nested(12, " IS NULL")).await;
    arena.answers(&nested(12, ""), "3").await;
    arena.refuses(&nested(13, ""), "INVALID_STATEMENT", "subqueries are nested").await;
    let side_by_side = |count: usize| {
        let columns = (0..count).map(|k| format!("n + {k} IN (SELECT n FROM small) AS c{k}"));
        let columns = columns.collect::<Vec<_>>().join(", ");
        format!("SELECT count(*) FROM (SELECT {columns} FROM small) WHERE c0")
    };
    arena.answers(&side_by_side(20), "3").await;
    arena.refuses(&side_by_side(101), "INVALID_STATEMENT", "more than 100 subqueries").await;
    let lateral = |rows: usize| {
        let rows = (0..rows).map(|k| format!("(t.n + {k})")).collect::<Vec<_>>().join(", ");
        format!("SELECT count(*) FROM small t, LATERAL (VALUES {rows}) v(g) WHERE g = 3")
    };
    arena.answers(&lateral(256), "3").await;
    arena.refuses(&lateral(257), "FEATURE_NOT_SUPPORTED", "rows of VALUES").await;
    // Just below the limits.
    arena.answers(&format!("SELECT count(*) FROM {} WHERE t0.n = 1", aliases(9)), "6561").await;
    let equal: String = (1..60).map(|k| format!(" AND t0.n = t{k}.n")).collect();
    let deep = format!("SELECT count(*) FROM {} WHERE t0.n = 1{equal}", aliases(60));
    arena.answers(&deep, "1").await;
    arena.survives(&chain("SELECT n FROM small", " UNION ALL ", 300)).await;
    arena.survives(&chain("SELECT 1", " UNION ALL ", 1_000)).await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn towers_of_views_are_refused() {
    let mut arena = Arena::start().await;
    arena.done("CREATE VIEW tower0 AS SELECT n FROM small").await;
    let mut height = 0;
    // Each is twice the one below: the limit of nodes comes first.
    let refusal = loop {
        height += 1;
        let below = height - 1;
        let sql = format!(
            "CREATE VIEW tower{height} AS SELECT a.n FROM tower{below} a JOIN tower{below} b ON a.n = b.n"
        );
        if let Err(error) = arena.run(&sql).await {
            break error;
        }
        assert!(height < 40, "a view of a thousand million relations was created");
    };
    assert_eq!(refusal.code(), Some("INVALID_STATEMENT"), "{refusal}");
    assert!(refusal.to_string().contains("plan nodes"), "{refusal}");
    // A chain without branches is refused for its depth.
    arena.done("CREATE VIEW chain0 AS SELECT n FROM small").await;
    let mut length = 0;
    let refusal = loop {
        length += 1;
        let sql = format!("CREATE VIEW chain{length} AS SELECT n FROM chain{}", length - 1);
        if let Err(error) = arena.run(&sql).await {
            break error;
        }
        assert!(length < 100, "a chain of a hundred views was created");
    };
    assert!(refusal.to_string().contains("nested too deeply"), "{refusal}");
    arena.answers(&format!("SELECT count(*) FROM chain{}", length - 1), "3").await;
    // Each asks the one below: planning takes twice as long for each.
    arena.done("CREATE VIEW asks0 AS SELECT n FROM small").await;
    let mut height = 0;
    let refusal = loop {
        height += 1;
        let below = height - 1;
        let sql = format!(
            "CREATE VIEW asks{height} AS SELECT n FROM small WHERE n IN (SELECT n FROM asks{below})"
        );
        if let Err(error) = arena.run(&sql).await {
            break error;
        }
        assert!(height < 20, "twenty subqueries in each other were planned");
    };
    assert!(refusal.to_string().contains("nested in each other"), "{refusal}");
    arena.answers(&format!("SELECT count(*) FROM asks{}", height - 1), "3").await;
    // A view that comes to refer to itself, and one whose table is gone.
    arena.done("CREATE VIEW first AS SELECT 1 AS n").await;
    arena.done("CREATE VIEW second AS SELECT n FROM first").await;
    arena.survives("CREATE OR REPLACE VIEW first AS SELECT n FROM second").await;
    arena.survives("SELECT * FROM first").await;
    arena.done("CREATE TABLE gone AS SELECT 1 AS n").await;
    arena.done("CREATE VIEW of_gone AS SELECT n FROM gone").await;
    arena.done("DROP TABLE gone").await;
    arena.refuses("SELECT * FROM of_gone", "UNDEFINED_TABLE", "\"gone\" does not exist").await;
    for view in ["first", "second", "of_gone"] {
        arena.done(&format!("DROP VIEW {view}")).await;
    }
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_only_names() {
    let mut arena = Arena::start().await;
    let long = "x".repeat(64 << 10);
    for name in ["".to_owned(), "a\0b".to_owned(), long] {
        let table = format!("CREATE TABLE \"{name}\" (a INT)");
        arena.refuses(&table, "INVALID_STATEMENT", "name").await;
        let column = format!("CREATE TABLE t (\"{name}\" INT)");
        arena.refuses(&column, "INVALID_STATEMENT", "name").await;
    }
    arena.refuses("CREATE TABLE \"a\nb\" (a INT)", "INVALID_STATEMENT", "control characters").await;
    arena.refuses("CREATE TABLE t (a INT, A INT)", "INVALID_STATEMENT", "more than once").await;
    let names = [
        "../../etc",
        ".",
        "..",
        "a/b",
        "%2e%2e",
        " ",
        "CON",
        "NUL",
        "😀",
        "Ab",
        "aB",
        "it's",
        "a\"\"b",
    ];
    for name in names {
        arena.done(&format!("CREATE TABLE \"{name}\" (\"{name}\" INT)")).await;
        arena.done(&format!("INSERT INTO \"{name}\" VALUES (7)")).await;
        arena
            .answers(&format!("SELECT \"{name}\" FROM \"{name}\" WHERE \"{name}\" > 1"), "7")
            .await;
    }
    let columns: Vec<_> = names.iter().map(|name| format!("\"{name}\" INT")).collect();
    arena.done(&format!("CREATE TABLE odd (\"a\nb\" INT, {})", columns.join(", "))).await;
    arena.done("DROP TABLE odd").await;
    let mut paths = Vec::new();
    walk(&arena.data(), &mut paths);
    assert!(paths.iter().any(|path| path.contains("chunks")), "{paths:?}");
    for path in &paths {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        assert!(path.chars().all(plain), "a name became a path: {path}");
    }
    for name in names {
        arena.done(&format!("DROP TABLE \"{name}\"")).await;
    }
    let wide: Vec<_> = (0..10_000).map(|n| format!("c{n} INT")).collect();
    arena.done(&format!("CREATE TABLE wide ({})", wide.join(","))).await;
    arena.answers("SELECT count(*), sum(c9999) FROM wide", "0|NULL").await;
    arena.done("DROP TABLE wide").await;
    let wider: Vec<_> = (0..20_001).map(|n| format!("c{n} INT")).collect();
    let wider = format!("CREATE TABLE wider ({})", wider.join(","));
    arena.refuses(&wider, "INVALID_STATEMENT", "at most 20000 columns").await;
    arena.stop().await;
}

/// The names of all files and folders below a folder.
fn walk(folder: &std::path::Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), names);
        }
    }
}
