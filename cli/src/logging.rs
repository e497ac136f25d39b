//! Log output: to standard error, so that results on standard output stay clean.

use tracing_subscriber::EnvFilter;

/// How much is logged when neither `BASALT_LOG` nor `RUST_LOG` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings only: for commands whose output is the point.
    Quiet,
    /// What an operator wants to see of a server.
    Server,
}

impl Verbosity {
    fn directives(self) -> &'static str {
        match self {
            Self::Quiet => "warn",
            Self::Server => {
                "warn,basalt=info,basalt_cli=info,basalt_coordinator=info,basalt_worker=info,\
                 basalt_engine=info,basalt_storage=info"
            }
        }
    }
}

/// Starts logging. A filter that does not parse is reported and the default used.
pub fn start(verbosity: Verbosity) {
    let named = ["BASALT_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let default = || EnvFilter::new(verbosity.directives());
    let (filter, problem) = match named.as_deref().map(EnvFilter::try_new) {
        None => (default(), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (default(), Some(error)),
    };
    let is_terminal = console::user_attended_stderr();
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .try_init();
    if started.is_ok()
        && let Some(error) = problem
    {
        tracing::warn!(%error, "the log filter in BASALT_LOG or RUST_LOG is not valid: ignored");
    }
}
