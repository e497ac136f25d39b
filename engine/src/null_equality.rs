//! Joins by `IS NOT DISTINCT FROM`, kept from becoming joins by `=` and the other way round.
//!
//! A join has one meaning of NULL for all of its keys. DataFusion adds keys of `=` to a join that
//! takes NULL for equal, or puts the keys of several joins into one: `ON a IS NOT DISTINCT FROM b WHERE
//! c = d` then has rows in which `c` and `d` are NULL (`sql-tests/upstream/keys-of-null.md`). What is left
//! alone is still a filter.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::{Join, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::logical_rules::LogicalRule;

/// The names of DataFusion's rules: of one that looks at each join, and of one that looks at all.
const EXTRACT_KEYS: &str = "extract_equijoin_predicate";
const FLATTEN_JOINS: &str = "eliminate_cross_join";

/// Holds both rules back.
pub(crate) fn keep_null_equality(rules: &mut [LogicalRule]) {
    for rule in rules {
        if [EXTRACT_KEYS, FLATTEN_JOINS].contains(&rule.name()) {
            *rule = Arc::new(KeptNullEquality(Arc::clone(rule)));
        }
    }
}

/// One of these rules, kept from joins that take NULL for equal.
#[derive(Debug)]
struct KeptNullEquality(LogicalRule);

impl OptimizerRule for KeptNullEquality {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let is_kept = match self.0.apply_order() {
            Some(_) => is_of_nulls(&plan),
            None => has_inner_join_of_nulls(&plan)?,
        };
        match is_kept {
            true => Ok(Transformed::no(plan)),
            false => self.0.rewrite(plan, config),
        }
    }
}

fn is_of_nulls(plan: &LogicalPlan) -> bool {
    let of_nulls = |join: &Join| join.null_equality == NullEquality::NullEqualsNull;
    matches!(plan, LogicalPlan::Join(join) if of_nulls(join))
}

fn has_inner_join_of_nulls(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        let is_inner = matches!(node, LogicalPlan::Join(join) if join.join_type == JoinType::Inner);
        found |= is_inner && is_of_nulls(node);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
