//! How tables are distributed, and which of them are joined where they lie.

use basalt_engine::auto_distribution::auto_choice;
use basalt_engine::snapshot::{Distribution, TableSnapshot};
use basalt_engine::types::type_name;

/// The style, and for AUTO what it comes to, as Redshift writes it: `AUTO(ALL)`.
pub(super) fn style(table: &TableSnapshot, members: usize) -> String {
    match (auto_choice(table, members), table.key_of_rows()) {
        (Some(choice), _) if choice.everywhere => "AUTO(ALL)".to_owned(),
        (Some(_), Some(key)) => format!("AUTO(KEY({}))", table.column_name(key)),
        (Some(_), None) => "AUTO(EVEN)".to_owned(),
        (None, _) => table.declared_distribution(),
    }
}

/// Why AUTO came to that; nothing where the style was declared.
pub(super) fn reason(table: &TableSnapshot, members: usize) -> Option<String> {
    auto_choice(table, members).map(|choice| choice.reason)
}

/// What two tables have in common that are joined by their keys without moving a row; a table that every
/// worker has is joined to any. Nothing where rows lie by no value.
pub(super) fn colocation(table: &TableSnapshot, members: usize) -> Option<String> {
    let is_everywhere = table.distribution == Distribution::All
        || auto_choice(table, members).is_some_and(|choice| choice.everywhere);
    if is_everywhere {
        return Some("all workers".to_owned());
    }
    let column = table.schema.column(table.key_of_rows()?)?;
    // Integers of all widths have one hash.
    Some(match column.data_type.is_integer() {
        true => "by integer".to_owned(),
        false => {
            let name = type_name(&column.data_type);
            format!("by {}", name.unwrap_or_else(|unknown| unknown).to_lowercase())
        }
    })
}
