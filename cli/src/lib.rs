//! The `basalt` program: every role and every client command in one binary.
//!
//! A library so that tests can reach its parts; [`run`] is the program. In reading order:
//!
//! - [`commands`]: the command line, one module per subcommand
//! - [`config`]: flags, TOML file and defaults of the server roles
//! - [`roles`], [`serve`]: the seam to coordinator and worker, and serving until a signal
//! - [`data_dir`]: what an embedded cluster's folder was made for
//! - [`shell`]: splitting, running and cancelling statements; the interactive shell
//! - [`format`]: results as tables, CSV and JSON
//! - [`upload`]: a user's files as one stream of batches
//! - [`workload`]: tables, generated rows and queries: [`tpch`], [`clickbench`]
//! - [`terminal`], [`logging`], [`machine`], [`exit`]: the surroundings

pub mod clickbench;
pub mod commands;
pub mod config;
pub mod data_dir;
pub mod exit;
pub mod format;
pub mod logging;
pub mod machine;
pub mod memory;
pub mod roles;
pub mod serve;
pub mod shell;
pub mod terminal;
pub mod timing;
pub mod tpch;
pub mod upload;
pub mod workload;

use std::process::ExitCode;

use clap::Parser;

/// Stack of every thread in bytes: planning deeply nested SQL recurses, most of all in debug
/// builds. More than planning asks for (`basalt_engine::stack`), so that it need not take another
/// stack for every statement. Only touched pages cost memory.
const THREAD_STACK_BYTES: usize = 24 << 20;

/// Runs the program on the arguments of this process.
pub fn run() -> ExitCode {
    let cli = commands::Cli::parse();
    logging::start(cli.command.verbosity());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("no async runtime")),
    };
    let outcome = runtime.block_on(cli.command.run());
    // A thread may still wait for a key or a line on standard input: do not wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
