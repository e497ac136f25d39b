//! What choosing a distribution key means. Nobody can see it in rows: the table's version and who changed it
//! stay, and no other statement conflicts. Which segments lie by the key is theirs to say.

use std::sync::Arc;

use arrow::datatypes::DataType;
use basalt_engine::snapshot::{ChosenKey, Distribution, Relation, TableSnapshot};
use basalt_storage::ids::TableId;

use super::super::error::CatalogError;
use super::Draft;

impl Draft<'_> {
    pub(super) fn choose_key(&mut self, id: TableId, key: ChosenKey) -> Result<(), CatalogError> {
        let (entry, table) = self.table(id)?;
        let invalid = |problem: &str| Err(CatalogError::invalid(format!("table {id} {problem}")));
        if table.distribution != Distribution::Auto {
            return invalid("has a declared distribution: no key is chosen for it");
        }
        if table.chosen_key.is_some() {
            return invalid("has a key that was chosen already");
        }
        match table.schema.column(key.column) {
            None => return invalid("has no such column to be distributed by"),
            Some(column)
                if column.data_type.is_nested()
                    || matches!(column.data_type, DataType::Interval(_)) =>
            {
                return invalid("cannot be distributed by a column of its type");
            }
            Some(_) => {}
        }
        let table =
            TableSnapshot { chosen_key: Some(Arc::new(key)), ..TableSnapshot::clone(table) };
        self.put_relation(&entry.schema, &entry.name, Some(Relation::Table(Arc::new(table))))
    }
}
