//! The order of joins, and what is joined before: seen in plans, and without a say in answers.
//!
//! What each rule must not change is in `slt/join_order.slt`; here is that the rules are there.

use arrow::array::AsArray;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};

const STATEMENTS: [&str; 15] = [
    "CREATE TABLE parts (p BIGINT, brand VARCHAR)",
    "CREATE TABLE lines (o BIGINT, p BIGINT, q BIGINT) DISTKEY(o)",
    "CREATE TABLE orders (o BIGINT, c BIGINT) DISTKEY(o)",
    "CREATE TABLE customers (c BIGINT, n BIGINT)",
    "INSERT INTO parts SELECT value, 'b' || (value % 50) FROM generate_series(1, 2000)",
    "INSERT INTO lines SELECT value % 9000, value % 2000, value % 50 FROM generate_series(1, 40000)",
    "INSERT INTO orders SELECT value, value % 900 FROM generate_series(1, 9000)",
    "INSERT INTO customers SELECT value, value % 25 FROM generate_series(1, 900)",
    "CREATE TABLE stock (p BIGINT, a BIGINT)",
    "INSERT INTO stock SELECT value % 2000, value % 700 FROM generate_series(1, 6000)",
    "CREATE TABLE people (c BIGINT, n BIGINT) DISTSTYLE EVEN",
    "INSERT INTO people SELECT value, value % 50 FROM generate_series(1, 20000)",
    "CREATE TABLE visits (c BIGINT, d BIGINT) DISTSTYLE EVEN",
    "INSERT INTO visits SELECT value * 7 % 19000, value % 100 FROM generate_series(1, 140000)",
    "ANALYZE",
];

async fn text(client: &mut Client, sql: &str) -> String {
    let (_, batches) = client.query_all(sql).await.unwrap();
    let mut text = String::new();
    for batch in &batches {
        let column = batch.columns().last().unwrap();
        match column.as_string_opt::<i32>() {
            Some(lines) => text.extend(lines.iter().flatten()),
            None => text.push_str(&format!("{column:?}")),
        }
    }
    text
}

/// A query, a part of its plan, and another that comes below it.
const CASES: [(&str, &str, &str); 8] = [
    // The written order joins all lines to all orders first.
    (
        "SELECT count(*) FROM orders JOIN lines ON orders.o = lines.o JOIN parts ON parts.p = lines.p \
         WHERE brand = 'b7'",
        "Inner Join: orders.o = lines.o",
        "Inner Join: lines.p = parts.p",
    ),
    // The same beside what has the rows of joins, of an outer join and of a union.
    (
        "SELECT sum(s) FROM orders, lines, (SELECT customers.c, sum(people.n) AS s FROM customers JOIN people ON \
         customers.c = people.c GROUP BY customers.c) x, parts WHERE orders.o = lines.o AND orders.c = x.c \
         AND parts.p = lines.p AND brand = 'b7'",
        "Inner Join: orders.o = lines.o",
        "Inner Join: lines.p = parts.p",
    ),
    (
        "SELECT count(n) FROM orders LEFT JOIN customers ON orders.c = customers.c JOIN lines ON orders.o = lines.o \
         JOIN parts ON parts.p = lines.p WHERE brand = 'b7'",
        "Inner Join: orders.o = lines.o",
        "Inner Join: lines.p = parts.p",
    ),
    (
        "SELECT count(*) FROM (SELECT o FROM orders UNION ALL SELECT o + 1 FROM orders) u JOIN lines ON u.o = lines.o \
         JOIN parts ON parts.p = lines.p WHERE brand = 'b7'",
        "Inner Join: u.o = lines.o",
        "Inner Join: lines.p = parts.p",
    ),
    (
        "SELECT sum(q) FROM customers, orders, lines WHERE orders.o IN (SELECT o FROM lines \
         GROUP BY o HAVING sum(q) > 240) AND customers.c = orders.c AND orders.o = lines.o",
        "Inner Join",
        "LeftSemi Join",
    ),
    (
        "SELECT sum(q) FROM lines, parts WHERE lines.p = parts.p AND brand = 'b7' AND q < (SELECT \
         avg(q) FROM lines i WHERE i.p = parts.p)",
        "Aggregate: groupBy=[[i.p]]",
        "__reducer_0",
    ),
    // What is kept of the stock has parts that a pattern keeps: a twentieth of all.
    (
        "SELECT count(*) FROM stock WHERE p IN (SELECT p FROM parts WHERE brand LIKE 'b7%') AND a > (SELECT \
         0.5 * sum(q) FROM lines WHERE lines.p = stock.p)",
        "Aggregate: groupBy=[[lines.p]]",
        "__reducer_0",
    ),
    // Visits of others than those people do not move.
    (
        "SELECT count(*) FROM people WHERE n = 7 AND NOT EXISTS (SELECT 1 FROM visits WHERE visits.c = people.c)",
        "LeftAnti Join",
        "__reducer_0",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn joins_are_made_in_the_order_that_costs_least_and_give_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { links: Links::InProcess, ..EmbeddedConfig::new(dir.path(), 3) };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    for sql in STATEMENTS {
        client.execute_update(sql).await.unwrap();
    }
    // What is another each time is not read once more.
    let sql = "EXPLAIN SELECT 1 FROM people WHERE n = 7 AND c + CAST(random() * 3 AS BIGINT) IN (SELECT c FROM visits)";
    let plan = text(&mut client, sql).await;
    assert!(plan.contains("Semi") && !plan.contains("__reducer"), "{plan}");
    for (sql, above, below) in CASES {
        client.execute_update("SET join_order = on").await.unwrap();
        let plan = text(&mut client, &format!("EXPLAIN {sql}")).await;
        let place = plan.find(above).unwrap_or_else(|| panic!("{sql}: no {above} in {plan}"));
        assert!(plan[place..].contains(below), "{sql}: no {below} below {above} in {plan}");
        let answer = text(&mut client, sql).await;
        client.execute_update("SET join_order = off").await.unwrap();
        let plan = text(&mut client, &format!("EXPLAIN {sql}")).await;
        let is_so = plan.find(above).is_some_and(|place| plan[place..].contains(below));
        assert!(!is_so, "{sql}: it is so without the rule: {plan}");
        assert_eq!(text(&mut client, sql).await, answer, "{sql}");
    }
    cluster.stop().await;
}
