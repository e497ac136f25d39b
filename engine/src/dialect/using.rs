//! `JOIN ... USING (c)`: which column `c` is.
//!
//! It is one of both sides: the left one's of inner and left joins, the right one's of a `RIGHT JOIN`, and
//! of a `FULL JOIN` whichever is there. DataFusion takes one of them by name, for `*` the one whose table
//! comes first in the alphabet, which is NULL where that side has no row
//! (`sql-tests/upstream/column-of-using.md`). So these joins are written out:
//!
//! ```text
//! SELECT c, * FROM a FULL JOIN b USING (c)
//! SELECT coalesce(a.c, b.c) AS c, a.* REPLACE (coalesce(a.c, b.c) AS c), b.* EXCLUDE (c)
//! FROM a FULL JOIN b ON a.c = b.c
//! ```
//! What columns `NATURAL` has is not known here; nor is it which table of several a column is of, and what
//! `* EXCLUDE` and the like leave of them. There, and where it would be long ([`JOINS_MAX`],
//! [`COLUMNS_MAX`]), a join stays as it is if DataFusion's column is right, and is refused if not.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName,
    ObjectNamePart, OrderBy, OrderByKind, Query, ReplaceSelectElement, ReplaceSelectItem, Select,
    SelectItem, SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins, Visit, Visitor,
    WildcardAdditionalOptions,
};

use super::names::normalized;
use super::own_level::change_own;
use super::query::call;
use super::repeated::shown_as;
use super::spellings::number;

/// Joins that are written out: each FULL JOIN makes `c` longer, wherever it is mentioned.
const JOINS_MAX: usize = 16;

/// Columns of one USING that are written out: a condition each, in a row.
const COLUMNS_MAX: usize = 32;

/// What cannot be said of a join with USING or NATURAL.
pub(super) const NOT_KNOWN: &str = "this RIGHT, FULL or LEFT JOIN with USING or NATURAL";

/// Writes out the USING of a SELECT and of the ORDER BY that belongs to it.
///
/// # Errors
/// A join whose column would be wrong.
pub(super) fn write_out(
    select: &mut Select,
    order_by: Option<&mut OrderBy>,
) -> Result<(), &'static str> {
    if !select.from.iter().any(has_shared_columns) {
        return Ok(());
    }
    let joins: usize = select.from.iter().map(|from| from.joins.len()).sum();
    let merged = match joins <= JOINS_MAX && !has_wildcard_options(select) {
        true => Merged::of(&select.from),
        false => None,
    };
    match merged {
        Some(merged) if !merged.is_hidden_in(select, order_by.as_deref()) => {
            merged.replace(select, order_by);
            Ok(())
        }
        _ if is_right_of_datafusion(select) => Ok(()),
        _ => Err(NOT_KNOWN),
    }
}

/// Whether a wildcard leaves something out, or names it otherwise.
fn has_wildcard_options(select: &Select) -> bool {
    let plain = WildcardAdditionalOptions::default();
    select.projection.iter().any(|item| {
        matches!(item, SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)
            if *options != plain)
    })
}

/// Whether a join is by USING or NATURAL.
fn has_shared_columns(from: &TableWithJoins) -> bool {
    shared(from).next().is_some()
}

/// The operators of joins by USING or NATURAL.
fn shared(from: &TableWithJoins) -> impl Iterator<Item = &JoinOperator> {
    let nested = std::iter::once(&from.relation).chain(from.joins.iter().map(|j| &j.relation));
    let nested: Vec<_> = nested
        .filter_map(|relation| match relation {
            TableFactor::NestedJoin { table_with_joins, .. } => Some(table_with_joins.as_ref()),
            _ => None,
        })
        .flat_map(|from| shared(from).collect::<Vec<_>>())
        .collect();
    let own = from.joins.iter().map(|join| &join.join_operator);
    let is_shared = |operator: &&JoinOperator| {
        matches!(constraint(operator), Some(JoinConstraint::Using(_) | JoinConstraint::Natural))
    };
    own.filter(is_shared).chain(nested)
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator as J;
    match operator {
        J::Join(by)
        | J::Inner(by)
        | J::Left(by)
        | J::LeftOuter(by)
        | J::Right(by)
        | J::RightOuter(by)
        | J::FullOuter(by)
        | J::CrossJoin(by)
        | J::Semi(by)
        | J::LeftSemi(by)
        | J::RightSemi(by)
        | J::Anti(by)
        | J::LeftAnti(by)
        | J::RightAnti(by)
        | J::StraightJoin(by) => Some(by),
        _ => None,
    }
}

/// The constraint of a join that can be written out.
fn written_out(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator as J;
    match operator {
        J::Join(by)
        | J::Inner(by)
        | J::Left(by)
        | J::LeftOuter(by)
        | J::Right(by)
        | J::RightOuter(by)
        | J::FullOuter(by)
        | J::CrossJoin(by) => Some(by),
        _ => None,
    }
}

/// Puts a condition in the place of USING.
fn set_condition(operator: &mut JoinOperator, condition: Expr) {
    use JoinOperator as J;
    if let J::Join(by)
    | J::Inner(by)
    | J::Left(by)
    | J::LeftOuter(by)
    | J::Right(by)
    | J::RightOuter(by)
    | J::FullOuter(by)
    | J::CrossJoin(by) = operator
    {
        *by = JoinConstraint::On(condition);
    }
}

/// Whether the columns that DataFusion takes are those that are meant.
fn is_right_of_datafusion(select: &Select) -> bool {
    use JoinOperator as J;
    let has_wildcard = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    select.from.iter().flat_map(shared).all(|operator| match operator {
        J::Right(_) | J::RightOuter(_) | J::FullOuter(_) => false,
        J::Left(_) | J::LeftOuter(_) => !has_wildcard,
        // The place of the column is that of the first table of the alphabet.
        _ => !has_wildcard || are_in_order(select),
    })
}

/// Whether the tables of FROM stand there as in the alphabet.
fn are_in_order(select: &Select) -> bool {
    let tables = select.from.iter().flat_map(|from| {
        std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
    });
    let names: Option<Vec<_>> =
        tables.map(|table| name_of(table).map(|name| normalized(&name))).collect();
    names.is_some_and(|names| names.is_sorted())
}

/// A column of USING.
struct Column {
    name: Ident,
    /// The first of the tables that have it.
    owner: Ident,
    /// What it is, in terms of columns of tables.
    value: Expr,
    /// Whether it may be another than the first table's.
    is_other: bool,
}

/// What the joins of a FROM have in common.
struct Merged {
    columns: Vec<Column>,
    /// Each table with the columns that it does not show.
    tables: Vec<(Ident, Vec<Ident>)>,
    /// The condition of each join by USING.
    conditions: Vec<Option<Expr>>,
    /// The names without a table in the conditions of other joins.
    named: HashSet<String>,
}

impl Merged {
    /// The columns of USING; `None` if they are not known. The tables behind a comma have none.
    fn of(from: &[TableWithJoins]) -> Option<Self> {
        if from.iter().skip(1).any(has_shared_columns) {
            return None;
        }
        let mut merged =
            Self { columns: vec![], tables: vec![], conditions: vec![], named: HashSet::new() };
        for from in from {
            merged.tables.push((name_of(&from.relation)?, vec![]));
            for join in &from.joins {
                let condition = merged.add(join)?;
                merged.conditions.push(condition);
            }
        }
        let names: HashSet<_> = merged.tables.iter().map(|(table, _)| normalized(table)).collect();
        (names.len() == merged.tables.len()).then_some(merged)
    }

    /// Adds a join, and says on what it is if it is by USING.
    fn add(&mut self, join: &Join) -> Option<Option<Expr>> {
        use JoinOperator as J;
        let table = name_of(&join.relation)?;
        let mut hidden = vec![];
        let mut condition: Option<Expr> = None;
        match written_out(&join.join_operator)? {
            JoinConstraint::None => {}
            JoinConstraint::On(condition) => {
                let _ = condition.visit(&mut CollectNames(&mut self.named));
            }
            JoinConstraint::Natural => return None,
            JoinConstraint::Using(names) if names.len() > COLUMNS_MAX => return None,
            JoinConstraint::Using(names) => {
                let names: Option<Vec<_>> = names.iter().map(simple).collect();
                for name in names? {
                    let known = self
                        .columns
                        .iter()
                        .position(|column| normalized(&column.name) == normalized(&name));
                    let position = match (known, self.tables.as_slice()) {
                        (Some(position), _) => position,
                        (None, [(owner, _)]) => {
                            let value = column_of(owner, &name);
                            let (owner, name) = (owner.clone(), name.clone());
                            self.columns.push(Column { name, owner, value, is_other: false });
                            self.columns.len() - 1
                        }
                        // It may be of any of the tables before.
                        (None, _) => return None,
                    };
                    let column = &mut self.columns[position];
                    let other = column_of(&table, &name);
                    let equal = Expr::BinaryOp {
                        left: Box::new(column.value.clone()),
                        op: BinaryOperator::Eq,
                        right: Box::new(other.clone()),
                    };
                    condition = Some(match condition {
                        Some(condition) => Expr::BinaryOp {
                            left: Box::new(condition),
                            op: BinaryOperator::And,
                            right: Box::new(equal),
                        },
                        None => equal,
                    });
                    let is_outer = matches!(
                        join.join_operator,
                        J::Right(_) | J::RightOuter(_) | J::FullOuter(_)
                    );
                    if is_outer && self.named.contains(&normalized(&name)) {
                        // There it means what the column was before this join.
                        return None;
                    }
                    match join.join_operator {
                        J::Right(_) | J::RightOuter(_) => {
                            column.value = other;
                            column.is_other = true;
                        }
                        J::FullOuter(_) => {
                            column.value = call("coalesce", vec![column.value.clone(), other]);
                            column.is_other = true;
                        }
                        _ => {}
                    }
                    hidden.push(name);
                }
            }
        }
        self.tables.push((table, hidden));
        Some(condition)
    }

    /// Whether a subquery may mean a column that is not the first table's.
    fn is_hidden_in(&self, select: &Select, order_by: Option<&OrderBy>) -> bool {
        let names = self.columns.iter().filter(|column| column.is_other);
        let names: HashSet<_> = names.map(|column| normalized(&column.name)).collect();
        if names.is_empty() {
            return false;
        }
        // A table of FROM sees no other, unless it is LATERAL.
        let tables = select.from.iter().flat_map(|from| {
            std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
        });
        let is_lateral = |relation: &TableFactor| {
            !matches!(relation, TableFactor::Derived { lateral: false, .. })
        };
        let mut visitor = NamesInSubqueries { names, depth: 0 };
        let mut lateral = tables.filter(|r| is_lateral(r));
        let rest = Select { from: vec![], ..select.clone() };
        let mut joins = select.from.iter().flat_map(|from| &from.joins);
        lateral.any(|relation| relation.visit(&mut visitor).is_break())
            || joins.any(|join| join.join_operator.visit(&mut visitor).is_break())
            || order_by.is_some_and(|order_by| order_by.visit(&mut visitor).is_break())
            || rest.visit(&mut visitor).is_break()
    }

    /// The column that a name without a table means.
    fn column(&self, name: &Ident) -> Option<&Column> {
        self.columns.iter().find(|column| normalized(&column.name) == normalized(name))
    }

    fn replace(&self, select: &mut Select, order_by: Option<&mut OrderBy>) {
        let joins = select.from.iter_mut().flat_map(|from| &mut from.joins);
        for (join, condition) in joins.zip(&self.conditions) {
            if let Some(condition) = condition {
                set_condition(&mut join.join_operator, condition.clone());
            }
        }
        let mut shown = HashSet::new();
        let mut positions = HashMap::new();
        let items = std::mem::take(&mut select.projection);
        // The wildcard shows the column, so that ORDER BY finds it there.
        let has_all = items.iter().any(|item| {
            matches!(item, SelectItem::Wildcard(options) if *options == WildcardAdditionalOptions::default())
        });
        let is_counted = !items.iter().any(|item| {
            matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
        });
        for (position, item) in items.into_iter().enumerate() {
            match item {
                SelectItem::Wildcard(options)
                    if options == WildcardAdditionalOptions::default() =>
                {
                    shown.extend(self.columns.iter().map(|column| normalized(&column.name)));
                    select.projection.extend(self.tables.iter().map(|table| self.all_of(table)));
                }
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                    select.projection.push(match self.column(&name) {
                        Some(column) => {
                            shown.insert(normalized(&name));
                            positions.entry(normalized(&name)).or_insert(position + 1);
                            let alias = if has_all { shown_as(&name, position) } else { name };
                            SelectItem::ExprWithAlias { expr: column.value.clone(), alias }
                        }
                        None => SelectItem::UnnamedExpr(Expr::Identifier(name)),
                    });
                }
                other => {
                    shown.extend(self.shown_by(&other));
                    select.projection.push(other);
                }
            }
        }
        let mut change = |expr: &mut Expr| {
            if let Expr::Identifier(name) = expr
                && let Some(column) = self.column(name)
            {
                *expr = column.value.clone();
            }
        };
        change_own(select, &mut change);
        let Some(OrderBy { kind: OrderByKind::Expressions(orders), .. }) = order_by else { return };
        for order in orders {
            // What is shown can be ordered by its name; by its position where a table's has the same.
            match &order.expr {
                Expr::Identifier(name) if shown.contains(&normalized(name)) => {
                    if let Some(position) = positions.get(&normalized(name))
                        && is_counted
                    {
                        order.expr = number(&position.to_string());
                    }
                }
                _ => change_own(&mut order.expr, &mut change),
            }
        }
    }

    /// The columns that an item of a SELECT list shows under a name of USING.
    fn shown_by(&self, item: &SelectItem) -> Vec<String> {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias,
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => match parts.last() {
                Some(name) => name,
                None => return vec![],
            },
            SelectItem::QualifiedWildcard(..) => {
                return self.columns.iter().map(|column| normalized(&column.name)).collect();
            }
            _ => return vec![],
        };
        vec![normalized(name)]
    }

    /// All that a table shows of itself.
    fn all_of(&self, (table, hidden): &(Ident, Vec<Ident>)) -> SelectItem {
        let exclude = (!hidden.is_empty()).then(|| {
            let names = hidden.iter().map(|name| ObjectName::from(vec![name.clone()]));
            ExcludeSelectItem::Multiple(names.collect())
        });
        let others = self.columns.iter().filter(|column| column.is_other && column.owner == *table);
        let replaced: Vec<_> = others
            .map(|column| {
                Box::new(ReplaceSelectElement {
                    expr: column.value.clone(),
                    column_name: column.name.clone(),
                    as_keyword: true,
                })
            })
            .collect();
        let replace = (!replaced.is_empty()).then_some(ReplaceSelectItem { items: replaced });
        let options = WildcardAdditionalOptions {
            opt_exclude: exclude,
            opt_replace: replace,
            ..WildcardAdditionalOptions::default()
        };
        let table = ObjectName::from(vec![table.clone()]);
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(table), options)
    }
}

/// Looks for names without a table in subqueries.
struct NamesInSubqueries {
    names: HashSet<String>,
    depth: usize,
}

impl Visitor for NamesInSubqueries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) if self.depth > 0 && self.names.contains(&normalized(name)) => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Collects names without a table.
struct CollectNames<'a>(&'a mut HashSet<String>);

impl Visitor for CollectNames<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr {
            self.0.insert(normalized(name));
        }
        ControlFlow::Continue(())
    }
}

fn column_of(table: &Ident, name: &Ident) -> Expr {
    Expr::CompoundIdentifier(vec![table.clone(), name.clone()])
}

/// A name of one part, as it is stored: `* EXCLUDE` does not fold names.
fn simple(name: &ObjectName) -> Option<Ident> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => {
            Some(Ident { value: normalized(name), ..name.clone() })
        }
        _ => None,
    }
}

/// What the columns of a relation are qualified by.
fn name_of(relation: &TableFactor) -> Option<Ident> {
    match relation {
        TableFactor::Table { name, alias: None, args: None, .. } => match name.0.last()? {
            ObjectNamePart::Identifier(name) => Some(name.clone()),
            ObjectNamePart::Function(_) => None,
        },
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => {
            Some(alias.as_ref()?.name.clone())
        }
        _ => None,
    }
}
