//! A connection together with how its results are shown.

use std::io::Write;
use std::time::{Duration, Instant};

use arrow_flight::FlightInfo;
use basalt_sql_tests::client::{Answer, Client, ClientError};

use crate::exit::{self, Interrupted};
use crate::format::{Format, ResultWriter, TableOptions};
use crate::terminal::{self, Waiting};

use super::meta::{HELP, Meta};

/// Rows of an interactive table that are shown.
const INTERACTIVE_ROWS_MAX: u64 = 1000;

/// How long the server may take to confirm a cancellation before we go on without it.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// How a session behaves.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// How results are printed.
    pub format: Format,
    /// Whether a person reads the results: tables fit the screen, counts and times are shown.
    pub is_terminal: bool,
    /// Whether a person types: long tables are cut.
    pub is_interactive: bool,
}

/// Why a statement ended early.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The server refused or failed; scripts stop, the shell goes on.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Ctrl-C; it has been cancelled.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A value cannot be printed in the format that was asked for.
    #[error("the result cannot be printed: {0}")]
    Format(#[from] arrow::error::ArrowError),
    /// Standard output is gone.
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

impl StatementError {
    /// The error as the shell prints it.
    pub fn text(&self) -> String {
        match self {
            Self::Client(error) => exit::client_error(error),
            Self::Interrupted(_) => "cancelled".to_owned(),
            other => format!("error: {other}"),
        }
    }
}

/// A connection, the output, and what `\x` and `\timing` say.
pub struct Session<W> {
    client: Client,
    out: W,
    options: SessionOptions,
    is_expanded: bool,
    shows_time: bool,
}

impl<W: Write> Session<W> {
    /// A session that prints to `out`.
    pub fn new(client: Client, out: W, options: SessionOptions) -> Self {
        let shows_time = options.is_terminal && options.format == Format::Table;
        Self { client, out, options, is_expanded: false, shows_time }
    }

    /// Runs one statement and prints what comes; Ctrl-C cancels it, here and on the server.
    ///
    /// # Errors
    /// See [`StatementError`]. Rows printed before an error stay printed.
    pub async fn run(&mut self, sql: &str) -> Result<(), StatementError> {
        let mut running: Option<FlightInfo> = None;
        let outcome = tokio::select! {
            outcome = self.fetch(sql, &mut running) => Some(outcome),
            // A handler that cannot be installed must not look like Ctrl-C.
            Ok(()) = tokio::signal::ctrl_c() => None,
        };
        if let Some(outcome) = outcome {
            return outcome;
        }
        if let Some(info) = running {
            let cancelling = self.client.cancel(info);
            // The dropped stream cancels as well: this only makes sure of it.
            if let Ok(Err(error)) = tokio::time::timeout(CANCEL_TIMEOUT, cancelling).await {
                tracing::debug!(%error, "the server did not confirm the cancellation");
            }
        }
        Err(Interrupted.into())
    }

    /// Runs a meta command. Returns whether the shell goes on.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_meta(&mut self, meta: Meta) -> Result<bool, StatementError> {
        match meta {
            Meta::Quit => return Ok(false),
            Meta::Help => self.out.write_all(HELP.as_bytes())?,
            Meta::Query(sql) => self.run(&sql).await?,
            Meta::Timing => {
                self.shows_time = !self.shows_time;
                writeln!(self.out, "times are {}", on_off(self.shows_time))?;
            }
            Meta::Expanded => {
                self.is_expanded = !self.is_expanded;
                writeln!(self.out, "one line per value is {}", on_off(self.is_expanded))?;
            }
        }
        self.out.flush()?;
        Ok(true)
    }

    async fn fetch(
        &mut self,
        sql: &str,
        running: &mut Option<FlightInfo>,
    ) -> Result<(), StatementError> {
        let start = Instant::now();
        let mut waiting = Waiting::start(self.options.is_terminal);
        let mut stream = match self.client.run(sql).await? {
            Answer::Rows(stream) => stream,
            Answer::Done { rows_affected } => {
                waiting.clear();
                let count =
                    rows_affected.map_or("done".to_owned(), |rows| rows_text(rows, "affected"));
                return self.footer(&count, start);
            }
        };
        *running = Some(stream.info().clone());
        let table = self.table_options();
        let mut writer = ResultWriter::new(self.options.format, stream.schema(), table)?;
        let mut buffer = Vec::new();
        let mut rows = 0;
        while let Some(batch) = stream.next_batch().await? {
            rows += batch.num_rows() as u64;
            writer.write(&batch, &mut buffer)?;
            if !buffer.is_empty() {
                waiting.clear();
                self.out.write_all(&buffer)?;
                buffer.clear();
            }
        }
        waiting.clear();
        writer.finish(&mut buffer);
        self.out.write_all(&buffer)?;
        let count = match &writer {
            ResultWriter::Table(table) if table.rows_shown() < rows => {
                format!("{}, first {} shown", rows_text(rows, ""), grouped(table.rows_shown()))
            }
            _ => rows_text(rows, ""),
        };
        self.footer(&count, start)
    }

    fn table_options(&self) -> TableOptions {
        TableOptions {
            width: if self.options.is_terminal { terminal::width() } else { None },
            rows_max: self.options.is_interactive.then_some(INTERACTIVE_ROWS_MAX),
            color: self.options.is_terminal && console::colors_enabled(),
            expanded: self.is_expanded,
        }
    }

    /// "(3 rows, 12 ms)" for people; nothing for programs.
    fn footer(&mut self, count: &str, start: Instant) -> Result<(), StatementError> {
        if self.options.format == Format::Table
            && (self.options.is_terminal || self.options.is_interactive || self.shows_time)
        {
            let time = if self.shows_time {
                format!(", {}", duration_text(start.elapsed()))
            } else {
                String::new()
            };
            writeln!(self.out, "({count}{time})")?;
        }
        self.out.flush()?;
        Ok(())
    }
}

fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn rows_text(rows: u64, suffix: &str) -> String {
    let noun = if rows == 1 { "row" } else { "rows" };
    format!("{} {noun} {suffix}", grouped(rows)).trim_end().to_owned()
}

/// A number with thousands separated: `1,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time as people read it: milliseconds below a second, seconds above.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}
