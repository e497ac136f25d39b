//! Whether a leaf's rows are assigned to tasks exactly once, and to which.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_storage::ids::{SegmentId, SliceId};
use datafusion::common::HashMap;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::DistributedLeafExec;

use super::family::{Family, Slices};
use crate::files::FileScanExec;
use crate::scan::{ScanSegment, SegmentScanExec};
use crate::shared_subplans::SharedRowsExec;

/// The family of a leaf's rows, or what is wrong with the way they are assigned to tasks.
pub(super) fn family_of_leaf(leaf: &DistributedLeafExec) -> Result<Family, String> {
    if let Some(original) = leaf.original().downcast_ref::<SharedRowsExec>() {
        return family_of_shared_rows(original, leaf.variants());
    }
    match leaf.original().downcast_ref::<SegmentScanExec>() {
        Some(original) => family_of_scan(original, leaf.variants()),
        None => files_are_assigned(leaf).map(|()| Family::Spread),
    }
}

fn family_of_shared_rows(
    original: &SharedRowsExec,
    variants: &[Arc<dyn ExecutionPlan>],
) -> Result<Family, String> {
    let variants: Option<Vec<_>> =
        variants.iter().map(|variant| variant.downcast_ref::<SharedRowsExec>()).collect();
    let variants = variants.ok_or("a variant has no shared rows")?;
    if original.is_divided_into(&variants) {
        return Ok(Family::Spread);
    }
    match variants.len() > 1 && variants.iter().all(|variant| original.is_divided_into(&[variant]))
    {
        true => Ok(Family::Replicated),
        false => Err("shared rows are not assigned exactly once".to_owned()),
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
    let mut groups = RowGroups::of(original);
    let once = scans.iter().try_for_each(|scan| groups.assign(scan)).and_then(|()| groups.all());
    if let Err(problem) = once {
        // Or each task reads all of it.
        let is_whole = |scan: &&SegmentScanExec| {
            let mut groups = RowGroups::of(original);
            groups.assign(scan).and_then(|()| groups.all()).is_ok()
        };
        let may_be_replicated = scans.len() > 1 && original.fetch().is_none();
        return match may_be_replicated && scans.iter().all(is_whole) {
            true => Ok(Family::Replicated),
            false => Err(problem),
        };
    }
    let tasks = tasks_of_slices(&scans).map(Arc::new);
    let slices = tasks.and_then(|tasks| Slices::by(original.distribution_columns(), &tasks));
    Ok(slices.map_or(Family::Spread, Family::Sliced))
}

/// The row groups of a scan, and which of them a task has.
struct RowGroups<'a> {
    scan: &'a SegmentScanExec,
    /// The place of each segment in the scan's list; of one that is there twice, none.
    places: HashMap<SegmentId, Option<usize>>,
    /// By the segment's place and the row group's number.
    assigned: Vec<Vec<bool>>,
}

impl<'a> RowGroups<'a> {
    fn of(scan: &'a SegmentScanExec) -> Self {
        let mut places = HashMap::with_capacity(scan.segments().len());
        for (place, segment) in scan.segments().iter().enumerate() {
            places.entry(segment.segment).and_modify(|known| *known = None).or_insert(Some(place));
        }
        let none = |segment: &ScanSegment| vec![false; segment.row_groups.len()];
        Self { scan, places, assigned: scan.segments().iter().map(none).collect() }
    }

    /// Gives a task the row groups of its scan; an error where another one has them.
    fn assign(&mut self, scan: &SegmentScanExec) -> Result<(), String> {
        for unit in scan.partitions().iter().flatten() {
            let segment = scan.segments().get(unit.segment as usize).map(|segment| segment.segment);
            let place = segment.and_then(|segment| self.places.get(&segment).copied().flatten());
            for group in unit.first..unit.end {
                let of_segment = place.and_then(|place| self.assigned.get_mut(place));
                match of_segment.and_then(|groups| groups.get_mut(group as usize)) {
                    Some(assigned) if !*assigned => *assigned = true,
                    _ => return Err(format!("row group {:?} is assigned twice", (segment, group))),
                }
            }
        }
        Ok(())
    }

    /// An error where a row group is no task's.
    fn all(&self) -> Result<(), String> {
        let missing = |groups: &Vec<bool>| groups.iter().position(|assigned| !assigned);
        let mut places = self.assigned.iter().enumerate();
        match places.find_map(|(place, groups)| Some((place, missing(groups)?))) {
            None => Ok(()),
            Some((place, group)) => {
                let segment = self.scan.segments()[place].segment;
                Err(format!("row group {:?} is not assigned", (segment, group)))
            }
        }
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
