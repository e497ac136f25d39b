//! DataFusion's rules over logical plans, those that go too far held back.

use std::sync::Arc;

use datafusion::optimizer::OptimizerRule;

use crate::constant_filters::{KeepConstantFilters, PUSH_DOWN_FILTER};

/// A rule.
pub(crate) type LogicalRule = Arc<dyn OptimizerRule + Send + Sync>;

/// Holds back those that need it.
pub(crate) fn hold_back(rules: &mut [LogicalRule]) {
    for rule in rules {
        let held: LogicalRule = match rule.name() {
            PUSH_DOWN_FILTER => Arc::new(KeepConstantFilters(Arc::clone(rule))),
            _ => continue,
        };
        *rule = held;
    }
}
