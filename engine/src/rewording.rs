//! Statements in words that DataFusion understands, where it has trouble with its own.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer};
use datafusion::physical_optimizer::PhysicalOptimizerRule;

use crate::decimals_beside_floats::DecimalsBesideFloats;
use crate::flattened_joins::keep_conditions;
use crate::functional_dependencies::{PlainRelations, hide_wrong_dependencies};
use crate::functions::{coalesce_functions, round, string_agg};
use crate::group_keys::GroupKeys;
use crate::intervals::{ComparedIntervals, IntervalOperators};
use crate::lateral_joins::join_first;
use crate::literal_sides::LiteralSides;
use crate::lossy_casts::LossyCasts;
use crate::null_equality::keep_null_equality;
use crate::peer_frames::PeerFrames;
use crate::range_frames::RangeFrames;
use crate::subqueries::{
    NotInOtherWords, OuterTypes, RowComparisons, UnnestSubqueries, compare_rows,
};
use crate::union_names::UnionNames;
use crate::unknown_nulls::UnknownNulls;
use crate::unsigned_division::UnsignedDivision;

/// Gives a session that plans the rules with which DataFusion has an answer, and not that to another
/// question: also for those who compare with it.
pub fn reworded(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    // The last of a name counts.
    let functions = coalesce_functions().into_iter().chain([round(), compare_rows()]);
    builder.scalar_functions().get_or_insert_default().extend(functions);
    builder.aggregate_functions().get_or_insert_default().push(string_agg());
    let planners = builder.expr_planners().get_or_insert_default();
    planners.insert(0, Arc::new(IntervalOperators));
    planners.insert(0, Arc::new(UnsignedDivision));
    builder.relation_planners().get_or_insert_default().push(Arc::new(PlainRelations));
    let analyzer = builder.analyzer().get_or_insert_with(Analyzer::new);
    let before_types: [Arc<dyn AnalyzerRule + Send + Sync>; 6] = [
        Arc::new(RowComparisons),
        Arc::new(OuterTypes),
        Arc::new(GroupKeys),
        Arc::new(PeerFrames),
        Arc::new(RangeFrames),
        Arc::new(DecimalsBesideFloats),
    ];
    analyzer.rules.splice(0..0, before_types);
    analyzer.rules.push(Arc::new(NotInOtherWords));
    analyzer.rules.push(Arc::new(UnnestSubqueries));
    analyzer.rules.push(Arc::new(LiteralSides));
    analyzer.rules.push(Arc::new(UnionNames));
    analyzer.rules.push(Arc::new(LossyCasts));
    analyzer.rules.push(Arc::new(ComparedIntervals));
    let rules = &mut builder.optimizer().get_or_insert_with(Optimizer::new).rules;
    join_first(rules);
    keep_null_equality(rules);
    keep_conditions(rules);
    hide_wrong_dependencies(rules);
    builder
}

/// Puts what DataFusion knows too much about below a node that knows nothing: for those who compare
/// with it, as a rule of a physical optimizer.
pub fn unknown_nulls() -> Arc<dyn PhysicalOptimizerRule + Send + Sync> {
    Arc::new(UnknownNulls)
}
