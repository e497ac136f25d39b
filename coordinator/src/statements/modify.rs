//! DELETE and UPDATE: the rows that a condition chooses, by position, in one commit.
//!
//! ```text
//! choose   SELECT row id FROM t WHERE p      on the workers; bitmaps by segment here
//! UPDATE:  append   SELECT values FROM t     of exactly the chosen rows, into new segments
//! commit   delete vectors (and new segments) in one record: the commit point
//! ```
//!
//! `SET c = DEFAULT` is the column's DEFAULT, computed once per statement as that of an INSERT is.
//! A condition is evaluated once, so `random()` or a LIMIT in it cannot choose other rows for the
//! deletion than for the new values. Statements that change one table take turns (`turns`); the
//! commit checks for itself that nobody deleted from a segment since the snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, UInt64Type};
use basalt_engine::defaults::default_ast;
use basalt_engine::dialect::{Assignment, Delete, Insert, Rows, Update, make_exact};
use basalt_engine::error::{ErrorCode, SqlError, did_you_mean};
use basalt_engine::scan::row_ids::{ROW_ID_NAME, split_row_id};
use basalt_engine::session::execution_context;
use basalt_engine::snapshot::TableSnapshot;
use basalt_engine::table::{ChosenRows, SegmentTable};
use basalt_engine::types::{column_type_name, scan_type, type_name};
use basalt_storage::delete_vector::{DeleteVector, DeleteVectorBuilder};
use basalt_storage::ids::TxnId;
use basalt_storage::schema::Column;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{
    Expr, Filter, LogicalPlan, LogicalPlanBuilder, SubqueryAlias, TableScan,
};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast;
use futures::TryStreamExt;

use super::Statements;
use super::parameters::bind;
use super::registry::RunNotes;
use super::session::Pinned;
use super::turns::Turn;
use crate::backend::SessionId;
use crate::catalog::{Change, SegmentDeletes, SegmentSeen};

impl Pinned {
    /// The query behind a DELETE, with all of its parameters.
    pub(super) async fn rows_plan(&self, rows: &Rows) -> Result<LogicalPlan, SqlError> {
        self.query_plan(query_statement(rows.query()?)).await
    }

    /// The query behind an UPDATE, with all of its parameters: what is assigned, whether it counts
    /// or another assignment of the same column does.
    pub(super) async fn update_plan(&self, update: &Update) -> Result<LogicalPlan, SqlError> {
        let table = self.table_to_write(&update.rows.table, update.rows.table_position)?;
        let assigned = assigned_values(&table, &update.assignments)?;
        let values = assigned.iter().map(|(_, value)| ast::SelectItem::UnnamedExpr(value.clone()));
        let query = update.rows.values_query(values.collect())?;
        let plan = self.query_plan(query_statement(query)).await?;
        let fields = plan.schema().fields().iter();
        for ((new, (column, _)), field) in update.assignments.iter().zip(&assigned).zip(fields) {
            if !can_be_stored(field.data_type(), &column.data_type) {
                let value = type_name(field.data_type()).unwrap_or_else(|arrow| arrow);
                let message = format!(
                    "column \"{}\" of type {} cannot be set to a value of type {value}",
                    column.name,
                    column_type_name(column)
                );
                let error = SqlError::new(ErrorCode::DatatypeMismatch, message).at(new.position);
                return Err(error.with_hint("write a value that can be cast to the column's type"));
            }
        }
        Ok(plan)
    }
}

/// Whether some values of a type can be written into a column, as an INSERT decides it.
fn can_be_stored(value: &DataType, column: &DataType) -> bool {
    let both_structs = matches!((value, column), (DataType::Struct(_), DataType::Struct(_)));
    both_structs || can_cast_types(value, &scan_type(column))
}

/// The column and the value of each assignment, with the DEFAULTs filled in.
fn assigned_values<'a>(
    table: &'a TableSnapshot,
    assignments: &[Assignment],
) -> Result<Vec<(&'a Column, ast::Expr)>, SqlError> {
    let columns = &table.schema.columns;
    let known = assignments.iter().map(|new| {
        let Some(column) = columns.iter().find(|column| column.name == new.column) else {
            let message = format!("column \"{}\" does not exist", new.column);
            let known = columns.iter().map(|column| column.name.as_str());
            let error = SqlError::new(ErrorCode::UndefinedColumn, message).at(new.position);
            return Err(did_you_mean(error, &new.column, known));
        };
        let mut value = match &new.value {
            Some(value) => value.clone(),
            None => default_ast(column)?,
        };
        if column.data_type.is_decimal() {
            make_exact(&mut value);
        }
        Ok((column, value))
    });
    known.collect()
}

fn query_statement(query: Box<ast::Query>) -> DFStatement {
    DFStatement::Statement(Box::new(ast::Statement::Query(query)))
}

impl Statements {
    /// `DELETE FROM ... WHERE`: returns how many rows went.
    pub(super) async fn delete(
        &self,
        run: &RunNotes,
        delete: &Delete,
        values: &[ScalarValue],
    ) -> Result<u64, SqlError> {
        let _turn = self.turn_of(run.session(), &delete.rows).await?;
        let pinned = self.pin_run(run)?;
        let table = pinned.table_to_write(&delete.rows.table, delete.rows.table_position)?;
        let chosen = self.choose(&pinned, &table, &delete.rows, values).await?;
        let count = chosen.rows();
        if count > 0 {
            let change = delete_change(&table, &chosen)?;
            self.commit(run, TxnId::generate(), vec![change], Some(count)).await?;
            self.analyze_soon(table.id);
        }
        Ok(count)
    }

    /// `UPDATE ... SET ... WHERE`: returns how many rows changed.
    pub(super) async fn update(
        &self,
        run: &RunNotes,
        update: &Update,
        values: &[ScalarValue],
    ) -> Result<u64, SqlError> {
        // Before its turn, which compaction needs too.
        self.give_way_to(run.session(), &update.rows).await?;
        let _turn = self.turn_of(run.session(), &update.rows).await?;
        let pinned = self.pin_run(run)?;
        let table = pinned.table_to_write(&update.rows.table, update.rows.table_position)?;
        let insert = new_rows(&table, update)?;
        // First as the user wrote it, for errors with positions.
        pinned.update_plan(update).await?;
        let rows = pinned.insert_plan(&insert).await?;
        let rows = bind(rows, values.to_vec()).map_err(|e| pinned.error(e))?;
        let chosen = self.choose(&pinned, &table, &update.rows, values).await?;
        let count = chosen.rows();
        if count == 0 {
            return Ok(0);
        }
        let change = delete_change(&table, &chosen)?;
        let rows = over_chosen(rows, Arc::new(chosen)).map_err(|e| pinned.error(e))?;
        let transaction = self.begin(pinned.target(&table)?);
        let appended = self.append(&pinned, rows, transaction.target()).await?;
        if appended != count {
            let message = format!("an UPDATE of {count} rows made {appended}");
            return Err(SqlError::new(ErrorCode::Internal, message));
        }
        self.commit_rows(run, transaction, vec![change], count).await
    }

    /// Waits for the turn of the table that a statement changes. The snapshot is pinned after that.
    async fn give_way_to(&self, session: SessionId, rows: &Rows) -> Result<(), SqlError> {
        let table = self.pin(session)?.table_to_write(&rows.table, rows.table_position)?;
        self.give_way(table.id, &format!("{}.{}", table.schema_name, table.name)).await
    }

    async fn turn_of(&self, session: SessionId, rows: &Rows) -> Result<Turn, SqlError> {
        let table = self.pin(session)?.table_to_write(&rows.table, rows.table_position)?.id;
        Ok(self.inner.turns.of(table).await)
    }

    /// The rows that a condition chooses.
    async fn choose(
        &self,
        pinned: &Pinned,
        table: &TableSnapshot,
        rows: &Rows,
        values: &[ScalarValue],
    ) -> Result<ChosenRows, SqlError> {
        if rows.condition.is_none() {
            return Ok(all_rows(table));
        }
        let error = |error| pinned.error(error);
        let plan = pinned.query_plan(query_statement(rows.query()?)).await?;
        let plan = bind(with_row_ids(plan).map_err(error)?, values.to_vec()).map_err(error)?;
        let plan = pinned.distributed(&plan).await?;
        let mut ids = execute_stream(plan, execution_context(&pinned.state)).map_err(error)?;
        let mut chosen: BTreeMap<u32, DeleteVectorBuilder> = BTreeMap::new();
        while let Some(batch) = ids.try_next().await.map_err(error)? {
            let Some(ids) = batch.column(0).as_primitive_opt::<UInt64Type>() else {
                return Err(SqlError::new(ErrorCode::Internal, "row ids have another type"));
            };
            for id in ids.values() {
                let (ordinal, position) = split_row_id(*id);
                if !chosen.entry(ordinal).or_default().insert(position) {
                    let message = format!("row {position} of segment {ordinal} was read twice");
                    return Err(SqlError::new(ErrorCode::Internal, message));
                }
            }
        }
        let vectors = chosen.into_iter().filter_map(|(n, rows)| Some((n, rows.finish()?)));
        Ok(ChosenRows::new(vectors.collect()))
    }
}

/// Every row that the snapshot sees.
fn all_rows(table: &TableSnapshot) -> ChosenRows {
    let segments = (0..).zip(&table.segments);
    let live = segments.filter_map(|(ordinal, segment)| {
        Some((ordinal, DeleteVector::complement(segment.deleted.as_ref(), segment.rows)?))
    });
    ChosenRows::new(live.collect())
}

/// What the commit of a DELETE says.
fn delete_change(table: &TableSnapshot, chosen: &ChosenRows) -> Result<Change, SqlError> {
    let deletes = chosen.by_segment().map(|(ordinal, rows)| {
        let segment = table.segments.get(ordinal as usize).ok_or_else(|| {
            SqlError::new(ErrorCode::Internal, "a row id names no segment of the snapshot")
        })?;
        let (segment, rows_deleted) = (segment.segment, segment.rows_deleted());
        Ok(SegmentDeletes { seen: SegmentSeen { segment, rows_deleted }, rows: rows.clone() })
    });
    Ok(Change::DeleteRows { table: table.id, segments: deletes.collect::<Result<_, SqlError>>()? })
}

/// The new rows of an UPDATE as an INSERT of the whole table: new values where some are assigned,
/// the old ones elsewhere. Of a column that is set more than once, the last value counts.
fn new_rows(table: &TableSnapshot, update: &Update) -> Result<Insert, SqlError> {
    let assigned = assigned_values(table, &update.assignments)?;
    let mut new: HashMap<_, _> =
        assigned.into_iter().map(|(column, value)| (column.id, value)).collect();
    let values = table.schema.columns.iter().map(|column| {
        let name = ast::Ident::with_quote('"', &column.name);
        let expr = new.remove(&column.id).unwrap_or_else(|| ast::Expr::Identifier(name.clone()));
        // Named by its column: two of them may be the same expression.
        ast::SelectItem::ExprWithAlias { expr, alias: name }
    });
    Ok(Insert {
        table: update.rows.table.clone(),
        table_position: update.rows.table_position,
        columns: vec![],
        source: Some(update.rows.values_of_all_query(values.collect())?),
    })
}

/// `SELECT * FROM t WHERE p` as `SELECT row id FROM t WHERE p`.
fn with_row_ids(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let LogicalPlan::Projection(all) = plan else { return internal("is no projection") };
    let rows = replace_target(Arc::unwrap_or_clone(all.input), &SegmentTable::with_row_ids)?;
    let (qualifier, field) = rows
        .schema()
        .iter()
        .find(|(_, field)| field.name() == ROW_ID_NAME)
        .ok_or_else(|| DataFusionError::Internal("a scan has no row ids".to_owned()))?;
    let id = Expr::from((qualifier, field));
    LogicalPlanBuilder::from(rows.clone()).project([id])?.build()
}

/// The rows of an UPDATE, over the chosen rows alone.
fn over_chosen(plan: LogicalPlan, chosen: Arc<ChosenRows>) -> Result<LogicalPlan, DataFusionError> {
    replace_target(plan, &|table| table.with_only(Arc::clone(&chosen)))
}

/// Replaces the table that a statement changes: the scan at the end of the chain of single
/// inputs. The same table in a subquery stays as it is.
fn replace_target(
    plan: LogicalPlan,
    replace: &dyn Fn(&SegmentTable) -> SegmentTable,
) -> Result<LogicalPlan, DataFusionError> {
    match plan {
        LogicalPlan::TableScan(scan) => replaced_scan(&scan, replace),
        LogicalPlan::Filter(filter) => {
            let input = replace_target(Arc::unwrap_or_clone(filter.input), replace)?;
            Ok(LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input))?))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = replace_target(Arc::unwrap_or_clone(alias.input), replace)?;
            let alias = SubqueryAlias::try_new(Arc::new(input), alias.alias)?;
            Ok(LogicalPlan::SubqueryAlias(alias))
        }
        LogicalPlan::Projection(_) => plan
            .map_children(|input| replace_target(input, replace).map(Transformed::yes))
            .data()?
            .recompute_schema(),
        other => internal(&format!("has {}", other.display())),
    }
}

fn replaced_scan(
    scan: &TableScan,
    replace: &dyn Fn(&SegmentTable) -> SegmentTable,
) -> Result<LogicalPlan, DataFusionError> {
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<SegmentTable>() else {
        return internal("reads no stored table");
    };
    let source = provider_as_source(Arc::new(replace(table)));
    LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()
}

fn internal<T>(problem: &str) -> Result<T, DataFusionError> {
    Err(DataFusionError::Internal(format!("the plan of a statement that changes rows {problem}")))
}
