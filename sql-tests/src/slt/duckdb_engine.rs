//! DuckDB as an [`Engine`]: a Python with the package `duckdb`, spoken to in lines of JSON.

use std::process::Stdio;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::engine::{Engine, EngineError, Output};

/// Answers `{"sql": ...}` with `{"types": ..., "rows": ...}`, `{"done": n}` or `{"error": ...}`.
const SCRIPT: &str = r#"
import json, sys
import duckdb
connection = duckdb.connect()
for line in sys.stdin:
    try:
        result = connection.execute(json.loads(line)["sql"])
        columns = result.description or []
        kinds = [str(column[1]).upper() for column in columns]
        rows = result.fetchall() if columns else []
        if [column[0] for column in columns] == ["Count"] and kinds == ["BIGINT"]:
            answer = {"done": rows[0][0] if rows else 0}
        elif not columns or [column[0] for column in columns] == ["Success"]:
            answer = {"done": 0}
        else:
            def text(value):
                if value is None or isinstance(value, str):
                    return value
                if isinstance(value, bool):
                    return "true" if value else "false"
                return repr(value) if isinstance(value, float) else str(value)
            answer = {"types": kinds, "rows": [[text(value) for value in row] for row in rows]}
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"#;

/// A DuckDB in a process of its own, labelled `duckdb`, with a database in memory.
pub struct DuckDbEngine {
    /// Ends with the engine.
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl DuckDbEngine {
    /// Starts `python3`.
    ///
    /// # Errors
    /// When there is no Python, or no package `duckdb` in it.
    pub async fn start() -> Result<Self, EngineError> {
        let lost = |error: std::io::Error| gone(&format!("python3 does not start: {error}"));
        let mut process = Command::new("python3")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(lost)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(gone("python3 has no pipes"));
        };
        let mut engine = Self { _process: process, input, output: BufReader::new(output).lines() };
        engine.run("SELECT 1").await.map_err(|_| {
            gone("DuckDB does not answer: the oracle takes a python3 with the package duckdb")
        })?;
        Ok(engine)
    }
}

fn gone(message: &str) -> EngineError {
    EngineError { message: message.to_owned(), sqlstate: None, is_disconnect: true }
}

#[async_trait]
impl Engine for DuckDbEngine {
    fn name(&self) -> &str {
        "duckdb"
    }

    async fn run(&mut self, sql: &str) -> Result<Output, EngineError> {
        let request = serde_json::json!({ "sql": sql }).to_string() + "\n";
        let lost = |error: std::io::Error| gone(&format!("DuckDB is gone: {error}"));
        self.input.write_all(request.as_bytes()).await.map_err(lost)?;
        self.input.flush().await.map_err(lost)?;
        let line = self.output.next_line().await.map_err(lost)?;
        let line = line.ok_or_else(|| gone("DuckDB is gone"))?;
        let answer: Value = serde_json::from_str(&line)
            .map_err(|error| EngineError::new(format!("DuckDB answers nonsense: {error}")))?;
        if let Some(error) = answer["error"].as_str() {
            return Err(EngineError::new(error));
        }
        if let Some(rows_affected) = answer["done"].as_u64() {
            return Ok(Output::Done { rows_affected });
        }
        rows(&answer)
    }
}

fn rows(answer: &Value) -> Result<Output, EngineError> {
    let nothing = Vec::new();
    let rows = answer["rows"].as_array().unwrap_or(&nothing);
    let types = answer["types"].as_array().unwrap_or(&nothing);
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (index, kind) in types.iter().enumerate() {
        let texts: Vec<Option<&str>> = rows.iter().map(|row| row[index].as_str()).collect();
        let column = column(kind.as_str().unwrap_or_default(), &texts);
        fields.push(Field::new(format!("c{index}"), column.data_type().clone(), true));
        columns.push(column);
    }
    let schema = Arc::new(Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| EngineError::new(error.to_string()))?;
    Ok(Output::Rows { schema, batches: vec![batch] })
}

/// A column of the kind DuckDB names, where all its values fit; else of text.
fn column(kind: &str, texts: &[Option<&str>]) -> ArrayRef {
    fn parsed<T: std::str::FromStr>(texts: &[Option<&str>]) -> Option<Vec<Option<T>>> {
        texts
            .iter()
            .map(|text| text.map_or(Some(None), |text| text.parse().ok().map(Some)))
            .collect()
    }
    let is_float = matches!(kind, "DOUBLE" | "FLOAT") || kind.starts_with("DECIMAL");
    if kind.ends_with("INT") || kind.ends_with("INTEGER") {
        if let Some(values) = parsed(texts) {
            return Arc::new(Int64Array::from(values));
        }
    } else if is_float && let Some(values) = parsed(texts) {
        return Arc::new(Float64Array::from(values));
    }
    Arc::new(StringArray::from(texts.to_vec()))
}
