//! DataFusion's rules over physical plans, those that go too far held back, and ours among them.

use std::sync::Arc;

use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use crate::distribute::VisibleWindowKeys;
use crate::exact_bounds::{AGGREGATE_STATISTICS, ExactBounds};
use crate::filter_columns::{FilterColumns, PROJECTION_PUSHDOWN};
use crate::filter_estimates::{FilterEstimates, JOIN_SELECTION};
use crate::filter_routes::{FILTER_PUSHDOWN, RoutedFilters};
use crate::partition_orders::PartitionOrders;
use crate::required_orders::{REQUIRED_BEFORE, RequiredOrders};
use crate::smaller_builds::SmallerBuilds;
use crate::sorted_scans::{PUSHDOWN_SORT, SortedScans};
use crate::topk_of_floats::{NoTopKOfFloats, TOP_K_AGGREGATION};
use crate::unknown_nulls::UnknownNulls;
use crate::unread_sides::{FILTER_PUSHDOWN_POST, UnreadSides};

/// A rule.
pub(crate) type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// The rules, in the order in which they run.
pub(crate) fn physical_rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = vec![Arc::new(UnknownNulls)];
    for rule in PhysicalOptimizer::new().rules {
        // Before filters of the first rows go down to scans.
        if rule.name().starts_with(FILTER_PUSHDOWN) {
            rules.push(Arc::new(PartitionOrders));
        }
        if rule.name() == JOIN_SELECTION {
            rules.push(Arc::new(FilterEstimates));
        }
        if rule.name() == REQUIRED_BEFORE {
            rules.push(Arc::new(RequiredOrders));
        }
        let is_join_selection = rule.name() == JOIN_SELECTION;
        rules.push(match rule.name() {
            FILTER_PUSHDOWN_POST => Arc::new(RoutedFilters(Arc::new(UnreadSides(rule)))),
            name if name.starts_with(FILTER_PUSHDOWN) => Arc::new(RoutedFilters(rule)),
            AGGREGATE_STATISTICS => Arc::new(ExactBounds(rule)),
            PROJECTION_PUSHDOWN => Arc::new(FilterColumns(rule)),
            PUSHDOWN_SORT => Arc::new(SortedScans),
            TOP_K_AGGREGATION => Arc::new(NoTopKOfFloats(rule)),
            _ => rule,
        });
        if is_join_selection {
            rules.push(Arc::new(SmallerBuilds));
        }
    }
    rules.push(Arc::new(VisibleWindowKeys));
    rules
}
