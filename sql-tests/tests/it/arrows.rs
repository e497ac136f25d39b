//! The dependency arrows: storage <- engine <- {coordinator, worker} <- {cli, sql-tests}.

use std::path::Path;

/// The workspace crates that a crate may depend on.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("storage", &[]),
    ("engine", &["basalt-storage"]),
    ("coordinator", &["basalt-storage", "basalt-engine"]),
    ("worker", &["basalt-storage", "basalt-engine"]),
    ("sql-tests", &["basalt-storage", "basalt-engine", "basalt-coordinator", "basalt-worker"]),
    (
        "cli",
        &[
            "basalt-storage",
            "basalt-engine",
            "basalt-coordinator",
            "basalt-worker",
            "basalt-sql-tests",
        ],
    ),
];

#[test]
fn no_dependency_arrow_runs_the_wrong_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, allowed) in ALLOWED {
        let manifest = std::fs::read_to_string(root.join(name).join("Cargo.toml")).unwrap();
        for line in manifest.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if dependency.starts_with("basalt-") {
                assert!(allowed.contains(&dependency), "{name} must not depend on {dependency}");
            }
        }
    }
}

#[test]
fn storage_knows_nothing_of_datafusion_or_networks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = std::fs::read_to_string(root.join("storage/Cargo.toml")).unwrap();
    for forbidden in ["datafusion", "tonic", "tokio", "sqlparser"] {
        assert!(!manifest.lines().any(|line| line.starts_with(forbidden)), "{forbidden}");
    }
}
