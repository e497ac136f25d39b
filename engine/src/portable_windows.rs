//! Window functions that mean the same on a worker.
//!
//! DataFusion's encoding of a window function has no place for its FILTER, for the IGNORE NULLS of
//! `lag`, `lead`, `first_value`, `last_value` and `nth_value`, and for whether the planner has
//! turned it around to share a sort. What is left out is not refused: the function runs without it
//! and the rows are wrong. So a plan says all three in what does travel:
//!
//! - `sum(x) FILTER (WHERE c)` becomes `sum(CASE WHEN c THEN x END)`, for functions that pass over
//!   NULLs; for others it is an error
//! - the five functions are replaced by functions of ours that have the two flags in their names,
//!   such as `basalt_lag_ignore_nulls`; workers know them, SQL does not
//!
//! Invariant: column names stay as they were.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Result, not_impl_err};
use datafusion::functions_window::all_default_window_functions;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::{
    Expr, LimitEffect, LogicalPlan, PartitionEvaluator, ReversedUDWF, Signature,
    WindowFunctionDefinition, WindowUDF, WindowUDFImpl, lit, when,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::PhysicalExpr;

use crate::node_expressions::{Sets, map_parts};
use crate::shifts::{SHIFTS, by_null, of_whole_partitions};

/// Functions that a flag changes.
const FLAGGED: [&str; 5] = ["lag", "lead", "first_value", "last_value", "nth_value"];

/// Aggregates for which a NULL is as good as no row.
const PASS_OVER_NULLS: [&str; 18] = [
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// Rewrites every window function that would lose something on its way to a worker.
#[derive(Debug, Default)]
pub(crate) struct PortableWindows;

impl AnalyzerRule for PortableWindows {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            if !matches!(plan, LogicalPlan::Window(_)) {
                return Ok(Transformed::no(plan));
            }
            map_parts(plan, Sets::Change, portable)?.map_data(LogicalPlan::recompute_schema)
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "portable_windows"
    }
}

fn portable(expression: Expr) -> Result<Transformed<Expr>> {
    let Expr::WindowFunction(mut window) = expression else {
        return Ok(Transformed::no(expression));
    };
    let filtered = without_filter(&mut window)?;
    let flagged = with_flags(&mut window);
    Ok(Transformed::new_transformed(Expr::WindowFunction(window), filtered || flagged))
}

/// Moves a filter into the first argument. Returns whether there was one.
fn without_filter(window: &mut WindowFunction) -> Result<bool> {
    let Some(filter) = window.params.filter.take() else { return Ok(false) };
    let name = window.fun.name();
    match window.params.args.first_mut() {
        Some(argument) if PASS_OVER_NULLS.contains(&name) => {
            let value = std::mem::replace(argument, lit(true));
            *argument = when(*filter, value).end()?;
            Ok(true)
        }
        _ => not_impl_err!("FILTER is not supported for the window function {name}"),
    }
}

/// Puts a function of ours in the place of one that a flag changes. Returns whether it did.
fn with_flags(window: &mut WindowFunction) -> bool {
    let WindowFunctionDefinition::WindowUDF(function) = &window.fun else { return false };
    if !FLAGGED.contains(&function.name()) {
        return false;
    }
    let ignore_nulls = window.params.null_treatment == Some(NullTreatment::IgnoreNulls);
    let flagged = Flagged::function(Arc::clone(function), ignore_nulls, false);
    window.fun = WindowFunctionDefinition::WindowUDF(flagged);
    true
}

/// All functions that [`PortableWindows`] and the planner's reversing may name.
pub(crate) fn flagged_functions() -> Vec<Arc<WindowUDF>> {
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    all_default_window_functions()
        .into_iter()
        .filter(|function| FLAGGED.contains(&function.name()))
        .flat_map(|function| {
            flags.map(|(ignore_nulls, is_reversed)| {
                Flagged::function(Arc::clone(&function), ignore_nulls, is_reversed)
            })
        })
        .collect()
}

/// One of DataFusion's functions with its flags.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Flagged {
    name: String,
    inner: Arc<WindowUDF>,
    ignore_nulls: bool,
    is_reversed: bool,
}

impl Flagged {
    fn function(inner: Arc<WindowUDF>, ignore_nulls: bool, is_reversed: bool) -> Arc<WindowUDF> {
        let nulls = if ignore_nulls { "_ignore_nulls" } else { "" };
        let reversed = if is_reversed { "_reversed" } else { "" };
        let name = format!("basalt_{}{nulls}{reversed}", inner.name());
        Arc::new(WindowUDF::new_from_impl(Self { name, inner, ignore_nulls, is_reversed }))
    }
}

impl WindowUDFImpl for Flagged {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, arguments: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(arguments)
    }

    fn partition_evaluator(
        &self,
        arguments: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let arguments = PartitionEvaluatorArgs::new(
            arguments.input_exprs(),
            arguments.input_fields(),
            self.is_reversed,
            self.ignore_nulls,
        );
        let is_shift = SHIFTS.contains(&self.inner.name());
        if is_shift && let Some(nulls) = by_null(&arguments) {
            return Ok(nulls);
        }
        let evaluator = self.inner.partition_evaluator_factory(arguments)?;
        Ok(match is_shift && self.ignore_nulls {
            true => of_whole_partitions(evaluator),
            false => evaluator,
        })
    }

    fn field(&self, arguments: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.field(arguments)
    }

    fn coerce_types(
        &self,
        types: &[arrow::datatypes::DataType],
    ) -> Result<Vec<arrow::datatypes::DataType>> {
        self.inner.coerce_types(types)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.inner.reverse_expr() {
            ReversedUDWF::Reversed(inner) => {
                let turned = Self::function(inner, self.ignore_nulls, !self.is_reversed);
                ReversedUDWF::Reversed(turned)
            }
            other => other,
        }
    }

    fn limit_effect(&self, arguments: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        // How many rows ahead IGNORE NULLS looks, nobody knows; and what is turned around looks
        // the other way.
        match self.ignore_nulls || self.is_reversed {
            true => LimitEffect::Unknown,
            false => self.inner.inner().limit_effect(arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_planner_turns_around_has_a_name_that_workers_know() {
        let functions = flagged_functions();
        assert_eq!(functions.len(), FLAGGED.len() * 4);
        for function in &functions {
            let ReversedUDWF::Reversed(turned) = function.reverse_expr() else {
                panic!("{} cannot be turned around", function.name());
            };
            assert!(functions.contains(&turned), "{}", turned.name());
            assert_ne!(turned.name(), function.name());
        }
    }
}
