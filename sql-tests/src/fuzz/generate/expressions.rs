//! Typed expressions over a scope.

use super::super::ast::{Expr, Family, Query, Select};
use super::super::data;
use super::super::random::Random;
use super::super::scope::Scope;
use super::Generator;

const COMPARISONS: [&str; 8] = ["=", "=", "<>", "<", "<=", ">", ">=", "="];
const PATTERNS: [&str; 8] = ["'%a%'", "'a%'", "'%b'", "'_'", "'%'", "''", "'%''%'", "'_\\%%'"];

impl Generator<'_> {
    /// An expression of a family, at most `depth` operators deep.
    pub(super) fn expr(&mut self, scope: &Scope, family: Family, depth: u32) -> Expr {
        if depth == 0 || self.random.one_in(4) {
            return self.leaf(scope, family);
        }
        if self.goes_wide(6)
            && let Some(wide) = self.wide(scope, family, depth - 1)
        {
            return wide;
        }
        if self.random.one_in(4) {
            return self.any_family(scope, family, depth - 1);
        }
        match family {
            Family::Bool => self.boolean(scope, depth - 1),
            Family::Int => self.integer(scope, depth - 1),
            Family::Float => self.float(scope, depth - 1),
            Family::Decimal => self.decimal(scope, depth - 1),
            Family::Text => self.text(scope, depth - 1),
            Family::Date | Family::Time | Family::Timestamp | Family::TimestampTz => {
                self.temporal(scope, family, depth - 1)
            }
            Family::Interval | Family::Binary | Family::List => self.leaf(scope, family),
        }
    }

    /// A predicate, with a subquery now and then.
    pub(super) fn predicate(&mut self, scope: &Scope, depth: u32) -> Expr {
        self.boolean(scope, depth.max(1) - 1)
    }

    /// The predicate of a WHERE.
    pub(super) fn filter(&mut self, scope: &Scope) -> Expr {
        let outer = std::mem::replace(&mut self.is_filter, true);
        let filter = self.predicate(scope, 3);
        self.is_filter = outer;
        filter
    }

    fn leaf(&mut self, scope: &Scope, family: Family) -> Expr {
        let column = scope.pick(&mut self.random, family);
        match column {
            Some(column) if !self.random.one_in(6) => column,
            _ if self.goes_wide(4) => self.wide_literal(family),
            _ => literal(family, &mut self.random),
        }
    }

    /// What every family has.
    fn any_family(&mut self, scope: &Scope, family: Family, depth: u32) -> Expr {
        let condition = |this: &mut Self| this.expr(scope, Family::Bool, depth);
        match self.random.below(7) {
            0 => {
                let args = vec![condition(self), self.expr(scope, family, depth)];
                Expr::new(family, "CASE WHEN {} THEN {} END", args)
            }
            1 => {
                let condition = condition(self);
                let args = vec![
                    condition,
                    self.expr(scope, family, depth),
                    self.expr(scope, family, depth),
                ];
                Expr::new(family, "CASE WHEN {} THEN {} ELSE {} END", args)
            }
            2 => {
                let of = scope.ordered_family(&mut self.random);
                let args = vec![
                    self.expr(scope, of, 0),
                    literal(of, &mut self.random),
                    self.expr(scope, family, depth),
                    self.expr(scope, family, 0),
                ];
                Expr::new(family, "CASE {} WHEN {} THEN {} ELSE {} END", args)
            }
            3 if family.is_ordered() => {
                let args = vec![self.expr(scope, family, depth), self.expr(scope, family, 0)];
                Expr::new(family, "nullif({}, {})", args)
            }
            4 if family.is_ordered() && family != Family::Bool && self.subqueries > 0 => {
                self.scalar_subquery(scope, family)
            }
            _ => {
                let args = vec![self.expr(scope, family, depth), self.expr(scope, family, 0)];
                Expr::new(family, "coalesce({}, {})", args)
            }
        }
    }

    fn boolean(&mut self, scope: &Scope, depth: u32) -> Expr {
        if self.goes_wide(6) {
            return self.wide_boolean(scope, depth);
        }
        let of = scope.ordered_family(&mut self.random);
        let operands = |this: &mut Self, count: usize| -> Vec<Expr> {
            (0..count).map(|_| this.expr(scope, of, depth)).collect()
        };
        let template = match self.random.below(18) {
            0 | 1 if depth > 0 => {
                let operator = self.random.pick(&["AND", "OR", "OR"]);
                let args = vec![self.boolean(scope, depth - 1), self.boolean(scope, depth - 1)];
                return Expr::new(Family::Bool, format!("({{}} {operator} {{}})"), args);
            }
            2 => {
                let args = vec![self.expr(scope, Family::Bool, depth)];
                return Expr::new(Family::Bool, "(NOT {})", args);
            }
            3 => {
                let of = scope.family(&mut self.random);
                let args = vec![self.expr(scope, of, depth)];
                let test = self.random.pick(&["({} IS NULL)", "({} IS NOT NULL)"]);
                return Expr::new(Family::Bool, test, args);
            }
            4 => self.random.pick(&["({} IS DISTINCT FROM {})", "({} IS NOT DISTINCT FROM {})"]),
            5 => {
                let args = operands(self, 3);
                let between =
                    self.random.pick(&["({} BETWEEN {} AND {})", "({} NOT BETWEEN {} AND {})"]);
                return Expr::new(Family::Bool, between, args);
            }
            6 | 7 => return self.in_list(scope, of, depth),
            8 | 9 => return self.like(scope, depth),
            10 => {
                let args = vec![self.expr(scope, Family::Bool, depth)];
                let test = self.random.pick(&[
                    "({} IS TRUE)",
                    "({} IS NOT TRUE)",
                    "({} IS FALSE)",
                    "({} IS UNKNOWN)",
                    "({} IS NOT UNKNOWN)",
                ]);
                return Expr::new(Family::Bool, test, args);
            }
            11 | 12 if self.subqueries > 0 && (self.is_filter || self.is_wide) => {
                return self.subquery_predicate(scope);
            }
            13 => return self.leaf(scope, Family::Bool),
            14 => {
                // Against a literal: what pruning by bounds sees.
                let comparison = self.random.pick(&COMPARISONS);
                let args = vec![self.leaf(scope, of), literal(of, &mut self.random)];
                return Expr::new(Family::Bool, format!("({{}} {comparison} {{}})"), args);
            }
            _ => {
                let comparison = self.random.pick(&COMPARISONS);
                let args = operands(self, 2);
                return Expr::new(Family::Bool, format!("({{}} {comparison} {{}})"), args);
            }
        };
        Expr::new(Family::Bool, template, operands(self, 2))
    }

    fn in_list(&mut self, scope: &Scope, of: Family, depth: u32) -> Expr {
        let mut args = vec![self.expr(scope, of, depth)];
        // Long lists are planned as sets.
        let length = if self.random.one_in(5) { 6 } else { 1 + self.random.index(3) };
        args.extend((0..length).map(|_| match self.random.below(8) {
            0 => Expr::leaf(of, "NULL"),
            1 => self.expr(scope, of, 0),
            _ => literal(of, &mut self.random),
        }));
        let holes = vec!["{}"; length].join(", ");
        let operator = self.random.pick(&["IN", "IN", "NOT IN"]);
        Expr::new(Family::Bool, format!("({{}} {operator} ({holes}))"), args)
    }

    fn like(&mut self, scope: &Scope, depth: u32) -> Expr {
        let operator = self.random.pick(&["LIKE", "NOT LIKE", "ILIKE", "LIKE"]);
        let pattern = self.random.pick(&PATTERNS);
        let args = vec![self.expr(scope, Family::Text, depth)];
        Expr::new(Family::Bool, format!("({{}} {operator} {pattern})"), args)
    }

    fn integer(&mut self, scope: &Scope, depth: u32) -> Expr {
        let family = Family::Int;
        let of = |this: &mut Self, family| this.expr(scope, family, depth);
        let (template, args) = match self.random.below(15) {
            0 | 1 => ("({} + {})", vec![of(self, family), of(self, family)]),
            2 => ("({} - {})", vec![of(self, family), of(self, family)]),
            3 => ("({} * 3)", vec![of(self, family)]),
            4 => ("({} % 7)", vec![of(self, family)]),
            5 => ("({} / 3)", vec![of(self, family)]),
            6 => ("abs({})", vec![of(self, family)]),
            7 => ("character_length({})", vec![of(self, Family::Text)]),
            8 => ("CAST({} AS INT)", vec![of(self, Family::Bool)]),
            9 => ("date_part('year', {})", vec![of(self, Family::Date)]),
            10 => ("CAST(date_part('dow', {}) AS BIGINT)", vec![of(self, Family::Timestamp)]),
            11 => ("TRY_CAST({} AS BIGINT)", vec![of(self, Family::Text)]),
            12 => ("greatest({}, {})", vec![of(self, family), of(self, family)]),
            13 => ("TRY_CAST({} AS SMALLINT)", vec![of(self, family)]),
            _ => match scope.pick(&mut self.random, Family::List) {
                Some(list) => (self.random.pick(&["({}[1])", "array_length({})"]), vec![list]),
                None => ("(0 - {})", vec![of(self, family)]),
            },
        };
        Expr::new(family, template, args)
    }

    fn float(&mut self, scope: &Scope, depth: u32) -> Expr {
        let family = Family::Float;
        let of = |this: &mut Self, family| this.expr(scope, family, depth);
        let (template, args) = match self.random.below(10) {
            0 | 1 => ("({} + {})", vec![of(self, family), of(self, family)]),
            2 => ("({} - {})", vec![of(self, family), of(self, family)]),
            3 => ("({} * 0.5)", vec![of(self, family)]),
            4 => ("CAST({} AS DOUBLE)", vec![of(self, Family::Int)]),
            5 => ("abs({})", vec![of(self, family)]),
            6 => (self.random.pick(&["floor({})", "ceil({})"]), vec![of(self, family)]),
            7 => return Expr::new(family, "({} / 3.0)", vec![of(self, family)]).inexact(),
            8 => {
                let args = vec![of(self, Family::Decimal)];
                return Expr::new(family, "CAST({} AS DOUBLE)", args).inexact();
            }
            _ => return Expr::new(family, "sqrt(abs({}))", vec![of(self, family)]).inexact(),
        };
        Expr::new(family, template, args)
    }

    fn decimal(&mut self, scope: &Scope, depth: u32) -> Expr {
        let family = Family::Decimal;
        let of = |this: &mut Self, family| this.expr(scope, family, depth);
        let (template, args) = match self.random.below(6) {
            0 => ("({} + {})", vec![of(self, family), of(self, family)]),
            1 => ("({} - {})", vec![of(self, family), of(self, family)]),
            2 => ("CAST({} AS DECIMAL(20, 2))", vec![self.expr(scope, Family::Int, 0)]),
            3 => ("({} % 7)", vec![of(self, family)]),
            4 => ("TRY_CAST({} AS DECIMAL(12, 1))", vec![of(self, family)]),
            _ => ("abs({})", vec![of(self, family)]),
        };
        Expr::new(family, template, args)
    }

    fn text(&mut self, scope: &Scope, depth: u32) -> Expr {
        let family = Family::Text;
        let of = |this: &mut Self, family| this.expr(scope, family, depth);
        let (template, args) = match self.random.below(12) {
            0 => ("({} || {})", vec![of(self, family), of(self, family)]),
            1 => ("upper({})", vec![of(self, family)]),
            2 => ("lower({})", vec![of(self, family)]),
            3 => ("substr({}, 2, 3)", vec![of(self, family)]),
            4 => ("trim({})", vec![of(self, family)]),
            5 => ("replace({}, 'a', 'xy')", vec![of(self, family)]),
            6 => ("reverse({})", vec![of(self, family)]),
            7 => ("left({}, 2)", vec![of(self, family)]),
            8 => ("CAST({} AS VARCHAR)", vec![of(self, Family::Int)]),
            9 => ("CAST({} AS VARCHAR)", vec![of(self, Family::Date)]),
            10 => ("concat({}, '-', {})", vec![of(self, family), of(self, Family::Int)]),
            _ => ("lpad({}, 4, '.')", vec![of(self, family)]),
        };
        Expr::new(family, template, args)
    }

    fn temporal(&mut self, scope: &Scope, family: Family, depth: u32) -> Expr {
        let of = |this: &mut Self, family| this.expr(scope, family, depth);
        let (template, args) = match (family, self.random.below(3)) {
            (Family::Date, 0) => ("({} + INTERVAL '3 days')", vec![of(self, family)]),
            (Family::Date, 1) => ("({} - INTERVAL '1 month')", vec![of(self, family)]),
            (Family::Date, _) => ("CAST({} AS DATE)", vec![of(self, Family::Timestamp)]),
            (Family::Timestamp, 0) => ("date_trunc('month', {})", vec![of(self, family)]),
            (Family::Timestamp, 1) => ("CAST({} AS TIMESTAMP)", vec![of(self, Family::Date)]),
            (Family::Timestamp, _) => ("({} + INTERVAL '36 hours')", vec![of(self, family)]),
            (Family::TimestampTz, 0) => ("date_trunc('day', {})", vec![of(self, family)]),
            (Family::TimestampTz, 1) => {
                ("CAST({} AS TIMESTAMPTZ)", vec![of(self, Family::Timestamp)])
            }
            (Family::TimestampTz, _) => ("({} - INTERVAL '1 day')", vec![of(self, family)]),
            _ => ("CAST({} AS TIME)", vec![of(self, Family::Timestamp)]),
        };
        Expr::new(family, template, args)
    }

    /// `(SELECT max(x) FROM ...)`, with a condition on the outer row or without.
    fn scalar_subquery(&mut self, outer: &Scope, family: Family) -> Expr {
        self.subqueries -= 1;
        let (from, inner) = self.table();
        let aggregate = self.random.pick(&["min({})", "max({})"]);
        let (template, of) = match family {
            Family::Int if self.random.one_in(3) => {
                ("count({})", scope_any(&inner, &mut self.random))
            }
            _ => (aggregate, family),
        };
        let value = self.without_subqueries(|this| this.expr(&inner, of, 1));
        let items = vec![(Expr::new(family, template, vec![value]), self.name("c"))];
        let filter = self.subquery_filter(outer, &inner);
        let select = Select { items, from: Some(from), filter, ..Select::default() };
        Expr::with_query(family, "({q})", Vec::new(), Query::select(select))
    }

    /// EXISTS, IN, NOT IN, or a comparison with what a subquery yields.
    pub(super) fn subquery_predicate(&mut self, outer: &Scope) -> Expr {
        if self.random.one_in(4) {
            let family = outer.ordered_family(&mut self.random);
            if family != Family::Bool {
                let comparison = self.random.pick(&COMPARISONS);
                let args = vec![self.expr(outer, family, 0), self.scalar_subquery(outer, family)];
                return Expr::new(Family::Bool, format!("({{}} {comparison} {{}})"), args);
            }
        }
        self.subqueries -= 1;
        let (from, inner) = self.table();
        if self.random.one_in(2) {
            let filter = self.subquery_filter(outer, &inner);
            let select = Select { from: Some(from), filter, ..Select::default() };
            let items = vec![(Expr::leaf(Family::Int, "1"), self.name("c"))];
            let exists = self.random.pick(&["(EXISTS ({q}))", "(NOT EXISTS ({q}))"]);
            let query = Query::select(Select { items, ..select });
            return Expr::with_query(Family::Bool, exists, Vec::new(), query);
        }
        let family = inner.ordered_family(&mut self.random);
        let value = self.without_subqueries(|this| this.expr(&inner, family, 1));
        let items = vec![(value, self.name("c"))];
        let arg = self.without_subqueries(|this| this.expr(outer, family, 1));
        let (test, filter) = match self.random.below(2) {
            0 => ("({} IN ({q}))", self.subquery_filter(outer, &inner)),
            // DataFusion has no correlated NOT IN.
            _ => {
                let filter = self.without_subqueries(|this| this.predicate(&inner, 1));
                ("({} NOT IN ({q}))", if self.random.one_in(3) { None } else { Some(filter) })
            }
        };
        let from = Some(from);
        let query = Query::select(Select { items, from, filter, ..Select::default() });
        Expr::with_query(Family::Bool, test, vec![arg], query)
    }

    /// What a subquery keeps: all, by its own rows, or by the outer row.
    pub(super) fn subquery_filter(&mut self, outer: &Scope, inner: &Scope) -> Option<Expr> {
        let own = |this: &mut Self| this.without_subqueries(|this| this.predicate(inner, 1));
        let correlation = |this: &mut Self| {
            let family = this.random.pick(&[Family::Int, Family::Int, Family::Text]);
            let left = inner.pick(&mut this.random, family)?;
            let right = outer.pick(&mut this.random, family)?;
            Some(Expr::new(Family::Bool, "({} = {})", vec![left, right]))
        };
        match self.random.below(5) {
            0 => None,
            1 => Some(own(self)),
            2 => {
                let args = vec![correlation(self)?, own(self)];
                Some(Expr::new(Family::Bool, "({} AND {})", args))
            }
            _ => correlation(self),
        }
    }
}

fn scope_any(scope: &Scope, random: &mut Random) -> Family {
    scope.ordered_family(random)
}

/// A literal of a family.
pub(super) fn literal(family: Family, random: &mut Random) -> Expr {
    let number = random.below(12);
    let text = match family {
        _ if random.one_in(12) => format!("CAST(NULL AS {})", family.sql_type()),
        Family::Bool => random.pick(&["true", "false"]).to_owned(),
        Family::Int => {
            random.pick(&["0", "0", "1", "2", "3", "5", "10", "-1", "24", "100"]).to_owned()
        }
        Family::Float => format!("{number}.{}", random.pick(&["0", "25", "5"])),
        Family::Decimal => {
            format!("CAST('{number}.{}' AS DECIMAL(9, 2))", random.pick(&["00", "25", "5"]))
        }
        Family::Text => {
            random.pick(&["'a'", "''", "'ab'", "'B'", "'ä€'", "'10'", "'m'"]).to_owned()
        }
        Family::Date => format!("DATE '{}'", data::date(random)),
        Family::Time => format!("CAST('{}' AS TIME)", data::time(random)),
        Family::Timestamp => format!("TIMESTAMP '{}'", data::instant(random)),
        Family::TimestampTz => format!("CAST('{}Z' AS TIMESTAMPTZ)", data::instant(random)),
        Family::Interval => "INTERVAL '1 month'".to_owned(),
        Family::Binary => random.pick(&["X'6162'", "X'00'"]).to_owned(),
        Family::List => "make_array(1, 2)".to_owned(),
    };
    Expr::leaf(family, text)
}
