//! Tells the program which commit it is built of, for `basalt bench` (`src/machine.rs`).
//!
//! Only release builds are told: figures of others are worth nothing, and their builds need not run
//! again after each commit.

use std::process::Command;

/// What a program is built of, apart from the registry's crates, from this crate's folder.
const SOURCES: [&str; 8] = [
    "../Cargo.lock",
    "../Cargo.toml",
    "../cli",
    "../coordinator",
    "../engine",
    "../sql-tests/src",
    "../storage",
    "../worker",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release")
        && let Some(commit) = commit()
    {
        println!("cargo::rustc-env=BASALT_COMMIT={commit}");
    }
}

/// The commit that is checked out, with `+` where the sources have changes; `None` outside of their
/// repository, as in a source archive.
fn commit() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    // The reflog grows with each commit and each checkout.
    println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes =
        git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &SOURCES[..]].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}+") })
}

fn git(args: &[&str]) -> Option<String> {
    // Who commits at the same time finds no lock of this.
    let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
