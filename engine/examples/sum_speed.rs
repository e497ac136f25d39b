//! How fast our exact `sum` is beside DataFusion's, which wraps: nanoseconds per row, one thread.
//!
//! ```console
//! $ cargo run --release -p basalt-engine --example sum_speed
//! ```
//!
//! Each line is one kind of column and one number of groups (`-`: no GROUP BY); `partial` adds rows,
//! `final` merges partial sums, `skip` is the way past partial aggregation when it does not pay. The
//! best of several rounds counts, and the two take turns, so that a busy machine harms both alike.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use basalt_engine::arithmetic::sum::CheckedSum;
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{AggregateUDFImpl, EmitTo};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::col;

const BATCH_ROWS: usize = 8192;
const BATCHES: usize = 256;
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    println!(
        "{:<16} {:>8} {:<8} {:>11} {:>11} {:>6}",
        "column", "groups", "phase", "DataFusion", "ours", "ratio"
    );
    for (name, data_type, nulls) in [
        ("BIGINT", DataType::Int64, false),
        ("BIGINT, NULLs", DataType::Int64, true),
        ("DECIMAL(15,2)", DataType::Decimal128(15, 2), false),
        ("(15,2), NULLs", DataType::Decimal128(15, 2), true),
        ("DECIMAL(38,4)", DataType::Decimal128(38, 4), false),
    ] {
        for groups in [None, Some(4), Some(1 << 20)] {
            let rows = Rows::new(&data_type, nulls, groups);
            let [theirs, ours] = best(&rows, [&Sum::new(), &CheckedSum::new()])?;
            let shown = groups.map_or_else(|| "-".to_owned(), |groups| groups.to_string());
            for (phase, theirs, ours) in [
                ("partial", theirs.partial, ours.partial),
                ("final", theirs.merge, ours.merge),
                ("skip", theirs.skip, ours.skip),
            ] {
                if theirs.is_finite() {
                    let ratio = ours / theirs;
                    println!(
                        "{name:<16} {shown:>8} {phase:<8} {theirs:>8.2} ns {ours:>8.2} ns {ratio:>6.2}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// A column, and the group of each row.
struct Rows {
    data_type: DataType,
    batches: Vec<ArrayRef>,
    groups: Option<(usize, Vec<Vec<usize>>)>,
}

impl Rows {
    fn new(data_type: &DataType, nulls: bool, groups: Option<usize>) -> Self {
        let mut random = Random(42);
        let batches = (0..BATCHES)
            .map(|_| {
                let values = (0..BATCH_ROWS).map(|_| {
                    let value = random.next();
                    (!nulls || !value.is_multiple_of(10)).then_some(i64::from(value as i32) * 1000)
                });
                match data_type {
                    DataType::Int64 => Arc::new(values.collect::<Int64Array>()) as ArrayRef,
                    _ => {
                        let values = values.map(|value| value.map(i128::from));
                        let array: Decimal128Array = values.collect();
                        Arc::new(array.with_data_type(data_type.clone()))
                    }
                }
            })
            .collect();
        let groups = groups.map(|groups| {
            let of_batch = |_| (0..BATCH_ROWS).map(|_| random.next() as usize % groups).collect();
            (groups, (0..BATCHES).map(of_batch).collect())
        });
        Self { data_type: data_type.clone(), batches, groups }
    }
}

/// A linear congruential generator: the same rows in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }
}

/// Nanoseconds per row, or per partial sum.
#[derive(Clone, Copy)]
struct Times {
    partial: f64,
    merge: f64,
    skip: f64,
}

fn best(rows: &Rows, functions: [&dyn AggregateUDFImpl; 2]) -> Result<[Times; 2]> {
    let none = Times { partial: f64::INFINITY, merge: f64::INFINITY, skip: f64::INFINITY };
    let mut best = [none; 2];
    for _ in 0..ROUNDS {
        for (best, function) in best.iter_mut().zip(functions) {
            let times = with_args(&rows.data_type, function, |args| match &rows.groups {
                None => ungrouped(rows, function, args),
                Some((total, groups)) => grouped(rows, *total, groups, function, args),
            })?;
            best.partial = best.partial.min(times.partial);
            best.merge = best.merge.min(times.merge);
            best.skip = best.skip.min(times.skip);
        }
    }
    Ok(best)
}

fn with_args<R>(
    data_type: &DataType,
    function: &dyn AggregateUDFImpl,
    run: impl Fn(AccumulatorArgs<'_>) -> Result<R>,
) -> Result<R> {
    let field: FieldRef = Arc::new(Field::new("v", data_type.clone(), true));
    let schema = Schema::new(vec![Arc::clone(&field)]);
    let exprs: [Arc<dyn PhysicalExpr>; 1] = [col("v", &schema)?];
    let result = function.return_type(std::slice::from_ref(data_type))?;
    run(AccumulatorArgs {
        return_field: Arc::new(Field::new("sum", result, true)),
        schema: &schema,
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name: "sum(v)",
        is_distinct: false,
        exprs: &exprs,
        expr_fields: &[field],
    })
}

fn per_row(start: Instant, rows: usize) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / rows as f64
}

fn ungrouped(
    rows: &Rows,
    function: &dyn AggregateUDFImpl,
    args: AccumulatorArgs<'_>,
) -> Result<Times> {
    let mut sum = function.accumulator(args)?;
    let start = Instant::now();
    for batch in &rows.batches {
        sum.update_batch(std::slice::from_ref(batch))?;
    }
    black_box(sum.evaluate()?);
    let partial = per_row(start, BATCHES * BATCH_ROWS);
    Ok(Times { partial, merge: f64::INFINITY, skip: f64::INFINITY })
}

fn grouped(
    rows: &Rows,
    total: usize,
    groups: &[Vec<usize>],
    function: &dyn AggregateUDFImpl,
    args: AccumulatorArgs<'_>,
) -> Result<Times> {
    let mut sums = function.create_groups_accumulator(copy(&args))?;
    let start = Instant::now();
    for (batch, groups) in rows.batches.iter().zip(groups) {
        sums.update_batch(std::slice::from_ref(batch), groups, None, total)?;
    }
    let state = sums.state(EmitTo::All)?;
    let partial = per_row(start, BATCHES * BATCH_ROWS);

    let mut skipped = Vec::with_capacity(BATCHES);
    let start = Instant::now();
    for batch in &rows.batches {
        skipped.push(sums.convert_to_state(std::slice::from_ref(batch), None)?);
    }
    let skip = per_row(start, BATCHES * BATCH_ROWS);

    let mut merged = function.create_groups_accumulator(args)?;
    let start = Instant::now();
    for (state, groups) in skipped.iter().zip(groups) {
        merged.merge_batch(state, groups, total)?;
    }
    black_box(merged.evaluate(EmitTo::All)?);
    let merge = per_row(start, BATCHES * BATCH_ROWS);
    black_box(state);
    Ok(Times { partial, merge, skip })
}

fn copy<'a>(args: &AccumulatorArgs<'a>) -> AccumulatorArgs<'a> {
    AccumulatorArgs {
        return_field: Arc::clone(&args.return_field),
        schema: args.schema,
        ignore_nulls: args.ignore_nulls,
        order_bys: args.order_bys,
        is_reversed: args.is_reversed,
        name: args.name,
        is_distinct: args.is_distinct,
        exprs: args.exprs,
        expr_fields: args.expr_fields,
    }
}
