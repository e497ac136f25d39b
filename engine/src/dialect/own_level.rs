//! Expressions of a SELECT's own level: in its subqueries, names mean other things.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, VisitMut, VisitorMut};

/// Changes each expression below a node, from the outside to the inside, but for those of subqueries.
pub(super) fn change_own(node: &mut impl VisitMut, change: impl FnMut(&mut Expr)) {
    let _ = VisitMut::visit(node, &mut OwnLevel { change, depth: 0 });
}

struct OwnLevel<F> {
    change: F,
    /// How many subqueries it is in.
    depth: usize,
}

impl<F: FnMut(&mut Expr)> VisitorMut for OwnLevel<F> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.change)(expr);
        }
        ControlFlow::Continue(())
    }
}
