//! Finding relations by name in a snapshot, with "did you mean" when there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_engine::snapshot::{Relation, SchemaSnapshot, Snapshot, TableSnapshot};

use super::error::{CatalogError, ObjectKind};

/// Names longer than this get no suggestion: the distance costs the product of two lengths.
const SUGGEST_CHARS_MAX: usize = 64;

/// The schema `name`.
///
/// Fails with [`CatalogError::UnknownSchema`].
pub fn find_schema<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Result<&'a Arc<SchemaSnapshot>, CatalogError> {
    snapshot.schemas.get(name).ok_or_else(|| CatalogError::UnknownSchema {
        schema: name.to_owned(),
        suggestion: suggest_schema(&snapshot.schemas, name),
    })
}

/// The relation `schema.name`.
///
/// Fails with [`CatalogError::UnknownSchema`] or [`CatalogError::UnknownRelation`].
pub fn find_relation<'a>(
    snapshot: &'a Snapshot,
    schema: &str,
    name: &str,
) -> Result<&'a Relation, CatalogError> {
    let found = find_schema(snapshot, schema)?;
    found.relations.get(name).ok_or_else(|| CatalogError::UnknownRelation {
        schema: schema.to_owned(),
        name: name.to_owned(),
        suggestion: suggest_relation(found, name),
    })
}

/// The table `schema.name`.
///
/// Fails as [`find_relation`] does, and with [`CatalogError::WrongKind`] when it is a view.
pub fn find_table<'a>(
    snapshot: &'a Snapshot,
    schema: &str,
    name: &str,
) -> Result<&'a Arc<TableSnapshot>, CatalogError> {
    match find_relation(snapshot, schema, name)? {
        Relation::Table(table) => Ok(table),
        Relation::View(_) => Err(CatalogError::WrongKind {
            name: format!("{schema}.{name}"),
            actual: ObjectKind::View,
            wanted: ObjectKind::Table,
        }),
    }
}

pub(super) fn suggest_schema(
    schemas: &BTreeMap<String, Arc<SchemaSnapshot>>,
    name: &str,
) -> Option<String> {
    suggest(name, schemas.keys())
}

pub(super) fn suggest_relation(schema: &SchemaSnapshot, name: &str) -> Option<String> {
    suggest(name, schema.relations.keys())
}

/// The candidate nearest to `name`, if it is near: a third of the letters may differ.
fn suggest<'a>(name: &str, candidates: impl Iterator<Item = &'a String>) -> Option<String> {
    let length = name.chars().count();
    if length > SUGGEST_CHARS_MAX {
        return None;
    }
    candidates
        .filter(|candidate| candidate.chars().count() <= SUGGEST_CHARS_MAX)
        .map(|candidate| {
            (edit_distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate)
        })
        .filter(|(distance, _)| *distance <= (length / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.clone())
}

/// Insertions, deletions, replacements and swaps of neighbours from `a` to `b` (optimal string
/// alignment, Damerau 1964).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_or_missing_letter_is_found_and_another_word_is_not() {
        let names = ["lineitem".to_owned(), "orders".to_owned()];
        let check = |asked: &str| suggest(asked, names.iter());
        assert_eq!(check("lineitme").as_deref(), Some("lineitem"));
        assert_eq!(check("order").as_deref(), Some("orders"));
        assert_eq!(check("ORDERS").as_deref(), Some("orders"));
        assert_eq!(check("customer"), None);
        assert_eq!(check(""), None);
    }
}
