//! Named windows.
//!
//! `SELECT sum(i) OVER w FROM t WINDOW w AS (ORDER BY i) ORDER BY sum(i) OVER w`: DataFusion knows the
//! window in the SELECT list only, and takes the call in ORDER BY or QUALIFY for one without a window.
//! It knows no name for another name, and takes `OVER (w ORDER BY i)` for `OVER (ORDER BY i)`. So all are
//! written out.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, SetExpr, VisitMut, VisitorMut,
    WindowSpec, WindowType,
};

/// Writes the windows of a query out.
pub(super) fn write_out(query: &mut Query) {
    if let SetExpr::Select(select) = query.body.as_ref() {
        let named = select.named_window.clone();
        write_windows(&mut query.order_by, &named);
    }
    let mut bodies = vec![query.body.as_mut()];
    while let Some(body) = bodies.pop() {
        match body {
            SetExpr::Select(select) => {
                let named = std::mem::take(&mut select.named_window);
                write_windows(&mut select.projection, &named);
                write_windows(&mut select.qualify, &named);
                // Those that nothing uses may still be wrong.
                select.named_window = named;
            }
            SetExpr::SetOperation { left, right, .. } => {
                bodies.extend([left.as_mut(), right.as_mut()]);
            }
            _ => {}
        }
    }
}

fn write_windows(within: &mut impl VisitMut, named: &[NamedWindowDefinition]) {
    if !named.is_empty() {
        let _ = VisitMut::visit(within, &mut Windows { named, depth: 0 });
    }
}

struct Windows<'a> {
    named: &'a [NamedWindowDefinition],
    /// How many subqueries it is in: those have windows of their own.
    depth: usize,
}

impl Windows<'_> {
    /// What a name means. At most `steps` names stand for others on the way: there are no more.
    fn find(&self, name: &Ident, steps: usize) -> Option<WindowSpec> {
        let same = |other: &Ident| match (name.quote_style, other.quote_style) {
            (None, None) => name.value.eq_ignore_ascii_case(&other.value),
            _ => name.value == other.value,
        };
        let steps = steps.checked_sub(1)?;
        match &self.named.iter().find(|window| same(&window.0))?.1 {
            NamedWindowExpr::NamedWindow(other) => self.find(other, steps),
            NamedWindowExpr::WindowSpec(spec) => self.whole(spec, steps),
        }
    }

    /// A window with what it takes from another: `(w ORDER BY i)` has the partitions of `w`, and its
    /// order if it has none of its own.
    fn whole(&self, spec: &WindowSpec, steps: usize) -> Option<WindowSpec> {
        let mut whole = spec.clone();
        if let Some(base) = whole.window_name.take() {
            let base = self.find(&base, steps)?;
            whole.partition_by = base.partition_by;
            if whole.order_by.is_empty() {
                whole.order_by = base.order_by;
            }
        }
        Some(whole)
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
        {
            let steps = self.named.len() + 1;
            let whole = match &function.over {
                Some(WindowType::NamedWindow(name)) => self.find(name, steps),
                Some(WindowType::WindowSpec(spec)) => self.whole(spec, steps),
                None => None,
            };
            function.over = whole.map(WindowType::WindowSpec).or(function.over.take());
        }
        ControlFlow::Continue(())
    }
}
