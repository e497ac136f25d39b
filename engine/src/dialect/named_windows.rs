//! Named windows.
//!
//! `SELECT sum(i) OVER w FROM t WINDOW w AS (ORDER BY i) ORDER BY sum(i) OVER w`: DataFusion knows the
//! window in the SELECT list only, and takes the call in ORDER BY or QUALIFY for one without a window.
//! It knows no name for another name, and takes `OVER (w ORDER BY i)` for `OVER (ORDER BY i)`. So all are
//! written out.

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, SetExpr, VisitMut, WindowSpec,
    WindowType,
};

use super::names::normalized;
use super::own_level::change_own;

/// How many names may stand for one another. They are looked up by recursion.
const NAMES_MAX: usize = 32;

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
    if named.is_empty() {
        return;
    }
    let named = named.iter().map(|window| (normalized(&window.0), &window.1));
    let windows = Windows { named: named.collect() };
    change_own(within, |expr| {
        if let Expr::Function(function) = expr {
            let whole = match &function.over {
                Some(WindowType::NamedWindow(name)) => windows.find(name, NAMES_MAX),
                Some(WindowType::WindowSpec(spec)) => windows.whole(spec, NAMES_MAX),
                None => None,
            };
            if let Some(whole) = whole {
                function.over = Some(WindowType::WindowSpec(whole));
            }
        }
    });
}

struct Windows<'a> {
    named: HashMap<String, &'a NamedWindowExpr>,
}

impl Windows<'_> {
    /// What a name means, if at most `steps` names stand for others on the way.
    fn find(&self, name: &Ident, steps: usize) -> Option<WindowSpec> {
        let steps = steps.checked_sub(1)?;
        match self.named.get(&normalized(name))? {
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
