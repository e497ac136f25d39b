//! Named windows.
//!
//! `SELECT sum(i) OVER w FROM t WINDOW w AS (ORDER BY i) ORDER BY sum(i) OVER w`: DataFusion knows the
//! window in the SELECT list only, and takes the call in ORDER BY or QUALIFY for one without a window.
//! It knows no name for another name either. So all are written out.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, SetExpr, VisitMut, VisitorMut,
    WindowSpec, WindowType,
};

/// Writes the windows of a query out.
pub(super) fn write_out(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    if select.named_window.is_empty() {
        return;
    }
    let mut windows = Windows { named: &select.named_window, depth: 0 };
    let _ = VisitMut::visit(&mut select.projection, &mut windows);
    let _ = VisitMut::visit(&mut select.qualify, &mut windows);
    let _ = VisitMut::visit(&mut query.order_by, &mut windows);
}

struct Windows<'a> {
    named: &'a [NamedWindowDefinition],
    /// How many subqueries it is in: those have windows of their own.
    depth: usize,
}

impl Windows<'_> {
    fn find(&self, name: &Ident) -> Option<&WindowSpec> {
        let mut name = name;
        // A name may stand for another; there are no more of them than that.
        for _ in 0..self.named.len() {
            let same = |other: &Ident| match (name.quote_style, other.quote_style) {
                (None, None) => name.value.eq_ignore_ascii_case(&other.value),
                _ => name.value == other.value,
            };
            match &self.named.iter().find(|window| same(&window.0))?.1 {
                NamedWindowExpr::WindowSpec(spec) => return Some(spec),
                NamedWindowExpr::NamedWindow(other) => name = other,
            }
        }
        None
    }
}

impl VisitorMut for Windows<'_> {
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
        if self.depth == 0
            && let Expr::Function(function) = expr
            && let Some(WindowType::NamedWindow(name)) = &function.over
            && let Some(spec) = self.find(name)
        {
            function.over = Some(WindowType::WindowSpec(spec.clone()));
        }
        ControlFlow::Continue(())
    }
}
