//! How the program ends: what an error prints, and which exit code it becomes.
//!
//! 0 done, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C. A reader of our output that goes
//! away (`basalt sql -c ... | head`) is a normal end.

use std::io::{self, Write};
use std::process::ExitCode;

use basalt_sql_tests::client::ClientError;

/// The command line or a configuration file asks for something impossible.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The user pressed Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// The work was done and its result is bad news that has been printed already.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub struct Reported;

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() {
        2
    } else if error.is::<Interrupted>() {
        130
    } else if is_broken_pipe(error) {
        0
    } else {
        1
    }
}

/// Prints an error where that helps, and returns the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let is_silent = error.is::<Interrupted>() || error.is::<Reported>() || is_broken_pipe(error);
    if !is_silent {
        // With standard error gone as well there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{}", text(error));
    }
    ExitCode::from(code(error))
}

/// The error with its causes; a server's error in the form SQL users know.
pub fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let cause = match cause.downcast_ref::<ClientError>() {
            Some(error) => client_error(error),
            None if depth == 0 => format!("error: {cause}"),
            None => cause.to_string(),
        };
        text.push_str(if depth == 0 { "" } else { "\n  caused by: " });
        text.push_str(&cause);
    }
    text
}

/// A client's error with the remedy for the one that newcomers meet first.
pub fn client_error(error: &ClientError) -> String {
    match error {
        ClientError::Server(_) => format!("ERROR: {error}"),
        ClientError::Unreachable { .. } => format!(
            "error: {error}\nHINT: start a cluster with `basalt start` or `basalt demo`, or name \
             another with --url or BASALT_URL"
        ),
        _ => format!("error: {error}"),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn each_kind_of_end_has_its_exit_code() {
        assert_eq!(code(&anyhow::anyhow!("disk full")), 1);
        assert_eq!(code(&UsageError("no".into()).into()), 2);
        assert_eq!(code(&Interrupted.into()), 130);
        let pipe: io::Result<()> = Err(io::ErrorKind::BrokenPipe.into());
        assert_eq!(code(&pipe.context("writing rows").unwrap_err()), 0);
    }

    #[test]
    fn causes_are_shown_below_the_error() {
        let file: io::Result<()> = Err(io::Error::other("no such file"));
        let error = file.context("a.csv cannot be read").unwrap_err();
        assert_eq!(text(&error), "error: a.csv cannot be read\n  caused by: no such file");
    }
}
