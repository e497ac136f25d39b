//! SELECTs of each kind, set operations, and whole queries.

use super::super::ast::{Body, Expr, Family, Grouping, Query, Relation, Select};
use super::super::scope::{Output, Scope};
use super::Generator;
use super::expressions::literal;

/// Families that set operations and VALUES are made of: those that any two databases compare alike.
const SET_FAMILIES: [Family; 6] =
    [Family::Int, Family::Text, Family::Date, Family::Decimal, Family::Bool, Family::Int];
/// Rows of a set operation's operand beyond which duplicates are dropped.
const OPERAND_ROWS_MAX: u64 = 5_000;

impl Generator<'_> {
    /// A query with an order, a limit, common table expressions now and then.
    pub(super) fn whole_query(&mut self) -> Query {
        let mut with = Vec::new();
        if self.random.one_in(6) {
            with.push(self.define_cte());
        }
        let (mut query, output) = if with.is_empty() { self.query(2) } else { self.self_join() };
        query.with = with;
        let is_bare = query.limit.is_none();
        if is_bare && self.random.one_in(3) {
            self.order(&mut query, &output);
        } else if is_bare && self.goes_wide(2) {
            self.limit(&mut query, output);
        }
        query
    }

    /// A SELECT over two uses of the common table expression.
    fn self_join(&mut self) -> (Query, Output) {
        let (left, right) = (self.cte(), self.cte());
        let (from, scope) = self.join_of(left, right);
        let (select, output) = self.plain(from, &scope);
        (Query::select(select), output)
    }

    /// A query without common table expressions of its own.
    pub(super) fn query(&mut self, depth: u32) -> (Query, Output) {
        match self.random.below(16) {
            0 | 1 if depth > 0 => self.set_operation(depth - 1),
            2 => self.values(),
            3 | 4 => {
                let (mut query, output) = self.select(depth);
                let output = self.limit(&mut query, output);
                (query, output)
            }
            _ => self.select(depth),
        }
    }

    fn select(&mut self, depth: u32) -> (Query, Output) {
        let (from, scope) = self.relation(depth);
        let (select, output) = match self.random.below(10) {
            0..=2 => self.grouped(from, &scope),
            3 => self.summary(from, &scope),
            4 => self.windowed(from, &scope),
            _ => self.plain(from, &scope),
        };
        (Query::select(select), output)
    }

    fn maybe_filter(&mut self, scope: &Scope) -> Option<Expr> {
        if self.random.one_in(3) { None } else { Some(self.filter(scope)) }
    }

    /// SELECT expressions, all rows or the distinct ones.
    fn plain(&mut self, from: Relation, scope: &Scope) -> (Select, Output) {
        let count = 1 + self.random.index(4);
        let families: Vec<_> = (0..count).map(|_| scope.family(&mut self.random)).collect();
        self.plain_of(from, scope, &families)
    }

    fn plain_of(&mut self, from: Relation, scope: &Scope, families: &[Family]) -> (Select, Output) {
        let filter = self.maybe_filter(scope);
        let items: Vec<_> = families.iter().map(|family| self.item(scope, *family)).collect();
        let is_ordered = families.iter().all(|family| family.is_ordered());
        let is_distinct = is_ordered && self.random.one_in(6);
        let output = output(&items, scope.rows);
        let select = Select { is_distinct, items, from: Some(from), filter, ..Select::default() };
        (select, output)
    }

    fn item(&mut self, scope: &Scope, family: Family) -> (Expr, String) {
        let depth = self.random.pick(&[0, 0, 1, 2]);
        (self.expr(scope, family, depth), self.name("c"))
    }

    /// GROUP BY.
    pub(super) fn grouped(&mut self, from: Relation, scope: &Scope) -> (Select, Output) {
        let filter = self.maybe_filter(scope);
        let count = 1 + self.random.index(3);
        let mut group = Vec::new();
        for _ in 0..count {
            let family = match self.goes_wide(8) {
                true => Family::Interval,
                false => scope.ordered_family(&mut self.random),
            };
            let depth = self.random.pick(&[0, 0, 1]);
            let key = self.without_subqueries(|this| this.expr(scope, family, depth));
            // A constant is no key in every dialect.
            if has_column(&key) && !group.contains(&key) {
                group.push(key);
            }
        }
        if group.is_empty() {
            return self.summary(from, scope);
        }
        let grouping = self.grouping(group.len());
        let mut items: Vec<_> = group.iter().map(|key| (key.clone(), self.name("c"))).collect();
        for _ in 0..=self.random.below(2) {
            items.push((self.aggregate(scope), self.name("c")));
        }
        if grouping != Grouping::Plain && self.random.one_in(3) {
            let marker = Expr::new(Family::Int, "grouping({})", vec![group[0].clone()]);
            items.push((marker, self.name("c")));
        }
        let mut having = if self.random.one_in(4) { Some(self.having(scope)) } else { None };
        if self.goes_wide(4) {
            let own = having.take().unwrap_or_else(|| self.having(scope));
            having = Some(self.wide_having(&group, own));
        }
        let output = output(&items, scope.rows);
        let from = Some(from);
        (Select { is_distinct: false, items, from, filter, group, grouping, having }, output)
    }

    fn grouping(&mut self, keys: usize) -> Grouping {
        match self.random.below(10) {
            0 => Grouping::Rollup,
            1 => Grouping::Cube,
            2 => {
                let mut sets = vec![(0..keys).collect::<Vec<_>>(), Vec::new()];
                sets.push(vec![self.random.index(keys)]);
                Grouping::Sets(sets)
            }
            _ => Grouping::Plain,
        }
    }

    /// A predicate over aggregates.
    pub(super) fn having(&mut self, scope: &Scope) -> Expr {
        let aggregate = self.aggregate(scope);
        let family = aggregate.family;
        if !family.is_ordered() || self.random.one_in(5) {
            return Expr::new(Family::Bool, "({} IS NOT NULL)", vec![aggregate]);
        }
        let comparison = self.random.pick(&["<", ">", "=", "<>", ">="]);
        let args = vec![aggregate, literal(family, &mut self.random)];
        Expr::new(Family::Bool, format!("({{}} {comparison} {{}})"), args)
    }

    /// Aggregates of all rows.
    fn summary(&mut self, from: Relation, scope: &Scope) -> (Select, Output) {
        let filter = self.maybe_filter(scope);
        let count = 1 + self.random.index(3);
        let items: Vec<_> = (0..count).map(|_| (self.aggregate(scope), self.name("c"))).collect();
        let output = output(&items, 1);
        (Select { items, from: Some(from), filter, ..Select::default() }, output)
    }

    /// Columns and a window over them.
    fn windowed(&mut self, from: Relation, scope: &Scope) -> (Select, Output) {
        let Some(window) = self.window(scope) else { return self.plain(from, scope) };
        let (mut select, mut columns) = self.plain(from, scope);
        let name = self.name("c");
        columns.columns.push((name.clone(), window.family, window.is_exact));
        select.items.push((window, name));
        // Distinct after windows is legal and would need every item ordered.
        select.is_distinct = false;
        (select, columns)
    }

    fn set_operation(&mut self, depth: u32) -> (Query, Output) {
        let families: Vec<_> =
            (0..=self.random.below(2)).map(|_| self.random.pick(&SET_FAMILIES)).collect();
        let (left, mut columns) = self.operand(depth, &families);
        let (right, other) = self.operand(depth, &families);
        let operator = self.random.pick(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT"]);
        columns.rows += other.rows;
        let (left, right) = (Box::new(left), Box::new(right));
        let body = Body::SetOperation { operator, left, right };
        (Query { body, ..Query::default() }, columns)
    }

    fn operand(&mut self, depth: u32, families: &[Family]) -> (Query, Output) {
        if depth > 0 && self.random.one_in(6) {
            let (left, output) = self.operand(depth - 1, families);
            let (right, _) = self.operand(depth - 1, families);
            let (left, right) = (Box::new(left), Box::new(right));
            let body = Body::SetOperation { operator: "UNION ALL", left, right };
            return (Query { body, ..Query::default() }, output);
        }
        let (from, scope) = self.relation(depth);
        let (mut select, mut output) = self.plain_of(from, &scope, families);
        if output.rows > OPERAND_ROWS_MAX {
            select.is_distinct = true;
            output.rows = OPERAND_ROWS_MAX;
        }
        (Query::select(select), output)
    }

    /// `SELECT column1 AS c1, ... FROM (VALUES ...)`.
    fn values(&mut self) -> (Query, Output) {
        let count = 1 + self.random.index(3);
        let families: Vec<_> = (0..count).map(|_| self.random.pick(&SET_FAMILIES)).collect();
        let rows = 1 + self.random.index(5);
        let row = |_| families.iter().map(|family| literal(*family, &mut self.random)).collect();
        let rows: Vec<Vec<Expr>> = (0..rows).map(row).collect();
        let length = rows.len() as u64;
        let values = Query { body: Body::Values(rows), ..Query::default() };
        let alias = self.name("t");
        let item = |(index, family): (usize, &Family)| {
            (Expr::leaf(*family, format!("{alias}.column{}", index + 1)), self.name("c"))
        };
        let items: Vec<_> = families.iter().enumerate().map(item).collect();
        let output = output(&items, length);
        let from = Some(Relation::Derived { query: Box::new(values), alias });
        (Query::select(Select { items, from, ..Select::default() }), output)
    }

    /// Gives a query a total order over its columns, if they have one.
    fn order(&mut self, query: &mut Query, output: &Output) -> bool {
        let is_defined =
            output.columns.iter().all(|(_, family, is_exact)| family.is_ordered() && *is_exact);
        if !is_defined {
            return false;
        }
        let first = self.random.index(output.columns.len());
        for index in 0..output.columns.len() {
            let (name, family, _) = &output.columns[(first + index) % output.columns.len()];
            query.order_by.push((Expr::leaf(*family, name.clone()), self.direction()));
        }
        true
    }

    fn limit(&mut self, query: &mut Query, mut output: Output) -> Output {
        if self.order(query, &output) {
            let rows = self.random.pick(&[0, 1, 3, 10, 25]);
            query.limit = Some(rows);
            query.offset = self.random.one_in(3).then(|| self.random.below(8));
            output.rows = output.rows.min(rows);
        }
        output
    }

    /// A SELECT with the predicate of ternary logic partitioning in WHERE, or in HAVING.
    pub(super) fn partitioned(&mut self) -> Select {
        let (from, scope) = self.relation(2);
        match self.random.below(5) {
            0 => {
                let (mut select, _) = self.grouped(from.clone(), &scope);
                if select.group.is_empty() {
                    return self.combined(from, &scope);
                }
                select.having = Some(self.having(&scope));
                select
            }
            1 => self.combined(from, &scope),
            _ => {
                let (mut select, _) = self.plain(from, &scope);
                select.filter = Some(self.filter(&scope));
                select
            }
        }
    }

    /// Aggregates of the rows that a predicate leaves.
    fn combined(&mut self, from: Relation, scope: &Scope) -> Select {
        let count = 1 + self.random.index(3);
        let items = (0..count).map(|_| (self.combinable(scope), self.name("c"))).collect();
        let filter = Some(self.filter(scope));
        Select { items, from: Some(from), filter, ..Select::default() }
    }

    /// An aggregate that those of parts can be combined to.
    fn combinable(&mut self, scope: &Scope) -> Expr {
        self.without_subqueries(|this| {
            let family = scope.ordered_family(&mut this.random);
            let (template, family, of) = match this.random.below(4) {
                0 => ("count(*)", Family::Int, None),
                1 => ("sum({})", Family::Int, Some(Family::Int)),
                2 => ("count({})", Family::Int, Some(family)),
                _ if family == Family::Bool => ("count({})", Family::Int, Some(family)),
                _ => (this.random.pick(&["min({})", "max({})"]), family, Some(family)),
            };
            let args = of.map(|of| this.expr(scope, of, 1)).into_iter().collect();
            Expr::new(family, template, args)
        })
    }
}

fn has_column(expr: &Expr) -> bool {
    (expr.args.is_empty() && expr.template.starts_with('t') && expr.template.contains('.'))
        || expr.args.iter().any(has_column)
}

pub(super) fn output(items: &[(Expr, String)], rows: u64) -> Output {
    let column = |(expr, name): &(Expr, String)| (name.clone(), expr.family, expr.is_exact);
    Output { columns: items.iter().map(column).collect(), rows }
}
