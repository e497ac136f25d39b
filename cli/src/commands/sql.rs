//! `basalt sql`: the shell.

use std::io::{BufWriter, IsTerminal};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::io::BufReader;

use super::UrlFlag;
use crate::format::Format;
use crate::shell::{self, Session, SessionOptions};
use crate::terminal;

/// SQL shell: interactive, or fed by -c, -f or a pipe
///
/// Statements end with a semicolon. In scripts the first error stops. Exit codes: 0 done, 1 a
/// statement failed, 2 wrong usage, 130 cancelled by Ctrl-C.
#[derive(Debug, Args)]
pub struct SqlArgs {
    #[command(flatten)]
    url: UrlFlag,
    /// Run these statements and leave (repeatable, in order)
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    commands: Vec<String>,
    /// Run the statements of a file and leave (repeatable, after any -c); - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to print results; csv and json stream and are never cut
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) async fn run(args: SqlArgs) -> anyhow::Result<()> {
    let is_terminal = terminal::stdout_is_terminal();
    let is_fed = !args.commands.is_empty() || !args.files.is_empty();
    let is_interactive = !is_fed && std::io::stdin().is_terminal();
    let client = args.url.connect().await?;
    let options = SessionOptions { format: args.format, is_terminal, is_interactive };
    let mut session = Session::new(client, BufWriter::new(std::io::stdout()), options);
    if is_interactive {
        return shell::interactive(&mut session).await;
    }
    for text in &args.commands {
        shell::run_text(&mut session, text, None).await?;
    }
    for file in &args.files {
        if file.as_os_str() == "-" {
            run_stdin(&mut session).await?;
            continue;
        }
        let origin = file.display().to_string();
        let open = tokio::fs::File::open(file)
            .await
            .with_context(|| format!("{origin} cannot be opened"))?;
        shell::run_reader(&mut session, BufReader::new(open), Some(&origin)).await?;
    }
    if !is_fed {
        run_stdin(&mut session).await?;
    }
    Ok(())
}

async fn run_stdin<W: std::io::Write>(session: &mut Session<W>) -> anyhow::Result<()> {
    shell::run_reader(session, BufReader::new(tokio::io::stdin()), Some("<stdin>")).await
}
