//! Damage does what it says, where it says, and can be taken back.

use std::collections::BTreeMap;

use super::*;

/// A data directory with two files of each kind.
fn home() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for segment in ["aa", "bb"] {
        let wide = dir.path().join("chunks/1/0").join(segment);
        fs::create_dir_all(&wide).unwrap();
        for column in ["c1.v1.parquet", "c2.v1.parquet", "segment.meta"] {
            fs::write(wide.join(column), format!("{segment} {column}").repeat(10)).unwrap();
        }
        for end in ["pack.parquet", "pack.meta"] {
            let path = dir.path().join(format!("chunks/1/0/{segment}.{end}"));
            fs::write(path, format!("{segment} {end}").repeat(10)).unwrap();
        }
    }
    fs::create_dir(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("log/0001.log"), "records").unwrap();
    fs::write(dir.path().join("catalog.redb"), "catalog now").unwrap();
    for ours in ["LOCK", "IDENTITY.json", "cluster.secret"] {
        fs::write(dir.path().join(ours), ours).unwrap();
    }
    dir
}

fn content(home: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    walk(home, &mut |path| {
        files.insert(path.strip_prefix(home).unwrap().to_owned(), fs::read(path)?);
        Ok(())
    })
    .unwrap();
    files
}

fn choose(home: &Path, file: FileKind, mutation: MutationKind, seed: u64) -> Damage {
    let wanted = Wanted { file: Some(file), mutation: Some(mutation), older: None };
    Damage::choose(home, &wanted, &mut Choices::new(seed)).unwrap().unwrap()
}

#[test]
fn every_damage_to_every_kind_of_file_changes_it_alone_and_is_undone() {
    for file in FileKind::ALL {
        for mutation in MutationKind::ALL {
            for seed in 0..5 {
                let home = home();
                let before = content(home.path());
                let damage = choose(home.path(), file, mutation, seed);
                assert_eq!(damage.file_kind(), file);
                let undo = damage.apply().unwrap();
                let after = content(home.path());
                assert_ne!(after, before, "{damage}");
                let folder = damage.file().parent().unwrap();
                for (path, bytes) in &before {
                    let may_change = path == damage.file()
                        || (mutation == MutationKind::DeleteFolder && path.starts_with(folder));
                    assert!(may_change || after.get(path) == Some(bytes), "{damage}: {path:?}");
                }
                undo.undo().unwrap();
                assert_eq!(content(home.path()), before, "{damage}");
            }
        }
    }
}

#[test]
fn a_seed_repeats_its_damage() {
    let home = home();
    let describe = |seed| {
        let damage =
            Damage::choose(home.path(), &Wanted::default(), &mut Choices::new(seed)).unwrap();
        damage.unwrap().to_string()
    };
    assert_eq!(describe(3), describe(3));
    assert!((0..20).any(|seed| describe(seed) != describe(3)));
}

#[test]
fn a_swap_takes_the_same_column_of_another_segment() {
    for seed in 0..10 {
        // Anew each time: files that were swapped are alike, and leave nothing to swap.
        let home = home();
        let damage = choose(home.path(), FileKind::Column, MutationKind::Swap, seed);
        damage.apply().unwrap().leave();
        let now = fs::read_to_string(home.path().join(damage.file())).unwrap();
        let column = damage.file().file_name().unwrap().to_str().unwrap();
        assert!(now.contains(column), "{damage}: {now}");
    }
}

#[test]
fn a_swap_prefers_what_the_file_was_before() {
    let (home, older) = (home(), tempfile::tempdir().unwrap());
    copy_folder(home.path(), older.path()).unwrap();
    fs::write(home.path().join("catalog.redb"), "catalog later").unwrap();
    let wanted = Wanted {
        file: Some(FileKind::Catalog),
        mutation: Some(MutationKind::Swap),
        older: Some(older.path().to_owned()),
    };
    let damage = Damage::choose(home.path(), &wanted, &mut Choices::new(1)).unwrap().unwrap();
    damage.apply().unwrap().leave();
    assert_eq!(fs::read(home.path().join("catalog.redb")).unwrap(), b"catalog now");
}

#[test]
fn identities_locks_and_secrets_are_left_alone() {
    let home = home();
    for seed in 0..200 {
        let damage =
            Damage::choose(home.path(), &Wanted::default(), &mut Choices::new(seed)).unwrap();
        let name = damage.unwrap().file().to_owned();
        assert!(
            !["LOCK", "IDENTITY.json", "cluster.secret"].iter().any(|ours| name.ends_with(ours))
        );
    }
}

#[test]
fn a_directory_without_such_files_has_no_such_damage() {
    let empty = tempfile::tempdir().unwrap();
    let none = Damage::choose(empty.path(), &Wanted::default(), &mut Choices::new(1)).unwrap();
    assert!(none.is_none());
}
