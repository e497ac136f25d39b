//! LATERAL tables that others are joined to.
//!
//! JOIN binds closer than a comma, so the tables that a LATERAL one looks into are not in its join:
//! ```text
//! FROM t, LATERAL (...) v JOIN u ON ...    becomes    FROM t CROSS JOIN LATERAL (...) v JOIN u ON ...
//! ```
//! DataFusion has LATERAL only right beside what it looks into. The two mean the same where the joins behind
//! it keep all rows of their left side, or drop rows by conditions: t's rows are multiplied before or after.
//! RIGHT and FULL joins stay, and so does USING, whose columns t may have too. So do conditions in which a name
//! has no table, unless the LATERAL one says that it has it: t is not in their scope, and might have it, too.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, Visit, Visitor,
};

use super::names::normalized;

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
        let mut first = from.remove(0);
        first.joins.extend(from.drain(..).map(|table| cross_join(in_brackets(table))));
        first.joins.push(cross_join(table.relation));
        first.joins.extend(table.joins);
        from.push(first);
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
    if !is_lateral || table.joins.is_empty() || !table.joins.iter().all(keeps_left_side) {
        return false;
    }
    let mut others = OtherNames(columns_of(&table.relation));
    table.joins.iter().all(|join| join.join_operator.visit(&mut others).is_continue())
}

/// The columns that a relation says it has.
fn columns_of(relation: &TableFactor) -> HashSet<String> {
    let (alias, subquery) = match relation {
        TableFactor::Derived { alias, subquery, .. } => (alias, Some(subquery)),
        TableFactor::UNNEST { alias, .. } | TableFactor::Function { alias, .. } => (alias, None),
        _ => return HashSet::new(),
    };
    let renamed = alias.iter().flat_map(|alias| &alias.columns);
    let renamed: HashSet<_> = renamed.map(|column| normalized(&column.name)).collect();
    match subquery.map(|query| query.body.as_ref()) {
        // Those that the alias calls otherwise do not have these names outside.
        Some(SetExpr::Select(select)) if renamed.is_empty() => {
            select.projection.iter().filter_map(name_of).map(normalized).collect()
        }
        _ => renamed,
    }
}

fn name_of(item: &SelectItem) -> Option<&Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last(),
        _ => None,
    }
}

/// Stops at a name without a table that is none of these.
struct OtherNames(HashSet<String>);

impl Visitor for OtherNames {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) if !self.0.contains(&normalized(name)) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
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
