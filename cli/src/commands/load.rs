//! `basalt load`: a user's files into a table, over Flight.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use arrow::datatypes::{Schema, SchemaRef};
use basalt_sql_tests::client::{Client, ClientError, IngestMode, IngestTarget};
use clap::{Args, ValueEnum};
use futures::StreamExt;

use super::UrlFlag;
use crate::exit::UsageError;
use crate::shell::{duration_text, grouped};
use crate::terminal;
use crate::upload::{self, CsvOptions, FileKind, SourceFile};

/// Upload Parquet and CSV files of this machine into a table, in one commit
///
/// The table is created from the files' columns when it does not exist. Columns are matched by
/// name. Either all files are loaded or none. Files that the servers can see are loaded faster
/// with COPY. With --label, a load whose answer was lost can be repeated: its rows are there once.
#[derive(Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    url: UrlFlag,
    /// The table, as NAME or SCHEMA.NAME
    #[arg(long, value_name = "T")]
    table: String,
    /// Column whose values decide where a row lies, when the table is created
    #[arg(long, value_name = "C")]
    distkey: Option<String>,
    /// Columns by which segments are sorted, when the table is created
    #[arg(long, value_name = "C,...", value_delimiter = ',')]
    sortkey: Vec<String>,
    /// How rows are distributed, when the table is created
    #[arg(long, value_enum)]
    diststyle: Option<DistStyle>,
    /// What to do when the table is missing, or there
    #[arg(long, value_enum, default_value_t = Mode::CreateAppend)]
    mode: Mode,
    /// Name of this load: sent again under the same name, it has no second effect
    #[arg(long, value_name = "KEY")]
    label: Option<String>,
    /// What separates the fields of CSV files
    #[arg(long, value_name = "CHAR", default_value = ",")]
    delimiter: String,
    /// Files, folders or quoted globs: Parquet, or CSV with a header line
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Append; a missing table is an error
    Append,
    /// Create; an existing table is an error
    Create,
    /// Drop an existing table and create it again
    Replace,
    /// Create when missing, append when there
    CreateAppend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DistStyle {
    /// The engine decides
    Auto,
    /// Evenly over the slices
    Even,
    /// By the value of --distkey
    Key,
    /// A copy on every worker
    All,
}

pub(super) async fn run(args: LoadArgs) -> anyhow::Result<()> {
    let target = target(&args)?;
    let delimiter = delimiter(&args.delimiter)?;
    let start = Instant::now();
    let files = upload::find(&args.paths)?;
    let mut client = args.url.connect().await?;
    let csv = CsvOptions { delimiter, known_types: known_types(&mut client, &args, &files).await? };
    let mut schemas: Vec<(PathBuf, SchemaRef)> = Vec::new();
    for file in &files {
        schemas.push((file.path.clone(), upload::file_schema(file, &csv)?));
    }
    let schema = upload::unify(&schemas)?;

    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let file_count = files.len();
    let bar = terminal::counter(&format!("loading {} (rows)", args.table));
    let progress = bar.clone();
    let batches = upload::stream(files, schema.clone(), csv).inspect(move |batch| {
        if let Ok(batch) = batch {
            progress.inc(batch.num_rows() as u64);
        }
    });
    if let Some(label) = &args.label {
        client = client.with_request_key(label)?;
    }
    let loading = client.ingest(target, schema, batches);
    let outcome = tokio::select! {
        outcome = loading => outcome.map_err(|error| failure(error, &args)),
        // The dropped upload is reset: the server keeps nothing of it.
        Ok(()) = tokio::signal::ctrl_c() => Err(crate::exit::Interrupted.into()),
    };
    bar.finish_and_clear();
    let rows = outcome?;
    writeln!(
        std::io::stdout(),
        "loaded {} rows into {} from {file_count} {} ({} bytes) in {}",
        grouped(rows),
        args.table,
        if file_count == 1 { "file" } else { "files" },
        grouped(bytes),
        duration_text(start.elapsed()),
    )?;
    Ok(())
}

/// What a load that failed left behind.
fn failure(error: ClientError, args: &LoadArgs) -> anyhow::Error {
    let table = &args.table;
    let left = match (error.leaves_outcome_open(), &args.label) {
        (false, _) => format!("nothing was loaded into {table}"),
        (true, Some(_)) => format!(
            "it is not known whether {table} was loaded: repeat the command with the same --label, \
             and it is, once"
        ),
        (true, None) => format!("it is not known whether {table} was loaded: look at its rows"),
    };
    anyhow::Error::new(error).context(left)
}

fn target(args: &LoadArgs) -> Result<IngestTarget, UsageError> {
    let mut options = HashMap::new();
    if let Some(column) = &args.distkey {
        if !matches!(args.diststyle, None | Some(DistStyle::Key)) {
            return Err(UsageError("--distkey goes with --diststyle key only".into()));
        }
        options.insert("distkey".to_owned(), column.clone());
    } else if args.diststyle == Some(DistStyle::Key) {
        return Err(UsageError("--diststyle key needs --distkey COLUMN".into()));
    }
    if let Some(style) = args.diststyle.and_then(|style| style.to_possible_value()) {
        options.insert("diststyle".to_owned(), style.get_name().to_owned());
    }
    if !args.sortkey.is_empty() {
        options.insert("sortkey".to_owned(), args.sortkey.join(","));
    }
    let (schema, table) = match args.table.split_once('.') {
        Some((schema, table)) => (Some(schema.to_owned()), table.to_owned()),
        None => (None, args.table.clone()),
    };
    let mode = match args.mode {
        Mode::Append => IngestMode::Append,
        Mode::Create => IngestMode::Create,
        Mode::Replace => IngestMode::Replace,
        Mode::CreateAppend => IngestMode::CreateAppend,
    };
    Ok(IngestTarget { schema, table, mode, options })
}

fn delimiter(text: &str) -> Result<u8, UsageError> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        b"\\t" => Ok(b'\t'),
        _ => Err(UsageError(format!("--delimiter {text:?} is not one ASCII character"))),
    }
}

/// The types of the table that CSV files are appended to, when it is there: text has no types of
/// its own, and inferred ones may differ from load to load.
async fn known_types(
    client: &mut Client,
    args: &LoadArgs,
    files: &[SourceFile],
) -> anyhow::Result<Option<SchemaRef>> {
    let may_append = matches!(args.mode, Mode::Append | Mode::CreateAppend);
    if !may_append || files.iter().all(|file| file.kind == FileKind::Parquet) {
        return Ok(None);
    }
    let quoted: Vec<String> = args
        .table
        .splitn(2, '.')
        .map(|name| format!("\"{}\"", name.replace('"', "\"\"")))
        .collect();
    match client.prepare(&format!("SELECT * FROM {}", quoted.join("."))).await {
        Ok(prepared) => {
            let schema: Schema = prepared.dataset_schema()?.clone();
            prepared.close().await?;
            Ok(Some(SchemaRef::new(schema)))
        }
        Err(error) if error.code() == Some("UNDEFINED_TABLE") => Ok(None),
        Err(error) => Err(error.into()),
    }
}
