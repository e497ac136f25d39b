//! Differences that are meant: a closed list, each with its reason and with a check of its own, so
//! that it explains nothing else.

use arrow::compute::SortOptions;

use super::answers::{Answer, Failure, Match};
use super::ast::{Body, Expr, Grouping, Query, Relation};
use super::databases::Database;
use super::oracles::Databases;

/// Why the tested database may fail where plain DataFusion answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Explained {
    /// Plain DataFusion wraps integers that overflow; ours is an error (ARCHITECTURE I11).
    /// Checked: DataFusion in one process with our arithmetic fails as well.
    Overflow,
    /// `x IN (SELECT ...)` inside another expression is never NULL, but false: DataFusion's mark
    /// joins do not know NULL (`sql-tests/upstream/in-subquery-never-null.md`). Only the oracles
    /// without a reference see it. Checked: there is such an IN, and plain DataFusion gives both
    /// answers as well.
    InIsNeverNull,
    /// A predicate that is constant and not true is pushed below an aggregate without keys, or with
    /// an empty grouping set, which has a row nevertheless
    /// (`sql-tests/upstream/constant-below-aggregate.md`). Checked: there is such an aggregate in
    /// FROM, and plain DataFusion gives both answers as well.
    ConstantBelowAggregate,
    /// DataFusion's rule that pushes filters down changes an answer. Checked: without the rule,
    /// DataFusion gives ours; or, where the rule makes ours wrong too, agrees with itself.
    FilterPushdown,
    /// DataFusion's rows are not in the order that the query asks for, such as when it groups by
    /// ROLLUP of a key and of a copy of it. Checked: the rows are the same, ours are sorted and
    /// DataFusion's are not. With LIMIT or OFFSET, that is checked without.
    ReferenceUnsorted,
    /// DataFusion has no correlated `NOT IN` that joins on several keys; where plain DataFusion
    /// answers, it has folded the query to nothing first. Checked: DataFusion in one process with
    /// our arithmetic, which is not folded, says so as well.
    CorrelatedNotIn,
    /// `x NOT IN (SELECT ...)` of an `x` that is folded to NULL lets rows through in DataFusion
    /// (`sql-tests/upstream/not-in-of-constant.md`), which may fail at their values. Checked: there is
    /// an IN of a subquery, and DataFusion gives ours with our arithmetic, which it does not fold,
    /// and our `NOT IN`.
    NotInOfConstant,
    /// One of DataFusion's rules goes too far: it pushes a filter to another column of the same name,
    /// takes NaN for several groups (or panics), keys of GROUPING SETS for constant, bounds for those
    /// of cast values, keys of `=` for those of `IS NOT DISTINCT FROM`, or columns that a filter hands
    /// on for those it reads (or fails at their names) (`sql-tests/upstream/filters-by-name.md`,
    /// `topk-of-nan.md`, `order-of-grouping-sets.md`, `bounds-of-casts.md`, `keys-of-null.md`,
    /// `names-of-pushed-projections.md`). Checked: without these rules, DataFusion gives ours.
    RuleTooFar,
    /// Ours overflows where DataFusion has no row to compute with: a join whose other side is empty
    /// need not run both, and SQL leaves open which runs. Checked: there is a subquery or a join,
    /// and the numbers that the error names do overflow; or it is a cast to DECIMAL, and DataFusion
    /// with our arithmetic fails alike.
    OverflowElsewhere,
    /// DataFusion fails at a value in rows that ours has no need to look at, for the same reason.
    /// Checked: there is a subquery or a join, and DataFusion with our arithmetic fails alike.
    ErrorElsewhere,
    /// Ours overflows where DuckDB does not: its type is wider (HUGEINT beside unsigned integers), or it
    /// has no need of the value. Checked: the numbers that the error names do overflow a type that
    /// both fit in; or DataFusion in one process fails alike, and SQL leaves open what is computed.
    OverflowBesideDuckDb,
    /// DuckDB fails at a value that need not be computed. Checked: DataFusion in one process, with our
    /// arithmetic, gives our answer; or it fails alike, and SQL leaves open what is computed.
    DuckDbFails,
}

impl Explained {
    /// Its name in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overflow => "integer overflow is an error",
            Self::InIsNeverNull => "DataFusion's IN (SELECT ...) is never NULL",
            Self::ConstantBelowAggregate => "DataFusion pushes constants below aggregates",
            Self::FilterPushdown => "DataFusion pushes a filter down and answers otherwise",
            Self::ReferenceUnsorted => "DataFusion's rows are not sorted as asked",
            Self::CorrelatedNotIn => "DataFusion has no correlated NOT IN over several keys",
            Self::NotInOfConstant => {
                "DataFusion's NOT IN (SELECT ...) of a constant takes NULL for false"
            }
            Self::RuleTooFar => "one of DataFusion's rules goes too far",
            Self::ErrorElsewhere => "DataFusion fails at what need not be computed",
            Self::OverflowElsewhere => "overflow in what DataFusion does not run",
            Self::OverflowBesideDuckDb => "overflow where DuckDB is wider or does not compute",
            Self::DuckDbFails => "DuckDB fails at a value that need not be computed",
        }
    }
}

/// The reason for which plain DataFusion is wrong, and the tested database right, about a query.
pub(super) async fn explain_reference(
    (query, sql): (&Query, &str),
    expected: &Answer,
    got: &Answer,
    how: Match,
    databases: Databases<'_>,
) -> Option<Explained> {
    if how == Match::InOrder && expected.mismatch(got, Match::AsMultiset).is_none() {
        let is_ours = is_sorted(query, got)? && !is_sorted(query, expected)?;
        return is_ours.then_some(Explained::ReferenceUnsorted);
    }
    if how == Match::InOrder && is_part_of_unsorted(query, got, databases).await == Some(true) {
        return Some(Explained::ReferenceUnsorted);
    }
    if sql.contains(" IN (SELECT") {
        let checked = databases.checked.query(sql).await.ok()?;
        if checked.mismatch(got, how).is_none() {
            return Some(Explained::NotInOfConstant);
        }
    }
    let few = databases.with_few_rules.query(sql).await.ok()?;
    if few.mismatch(got, how).is_none() {
        return Some(Explained::RuleTooFar);
    }
    let answer = databases.without_pushdown.query(sql).await.ok()?;
    answer.mismatch(got, how).is_none().then_some(Explained::FilterPushdown)
}

/// Whether an answer is in the order that its query asks for.
fn is_sorted(query: &Query, answer: &Answer) -> Option<bool> {
    let key = |(key, direction): &'_ (Expr, &'static str)| {
        (key.template.clone(), sort_options(direction))
    };
    let keys: Vec<_> = query.order_by.iter().map(key).collect();
    let keys: Vec<_> = keys.iter().map(|(name, options)| (name.as_str(), *options)).collect();
    answer.is_sorted_by(&keys)
}

/// Whether the rows that a query with LIMIT or OFFSET gives are those of the same query without, which
/// has the same rows on both sides, sorted here and not in DataFusion.
async fn is_part_of_unsorted(
    query: &Query,
    got: &Answer,
    databases: Databases<'_>,
) -> Option<bool> {
    if query.limit.is_none() && query.offset.is_none() {
        return None;
    }
    let whole = Query { limit: None, offset: None, ..query.clone() };
    let sql = whole.to_string();
    let expected = databases.plain.query(&sql).await.ok()?;
    let ours = databases.tested.query(&sql).await.ok()?;
    let skipped = usize::try_from(query.offset.unwrap_or(0)).ok()?;
    let taken =
        query.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let part: Vec<_> = ours.rows.iter().skip(skipped).take(taken).collect();
    Some(
        expected.mismatch(&ours, Match::AsMultiset).is_none()
            && is_sorted(&whole, &ours)?
            && !is_sorted(&whole, &expected)?
            && part == got.rows.iter().collect::<Vec<_>>(),
    )
}

/// What a direction of ORDER BY means.
fn sort_options(direction: &str) -> SortOptions {
    let descending = direction.contains("DESC");
    let nulls_first = match direction.contains("NULLS") {
        true => direction.contains("NULLS FIRST"),
        false => descending,
    };
    SortOptions { descending, nulls_first }
}

/// The reason for which two queries that should agree do not: DataFusion gives both answers as well,
/// plain or with our arithmetic and our `NOT IN`, and it is known why.
pub(super) async fn explain_rows(
    query: &Query,
    expected: (&str, &Answer),
    got: (&str, &Answer),
    databases: Databases<'_>,
) -> Option<Explained> {
    let plain = gives_both(databases.plain, expected, got).await;
    if !plain && !gives_both(databases.checked, expected, got).await {
        return None;
    }
    if got.0.contains(" IN (SELECT") {
        return Some(Explained::InIsNeverNull);
    }
    if has_summary(query.as_select()?.from.as_ref()?) {
        return Some(Explained::ConstantBelowAggregate);
    }
    let expected = databases.without_pushdown.query(expected.0).await.ok()?;
    let got = databases.without_pushdown.query(got.0).await.ok()?;
    expected.mismatch(&got, Match::RowsOnly).is_none().then_some(Explained::FilterPushdown)
}

/// Whether a database gives the same two answers.
async fn gives_both(
    database: &dyn Database,
    expected: (&str, &Answer),
    got: (&str, &Answer),
) -> bool {
    for (sql, answer) in [expected, got] {
        let same = database.query(sql).await.map(|own| own.mismatch(answer, Match::RowsOnly));
        if !matches!(same, Ok(None)) {
            return false;
        }
    }
    true
}

/// Whether a relation is an aggregate with a row for no rows, or has one below it.
fn has_summary(relation: &Relation) -> bool {
    const AGGREGATES: [&str; 8] =
        ["count(", "sum(", "min(", "max(", "avg(", "bool_and(", "bool_or(", "string_agg("];
    let is_aggregate = |expr: &Expr| {
        AGGREGATES.iter().any(|name| expr.template.starts_with(name))
            && !expr.template.contains(" OVER (")
    };
    match relation {
        Relation::Table { .. } => false,
        Relation::Join { left, right, .. } => has_summary(left) || has_summary(right),
        Relation::Derived { query, .. } => match &query.body {
            Body::Select(select) => {
                let is_summary = match &select.grouping {
                    Grouping::Plain => {
                        select.group.is_empty()
                            && select.items.iter().any(|(expr, _)| is_aggregate(expr))
                    }
                    Grouping::Rollup | Grouping::Cube => true,
                    Grouping::Sets(sets) => sets.iter().any(Vec::is_empty),
                };
                is_summary || select.from.as_ref().is_some_and(has_summary)
            }
            Body::SetOperation { .. } | Body::Values(_) => false,
        },
    }
}

/// The reason for which the tested database fails at a query that plain DataFusion answers.
pub(super) async fn explain(
    error: &Failure,
    sql: &str,
    databases: Databases<'_>,
) -> Option<Explained> {
    const LIMITATION: &str = "null_aware anti join only supports single column";
    let is_limited = error.message.contains(LIMITATION);
    if error.sqlstate.as_deref() != Some("22003") && !is_limited {
        return None;
    }
    let checked = databases.checked.query(sql).await;
    if is_limited {
        let is_theirs = |error: &Failure| error.message.contains(LIMITATION);
        return checked.err().filter(is_theirs).map(|_| Explained::CorrelatedNotIn);
    }
    const OVERFLOWS: [&str; 2] = ["out of range", "verflow"];
    let is_overflow = |error: &Failure| OVERFLOWS.iter().any(|part| error.message.contains(part));
    match checked {
        Err(other) if is_about_values(error) => {
            // Arrow checks decimals, so plain DataFusion has no such row to compute with.
            (is_about_values(&other) && has_choice(sql)).then_some(Explained::OverflowElsewhere)
        }
        Err(other) => is_overflow(&other).then_some(Explained::Overflow),
        Ok(_) => {
            (has_choice(sql) && overflows(&error.message)).then_some(Explained::OverflowElsewhere)
        }
    }
}

/// Whether SQL leaves open which of several things is computed first.
fn has_choice(sql: &str) -> bool {
    [" JOIN ", " IN (SELECT ", "EXISTS (SELECT ", "((SELECT ", " (SELECT min(", " (SELECT max("]
        .iter()
        .any(|part| sql.contains(part))
}

/// The reason for which plain DataFusion fails at a query that the tested database answers.
pub(super) async fn explain_answer(
    error: &Failure,
    (sql, got): (&str, &Answer),
    how: Match,
    databases: Databases<'_>,
) -> Option<Explained> {
    const FAILING_RULES: [&str; 2] = ["aggregate_statistics", "ProjectionPushdown"];
    if error.is_panic() || FAILING_RULES.iter().any(|rule| error.message.starts_with(rule)) {
        let few = databases.with_few_rules.query(sql).await.ok()?;
        return few.mismatch(got, how).is_none().then_some(Explained::RuleTooFar);
    }
    if !is_about_values(error) || !has_choice(sql) {
        return None;
    }
    match databases.checked.query(sql).await {
        Err(other) => is_about_values(&other).then_some(Explained::ErrorElsewhere),
        Ok(answer) => (sql.contains(" IN (SELECT") && answer.mismatch(got, how).is_none())
            .then_some(Explained::NotInOfConstant),
    }
}

/// The reason for which DuckDB fails at a value of a query that the tested database answers.
pub(super) async fn explain_duckdb_failure(
    (sql, got): (&str, &Answer),
    databases: Databases<'_>,
) -> Option<Explained> {
    let is_explained = match databases.checked.query(sql).await {
        Ok(checked) => checked.mismatch(got, Match::RowsOnly).is_none(),
        Err(error) => is_out_of_range(&error) && may_skip(sql),
    };
    is_explained.then_some(Explained::DuckDbFails)
}

/// The reason for which the tested database fails at a query that DuckDB answers.
pub(super) async fn explain_failure_beside_duckdb(
    error: &Failure,
    sql: &str,
    databases: Databases<'_>,
) -> Option<Explained> {
    if !error.sqlstate.as_deref().is_some_and(|code| code.starts_with("22")) {
        return None;
    }
    let is_explained = overflows(&error.message)
        || (may_skip(sql)
            && databases.checked.query(sql).await.is_err_and(|error| is_out_of_range(&error)));
    is_explained.then_some(Explained::OverflowBesideDuckDb)
}

/// Whether an error of DataFusion with our arithmetic is about a value that does not fit.
fn is_out_of_range(error: &Failure) -> bool {
    is_about_values(error) || error.message.contains("out of range")
}

/// Whether a value may be computed or not: also where one condition makes another needless.
fn may_skip(sql: &str) -> bool {
    const EITHER: [&str; 7] =
        [" AND ", " OR ", "CASE ", "coalesce(", " IN (", "LATERAL", " LIMIT "];
    has_choice(sql) || EITHER.iter().any(|part| sql.contains(part))
}

/// Whether an error is about a value that another type cannot hold.
fn is_about_values(error: &Failure) -> bool {
    const ABOUT_VALUES: [&str; 3] = ["to store in a Decimal", "Cast error", "verflow"];
    ABOUT_VALUES.iter().any(|part| error.message.contains(part))
}

/// Whether the numbers that an error names are too large together for a type that each fits in:
/// `integer out of range: 9223372036854775807 + 1`.
fn overflows(message: &str) -> bool {
    const NAMED: &str = "integer out of range: ";
    const TYPES: [(i128, i128); 8] = [
        (i8::MIN as i128, i8::MAX as i128),
        (i16::MIN as i128, i16::MAX as i128),
        (i32::MIN as i128, i32::MAX as i128),
        (i64::MIN as i128, i64::MAX as i128),
        (0, u8::MAX as i128),
        (0, u16::MAX as i128),
        (0, u32::MAX as i128),
        (0, u64::MAX as i128),
    ];
    let Some((_, named)) = message.split_once(NAMED) else { return false };
    let words: Vec<_> = named.lines().next().unwrap_or_default().split(' ').collect();
    let [left, operator, right] = words.as_slice() else { return false };
    let (Ok(left), Ok(right)) = (left.parse::<i128>(), right.parse::<i128>()) else { return false };
    let result = match *operator {
        "+" => left.checked_add(right),
        "-" => left.checked_sub(right),
        "*" => left.checked_mul(right),
        _ => return false,
    };
    let Some(result) = result else { return true };
    TYPES.into_iter().any(|(least, most)| {
        let fits = |number: i128| (least..=most).contains(&number);
        fits(left) && fits(right) && !fits(result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_is_told_from_its_numbers() {
        assert!(overflows("integer out of range: 9223372036854775807 + 1\nHINT: cast one side"));
        assert!(overflows("integer out of range: 0 - 1"));
        assert!(overflows("integer out of range: 3037000500 * 3037000500"));
        for other in [
            "integer out of range: 1 + 1",
            "integer out of range: 1 / 0",
            "integer out of range: sum(v) is 9223372036854775808",
            "decimal out of range: 1 + 1",
        ] {
            assert!(!overflows(other), "{other}");
        }
    }
}
