//! Frames of peers over any type that has an order.
//!
//! A window with ORDER BY has the frame `RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW`, which needs no
//! distance between values: it ends with the last peer of a row. DataFusion asks for a type that has
//! distances all the same, and fails at `OVER (ORDER BY t)` of a TIME or of bytes. The same rows are
//! `GROUPS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW`, where it does not ask.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use datafusion::optimizer::AnalyzerRule;

use crate::node_expressions::{Sets, columns_below, map_parts};

/// Counts in groups of peers where values have no distance. Before types are coerced.
#[derive(Debug, Default)]
pub(crate) struct PeerFrames;

impl AnalyzerRule for PeerFrames {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            if !matches!(plan, LogicalPlan::Window(_)) {
                return Ok(Transformed::no(plan));
            }
            let schema = columns_below(&plan)?;
            map_parts(plan, Sets::Change, |expr| in_groups(expr, &schema))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "peer_frames"
    }
}

fn in_groups(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::WindowFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
    let key = call.params.order_by.first();
    let frame = &call.params.window_frame;
    let is_asked = match key {
        Some(key) => is_of_peers(frame) && !has_distance(&key.expr.get_type(schema)?),
        None => false,
    };
    if is_asked {
        let (start, end) = (frame.start_bound.clone(), frame.end_bound.clone());
        call.params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
    }
    let expr = Expr::WindowFunction(call);
    Ok(Transformed::new_transformed(expr, is_asked))
}

/// Whether a frame by RANGE begins and ends with peers or with the partition.
fn is_of_peers(frame: &WindowFrame) -> bool {
    use WindowFrameBound as B;
    let is_open = |bound: &B| match bound {
        B::Preceding(distance) | B::Following(distance) => distance.is_null(),
        B::CurrentRow => true,
    };
    frame.units == WindowFrameUnits::Range
        && is_open(&frame.start_bound)
        && is_open(&frame.end_bound)
}

/// Whether DataFusion takes a type for one with distances.
fn has_distance(data_type: &DataType) -> bool {
    use DataType as T;
    data_type.is_numeric()
        || data_type.is_string()
        || data_type.is_null()
        || matches!(
            data_type,
            T::List(_)
                | T::LargeList(_)
                | T::FixedSizeList(..)
                | T::Boolean
                | T::Date32
                | T::Date64
                | T::Timestamp(..)
                | T::Dictionary(..)
        )
}
