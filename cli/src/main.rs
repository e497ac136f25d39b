//! The `basalt` binary; see the library of the same package.

use std::process::ExitCode;

/// Arrow's many short-lived buffers of changing size cost the system's allocator much more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    basalt_cli::run()
}
