//! The data directory: one process at a time, a secret that stays one, nothing made by accident.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use basalt_coordinator::catalog::{Catalog, CatalogError, NewCluster, verify};
use basalt_engine::secret::{ClusterSecret, SecretError};

use super::fixtures::Fixture;

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_is_gone() {
    let fixture = Fixture::new().await;
    assert!(matches!(Catalog::open(fixture.path()), Err(CatalogError::Locked { .. })));
    assert!(matches!(verify(fixture.path()), Err(CatalogError::Locked { .. })));
    let handle = fixture.catalog.clone();
    let dir = fixture.close();
    assert!(matches!(Catalog::open(dir.path()), Err(CatalogError::Locked { .. })));
    drop(handle);
    Catalog::open(dir.path()).unwrap();
}

#[test]
fn opening_what_is_not_there_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    assert!(matches!(Catalog::open(&path), Err(CatalogError::NoCluster { .. })));
    assert!(matches!(verify(&path), Err(CatalogError::NoCluster { .. })));
    assert!(!path.try_exists().unwrap());
}

#[test]
fn a_cluster_is_founded_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a").join("b");
    let new = NewCluster::generate().with_workers_expected(3);
    let founded = Catalog::open_or_create(&path, new.clone()).unwrap();
    assert_eq!(founded.cluster().workers_expected, Some(3));
    assert!(founded.snapshot().schemas.contains_key("public"));
    drop(founded);
    assert!(matches!(
        Catalog::create(&path, NewCluster::generate()),
        Err(CatalogError::ClusterExists { .. })
    ));
    let opened = Catalog::open_or_create(&path, NewCluster::generate()).unwrap();
    assert_eq!(opened.cluster().cluster, new.cluster);
}

#[test]
fn a_crash_while_founding_is_completed_or_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("catalog.redb.new"), b"half a file").unwrap();
    drop(Catalog::create(dir.path(), NewCluster::generate()).unwrap());
    fs::remove_file(dir.path().join("cluster.secret")).unwrap();
    drop(Catalog::open(dir.path()).unwrap());
    assert!(dir.path().join("cluster.secret").try_exists().unwrap());
}

#[tokio::test]
async fn a_secret_that_workers_have_is_not_made_anew() {
    let dir = Fixture::new().await.close();
    fs::remove_file(dir.path().join("cluster.secret")).unwrap();
    let error = Catalog::open(dir.path()).err().unwrap();
    assert!(matches!(error, CatalogError::Identity(SecretError::Missing { .. })), "{error}");
}

#[tokio::test]
async fn a_lost_catalog_is_not_mistaken_for_a_new_cluster() {
    let dir = Fixture::new().await.close();
    let path = dir.path().join("catalog.redb");
    fs::write(&path, b"").unwrap();
    assert!(Catalog::open_or_create(dir.path(), NewCluster::generate()).is_err());
    fs::remove_file(&path).unwrap();
    let error = Catalog::open_or_create(dir.path(), NewCluster::generate()).err().unwrap();
    assert!(error.to_string().contains("has a cluster.secret and no catalog"), "{error}");
}

#[test]
fn a_secret_is_private_and_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.secret");
    let secret = ClusterSecret::read_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ClusterSecret::read_or_create(&path).unwrap(), secret);
    assert_ne!(ClusterSecret::generate().unwrap(), secret);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.trim_end(), secret.expose());
    assert!(!format!("{secret:?}").contains(&secret.expose()[..8]));
    assert!(secret.matches(text.trim_end().as_bytes()));
    assert!(!secret.matches(b"") && !secret.matches(&secret.expose().as_bytes()[..63]));
}

#[test]
fn a_secret_file_that_is_open_or_odd_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.secret");
    ClusterSecret::read_or_create(&path).unwrap();
    let with_mode = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        ClusterSecret::read(&path)
    };
    for mode in [0o644, 0o604, 0o602] {
        let refused = with_mode(mode).unwrap_err();
        assert!(matches!(refused, SecretError::Exposed { mode: m, .. } if m == mode));
    }
    for mode in [0o600, 0o400, 0o640] {
        with_mode(mode).unwrap();
    }
    with_mode(0o600).unwrap();
    let secret = fs::read_to_string(&path).unwrap();
    for text in ["", "short", &secret.repeat(2), &secret.replace(char::is_numeric, "z")] {
        fs::write(&path, text).unwrap();
        let refused = ClusterSecret::read(&path).unwrap_err();
        assert!(matches!(refused, SecretError::Malformed { .. }), "{refused}");
        assert!(!refused.to_string().contains(secret.trim_end()));
    }
    let link = dir.path().join("link");
    symlink(dir.path().join("gone"), &link).unwrap();
    assert!(matches!(ClusterSecret::read(&link), Err(SecretError::Missing { .. })));
}
