//! LATERAL tables that others are joined to.
//!
//! JOIN binds closer than a comma, so the tables that a LATERAL one looks into are not in its join:
//! ```text
//! FROM t, LATERAL (...) v JOIN u ON ...    becomes    FROM t CROSS JOIN LATERAL (...) v JOIN u ON ...
//! ```
//! DataFusion has LATERAL only right beside what it looks into. The two mean the same where the joins behind
//! it keep all rows of their left side, or drop rows by conditions: t's rows are multiplied before or after.
//! RIGHT and FULL joins stay, and so does USING, whose columns t may have too.

use datafusion::sql::sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, Select, TableFactor, TableWithJoins,
};

/// Joins a LATERAL table that has joins behind it to the tables before it.
pub(super) fn join_to_tables_before(select: &mut Select) {
    if !select.from.iter().skip(1).any(can_be_joined) {
        return;
    }
    let mut from: Vec<TableWithJoins> = Vec::new();
    for table in select.from.drain(..) {
        if from.is_empty() || !can_be_joined(&table) {
            from.push(table);
            continue;
        }
        let mut before = from.drain(..);
        let Some(mut first) = before.next() else { continue };
        first.joins.extend(before.map(|table| cross_join(in_brackets(table))));
        first.joins.push(cross_join(table.relation));
        first.joins.extend(table.joins);
        from = vec![first];
    }
    select.from = from;
}

/// Whether a LATERAL table with joins means the same as a part of a longer chain of joins.
fn can_be_joined(table: &TableWithJoins) -> bool {
    let is_lateral = match &table.relation {
        TableFactor::Derived { lateral, .. } | TableFactor::Function { lateral, .. } => *lateral,
        TableFactor::UNNEST { .. } => true,
        _ => false,
    };
    is_lateral && !table.joins.is_empty() && table.joins.iter().all(keeps_left_side)
}

fn keeps_left_side(join: &Join) -> bool {
    use JoinOperator as J;
    match &join.join_operator {
        J::Join(by) | J::Inner(by) | J::Left(by) | J::LeftOuter(by) | J::CrossJoin(by) => {
            matches!(by, JoinConstraint::On(_) | JoinConstraint::None)
        }
        _ => false,
    }
}

fn in_brackets(table: TableWithJoins) -> TableFactor {
    match table.joins.is_empty() {
        true => table.relation,
        false => TableFactor::NestedJoin { table_with_joins: Box::new(table), alias: None },
    }
}

fn cross_join(relation: TableFactor) -> Join {
    let join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
    Join { relation, global: false, join_operator }
}
