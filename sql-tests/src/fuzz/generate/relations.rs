//! What stands in a FROM clause.

use super::super::ast::{Expr, Family, Query, Relation};
use super::super::data::Table;
use super::super::scope::Scope;
use super::Generator;

/// Rows that a relation may have, roughly: queries take milliseconds.
const ROWS_MAX: u64 = 20_000;
/// Part of the product that an equality leaves at most: a third of the keys is equal, twice.
const EQUAL_PART: u64 = 6;

const JOINS: [&str; 8] = [
    "INNER JOIN",
    "LEFT JOIN",
    "RIGHT JOIN",
    "FULL JOIN",
    "LEFT SEMI JOIN",
    "LEFT ANTI JOIN",
    "RIGHT SEMI JOIN",
    "RIGHT ANTI JOIN",
];

impl Generator<'_> {
    /// A relation, at most `depth` joins or queries deep.
    pub(super) fn relation(&mut self, depth: u32) -> (Relation, Scope) {
        if self.goes_wide(8) {
            return self.grouped_table();
        }
        match self.random.below(9) {
            0..=3 if depth > 0 => self.join(depth - 1),
            4 | 5 if depth > 0 => self.derived(depth - 1),
            6 if !self.ctes.is_empty() => self.cte(),
            _ => self.table(),
        }
    }

    /// A table, small ones more often.
    pub(super) fn table(&mut self) -> (Relation, Scope) {
        let tables = self.tables;
        let index = self.random.index(tables.len());
        self.named(&tables[index])
    }

    pub(super) fn small_table(&mut self) -> (Relation, Scope) {
        let tables = self.tables;
        let small: Vec<_> = tables.iter().filter(|table| table.rows() <= 20).collect();
        if small.is_empty() {
            return self.table();
        }
        let table = self.random.pick(&small);
        self.named(table)
    }

    fn named(&mut self, table: &Table) -> (Relation, Scope) {
        let alias = self.name("t");
        let leaf = |name: &str, family| Expr::leaf(family, format!("{alias}.{name}"));
        let columns =
            table.columns.iter().map(|column| leaf(&column.name, column.family)).collect();
        let key = Some(vec![leaf("id", Family::Int)]);
        let scope = Scope { columns, key, rows: table.rows() as u64 };
        (Relation::Table { name: table.name.clone(), alias }, scope)
    }

    /// A common table expression; there is one at least.
    pub(super) fn cte(&mut self) -> (Relation, Scope) {
        let (name, output) = self.ctes[self.random.index(self.ctes.len())].clone();
        let alias = self.name("t");
        let scope = Scope::of_output(&alias, &output);
        (Relation::Table { name, alias }, scope)
    }

    fn derived(&mut self, depth: u32) -> (Relation, Scope) {
        let (query, output) = self.query(depth);
        let alias = self.name("t");
        let scope = Scope::of_output(&alias, &output);
        (Relation::Derived { query: Box::new(query), alias }, scope)
    }

    fn join(&mut self, depth: u32) -> (Relation, Scope) {
        if self.goes_wide(6) {
            let left = self.relation(depth);
            return self.lateral(left);
        }
        let (left, right) = (self.relation(depth), self.relation(depth));
        self.join_of(left, right)
    }

    /// Two relations joined; the right one is another when the result would be large.
    pub(super) fn join_of(
        &mut self,
        (left, left_scope): (Relation, Scope),
        (mut right, mut right_scope): (Relation, Scope),
    ) -> (Relation, Scope) {
        if left_scope.rows * right_scope.rows > ROWS_MAX * EQUAL_PART {
            (right, right_scope) = self.small_table();
        }
        let product = left_scope.rows * right_scope.rows;
        let may_cross = product <= ROWS_MAX;
        if may_cross && self.random.one_in(10) {
            let scope = left_scope.joined(&right_scope, product);
            return (relation("CROSS JOIN", left, right, Vec::new()), scope);
        }
        let on = self.conditions(&left_scope, &right_scope, may_cross);
        let kind = self.random.pick(&JOINS);
        let rows = (if may_cross { product } else { product / EQUAL_PART })
            .max(left_scope.rows + right_scope.rows);
        let scope = match kind {
            "LEFT SEMI JOIN" | "LEFT ANTI JOIN" => left_scope,
            "RIGHT SEMI JOIN" | "RIGHT ANTI JOIN" => right_scope,
            _ => left_scope.joined(&right_scope, rows.min(ROWS_MAX)),
        };
        (relation(kind, left, right, on), scope)
    }

    /// What both sides of a join must fulfil: an equality at least when the sides are large.
    fn conditions(&mut self, left: &Scope, right: &Scope, may_be_any: bool) -> Vec<Expr> {
        let mut on = Vec::new();
        if !may_be_any || !self.random.one_in(8) {
            on.push(self.equality(left, right));
        }
        let both = left.joined(right, 0);
        if on.is_empty() || self.random.one_in(3) {
            let extra = match self.random.below(4) {
                0 => self.equality(left, right),
                1 => {
                    let operator = self.random.pick(&["<", ">=", "<>"]);
                    let args = vec![self.side(left, Family::Int), self.side(right, Family::Int)];
                    Expr::new(Family::Bool, format!("({{}} {operator} {{}})"), args)
                }
                2 => self.without_subqueries(|this| this.predicate(left, 1)),
                _ => self.without_subqueries(|this| this.predicate(&both, 2)),
            };
            on.push(extra);
        }
        on
    }

    fn equality(&mut self, left: &Scope, right: &Scope) -> Expr {
        let wanted = left.ordered_family(&mut self.random);
        let in_both = |family: Family| {
            let has = |scope: &Scope| scope.columns.iter().any(|column| column.family == family);
            has(left) && has(right)
        };
        let family = match wanted {
            Family::Bool => Family::Int,
            wanted if in_both(wanted) => wanted,
            _ => Family::Int,
        };
        let args = vec![self.side(left, family), self.side(right, family)];
        let template = match self.random.below(8) {
            0 => "({} IS NOT DISTINCT FROM {})",
            _ => "({} = {})",
        };
        Expr::new(Family::Bool, template, args)
    }

    /// One side of a comparison: mostly a column.
    fn side(&mut self, scope: &Scope, family: Family) -> Expr {
        match scope.pick(&mut self.random, family) {
            Some(column) if !self.random.one_in(5) => column,
            _ => self.without_subqueries(|this| this.expr(scope, family, 1)),
        }
    }

    /// Makes a common table expression that later relations may name.
    pub(super) fn define_cte(&mut self) -> (String, Query) {
        let (query, output) = self.query(1);
        let name = self.name("w");
        self.ctes.push((name.clone(), output));
        (name, query)
    }
}

fn relation(kind: &'static str, left: Relation, right: Relation, on: Vec<Expr>) -> Relation {
    Relation::Join { kind, left: Box::new(left), right: Box::new(right), on }
}
