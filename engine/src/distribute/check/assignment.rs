//! Whether a leaf's rows are assigned to tasks exactly once, and to which.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use basalt_storage::ids::{SegmentId, SliceId};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::DistributedLeafExec;

use super::family::{Family, Slices};
use crate::files::FileScanExec;
use crate::scan::SegmentScanExec;

/// The family of a leaf's rows, or what is wrong with the way they are assigned to tasks.
pub(super) fn family_of_leaf(leaf: &DistributedLeafExec) -> Result<Family, String> {
    match leaf.original().downcast_ref::<SegmentScanExec>() {
        Some(original) => family_of_scan(original, leaf.variants()),
        None => files_are_assigned(leaf).map(|()| Family::Spread),
    }
}

fn family_of_scan(
    original: &SegmentScanExec,
    variants: &[Arc<dyn ExecutionPlan>],
) -> Result<Family, String> {
    let mut scans = Vec::with_capacity(variants.len());
    for variant in variants {
        let Some(scan) = variant.downcast_ref::<SegmentScanExec>() else {
            return Err("a variant is not a segment scan".to_owned());
        };
        if scan.predicate() != original.predicate() || scan.fetch() != original.fetch() {
            return Err("a variant filters or limits its rows otherwise".to_owned());
        }
        scans.push(scan);
    }
    let all = row_groups(original);
    // Each task reads all of it.
    if scans.len() > 1
        && !all.is_empty()
        && original.fetch().is_none()
        && scans.iter().all(|scan| row_groups(scan) == all)
        && all.values().all(|times| *times == 1)
    {
        return Ok(Family::Replicated);
    }
    assigned_once(all, &scans)?;
    let tasks = tasks_of_slices(&scans).map(Arc::new);
    let slices = tasks.and_then(|tasks| Slices::by(original.distribution_columns(), &tasks));
    Ok(slices.map_or(Family::Spread, Family::Sliced))
}

/// Whether every row group is in exactly one variant.
fn assigned_once(
    mut left: HashMap<(SegmentId, u32), usize>,
    scans: &[&SegmentScanExec],
) -> Result<(), String> {
    for (row_group, times) in scans.iter().flat_map(|scan| row_groups(scan)) {
        match left.remove(&row_group) {
            Some(1) if times == 1 => {}
            _ => return Err(format!("row group {row_group:?} is assigned twice")),
        }
    }
    match left.keys().next() {
        Some(missing) => Err(format!("row group {missing:?} is not assigned")),
        None => Ok(()),
    }
}

/// The task of each slice; none where a slice is in several.
fn tasks_of_slices(scans: &[&SegmentScanExec]) -> Option<BTreeMap<SliceId, usize>> {
    let mut tasks = BTreeMap::new();
    for (task, scan) in scans.iter().enumerate() {
        for unit in scan.partitions().iter().flatten() {
            let slice = scan.segments().get(unit.segment as usize)?.slice;
            if *tasks.entry(slice).or_insert(task) != task {
                return None;
            }
        }
    }
    Some(tasks)
}

fn files_are_assigned(leaf: &DistributedLeafExec) -> Result<(), String> {
    let Some(original) = leaf.original().downcast_ref::<FileScanExec>() else { return Ok(()) };
    let mut variants = Vec::with_capacity(leaf.variants().len());
    for variant in leaf.variants() {
        match variant.downcast_ref::<FileScanExec>() {
            Some(scan) => variants.push(scan),
            None => return Err("a variant is not a file scan".to_owned()),
        }
    }
    file_assignment_error(original, &variants).map_or(Ok(()), Err)
}

/// Every row of every file is in exactly one unit of one variant.
fn file_assignment_error(original: &FileScanExec, variants: &[&FileScanExec]) -> Option<String> {
    for (index, file) in original.scan().files.iter().enumerate() {
        let units = variants.iter().flat_map(|variant| variant.partitions().iter().flatten());
        let mut runs: Vec<_> = units
            .filter(|unit| unit.file == index)
            .map(|unit| (unit.first_row, unit.rows.or(file.rows)))
            .collect();
        runs.sort_unstable();
        let whole = match file.rows {
            None => runs.len() == 1,
            Some(rows) => {
                let end = runs.iter().try_fold(0, |next, (first, rows)| match rows {
                    Some(rows) if *first == next => Some(next + rows),
                    _ => None,
                });
                end == Some(rows)
            }
        };
        if !whole {
            return Some(format!("the rows of file {index} are not assigned exactly once"));
        }
    }
    None
}

fn row_groups(scan: &SegmentScanExec) -> HashMap<(SegmentId, u32), usize> {
    let mut groups = HashMap::new();
    for unit in scan.partitions().iter().flatten() {
        if let Some(segment) = scan.segments().get(unit.segment as usize) {
            for group in unit.first..unit.end {
                *groups.entry((segment.segment, group)).or_default() += 1;
            }
        }
    }
    groups
}
