//! `JOIN ... USING (c)`: which column `c` is.
//!
//! DataFusion takes the left one, which is right of inner and left joins only. Of `RIGHT` and `FULL JOIN` it
//! is NULL where the left side has no row: those are refused, as an answer would be wrong. And it does
//! not look for it in WHERE, where `c` is "in more than one table": there it becomes the left one here.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Select,
    TableFactor, TableWithJoins,
};

use super::names::normalized;
use super::own_level::change_own;

/// Whether a join has a column of both sides that would be wrong.
pub(super) fn has_lost_column(from: &TableWithJoins) -> bool {
    from.joins.iter().any(|join| {
        use JoinOperator as J;
        let (J::Right(by) | J::RightOuter(by) | J::FullOuter(by)) = &join.join_operator else {
            return false;
        };
        matches!(by, JoinConstraint::Using(_) | JoinConstraint::Natural)
    })
}

/// Names the tables of USING columns in WHERE.
pub(super) fn name_tables(select: &mut Select) {
    let [from] = select.from.as_slice() else { return };
    let Some(table) = name_of(&from.relation) else { return };
    // The columns of later joins may be of any table before them.
    let columns = from.joins.first().map(using).unwrap_or_default();
    if columns.is_empty() {
        return;
    }
    change_own(&mut select.selection, |expr| {
        if let Expr::Identifier(name) = expr
            && columns.contains(&normalized(name))
        {
            *expr = Expr::CompoundIdentifier(vec![table.clone(), name.clone()]);
        }
    });
}

/// The columns that an inner or left join has of both sides.
fn using(join: &Join) -> Vec<String> {
    use JoinOperator as J;
    let (J::Join(JoinConstraint::Using(columns))
    | J::Inner(JoinConstraint::Using(columns))
    | J::Left(JoinConstraint::Using(columns))
    | J::LeftOuter(JoinConstraint::Using(columns))) = &join.join_operator
    else {
        return vec![];
    };
    let column = |name: &ObjectName| match name.0.as_slice() {
        [ObjectNamePart::Identifier(column)] => Some(normalized(column)),
        _ => None,
    };
    columns.iter().filter_map(column).collect()
}

/// What the columns of a relation are qualified by.
fn name_of(relation: &TableFactor) -> Option<Ident> {
    match relation {
        TableFactor::Table { name, alias: None, .. } => match name.0.last()? {
            ObjectNamePart::Identifier(name) => Some(name.clone()),
            ObjectNamePart::Function(_) => None,
        },
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => {
            Some(alias.as_ref()?.name.clone())
        }
        _ => None,
    }
}
