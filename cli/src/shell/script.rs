//! Statements from `-c`, a file or a pipe: run in order, stopped by the first error.

use std::io::Write;

use anyhow::Context;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::exit::{Interrupted, Reported};

use super::meta::parse_meta;
use super::session::{Session, StatementError};
use super::split::{Splitter, Statement};

/// Runs every statement of a text; `origin` names it in errors, with a line where it has lines.
///
/// # Errors
/// [`Reported`] after the first failing statement, whose error has been printed; [`Interrupted`]
/// after Ctrl-C; an I/O error when standard output is gone.
pub async fn run_text<W: Write>(
    session: &mut Session<W>,
    text: &str,
    origin: Option<&str>,
) -> anyhow::Result<()> {
    run_reader(session, text.as_bytes(), origin).await
}

/// Runs every statement that `reader` brings, each as soon as it is complete.
///
/// # Errors
/// As [`run_text`]; also when `reader` fails or is not UTF-8.
pub async fn run_reader<W: Write>(
    session: &mut Session<W>,
    mut reader: impl AsyncBufRead + Unpin,
    origin: Option<&str>,
) -> anyhow::Result<()> {
    let mut splitter = Splitter::default();
    let mut line = String::new();
    let mut lines = 0;
    loop {
        line.clear();
        let length = tokio::select! {
            length = reader.read_line(&mut line) => {
                length.with_context(|| format!("{} cannot be read", origin.unwrap_or("input")))?
            }
            Ok(()) = tokio::signal::ctrl_c() => return Err(Interrupted.into()),
        };
        if length == 0 {
            break;
        }
        lines += 1;
        if splitter.is_at_start()
            && let Some(meta) = parse_meta(&line)
        {
            // The splitter sees every line, so that its line numbers stay right.
            splitter.push_line("\n");
            splitter.clear();
            let meta = match meta {
                Ok(meta) => meta,
                Err(problem) => return Err(report(&format!("error: {problem}"), origin, lines)),
            };
            match session.run_meta(meta).await {
                Ok(true) => continue,
                Ok(false) => return Ok(()),
                Err(error) => return Err(failure(error, origin, lines)),
            }
        }
        for statement in splitter.push_line(&line) {
            run_one(session, &statement, origin).await?;
        }
    }
    match splitter.finish() {
        Some(statement) => run_one(session, &statement, origin).await,
        None => Ok(()),
    }
}

async fn run_one<W: Write>(
    session: &mut Session<W>,
    statement: &Statement,
    origin: Option<&str>,
) -> anyhow::Result<()> {
    match session.run(&statement.text).await {
        Ok(()) => Ok(()),
        Err(error) => Err(failure(error, origin, statement.line)),
    }
}

fn failure(error: StatementError, origin: Option<&str>, line: u64) -> anyhow::Error {
    match error {
        StatementError::Interrupted(interrupted) => interrupted.into(),
        StatementError::Output(error) => error.into(),
        error => report(&error.text(), origin, line),
    }
}

/// Prints an error with the place it belongs to.
fn report(text: &str, origin: Option<&str>, line: u64) -> anyhow::Error {
    let place = origin.map_or(String::new(), |origin| format!("{origin}:{line}: "));
    match writeln!(std::io::stderr(), "{place}{text}") {
        Ok(()) => Reported.into(),
        Err(error) => error.into(),
    }
}
