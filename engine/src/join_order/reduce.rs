//! Semi and anti joins above inner joins, put below them.
//!
//! ```text
//! SEMI JOIN s ON o.k = s.k          JOIN
//!   JOIN                      ─▶      SEMI JOIN s ON o.k = s.k
//!     o, l, c                           o
//!                                     l, c
//! ```
//! DataFusion leaves `IN` and `EXISTS` on top of the joins that a statement names, and joins rows first that they then
//! drop. A row of a relation is kept or dropped whatever it is joined to, so both give the same rows, in the same number
//! (semi-join reduction: Bernstein and Chiu, JACM 1981).

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};

use super::cluster::Cluster;

/// A semi or anti join, taken apart.
pub(super) struct Reducer<'a> {
    join: &'a Join,
    /// The joins on its left side.
    pub(super) cluster: Cluster,
    /// The relation that alone decides which rows are kept.
    pub(super) relation: usize,
}

impl<'a> Reducer<'a> {
    /// The semi or anti join at the top of a plan, if it is above inner joins and needs one of their relations only.
    pub(super) fn of(plan: &'a LogicalPlan) -> Result<Option<Self>> {
        let LogicalPlan::Join(join) = plan else { return Ok(None) };
        let is_reducer = matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti);
        if !is_reducer || join.null_aware {
            return Ok(None);
        }
        let Some(cluster) = Cluster::of_at_least(2, &join.left)? else { return Ok(None) };
        let keys = join.on.iter().map(|(left, _)| left.clone());
        let relation = cluster.only_relation(keys.chain(join.filter.clone()), &join.right)?;
        Ok(relation.map(|relation| Self { join, cluster, relation }))
    }

    /// The inner joins, of which that relation is reduced already.
    pub(super) fn reduced(mut self) -> Result<LogicalPlan> {
        let relation = std::mem::take(&mut self.cluster.relations[self.relation]);
        self.cluster.relations[self.relation] = LogicalPlan::Join(Join {
            left: Arc::new(relation),
            schema: Arc::clone(&self.join.schema),
            ..self.join.clone()
        })
        .recompute_schema()?;
        self.cluster.joined(&self.cluster.order, &self.join.left)
    }
}

impl Cluster {
    /// The only relation that some expressions need, beside the columns of `other`.
    fn only_relation(
        &self,
        exprs: impl Iterator<Item = Expr>,
        other: &LogicalPlan,
    ) -> Result<Option<usize>> {
        let mut found = None;
        for expr in exprs {
            if expr.is_volatile() {
                return Ok(None);
            }
            for column in expr.column_refs() {
                let is_in = |relation: &LogicalPlan| relation.schema().has_column(column);
                let mut owners =
                    self.relations.iter().enumerate().filter(|(_, relation)| is_in(relation));
                match (owners.next(), other.schema().has_column(column)) {
                    (None, true) => {}
                    (Some((owner, _)), false)
                        if owners.next().is_none() && found.is_none_or(|known| known == owner) =>
                    {
                        found = Some(owner);
                    }
                    _ => return Ok(None),
                }
            }
        }
        Ok(found)
    }
}
