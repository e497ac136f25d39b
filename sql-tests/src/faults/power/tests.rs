//! The rig loses what was not synced and keeps what was: a rig that keeps everything proves
//! nothing.

use std::io::Write;

use super::*;
use crate::faults::skip::skip;

fn write(path: &Path, sync: bool) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    if sync {
        file.sync_all().unwrap();
        fs::File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_no_more() {
    if let Err(reason) = PowerGrid::possible() {
        return skip("a power cut", &reason);
    }
    let mut grid = PowerGrid::new(&["a", "b"]).unwrap();
    for disk in 0..2 {
        write(&grid.disk(disk).join("synced"), true);
        write(&grid.disk(disk).join("written"), false);
    }
    grid.cut().unwrap();
    for disk in 0..2 {
        let late = fs::File::create(grid.disk(disk).join("late"));
        assert!(late.is_err(), "a disk without power takes no more");
    }
    grid.restore().unwrap();
    for disk in 0..2 {
        assert_eq!(length(&grid.disk(disk).join("synced")), 100_000);
        assert_eq!(length(&grid.disk(disk).join("written")), 0, "it was never synced");
        write(&grid.disk(disk).join("after"), true);
    }
}

#[test]
fn one_disk_can_lose_power_alone() {
    if let Err(reason) = PowerGrid::possible() {
        return skip("a power cut", &reason);
    }
    let mut grid = PowerGrid::new(&["a", "b"]).unwrap();
    grid.cut_one(0).unwrap();
    assert!(fs::File::create(grid.disk(0).join("late")).is_err());
    write(&grid.disk(1).join("synced"), true);
    grid.restore().unwrap();
    assert_eq!(length(&grid.disk(1).join("synced")), 100_000);
}

#[test]
fn nothing_stays_mounted_and_nothing_is_left() {
    if let Err(reason) = PowerGrid::possible() {
        return skip("a power cut", &reason);
    }
    let grid = PowerGrid::new(&["a"]).unwrap();
    let folder = grid.folder.clone();
    assert_eq!(mounts_below(&folder).len(), 1);
    drop(grid);
    assert!(mounts_below(&folder).is_empty());
    assert!(!folder.try_exists().unwrap());
}
