//! How tables are distributed, and which of them are joined where they lie.

use basalt_engine::auto_distribution::auto_choice;
use basalt_engine::snapshot::{Distribution, TableSnapshot};
use basalt_engine::types::type_name;

/// The style, and for AUTO what it comes to, as Redshift writes it: `AUTO(ALL)`.
pub(super) fn style(table: &TableSnapshot, members: usize) -> String {
    match auto_choice(table, members) {
        Some(choice) if choice.everywhere => "AUTO(ALL)".to_owned(),
        Some(_) => "AUTO(EVEN)".to_owned(),
        None => table.declared_distribution(),
    }
}

/// Why AUTO came to that; nothing where the style was declared.
pub(super) fn reason(table: &TableSnapshot, members: usize) -> Option<String> {
    auto_choice(table, members).map(|choice| choice.reason)
}

/// What two tables have in common that are joined by their keys without moving a row; a table that every
/// worker has is joined to any. Nothing where rows lie by no value.
pub(super) fn colocation(table: &TableSnapshot, members: usize) -> Option<String> {
    match table.distribution {
        Distribution::All => Some("all workers".to_owned()),
        Distribution::Auto => auto_choice(table, members)
            .filter(|choice| choice.everywhere)
            .map(|_| "all workers".to_owned()),
        Distribution::Even => None,
        Distribution::Key(id) => table.schema.column(id).map(|column| {
            // Integers of all widths have one hash.
            match column.data_type.is_integer() {
                true => "by integer".to_owned(),
                false => {
                    let name = type_name(&column.data_type);
                    format!("by {}", name.unwrap_or_else(|unknown| unknown).to_lowercase())
                }
            }
        }),
    }
}
