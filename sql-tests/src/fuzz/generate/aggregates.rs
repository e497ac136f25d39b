//! Aggregates and windows.

use super::super::ast::{Expr, Family};
use super::super::scope::Scope;
use super::Generator;

impl Generator<'_> {
    /// An aggregate over the rows of a scope.
    pub(super) fn aggregate(&mut self, scope: &Scope) -> Expr {
        self.without_subqueries(|this| this.bare_aggregate(scope))
    }

    fn bare_aggregate(&mut self, scope: &Scope) -> Expr {
        if self.goes_wide(12) {
            return self.wide_aggregate(scope);
        }
        let any = scope.family(&mut self.random);
        let ordered = scope.ordered_family(&mut self.random);
        let (family, template, arg) = match self.random.below(14) {
            0 => (Family::Int, "count(*)", None),
            1 => (Family::Int, "count({})", Some(self.expr(scope, any, 1))),
            2 | 3 => (Family::Int, "count(DISTINCT {})", Some(self.expr(scope, ordered, 1))),
            4 | 5 => (Family::Int, "sum({})", Some(self.expr(scope, Family::Int, 1))),
            6 => (Family::Int, "sum(DISTINCT {})", Some(self.expr(scope, Family::Int, 0))),
            7 => (Family::Decimal, "sum({})", Some(self.expr(scope, Family::Decimal, 1))),
            8 => return self.average(scope),
            9 if ordered != Family::Bool => {
                (ordered, "min({})", Some(self.expr(scope, ordered, 1)))
            }
            10 => {
                let function = self.random.pick(&["bool_and({})", "bool_or({})"]);
                (Family::Bool, function, Some(self.expr(scope, Family::Bool, 1)))
            }
            11 => return self.joined_texts(scope),
            12 => return self.float_sum(scope),
            _ if ordered != Family::Bool => {
                (ordered, "max({})", Some(self.expr(scope, ordered, 1)))
            }
            _ => (Family::Int, "count(*)", None),
        };
        let args: Vec<_> = arg.into_iter().collect();
        if self.random.one_in(4) {
            let mut args = args;
            args.push(self.predicate(scope, 1));
            return Expr::new(family, format!("{template} FILTER (WHERE {{}})"), args);
        }
        Expr::new(family, template, args)
    }

    fn average(&mut self, scope: &Scope) -> Expr {
        if self.random.one_in(2) {
            let args = vec![self.expr(scope, Family::Decimal, 0)];
            return Expr::new(Family::Decimal, "avg({})", args);
        }
        let args = vec![self.expr(scope, Family::Int, 0)];
        Expr::new(Family::Float, "avg({})", args).inexact()
    }

    fn joined_texts(&mut self, scope: &Scope) -> Expr {
        let text = self.expr(scope, Family::Text, 0);
        let args = vec![text.clone(), text];
        Expr::new(Family::Text, "string_agg({}, ',' ORDER BY {})", args)
    }

    /// A sum of floats, of those only whose sum is exact.
    fn float_sum(&mut self, scope: &Scope) -> Expr {
        let arg = self.expr(scope, Family::Float, 1);
        let template = if arg.is_exact { "sum({})" } else { "max({})" };
        Expr::new(Family::Float, template, vec![arg])
    }

    /// A window function; `None` when the scope has no total order.
    pub(super) fn window(&mut self, scope: &Scope) -> Option<Expr> {
        if self.goes_wide(3)
            && let Some(ranged) = self.without_subqueries(|this| this.ranged(scope))
        {
            return Some(ranged);
        }
        let total = scope.total_order()?;
        self.without_subqueries(|this| this.bare_window(scope, &total))
    }

    fn bare_window(&mut self, scope: &Scope, total: &[Expr]) -> Option<Expr> {
        let ordered = match scope.ordered_family(&mut self.random) {
            // DataFusion has no default frame over these.
            Family::Time | Family::Binary => Family::Int,
            ordered => ordered,
        };
        let any = scope.family(&mut self.random);
        let wide = if self.goes_wide(3) { self.ignoring_nulls(scope) } else { None };
        let (family, function, mut args) = match self.random.below(13) {
            _ if wide.is_some() => {
                let (family, function, arg) = wide?;
                (family, function, vec![arg])
            }
            0 => (Family::Int, "row_number()", Vec::new()),
            1 => return Some(self.ranking(scope)),
            2 => (any, "lag({}, 1)", vec![scope.pick(&mut self.random, any)?]),
            3 => (any, "lead({}, 2)", vec![scope.pick(&mut self.random, any)?]),
            4 => (any, "lag({}) IGNORE NULLS", vec![scope.pick(&mut self.random, any)?]),
            5 => (Family::Int, "ntile(3)", Vec::new()),
            6 => (any, "first_value({})", vec![scope.pick(&mut self.random, any)?]),
            7 => (any, "nth_value({}, 2)", vec![scope.pick(&mut self.random, any)?]),
            8 => (Family::Int, "count({})", vec![self.expr(scope, any, 1)]),
            9 if ordered != Family::Bool => {
                let function = self.random.pick(&["min({})", "max({})"]);
                (ordered, function, vec![self.expr(scope, ordered, 1)])
            }
            10 => (Family::Decimal, "sum({})", vec![self.expr(scope, Family::Decimal, 0)]),
            _ => (Family::Int, "sum({})", vec![self.expr(scope, Family::Int, 1)]),
        };
        let takes_frame = ["count", "min", "max", "sum", "first", "last", "nth"];
        let takes_frame = takes_frame.iter().any(|name| function.starts_with(name));
        let is_value = ["first", "last", "nth"].iter().any(|name| function.starts_with(name));
        let is_aggregate = takes_frame && !is_value;
        let mut template = function.to_owned();
        if is_aggregate && self.random.one_in(5) {
            template.push_str(" FILTER (WHERE {})");
            args.push(self.predicate(scope, 1));
        }
        template.push_str(" OVER (");
        self.partition_by(scope, &mut template, &mut args);
        let first = self.expr(scope, ordered, 0);
        let first = if is_literal(&first) { None } else { Some(first) };
        template.push_str("ORDER BY ");
        for (index, key) in first.into_iter().chain(total.iter().cloned()).enumerate() {
            let direction = self.direction();
            template.push_str(&format!("{}{{}} {direction}", if index == 0 { "" } else { ", " }));
            args.push(key);
        }
        if takes_frame {
            template.push_str(self.random.pick(&[
                "",
                " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
                " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING",
                " ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING",
                " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
                " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            ]));
        }
        template.push(')');
        Some(Expr::new(family, template, args))
    }

    /// Functions in which ties have the same value: any order will do.
    fn ranking(&mut self, scope: &Scope) -> Expr {
        let function =
            self.random.pick(&["rank()", "dense_rank()", "count(*)", "sum({})", "count(*)"]);
        let mut template = format!("{function} OVER (");
        let mut args = Vec::new();
        if function == "sum({})" {
            args.push(self.expr(scope, Family::Int, 0));
        }
        self.partition_by(scope, &mut template, &mut args);
        let ordered = scope.ordered_family(&mut self.random);
        let family = if self.random.one_in(2) { Family::Int } else { ordered };
        if let Some(key) = scope.pick(&mut self.random, family) {
            let direction = self.direction();
            template.push_str(&format!("ORDER BY {{}} {direction}"));
            args.push(key);
            if family == Family::Int && !function.contains("rank") && self.random.one_in(2) {
                template.push_str(" RANGE BETWEEN 2 PRECEDING AND 1 FOLLOWING");
            }
        }
        template.push(')');
        Expr::new(Family::Int, template, args)
    }

    pub(super) fn partition_by(
        &mut self,
        scope: &Scope,
        template: &mut String,
        args: &mut Vec<Expr>,
    ) {
        if self.random.one_in(3) {
            return;
        }
        let family = scope.ordered_family(&mut self.random);
        if let Some(key) = scope.pick(&mut self.random, family) {
            template.push_str("PARTITION BY {} ");
            args.push(key);
        }
    }

    pub(super) fn direction(&mut self) -> &'static str {
        self.random.pick(&["NULLS FIRST", "NULLS LAST", "DESC NULLS LAST", "DESC NULLS FIRST"])
    }
}

pub(super) fn is_literal(expr: &Expr) -> bool {
    expr.args.is_empty() && !expr.template.contains('.')
}
