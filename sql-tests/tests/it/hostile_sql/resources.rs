//! Statements that would take all memory, or never end (FAULTS A5: 6 to 9, 19, 20).

use basalt_coordinator::statements::registry::RunState;

use super::arena::{Arena, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_make_too_much_are_refused() {
    let mut arena = Arena::start().await;
    for call in [
        "repeat('x', 2147483647)",
        "repeat('x', 9223372036854775807)",
        "repeat('xxxxxxxxxx', 200000000)",
        "lpad('x', 2147483647, 'y')",
        "rpad('x', 2000000000, 'y')",
        "replace(repeat('a', 100000), 'a', repeat('b', 100000))",
        "regexp_replace(repeat('a', 100000), '.', repeat('b', 100000), 'g')",
        "array_repeat(1, 2000000000)",
        "array_repeat(array_repeat(1, 100000), 100000)",
        "array_resize([1], 2000000000, 7)",
        "array_to_string(array_repeat('x', 100000), repeat(',', 100000))",
        "range(1, 9223372036854775807)",
        "generate_series(1, 9223372036854775807)",
        "range(TIMESTAMP '2000-01-01', TIMESTAMP '2020-01-01', INTERVAL '1 nanosecond')",
        "levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
    ] {
        let name = call.split('(').next().unwrap();
        arena.refuses(&format!("SELECT {call}"), "RESOURCES_EXHAUSTED", name).await;
    }
    // Of columns, so that no planner can fold them, and on workers.
    for call in [
        "repeat(s, 200000000 + n)",
        "lpad(s, 200000000 + n, 'y')",
        "replace(repeat(s, 50000 + n), s, repeat('b', 100000))",
        "array_repeat(n, 100000000 + n)",
        "range(n, n + 1000000000)",
        "concat(repeat(s, 150000000), repeat(s, 100000000), repeat(s, 100000000))",
    ] {
        let sql = format!("SELECT octet_length({call}::VARCHAR) FROM small WHERE n < 3");
        arena.refuses(&sql, "RESOURCES_EXHAUSTED", "in one call").await;
    }
    // What is little is what it always was.
    arena.answers("SELECT repeat(s, n), lpad(s, 3, '-') FROM small WHERE n = 2", "bb|--b").await;
    arena.answers("SELECT replace(s, 'a', 'xy') FROM small WHERE n = 1", "xy").await;
    arena.answers("SELECT range(1, n) FROM small WHERE n = 3", "[1, 2]").await;
    arena.answers("SELECT concat(s, n, NULL, 'z') FROM small WHERE n = 1", "a1z").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_of_too_much_are_refused() {
    let mut arena = Arena::start().await;
    let endless = "generate_series(1, 100000000)";
    for aggregate in [
        "string_agg(repeat('x', 1000) || value, ',')",
        "array_agg(value || repeat('x', 1000))",
        "count(DISTINCT value || repeat('x', 100))",
    ] {
        let sql = format!("SELECT length({aggregate}::VARCHAR) FROM {endless}");
        let sql = match aggregate.starts_with("count") {
            true => format!("SELECT {aggregate} FROM {endless}"),
            false => sql,
        };
        arena.refuses(&sql, "RESOURCES_EXHAUSTED", "").await;
    }
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_sorts_beyond_memory_and_disk_are_refused() {
    let mut arena = Arena::start().await;
    let create =
        "CREATE TABLE big AS SELECT value AS v, 'x' || value AS s FROM generate_series(1, 200000)";
    arena.done(create).await;
    for sql in [
        "SELECT * FROM big a CROSS JOIN big b ORDER BY a.s || b.s, a.v - b.v",
        "SELECT a.s || b.s AS k, count(*) FROM big a CROSS JOIN big b GROUP BY k",
        "SELECT count(*) FROM (SELECT DISTINCT a.v, b.v FROM big a CROSS JOIN big b)",
    ] {
        arena.refuses(sql, "RESOURCES_EXHAUSTED", "").await;
    }
    arena.done("DROP TABLE big").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_over_more_than_memory_are_refused() {
    let mut arena = Arena::start().await;
    let series = "generate_series(1, 100000000)";
    let window = format!("SELECT max(w) FROM (SELECT max(value) OVER () AS w FROM {series})");
    arena.refuses(&window, "RESOURCES_EXHAUSTED", "WindowAggExec").await;
    arena.done("CREATE TABLE big AS SELECT value AS v FROM generate_series(1, 1000000)").await;
    let text = "SELECT max(w) FROM (SELECT max(s) OVER () AS w FROM \
                (SELECT repeat('x', 400) || v AS s FROM big))";
    arena.refuses(text, "RESOURCES_EXHAUSTED", "WindowAggExec").await;
    let small = "SELECT max(w) FROM (SELECT sum(v) OVER (PARTITION BY v % 10) AS w FROM big WHERE v <= 1000)";
    arena.answers(small, "50500").await;
    arena.done("DROP TABLE big").await;
    arena.stop().await;
}

/// Statements that never end, until their client lets go.
#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_ended_by_its_client() {
    let mut arena = Arena::start().await;
    for sql in [
        "SELECT * FROM generate_series(1, 9223372036854775807)",
        "SELECT count(*) FROM generate_series(1, 9223372036854775807) WHERE value % 3 = 1",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t) SELECT * FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t) SELECT count(*) FROM t",
        "SELECT count(*) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b WHERE (a.value + b.value) % 7 = 1",
    ] {
        // A client that goes away after planning and before its fetch leaves a ticket, which ends
        // by its age. That moment cannot be seen from here, so the statement may be sent again.
        let mut ended = false;
        for attempt in 0..20 {
            let sql = format!("{sql} -- {attempt}");
            ended = ends_with_its_client(&arena, &sql).await;
            if ended {
                break;
            }
            arena.never_fetched.push(sql);
        }
        assert!(ended, "{sql}");
        arena.answers("SELECT count(*) FROM small", "3").await;
    }
    // What grows with every round of a recursion is ended by its memory.
    let growing = "WITH RECURSIVE t AS (SELECT n, repeat('x', 1000) AS s FROM small UNION ALL \
                   SELECT a.n, a.s FROM t a CROSS JOIN small) SELECT count(*) FROM t";
    arena.refuses(growing, "RESOURCES_EXHAUSTED", "").await;
    arena.stop().await;
}

/// Runs a statement until the server knows it as running and lets its client go away. Returns
/// whether it was cancelled then.
async fn ends_with_its_client(arena: &Arena, sql: &str) -> bool {
    let mut client = arena.client.clone();
    let text = sql.to_owned();
    let fetch = tokio::spawn(async move {
        let mut rows = client.query(&text).await?;
        while rows.next_batch().await?.is_some() {}
        Ok::<_, basalt_sql_tests::client::ClientError>(())
    });
    let registry = arena.cluster().coordinator().statements().registry().clone();
    let is = |state: RunState| {
        let run = registry.list().into_iter().find(|run| run.text == sql);
        run.is_some_and(|run| run.state == state)
    };
    eventually("the statement runs", || is(RunState::Running)).await;
    assert!(!fetch.is_finished(), "{sql}");
    fetch.abort();
    let cancelled = eventually("the statement was cancelled", || is(RunState::Cancelled));
    tokio::time::timeout(CANCEL_MAX, cancelled).await.is_ok()
}

/// How long a statement may go on after its client.
const CANCEL_MAX: std::time::Duration = std::time::Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn the_last_number_ends_a_series() {
    let mut arena = Arena::start().await;
    let last = "SELECT count(*) FROM generate_series(9223372036854775806, 9223372036854775807)";
    arena.survives(last).await;
    arena.survives("SELECT count(*) FROM range(9223372036854775806, 9223372036854775807, 5)").await;
    arena
        .survives(
            "SELECT count(*) FROM generate_series(-9223372036854775807, -9223372036854775808, -1)",
        )
        .await;
    arena.refuses_with("SELECT * FROM generate_series(1, 10, 0)", "INVALID_STATEMENT").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_are_bounded() {
    let mut arena = Arena::start().await;
    let long = "a".repeat(10 << 20);
    // Longer than any pattern: written out, computed, of a column.
    for condition in [
        format!("regexp_like(s, '{long}')"),
        format!("regexp_replace(s, '{long}', 'x') = s"),
        format!("regexp_match(s, '{long}') IS NULL"),
        format!("regexp_count(s, '{long}') = 0"),
        format!("s LIKE '%{long}%b'"),
        format!("s SIMILAR TO '{long}'"),
        "s ~ repeat('a', 200000000)".to_owned(),
        "s !~* repeat('a', 200000000)".to_owned(),
        "s ~ repeat(s, 1000000)".to_owned(),
        "s LIKE repeat('%a', 10000000)".to_owned(),
        "s NOT ILIKE repeat(s, 1000000)".to_owned(),
        "regexp_replace(s, repeat(s, 1000000), 'x') = s".to_owned(),
        "regexp_instr(s, repeat(s, 1000000)) = 0".to_owned(),
    ] {
        let sql = format!("SELECT count(*) FROM small WHERE {condition}");
        arena.refuses(&sql, "RESOURCES_EXHAUSTED", "a pattern has").await;
    }
    // Another one in each row, of ten megabytes when it is compiled.
    let many = r"('\w{200}' || value)";
    for condition in [
        format!("'x' || value ~ {many}"),
        format!("'x' || value !~* {many}"),
        format!("regexp_like('x' || value, {many})"),
        format!("regexp_match('x' || value, {many}) IS NULL"),
        format!("regexp_replace('x' || value, {many}, '') = ''"),
        format!("regexp_count('x' || value, {many}) = 0"),
        format!("regexp_instr('x' || value, {many}) = 0"),
    ] {
        let sql = format!("SELECT count(*) FROM generate_series(1, 8192) WHERE {condition}");
        arena.refuses(&sql, "RESOURCES_EXHAUSTED", "when it is compiled").await;
    }
    // Larger than they look, and none.
    for condition in [
        "regexp_like(s, '(((a{1,1000}){1,1000}){1,1000})')".to_owned(),
        "regexp_replace(s, '(((a{1,1000}){1,1000}){1,1000})', 'x') = s".to_owned(),
        "regexp_count(s, '(((a{1,1000}){1,1000}){1,1000})') = 0".to_owned(),
        format!("s LIKE '{}'", "%a".repeat(100_000)),
        format!("regexp_like(s, '{}a{}')", "(".repeat(100_000), ")".repeat(100_000)),
        "s ~ '('".to_owned(),
        "regexp_replace(s, '[', 'x') = s".to_owned(),
        "regexp_like(s, '(?=a)a')".to_owned(),
        "regexp_like(s, 'a', 'qqq')".to_owned(),
    ] {
        let sql = format!("SELECT count(*) FROM small WHERE {condition}");
        arena.refuses(&sql, "DATA_EXCEPTION", "a regular expression cannot be used").await;
    }
    // What makes other machines backtrack for years.
    for (condition, count) in [
        ("regexp_like(repeat('a', 100000 + n), '(a*)*b')", "0"),
        ("repeat('a', 100000 + n) ~ '(a|aa)+$'", "3"),
        ("repeat('a', 1000 + n) SIMILAR TO '(a|a)*b'", "0"),
        ("repeat('a', 10000 + n) LIKE repeat('%a', 1000) || 'b'", "0"),
        ("regexp_replace(repeat('a', 10000 + n), '(a?){100}a{100}', '') = ''", "0"),
    ] {
        arena.answers(&format!("SELECT count(*) FROM small WHERE {condition}"), count).await;
    }
    let plain = "'x' || value ~ ('^x' || value || '$')";
    let plain = format!("SELECT count(*) FROM generate_series(1, 8192) WHERE {plain}");
    arena.answers(&plain, "8192").await;
    // Patterns of columns that are none too long are what they always were.
    arena.answers("SELECT count(*) FROM small WHERE s ~ s AND 'x' || s LIKE '_' || s", "2").await;
    arena.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_value_is_an_error() {
    let mut arena = Arena::start().await;
    arena.done("CREATE TABLE odd AS SELECT n, 9223372036854775800 + n AS large, decode('fffe', 'hex') AS bytes FROM small").await;
    for (value, code) in [
        ("1 / 0", "DATA_EXCEPTION"),
        ("n / (n - n)", "DATA_EXCEPTION"),
        ("n % 0", "DATA_EXCEPTION"),
        ("1.5::DECIMAL(4, 2) / (n - n)::DECIMAL(4, 2)", "DATA_EXCEPTION"),
        ("large + 7 + n", "NUMERIC_OUT_OF_RANGE"),
        ("sum(large)", "NUMERIC_OUT_OF_RANGE"),
        ("sum(large) OVER ()", "NUMERIC_OUT_OF_RANGE"),
        ("large * large", "NUMERIC_OUT_OF_RANGE"),
        ("-(n - 9223372036854775807 - 2)", "NUMERIC_OUT_OF_RANGE"),
        ("large::INTEGER", "NUMERIC_OUT_OF_RANGE"),
        ("large::DECIMAL(5, 0)", "NUMERIC_OUT_OF_RANGE"),
        ("(n * 1e10)::INTEGER", "NUMERIC_OUT_OF_RANGE"),
        ("bytes::VARCHAR", "DATA_EXCEPTION"),
        ("CAST(X'fffe' AS VARCHAR)", "DATA_EXCEPTION"),
        ("arrow_cast(bytes, 'Utf8')", "DATA_EXCEPTION"),
        ("chr(n - 10)", "DATA_EXCEPTION"),
        ("factorial(n + 100)", "DATA_EXCEPTION"),
        ("sqrt(-n)", "DATA_EXCEPTION"),
        ("('x' || n)::INTEGER", "DATA_EXCEPTION"),
        ("TIMESTAMPTZ '2026-01-01 00:00:00 Mars/Phobos'", "DATA_EXCEPTION"),
        ("TIMESTAMPTZ '2026-01-01 00:00:00+99:99'", "DATA_EXCEPTION"),
        ("TIMESTAMP '2026-01-01' AT TIME ZONE 'Nowhere'", "DATA_EXCEPTION"),
        ("now() + INTERVAL '1000000 years'", "DATA_EXCEPTION"),
    ] {
        arena.refuses_with(&format!("SELECT {value} FROM odd"), code).await;
    }
    arena.done("DROP TABLE odd").await;
    arena.stop().await;
}
