//! Real processes that log everything there is: the cluster secret is in none of it (RULES 30).

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use basalt_sql_tests::client::Client;

/// A process that is killed when it is dropped.
struct Logged(Child);

impl Drop for Logged {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Starts a role with every log line there is going to `log`; returns its address.
fn spawn(role: &str, dir: &Path, more: &[&str], log: &Path) -> (Logged, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args([role, "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .args(more)
        .env("BASALT_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(log).unwrap())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let process = Logged(child);
    let ready = format!("basalt {role} ready: ");
    let mut lines = BufReader::new(output).lines();
    let url = lines.find_map(|line| line.unwrap().strip_prefix(&ready).map(str::to_owned));
    (process, url.unwrap_or_else(|| panic!("the {role} ended before it was ready")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_in_no_log_line_at_any_level() {
    let dir = tempfile::tempdir().unwrap();
    let log = |name: &str| dir.path().join(name);
    let home = dir.path().join("coordinator");
    let (_coordinator, url) = spawn("coordinator", &home, &[], &log("coordinator.log"));
    let secret_file = home.join("cluster.secret");
    let member = ["--coordinator", &url, "--secret-file", secret_file.to_str().unwrap()];
    let mut workers = Vec::new();
    for name in ["worker-0", "worker-1"] {
        workers.push(spawn("worker", &log(name), &member, &log(&format!("{name}.log"))));
    }
    let mut client = Client::connect(&url).await.unwrap();
    let create = "CREATE TABLE t DISTKEY(x) AS SELECT value AS x FROM generate_series(1, 1000)";
    client.execute_update(create).await.unwrap();
    client.query_all("SELECT count(*) FROM t a JOIN t b ON a.x = b.x + 1").await.unwrap();
    drop(workers);
    client.query_all("SELECT sum(x) FROM t").await.unwrap_err();

    let secret = std::fs::read_to_string(&secret_file).unwrap().trim().to_owned();
    assert_eq!(secret.len(), 64);
    for name in ["coordinator.log", "worker-0.log", "worker-1.log"] {
        let text = String::from_utf8_lossy(&std::fs::read(log(name)).unwrap()).into_owned();
        assert!(text.contains("TRACE") && text.contains("h2"), "{name} does not have everything");
        assert!(!text.contains(&secret), "{name} has the secret");
    }
}
