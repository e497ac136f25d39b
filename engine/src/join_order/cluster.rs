//! Inner joins that lie next to each other in a plan, taken apart and put together in another order.
//!
//! Only inner joins: rows of outer, semi and anti joins depend on what they are joined to, so those stay whole as
//! relations of the order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, JoinConstraint, LogicalPlan, Projection,
};

use super::enumerate::Order;
use super::graph::{RELATIONS_MAX, Set};

/// Relations, and all that joins them.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) relations: Vec<LogicalPlan>,
    /// Keys that are equal to each other, at most one of each relation.
    pub(super) equal: Vec<Vec<(usize, Expr)>>,
    pub(super) conditions: Vec<(Set, Expr)>,
    /// As they are joined now.
    pub(super) order: Order,
}

/// What is found on the way down.
#[derive(Debug, Default)]
struct Found {
    relations: Vec<LogicalPlan>,
    equal: Vec<(Expr, Expr)>,
    conditions: Vec<Expr>,
}

impl Found {
    fn add(&mut self, plan: &LogicalPlan) -> Order {
        if let Some(join) = inner(plan) {
            self.equal.extend(join.on.iter().cloned());
            let conditions = join.filter.iter().cloned().flat_map(split_conjunction_owned);
            self.conditions.extend(conditions);
            let left = self.add(&join.left);
            return Order::join(left, self.add(&join.right));
        }
        match plan {
            LogicalPlan::Projection(projection) if over_joins(plan) => self.add(&projection.input),
            LogicalPlan::Filter(filter) if over_joins(plan) => {
                self.conditions.extend(split_conjunction_owned(filter.predicate.clone()));
                self.add(&filter.input)
            }
            _ => {
                self.relations.push(plan.clone());
                Order::Relation(self.relations.len() - 1)
            }
        }
    }
}

/// An inner join, whose NULLs are equal to nothing.
fn inner(plan: &LogicalPlan) -> Option<&Join> {
    let LogicalPlan::Join(join) = plan else { return None };
    let is_inner = join.join_type == JoinType::Inner
        && join.null_equality == NullEquality::NullEqualsNothing
        && !join.null_aware;
    is_inner.then_some(join)
}

/// Whether a plan is inner joins below filters and projections that only leave columns out.
fn over_joins(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
                && over_joins(&projection.input)
        }
        LogicalPlan::Filter(filter) => over_joins(&filter.input),
        _ => inner(plan).is_some(),
    }
}

impl Cluster {
    /// The joins at the top of a plan; `None` where they are fewer than two, or better left alone.
    pub(super) fn of(plan: &LogicalPlan) -> Result<Option<Self>> {
        Self::of_at_least(3, plan)
    }

    /// The joins of at least so many relations.
    pub(super) fn of_at_least(least: usize, plan: &LogicalPlan) -> Result<Option<Self>> {
        if !over_joins(plan) {
            return Ok(None);
        }
        let mut found = Found::default();
        let order = found.add(plan);
        let Found { relations, equal, conditions } = found;
        if relations.len() < least || relations.len() > RELATIONS_MAX {
            return Ok(None);
        }
        let Some(owners) = owners(&relations) else { return Ok(None) };
        let mut cluster = Self { relations, equal: vec![], conditions: vec![], order };
        for condition in conditions {
            if !cluster.add_condition(condition, &owners)? {
                return Ok(None);
            }
        }
        for (left, right) in equal {
            match (needs(&left, &owners), needs(&right, &owners)) {
                (Some(l), Some(r)) if l.len() == 1 && r.len() == 1 => {
                    let keys = [(l, left), (r, right)];
                    let keys = keys.map(|(set, key)| set.relations().next().map(|of| (of, key)));
                    cluster.add_equal(keys.into_iter().flatten().collect());
                }
                _ => {
                    if !cluster.add_condition(left.eq(right), &owners)? {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(cluster.is_sound()?.then_some(cluster))
    }

    fn add_condition(&mut self, condition: Expr, owners: &HashMap<Column, usize>) -> Result<bool> {
        let is_movable = !condition.is_volatile() && !has_subquery(&condition)?;
        let Some(relations) = needs(&condition, owners).filter(|set| is_movable && set.len() > 1)
        else {
            return Ok(false);
        };
        self.conditions.push((relations, condition));
        Ok(true)
    }

    /// Merges classes that have one of these keys.
    fn add_equal(&mut self, mut keys: Vec<(usize, Expr)>) {
        let mut rest = Vec::new();
        for class in std::mem::take(&mut self.equal) {
            match class.iter().any(|key| keys.contains(key)) {
                true => keys.extend(class),
                false => rest.push(class),
            }
        }
        let mut seen = HashSet::new();
        keys.retain(|key| seen.insert(key.clone()));
        rest.push(keys);
        self.equal = rest;
    }

    /// Whether each class has one key of a relation at most, all of one type.
    fn is_sound(&self) -> Result<bool> {
        for class in &self.equal {
            let mut owners = HashSet::new();
            let mut types = HashSet::new();
            for (relation, key) in class {
                let schema = self.relations[*relation].schema();
                types.insert(key.get_type(schema.as_ref())?);
                if !owners.insert(*relation) || key.is_volatile() || has_subquery(key)? {
                    return Ok(false);
                }
            }
            if types.len() > 1 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The joins in another order, with the columns of `original`.
    pub(super) fn joined(&self, order: &Order, original: &LogicalPlan) -> Result<LogicalPlan> {
        let plan = self.part(order)?;
        let columns = original.schema().columns();
        if plan.schema().columns() == columns {
            return Ok(plan);
        }
        let columns = columns.into_iter().map(Expr::Column).collect();
        Projection::try_new(columns, Arc::new(plan)).map(LogicalPlan::Projection)
    }

    /// The same without regard to which columns there are.
    pub(super) fn part(&self, order: &Order) -> Result<LogicalPlan> {
        let (left, right) = match order {
            Order::Relation(relation) => return Ok(self.relations[*relation].clone()),
            Order::Join(left, right) => (left, right),
        };
        let (left_set, right_set) = (left.relations(), right.relations());
        let whole = left_set.and(right_set);
        let key_in = |class: &[(usize, Expr)], set: Set| {
            class.iter().find(|(relation, _)| set.has(*relation)).map(|(_, key)| key.clone())
        };
        let on = self
            .equal
            .iter()
            .filter_map(|class| Some((key_in(class, left_set)?, key_in(class, right_set)?)));
        let is_due =
            |set: Set| whole.contains(set) && !left_set.contains(set) && !right_set.contains(set);
        let due = self.conditions.iter().filter(|(set, _)| is_due(*set));
        let filter = conjunction(due.map(|(_, condition)| condition.clone()));
        let join = Join::try_new(
            Arc::new(self.part(left)?),
            Arc::new(self.part(right)?),
            on.collect(),
            filter,
            JoinType::Inner,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?;
        Ok(LogicalPlan::Join(join))
    }
}

/// Which relation each column is of; `None` where two have the same one.
pub(super) fn owners(relations: &[LogicalPlan]) -> Option<HashMap<Column, usize>> {
    let mut owners = HashMap::new();
    for (relation, plan) in relations.iter().enumerate() {
        for column in plan.schema().columns() {
            if owners.insert(column, relation).is_some() {
                return None;
            }
        }
    }
    Some(owners)
}

/// The relations that an expression needs; `None` if it needs others.
pub(super) fn needs(expr: &Expr, owners: &HashMap<Column, usize>) -> Option<Set> {
    let columns = expr.column_refs();
    columns.into_iter().try_fold(Set::EMPTY, |set, column| {
        owners.get(column).map(|relation| set.and(Set::one(*relation)))
    })
}

pub(super) fn has_subquery(expr: &Expr) -> Result<bool> {
    let mut has = false;
    expr.apply(|part| {
        has |= matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
        );
        Ok(if has { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(has)
}
