//! The Python client tests: their virtual environment, and running them against an endpoint.
//!
//! The tests in `sql-tests/clients` use the drivers that users have, unmodified, from PyPI at
//! pinned versions. The environment is made once per target folder and again when the
//! requirements change; it needs `python3` with `venv`, and the network once.
//!
//! Invariant: no silent skip. What cannot be installed or run is an error with pip's own words.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder of the Python tests and their requirements.
const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql-tests/clients");

/// The folder of the comparison with other engines, whose rules have tests.
const COMPARISON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql-tests/compare");

/// Why the client tests could not be run, or that they failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientTestError {
    /// A file or a program could not be used at all.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{what} failed with {status}\n{output}")]
    Failed {
        /// What was run.
        what: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote, both streams.
        output: String,
    },
}

/// The Python interpreter of an environment with the drivers, which is made when it is missing.
///
/// The environment is `python-venv` in the target folder of the running program; concurrent
/// callers wait for each other.
///
/// # Errors
/// When python3, venv or pip fail, with what they wrote.
pub fn python_env() -> Result<PathBuf, ClientTestError> {
    let target = target_dir()?;
    let env = target.join("python-venv");
    let python = env.join("bin").join("python");
    let requirements = Path::new(TESTS).join("requirements.txt");
    let wanted = context(fs::read_to_string(&requirements), &requirements)?;
    let lock_path = target.join("python-venv.lock");
    let lock = context(File::create(&lock_path), &lock_path)?;
    context(lock.lock(), &lock_path)?;
    // Written last: an environment without it was not finished.
    let stamp = env.join("requirements.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&env), "python3 -m venv")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-r"]);
    run(pip.arg(&requirements), "pip install")?;
    context(fs::write(&stamp, wanted), &stamp)?;
    Ok(python)
}

/// Runs the Python tests against a cluster behind a Flight SQL endpoint (`grpc://host:port`), and
/// the tests of the comparison with other engines, which need no cluster.
///
/// `program` is `basalt`, for what its client commands do.
///
/// # Errors
/// As [`python_env`], and when a test fails, with pytest's report.
pub fn run_client_tests(url: &str, program: &Path) -> Result<(), ClientTestError> {
    let python = python_env()?;
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5"]);
    // Named, because pytest would take the common folder of both and find no settings there.
    pytest.arg("-c").arg(Path::new(TESTS).join("pytest.ini")).args([TESTS, COMPARISON]);
    pytest.env("BASALT_URL", url).env("BASALT_BIN", program).env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut pytest, "pytest sql-tests/clients sql-tests/compare")
}

/// The target folder that the running program is in.
fn target_dir() -> Result<PathBuf, ClientTestError> {
    let program = context(std::env::current_exe(), Path::new("the running program"))?;
    // Cargo tags its target folder, wherever it is.
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| ClientTestError::Io {
            what: format!("{} is in no target folder", program.display()),
            source: io::ErrorKind::NotFound.into(),
        })
}

fn run(command: &mut Command, what: &str) -> Result<(), ClientTestError> {
    let Output { status, stdout, stderr } = context(command.output(), Path::new(what))?;
    if status.success() {
        return Ok(());
    }
    let output =
        format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Err(ClientTestError::Failed { what: what.to_owned(), status, output })
}

fn context<T>(result: io::Result<T>, what: &Path) -> Result<T, ClientTestError> {
    result.map_err(|source| ClientTestError::Io { what: what.display().to_string(), source })
}
