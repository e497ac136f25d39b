//! `JOIN ... USING (c)`: which column `c` is.
//!
//! DataFusion takes the left one, which is right of inner and left joins only. Of `RIGHT` and `FULL JOIN` it
//! is NULL where the left side has no row: those are refused, as an answer would be wrong. And it does
//! not look for it in WHERE, where `c` is "in more than one table": there it becomes the left one here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectNamePart, Query, Select, TableFactor,
    TableWithJoins, VisitMut, VisitorMut,
};

/// The first join whose column of both sides would be wrong.
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
    if !columns.is_empty() {
        let _ = VisitMut::visit(&mut select.selection, &mut Names { table, columns, depth: 0 });
    }
}

fn using(join: &Join) -> Vec<Ident> {
    use JoinOperator as J;
    let (J::Join(JoinConstraint::Using(columns))
    | J::Inner(JoinConstraint::Using(columns))
    | J::Left(JoinConstraint::Using(columns))
    | J::LeftOuter(JoinConstraint::Using(columns))) = &join.join_operator
    else {
        return vec![];
    };
    let column = |name: &datafusion::sql::sqlparser::ast::ObjectName| match name.0.as_slice() {
        [ObjectNamePart::Identifier(column)] => Some(column.clone()),
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

struct Names {
    table: Ident,
    columns: Vec<Ident>,
    depth: usize,
}

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && self.columns.iter().any(|column| is_same(column, name))
        {
            *expr = Expr::CompoundIdentifier(vec![self.table.clone(), name.clone()]);
        }
        ControlFlow::Continue(())
    }
}

fn is_same(column: &Ident, name: &Ident) -> bool {
    let normal = |ident: &Ident| match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    };
    normal(column) == normal(name)
}
