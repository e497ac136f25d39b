//! What is generated for DuckDB only: SQL in which DataFusion and ours are known to go wrong alike, so
//! that a reference that is DataFusion says nothing about it.
//!
//! - subqueries anywhere a value stands, correlated `NOT IN`, EXISTS over aggregates, correlated
//!   aggregates, LATERAL
//! - joins of grouped tables, ordered and limited more often
//! - intervals: compared, grouped, added to; differences of timestamps; DATE and hours
//! - RANGE frames with distances, IGNORE NULLS with distances
//! - negative zero, DECIMAL beside DOUBLE, DATE beside TIMESTAMP
//!
//! Invariant: none of this draws a number unless the query is for DuckDB, so that the seeds of the other
//! oracles mean the same queries with it and without.

use super::super::ast::{Expr, Family, Query, Relation, Select};
use super::super::scope::Scope;
use super::Generator;
use super::aggregates::is_literal;
use super::expressions::literal;

const COMPARISONS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];
const INTERVALS: [&str; 8] = [
    "INTERVAL '1 month'",
    "INTERVAL '30 days'",
    "INTERVAL '24 hours'",
    "INTERVAL '1 day'",
    "INTERVAL '36 hours'",
    "INTERVAL '1 month 2 days'",
    "INTERVAL '0 days'",
    "INTERVAL '-1 day'",
];
/// Families of different types that are compared with each other.
const MIXED: [(Family, Family); 6] = [
    (Family::Decimal, Family::Float),
    (Family::Float, Family::Decimal),
    (Family::Int, Family::Float),
    (Family::Decimal, Family::Int),
    (Family::Date, Family::Timestamp),
    (Family::Timestamp, Family::Date),
];

impl Generator<'_> {
    /// Whether the wide form of something is made here.
    pub(super) fn goes_wide(&mut self, one_in: u64) -> bool {
        self.is_wide && self.random.one_in(one_in)
    }

    /// An expression of a family in a form that only DuckDB checks; `None` when the family has none.
    pub(super) fn wide(&mut self, scope: &Scope, family: Family, depth: u32) -> Option<Expr> {
        match family {
            Family::Bool => Some(self.wide_boolean(scope, depth)),
            Family::Int => Some(self.wide_integer(scope, depth)),
            Family::Float => Some(self.wide_float(scope, depth)),
            Family::Date | Family::Timestamp | Family::TimestampTz => {
                Some(self.wide_temporal(scope, family, depth))
            }
            Family::Interval => Some(self.interval(scope, depth)),
            Family::Decimal if self.subqueries > 0 => {
                Some(self.correlated_aggregate(scope, Family::Decimal))
            }
            _ => None,
        }
    }

    pub(super) fn wide_boolean(&mut self, scope: &Scope, depth: u32) -> Expr {
        match self.random.below(6) {
            0 | 1 if self.subqueries > 0 => self.subquery_predicate(scope),
            2 if self.subqueries > 0 => self.wide_subquery_predicate(scope),
            3 => {
                let args = vec![self.interval(scope, depth), self.interval(scope, depth)];
                let test = self.random.pick(&COMPARISONS);
                Expr::new(Family::Bool, format!("({{}} {test} {{}})"), args)
            }
            _ => {
                let (left, right) = self.random.pick(&MIXED);
                let args = vec![self.expr(scope, left, depth), self.expr(scope, right, depth)];
                let test = self.random.pick(&COMPARISONS);
                Expr::new(Family::Bool, format!("({{}} {test} {{}})"), args)
            }
        }
    }

    /// EXISTS over an aggregate, which always has a row, or over groups; or a correlated NOT IN.
    fn wide_subquery_predicate(&mut self, outer: &Scope) -> Expr {
        self.subqueries -= 1;
        let (from, inner) = self.table();
        let filter = self.subquery_filter(outer, &inner);
        let select = Select { from: Some(from), filter, ..Select::default() };
        let kind = self.random.below(3);
        if kind == 0 {
            let family = inner.ordered_family(&mut self.random);
            let value = self.without_subqueries(|this| this.expr(&inner, family, 1));
            let arg = self.without_subqueries(|this| this.expr(outer, family, 1));
            let items = vec![(value, self.name("c"))];
            let query = Query::select(Select { items, ..select });
            return Expr::with_query(Family::Bool, "({} NOT IN ({q}))", vec![arg], query);
        }
        let items = vec![(self.aggregate(&inner), self.name("c"))];
        let group: Vec<_> = match kind {
            1 => inner.pick(&mut self.random, Family::Int).into_iter().collect(),
            _ => Vec::new(),
        };
        let having = if self.random.one_in(2) { Some(self.having(&inner)) } else { None };
        let query = Query::select(Select { items, group, having, ..select });
        let test = self.random.pick(&["(EXISTS ({q}))", "(NOT EXISTS ({q}))"]);
        Expr::with_query(Family::Bool, test, Vec::new(), query)
    }

    /// `(SELECT sum(x) FROM ... WHERE y < outer)`, of which there is always one row.
    fn correlated_aggregate(&mut self, outer: &Scope, family: Family) -> Expr {
        self.subqueries -= 1;
        let (from, inner) = self.table();
        let (template, of) = match (family, self.random.below(4)) {
            (Family::Int, 0) => ("count(*)", None),
            (Family::Int, 1) => ("count(DISTINCT {})", Some(Family::Text)),
            (Family::Int | Family::Decimal, 2) => ("sum({})", Some(family)),
            _ => (self.random.pick(&["min({})", "max({})"]), Some(family)),
        };
        let args = of.map(|of| self.without_subqueries(|this| this.expr(&inner, of, 1)));
        let args: Vec<_> = args.into_iter().collect();
        let items = vec![(Expr::new(family, template, args), self.name("c"))];
        let columns = inner
            .pick(&mut self.random, Family::Int)
            .zip(outer.pick(&mut self.random, Family::Int));
        let filter = match columns {
            Some((left, right)) if !self.random.one_in(4) => {
                let test = self.random.pick(&["=", "<", ">=", "<>", "IS NOT DISTINCT FROM"]);
                Some(Expr::new(Family::Bool, format!("({{}} {test} {{}})"), vec![left, right]))
            }
            _ => self.subquery_filter(outer, &inner),
        };
        let select = Select { items, from: Some(from), filter, ..Select::default() };
        let template = match family {
            Family::Int => self.random.pick(&["({q})", "coalesce(({q}), 0)"]),
            _ => "({q})",
        };
        Expr::with_query(family, template, Vec::new(), Query::select(select))
    }

    fn wide_integer(&mut self, scope: &Scope, depth: u32) -> Expr {
        if self.subqueries > 0 && self.random.one_in(2) {
            return self.correlated_aggregate(scope, Family::Int);
        }
        let (template, of) = match self.random.below(4) {
            0 => ("CAST(date_part('month', {}) AS BIGINT)", Family::Date),
            1 => ("CAST(date_part('hour', {}) AS BIGINT)", Family::Timestamp),
            2 => ("CAST(date_part('quarter', {}) AS BIGINT)", Family::Timestamp),
            _ => ("CAST(date_part('doy', {}) AS BIGINT)", Family::Date),
        };
        Expr::new(Family::Int, template, vec![self.expr(scope, of, depth)])
    }

    fn wide_float(&mut self, scope: &Scope, depth: u32) -> Expr {
        let float = Family::Float;
        match self.random.below(4) {
            0 => Expr::leaf(float, "(-0.0)"),
            1 => Expr::new(float, "({} * -1.0)", vec![self.expr(scope, float, depth)]),
            2 => {
                let args =
                    vec![self.expr(scope, Family::Decimal, depth), self.expr(scope, float, depth)];
                let operator = self.random.pick(&["({} + {})", "({} - {})"]);
                Expr::new(float, operator, args).inexact()
            }
            _ => Expr::new(float, "(- {})", vec![self.expr(scope, float, depth)]),
        }
    }

    fn wide_temporal(&mut self, scope: &Scope, family: Family, depth: u32) -> Expr {
        let of = |this: &mut Self, family| this.expr(scope, family, depth);
        let (template, args) = match (family, self.random.below(4)) {
            (Family::Date, 0) => ("({} - INTERVAL '1 month 2 days')", vec![of(self, family)]),
            (Family::Date, 1) => ("date_trunc('week', {})", vec![of(self, family)]),
            (Family::Date, _) => ("({} + INTERVAL '1 year')", vec![of(self, family)]),
            // A DATE and hours are a TIMESTAMP.
            (Family::Timestamp, 0) => ("({} + INTERVAL '36 hours')", vec![of(self, Family::Date)]),
            (Family::Timestamp, 1) => ("date_trunc('hour', {})", vec![of(self, family)]),
            (_, 2) => ("({} - {})", vec![of(self, family), self.interval(scope, 0)]),
            _ => ("({} + {})", vec![of(self, family), self.interval(scope, 0)]),
        };
        Expr::new(family, template, args)
    }

    /// An interval: a column, a literal, a sum, or the time between two instants.
    fn interval(&mut self, scope: &Scope, depth: u32) -> Expr {
        let family = Family::Interval;
        match self.random.below(6) {
            0 | 1 if depth > 0 => {
                let args = vec![self.interval(scope, 0), self.interval(scope, 0)];
                Expr::new(family, self.random.pick(&["({} + {})", "({} - {})"]), args)
            }
            2 => {
                let of = self.random.pick(&[Family::Timestamp, Family::TimestampTz]);
                let args = vec![self.expr(scope, of, 0), self.expr(scope, of, 0)];
                Expr::new(family, "({} - {})", args)
            }
            3 => Expr::leaf(family, self.random.pick(&INTERVALS)),
            _ => scope
                .pick(&mut self.random, family)
                .unwrap_or_else(|| Expr::leaf(family, self.random.pick(&INTERVALS))),
        }
    }

    /// An aggregate of intervals.
    pub(super) fn wide_aggregate(&mut self, scope: &Scope) -> Expr {
        let arg = self.interval(scope, 1);
        match self.random.below(3) {
            0 => Expr::new(Family::Int, "count(DISTINCT {})", vec![arg]),
            1 => Expr::new(Family::Interval, "min({})", vec![arg]),
            _ => Expr::new(Family::Interval, "max({})", vec![arg]),
        }
    }

    /// A predicate of groups in which a subquery stands: beside the aggregate, or about a key.
    pub(super) fn wide_having(&mut self, group: &[Expr], having: Expr) -> Expr {
        if self.subqueries == 0 {
            return having;
        }
        let is_column = |key: &&Expr| key.args.is_empty() && !is_literal(key);
        let columns = group.iter().filter(is_column).cloned().collect();
        let scope = Scope { columns, key: None, rows: 1 };
        let subquery = self.wide_boolean(&scope, 0);
        let operator =
            self.random.pick(&["({} OR {})", "({} AND {})", "(CASE WHEN {} THEN {} END)"]);
        Expr::new(Family::Bool, operator, vec![having, subquery])
    }

    /// An aggregate over a RANGE frame with distances; ties are in the frame together.
    pub(super) fn ranged(&mut self, scope: &Scope) -> Option<Expr> {
        let families =
            [Family::Int, Family::Decimal, Family::Float, Family::Date, Family::Timestamp];
        let family = self.random.pick(&families);
        let key = scope.pick(&mut self.random, family)?;
        let (result, function, mut args) = match self.random.below(4) {
            0 => (Family::Int, "count(*)", Vec::new()),
            1 => (Family::Int, "sum({})", vec![self.expr(scope, Family::Int, 0)]),
            2 => {
                let of = scope.ordered_family(&mut self.random);
                let of = if of == Family::Bool { Family::Int } else { of };
                (of, "max({})", vec![self.expr(scope, of, 0)])
            }
            _ => (Family::Decimal, "sum({})", vec![self.expr(scope, Family::Decimal, 0)]),
        };
        let mut template = format!("{function} OVER (");
        self.partition_by(scope, &mut template, &mut args);
        let direction = self.direction();
        template.push_str(&format!("ORDER BY {{}} {direction} RANGE BETWEEN "));
        args.push(key);
        let distances: &[&str] = match family {
            Family::Date | Family::Timestamp => {
                &["INTERVAL '10 days'", "INTERVAL '1 month'", "INTERVAL '36 hours'"]
            }
            Family::Int => &["0", "1", "100"],
            _ => &["0.5", "2.25", "10"],
        };
        let distance = |this: &mut Self| this.random.pick(distances);
        let frame = match self.random.below(4) {
            0 => format!("{} PRECEDING AND CURRENT ROW", distance(self)),
            1 => format!("UNBOUNDED PRECEDING AND {} FOLLOWING", distance(self)),
            2 => format!("CURRENT ROW AND {} FOLLOWING", distance(self)),
            _ => format!("{} PRECEDING AND {} FOLLOWING", distance(self), distance(self)),
        };
        template.push_str(&frame);
        template.push(')');
        Some(Expr::new(result, template, args))
    }

    /// `lead(x, 2) IGNORE NULLS` and its kin, which take a total order.
    pub(super) fn ignoring_nulls(&mut self, scope: &Scope) -> Option<(Family, &'static str, Expr)> {
        const FUNCTIONS: [&str; 7] = [
            "lead({}) IGNORE NULLS",
            "lead({}, 2) IGNORE NULLS",
            "lag({}, 2) IGNORE NULLS",
            "lag({}, 3) IGNORE NULLS",
            "first_value({}) IGNORE NULLS",
            "last_value({}) IGNORE NULLS",
            "nth_value({}, 2) IGNORE NULLS",
        ];
        let family = scope.family(&mut self.random);
        let function = self.random.pick(&FUNCTIONS);
        Some((family, function, scope.pick(&mut self.random, family)?))
    }

    /// A relation and, for each of its rows, what a query over another gives.
    pub(super) fn lateral(&mut self, (left, outer): (Relation, Scope)) -> (Relation, Scope) {
        let (from, inner) = self.small_table();
        let filter = self.subquery_filter(&outer, &inner);
        let is_aggregate = self.random.one_in(2);
        let mut items = Vec::new();
        for _ in 0..=self.random.below(2) {
            let family = inner.family(&mut self.random);
            let item = match is_aggregate {
                true => self.aggregate(&inner),
                false => self.without_subqueries(|this| this.expr(&inner, family, 1)),
            };
            items.push((item, self.name("c")));
        }
        let rows = if is_aggregate { 1 } else { inner.rows };
        let output = super::selects::output(&items, rows);
        let query = Query::select(Select { items, from: Some(from), filter, ..Select::default() });
        let alias = self.name("t");
        let right_scope = Scope::of_output(&alias, &output);
        let scope = outer.joined(&right_scope, outer.rows.saturating_mul(rows));
        let right = Box::new(Relation::Derived { query: Box::new(query), alias });
        let (kind, on) = match self.random.below(2) {
            0 => ("CROSS JOIN LATERAL", Vec::new()),
            _ => ("LEFT JOIN LATERAL", vec![Expr::leaf(Family::Bool, "true")]),
        };
        (Relation::Join { kind, left: Box::new(left), right, on }, scope)
    }

    /// Groups of a table, whose keys are unique until they are joined.
    pub(super) fn grouped_table(&mut self) -> (Relation, Scope) {
        let (from, scope) = self.table();
        let (select, output) = self.grouped(from, &scope);
        let alias = self.name("t");
        let scope = Scope::of_output(&alias, &output);
        (Relation::Derived { query: Box::new(Query::select(select)), alias }, scope)
    }

    /// A literal of a family in a form that only DuckDB checks.
    pub(super) fn wide_literal(&mut self, family: Family) -> Expr {
        match family {
            Family::Float => Expr::leaf(family, "(-0.0)"),
            Family::Interval => Expr::leaf(family, self.random.pick(&INTERVALS)),
            _ => literal(family, &mut self.random),
        }
    }
}
