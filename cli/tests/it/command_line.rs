//! The command line: help, usage errors, exit codes.

use std::process::{Command, Output};

const SUBCOMMANDS: [&str; 10] =
    ["demo", "start", "coordinator", "worker", "catalog", "sql", "load", "status", "slt", "bench"];

/// An address where nobody listens: port 1 needs privileges that nothing here has.
const NOBODY: &str = "grpc://127.0.0.1:1";

fn basalt(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(args)
        .env_remove("BASALT_URL")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn check_fails(args: &[&str], code: i32, message: &str) {
    let output = basalt(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(text.contains(message), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "errors do not go to standard output: {args:?}");
}

#[test]
fn every_subcommand_explains_itself() {
    let overview = String::from_utf8(basalt(&["--help"]).stdout).unwrap();
    for subcommand in SUBCOMMANDS {
        assert!(overview.contains(subcommand), "{subcommand} is missing in --help");
        let output = basalt(&[subcommand, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{subcommand}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Usage: basalt"), "{subcommand}: {text}");
    }
}

#[test]
fn bad_flags_exit_with_2() {
    check_fails(&["sql", "--nonsense"], 2, "--nonsense");
    check_fails(&["start", "--workers", "0"], 2, "--workers");
    check_fails(&["sql", "--format", "xml"], 2, "xml");
    check_fails(&["load", "--table", "t"], 2, "PATH");
    check_fails(&["load", "--table", "t", "--diststyle", "key", "x.csv"], 2, "--distkey");
    check_fails(&["slt", "--filter", "(", "x.slt"], 2, "regex");
    check_fails(&["bench", "tpch", "--data", ".", "--url", "u", "--workers", "1"], 2, "--workers");
    check_fails(&["worker"], 2, "--coordinator");
}

#[test]
fn an_unknown_key_in_the_config_file_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "listen = \"127.0.0.1:0\"\nlisten-http = \"x\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    check_fails(&["start", "--config", path], 2, "listen-http");
    check_fails(&["coordinator", "--config", "/no/such/file.toml"], 2, "/no/such/file.toml");
}

#[test]
fn an_unreachable_cluster_is_an_error_with_a_remedy() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql-tests/slt/joins.slt");
    for args in [["status"].as_slice(), &["sql", "-c", "select 1"], &["slt", file]] {
        let args = [args, &["--url", NOBODY]].concat();
        check_fails(&args, 1, "no server answers at grpc://127.0.0.1:1");
        check_fails(&args, 1, "basalt start");
    }
    check_fails(&["status", "--url", "postgres://x:1"], 1, "is not the address of a server");
}

#[test]
fn the_url_may_come_from_the_environment() {
    let output = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .arg("status")
        .env("BASALT_URL", NOBODY)
        .output()
        .unwrap();
    assert!(stderr(&output).contains(NOBODY), "{}", stderr(&output));
}

#[test]
fn a_file_that_is_not_there_is_named_before_anything_is_contacted() {
    check_fails(&["load", "--table", "t", "--url", NOBODY, "/no/*.parquet"], 1, "/no/*.parquet");
}
