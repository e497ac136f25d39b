//! The shell for people: line editing, history, statements over several lines.

use std::io::Write;

use anyhow::Context;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::history;
use super::meta::parse_meta;
use super::session::{Session, StatementError};
use super::split::Splitter;

type Line = Editor<(), FileHistory>;

/// What one prompt brought.
enum Input {
    Line(String),
    Interrupt,
    End,
}

/// Reads and runs statements until Ctrl-D or `\q`. Errors are shown and the shell goes on.
///
/// # Errors
/// When the terminal itself fails.
pub async fn interactive<W: Write>(session: &mut Session<W>) -> anyhow::Result<()> {
    let mut editor = editor()?;
    let history = history::file();
    if let Some(file) = &history
        && let Err(error) = editor.load_history(file)
    {
        tracing::debug!(file = %file.display(), %error, "the history cannot be read");
    }
    let mut splitter = Splitter::default();
    // The lines of the statement being typed: one history entry when it is complete.
    let mut typed = String::new();
    loop {
        let input;
        (editor, input) = read_line(editor, prompt(&splitter)).await?;
        let line = match input {
            Input::Line(line) => line,
            Input::Interrupt => {
                splitter.clear();
                typed.clear();
                continue;
            }
            Input::End => break,
        };
        typed.push_str(&line);
        if splitter.is_at_start()
            && let Some(meta) = parse_meta(&line)
        {
            remember(&mut editor, &mut typed);
            match meta {
                Ok(meta) => match session.run_meta(meta).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => show(error)?,
                },
                Err(problem) => writeln!(std::io::stderr(), "{problem}")?,
            }
            continue;
        }
        let statements = splitter.push_line(&line);
        if splitter.is_at_start() {
            remember(&mut editor, &mut typed);
        } else {
            typed.push('\n');
        }
        for statement in statements {
            if let Err(error) = session.run(&statement.text).await {
                show(error)?;
                break;
            }
        }
    }
    if let Some(file) = &history
        && let Err(error) = editor.append_history(file)
    {
        tracing::debug!(file = %file.display(), %error, "the history cannot be written");
    }
    Ok(())
}

fn editor() -> anyhow::Result<Line> {
    let config = Config::builder()
        .max_history_size(history::ENTRIES_MAX)?
        .history_ignore_space(true)
        .auto_add_history(false)
        .build();
    Editor::with_config(config).context("the terminal cannot be set up")
}

/// `basalt=> ` for a new statement; what is open for a continued one.
fn prompt(splitter: &Splitter) -> String {
    if splitter.is_at_start() {
        "basalt=> ".to_owned()
    } else {
        format!("basalt{}> ", splitter.open())
    }
}

/// Editing blocks, so it gets a thread; the editor travels there and back.
async fn read_line(mut editor: Line, prompt: String) -> anyhow::Result<(Line, Input)> {
    let (editor, line) = tokio::task::spawn_blocking(move || {
        let line = editor.readline(&prompt);
        (editor, line)
    })
    .await?;
    let input = match line {
        Ok(line) => Input::Line(line),
        Err(ReadlineError::Interrupted) => Input::Interrupt,
        Err(ReadlineError::Eof) => Input::End,
        Err(error) => return Err(error).context("the terminal cannot be read"),
    };
    Ok((editor, input))
}

fn remember(editor: &mut Line, typed: &mut String) {
    let entry = std::mem::take(typed);
    if entry.trim().is_empty() {
        return;
    }
    if let Err(error) = editor.add_history_entry(entry) {
        tracing::debug!(%error, "the history cannot be extended");
    }
}

/// Shows an error and goes on, unless nobody can see it any more.
fn show(error: StatementError) -> anyhow::Result<()> {
    if let StatementError::Output(error) = error {
        return Err(error.into());
    }
    writeln!(std::io::stderr(), "{}", error.text())?;
    Ok(())
}
