//! `slice_route(key, routes)`: where a row goes that has to be in the task of its slice.
//!
//! A network shuffle sends a row to the task that DataFusion's hash of some expressions chooses, and to no other. So rows
//! that have to meet those of a table by its distribution key are shuffled by this function: `routes` has a
//! number for each slice, which DataFusion's hash sends to the task of that slice, and the function gives the
//! number of the slice of `key`.
//!
//! Invariant: where a number goes is found out from DataFusion's own partitioner, never computed here.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use basalt_storage::ids::SliceId;
use basalt_storage::slice_hash::slices_of;
use datafusion::common::{ScalarValue, exec_err, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::BatchPartitioner;

use crate::error::storage_error;

/// Its name.
const SLICE_ROUTE: &str = "slice_route";
/// Numbers that are tried for each task. That none of them goes to a task is as likely as e^-64.
const TRIED_PER_TASK: i64 = 64;

/// The function as plans have it.
pub(crate) fn slice_route() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(SliceRoute::default())));
    Arc::clone(&FUNCTION)
}

/// What to shuffle by, over `tasks` tasks, for rows to be in the task of their slice by `key`; `task_of` has the
/// task of each slice.
///
/// # Errors
/// A task that no number goes to.
pub(crate) fn route_by_slice(
    key: Arc<dyn PhysicalExpr>,
    task_of: &[usize],
    tasks: usize,
) -> Result<Arc<dyn PhysicalExpr>> {
    let numbers = number_of_each_task(tasks)?;
    let mut routes = Vec::with_capacity(task_of.len());
    for task in task_of {
        let Some(number) = numbers.get(task) else {
            return internal_err!("no number goes to task {task} of {tasks}");
        };
        routes.push(ScalarValue::Int64(Some(*number)));
    }
    let routes = ScalarValue::List(ScalarValue::new_list_nullable(&routes, &DataType::Int64));
    Ok(Arc::new(ScalarFunctionExpr::new(
        SLICE_ROUTE,
        slice_route(),
        vec![key, Arc::new(Literal::new(routes))],
        Arc::new(Field::new(SLICE_ROUTE, DataType::Int64, false)),
        Arc::new(ConfigOptions::default()),
    )))
}

/// The key of a shuffle by slices over `tasks` tasks, and the task of each slice; none of any other.
pub(crate) fn routed_by_slice(
    expr: &Arc<dyn PhysicalExpr>,
    tasks: usize,
) -> Option<(Arc<dyn PhysicalExpr>, BTreeMap<SliceId, usize>)> {
    let function = expr.downcast_ref::<ScalarFunctionExpr>()?;
    if !function.fun().inner().is::<SliceRoute>() {
        return None;
    }
    let [key, routes] = function.args() else { return None };
    let routes = routes_of(routes.downcast_ref::<Literal>()?.value())?;
    let tasks_of = tasks_of_numbers(routes, tasks).ok()?;
    let slices = (0..).map(SliceId).zip(tasks_of).collect();
    Some((Arc::clone(key), slices))
}

fn routes_of(value: &ScalarValue) -> Option<Int64Array> {
    let ScalarValue::List(routes) = value else { return None };
    let routes = routes.values().as_primitive_opt::<Int64Type>()?;
    (routes.null_count() == 0).then(|| routes.clone())
}

/// A number that DataFusion's hash sends to each task.
fn number_of_each_task(tasks: usize) -> Result<BTreeMap<usize, i64>> {
    let most = i64::try_from(tasks).unwrap_or(i64::MAX).saturating_mul(TRIED_PER_TASK);
    let tried = Int64Array::from_iter_values(0..most);
    let mut found = BTreeMap::new();
    for (number, task) in (0..).zip(tasks_of_numbers(tried, tasks)?) {
        found.entry(task).or_insert(number);
    }
    Ok(found)
}

/// The task that each number goes to.
fn tasks_of_numbers(numbers: Int64Array, tasks: usize) -> Result<Vec<usize>> {
    let places = Int64Array::from_iter_values(0..numbers.len() as i64);
    let mut task_of = vec![0; numbers.len()];
    let field = |name| Field::new(name, DataType::Int64, false);
    let schema = Arc::new(Schema::new(vec![field("number"), field("place")]));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(numbers), Arc::new(places)])?;
    let by: Arc<dyn PhysicalExpr> = Arc::new(Column::new("number", 0));
    let mut partitioner = BatchPartitioner::new_hash_partitioner(vec![by], tasks, Time::default())?;
    partitioner.partition(batch, |task, rows| {
        for place in rows.column(1).as_primitive::<Int64Type>().values() {
            // As many places as there are numbers.
            task_of[*place as usize] = task;
        }
        Ok(())
    })?;
    Ok(task_of)
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SliceRoute {
    signature: Signature,
}

impl Default for SliceRoute {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for SliceRoute {
    fn name(&self) -> &str {
        SLICE_ROUTE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn return_field_from_args(
        &self,
        _: datafusion::logical_expr::ReturnFieldArgs<'_>,
    ) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(SLICE_ROUTE, DataType::Int64, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [key, ColumnarValue::Scalar(routes)] = args.args.as_slice() else {
            return exec_err!("{SLICE_ROUTE} needs a key and a list of numbers");
        };
        let Some(routes) = routes_of(routes) else {
            return exec_err!("{SLICE_ROUTE} needs a list of numbers");
        };
        let Ok(slices) = u16::try_from(routes.len()) else {
            return exec_err!("{SLICE_ROUTE} needs a number for each slice, not {}", routes.len());
        };
        let keys = key.to_array(args.number_rows)?;
        let slices = slices_of(&keys, slices).map_err(storage_error)?;
        let numbers = slices.into_iter().map(|slice| routes.value(usize::from(slice)));
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from_iter_values(numbers))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new("k", 0))
    }

    proptest! {
        /// Shuffled as a stage does it, every row is in the task of its slice.
        #[test]
        fn rows_go_to_the_task_of_their_slice(
            keys in prop::collection::vec(prop::option::of(any::<i64>()), 0..200),
            tasks in 1_usize..40,
            slices in 0_u32..8,
            seed in prop::collection::vec(any::<prop::sample::Index>(), 128),
        ) {
            let slices = 1_u16 << slices;
            let task_of: Vec<_> =
                seed.iter().take(slices.into()).map(|seed| seed.index(tasks)).collect();
            let route = route_by_slice(key(), &task_of, tasks).unwrap();
            let keys: Int64Array = keys.into_iter().collect();
            let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
            let batch = RecordBatch::try_new(schema, vec![Arc::new(keys)]).unwrap();
            let mut partitioner =
                BatchPartitioner::new_hash_partitioner(vec![Arc::clone(&route)], tasks, Time::default())
                    .unwrap();
            let mut rows = 0;
            partitioner
                .partition(batch.clone(), |task, part| {
                    rows += part.num_rows();
                    for slice in slices_of(part.column(0), slices).unwrap() {
                        assert_eq!(task_of[usize::from(slice)], task);
                    }
                    Ok(())
                })
                .unwrap();
            prop_assert_eq!(rows, batch.num_rows());
            let (by, found) = routed_by_slice(&route, tasks).unwrap();
            prop_assert_eq!(by.to_string(), key().to_string());
            prop_assert_eq!(found.into_values().collect::<Vec<_>>(), task_of);
        }
    }

    #[test]
    fn other_expressions_are_no_routes() {
        assert!(routed_by_slice(&key(), 3).is_none());
    }
}
