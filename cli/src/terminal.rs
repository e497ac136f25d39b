//! What is only for people: progress bars, colours, the width of the screen.
//!
//! Invariant: nothing here writes to standard output, and nothing at all into a pipe.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether results go to a person's terminal.
pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Columns of the terminal that results go to; `None` in a pipe.
pub fn width() -> Option<usize> {
    let (_rows, columns) = console::Term::stdout().size_checked()?;
    stdout_is_terminal().then_some(usize::from(columns))
}

/// A bar over `total` steps on standard error, drawn only when that is a terminal.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:28} {bar:30} {human_pos}/{human_len} ({elapsed}, {eta} left)",
    );
    styled(ProgressBar::with_draw_target(Some(total), target()), style, what)
}

/// A counter without an end.
pub fn counter(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:28} {human_pos} ({elapsed})");
    styled(ProgressBar::with_draw_target(None, target()), style, what)
}

fn styled(
    bar: ProgressBar,
    style: Result<ProgressStyle, indicatif::style::TemplateError>,
    what: &str,
) -> ProgressBar {
    // A template that does not parse would only cost the looks.
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// indicatif hides the target by itself where standard error is no terminal.
fn target() -> ProgressDrawTarget {
    ProgressDrawTarget::stderr_with_hz(10)
}

/// "running (12 s)" on standard error, from the first second of a query until it is dropped.
pub struct Waiting {
    task: Option<tokio::task::JoinHandle<()>>,
    bar: ProgressBar,
}

impl Waiting {
    /// Starts the wait; nothing shows unless `visible`.
    pub fn start(visible: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, target());
        let style = ProgressStyle::with_template("{spinner} running ({elapsed}, Ctrl-C cancels)");
        let bar = styled(bar, style, "");
        let task = visible.then(|| {
            let bar = bar.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                loop {
                    bar.tick();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            })
        });
        Self { task, bar }
    }

    /// Clears the line: rows are about to be printed.
    pub fn clear(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            self.bar.finish_and_clear();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.clear();
    }
}
