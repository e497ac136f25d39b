//! Benchmarks run from their command to their figures; what the figures are is not looked at here.

use std::process::Command;

use serde_json::Value;

/// What `basalt bench` prints for people, and keeps.
fn bench(args: &[&str]) -> (String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    let output = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .arg("bench")
        .args(args)
        .arg("--json")
        .arg(&json)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {problem}");
    let text = String::from_utf8(output.stdout).unwrap();
    (text, serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap())
}

#[test]
fn look_ups_are_measured_from_one_client_and_from_many() {
    let sizes = ["--scale", "0.01", "--lookups", "20", "--clients", "3", "--seconds", "1"];
    let args = [&["lookups", "--data", ".", "--workers", "2"], sizes.as_slice()].concat();
    let (text, json) = bench(&args);
    for line in ["SELECT 1", "look-up as text", "look-up, prepared", "3 x look-up, prepared"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(json["rows"].as_i64().unwrap() > 50_000);
    let one = &json["one"][1];
    let [client, server] =
        ["client_median_ms", "server_median_ms"].map(|key| one[key].as_f64().unwrap());
    assert!(0.0 < server && 0.0 < client, "{json}");
    assert!(json["many"][1]["per_second"].as_f64().unwrap() > 1.0, "{json}");
}

#[test]
fn planning_is_measured_along_segments_workers_and_tables() {
    let args = ["planning", "--segments", "200", "--workers", "4", "--tables", "12", "--runs", "1"];
    let (text, json) = bench(&args);
    let curves = json["curves"].as_array().unwrap();
    let along: Vec<_> = curves.iter().map(|curve| curve["along"].as_str().unwrap()).collect();
    assert_eq!(along, ["segments", "workers", "tables"]);
    let lookup = &curves[0]["points"][1]["statements"][0];
    assert_eq!((lookup["name"].as_str(), lookup["tasks"].as_u64()), (Some("look-up"), Some(1)));
    assert!(text.contains("look-up") && text.contains("moved"), "{text}");
}
