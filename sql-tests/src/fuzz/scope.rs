//! What a generated expression may name.

use super::ast::{Expr, Family};
use super::random::Random;

/// The columns of the relations of a FROM clause.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// The columns, as they are written.
    pub(super) columns: Vec<Expr>,
    /// Columns that no two rows agree in, when some are known.
    pub(super) key: Option<Vec<Expr>>,
    /// Rows there may be at most, roughly.
    pub(super) rows: u64,
}

/// What a generated query yields.
#[derive(Debug, Clone)]
pub(super) struct Output {
    /// Name, family and exactness of each column.
    pub(super) columns: Vec<(String, Family, bool)>,
    /// Rows there may be at most, roughly.
    pub(super) rows: u64,
}

impl Scope {
    /// The scope of a relation with these columns.
    pub(super) fn of_output(alias: &str, output: &Output) -> Self {
        let column = |(name, family, is_exact): &(String, Family, bool)| {
            let leaf = Expr::leaf(*family, format!("{alias}.{name}"));
            if *is_exact { leaf } else { leaf.inexact() }
        };
        let columns = output.columns.iter().map(column).collect();
        Self { columns, key: None, rows: output.rows }
    }

    /// Both scopes in one, of a join with at most `rows` rows.
    pub(super) fn joined(&self, other: &Self, rows: u64) -> Self {
        let both = |left: &[Expr], right: &[Expr]| left.iter().chain(right).cloned().collect();
        let key = match (&self.key, &other.key) {
            (Some(left), Some(right)) => Some(both(left, right)),
            _ => None,
        };
        Self { columns: both(&self.columns, &other.columns), key, rows }
    }

    /// A column of a family.
    pub(super) fn pick(&self, random: &mut Random, family: Family) -> Option<Expr> {
        let fit: Vec<_> = self.columns.iter().filter(|column| column.family == family).collect();
        if fit.is_empty() { None } else { Some(random.pick(&fit).clone()) }
    }

    /// A family that one of the columns has.
    pub(super) fn family(&self, random: &mut Random) -> Family {
        if self.columns.is_empty() {
            return Family::Int;
        }
        self.columns[random.index(self.columns.len())].family
    }

    /// A family that has an order.
    pub(super) fn ordered_family(&self, random: &mut Random) -> Family {
        let family = self.family(random);
        if family.is_ordered() { family } else { Family::Int }
    }

    /// Expressions that order the rows so that ties are equal in every column, when there are any.
    pub(super) fn total_order(&self) -> Option<Vec<Expr>> {
        match &self.key {
            Some(key) => Some(key.clone()),
            None => {
                let is_ordered = self.columns.iter().all(|column| column.family.is_ordered());
                (is_ordered && !self.columns.is_empty()).then(|| self.columns.clone())
            }
        }
    }
}
