//! Whether what came of a record is what the file says.
//!
//! The sqllogictest crate runs records ([`sqllogictest::Runner::apply_record`]); the comparison
//! is here, because the crate's own knows neither digests of results that were not asked for, nor
//! values by line, nor labels, and loses the rows that an oracle is compared with.

use std::collections::HashMap;
use std::sync::Arc;

use sqllogictest::{
    ColumnType, ExpectedError, QueryExpect, Record, RecordKind, RecordOutput, ResultMode,
    StatementExpect, TestErrorKind, default_normalizer, default_validator,
};

use super::class::Class;
use super::dialect::Dialect;
use super::engine::{EngineError, SltType, Writing, columns_count_matches, columns_match};
use super::source::Placed;
use super::{agree, datafusion, digest, duckdb, source};

/// Lines of an expected or actual result that a failure shows.
const LINES_SHOWN_MAX: usize = 200;

type AnyError = Arc<dyn std::error::Error + Send + Sync>;
type Checked = Result<Likeness, Problem>;

/// What came of a record, judged.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its conditions left it out.
    LeftOut,
    /// What the file says.
    Expected(Likeness),
    /// Something else.
    Unexpected(Problem),
}

/// How much like the text of the file something is that is as the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Word for word.
    Same,
    /// DataFusion's dialect: the same rows, in another order where SQL names none.
    OtherOrder,
    /// DataFusion's dialect: an error for an error, in other words.
    OtherWords,
}

/// What is not as the file says.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) class: Class,
    kind: Box<Kind>,
}

#[derive(Debug)]
enum Kind {
    Test(TestErrorKind),
    Text(String),
}

impl Problem {
    fn new(class: Class, kind: TestErrorKind) -> Self {
        Self { class, kind: Box::new(Kind::Test(kind)) }
    }

    fn failed(sql: &str, error: &AnyError, kind: RecordKind) -> Self {
        let class = error.downcast_ref::<EngineError>().map_or(Class::Failed, Class::of);
        Self::new(class, TestErrorKind::Fail { sql: sql.to_owned(), err: error.clone(), kind })
    }

    /// In full, with a diff where it is about rows.
    pub(super) fn text(&self) -> String {
        match &*self.kind {
            Kind::Text(text) => text.clone(),
            Kind::Test(kind) => kind.to_string(),
        }
    }

    /// In one line, without the SQL.
    pub(super) fn reason(&self) -> String {
        let text = match &*self.kind {
            Kind::Test(
                TestErrorKind::Fail { err, .. } | TestErrorKind::ErrorMismatch { err, .. },
            ) => err.to_string(),
            Kind::Test(TestErrorKind::QueryResultColumnsMismatch { expected, actual, .. }) => {
                format!("expected columns {expected}, got {actual}")
            }
            Kind::Test(TestErrorKind::QueryResultMismatch { expected, actual, .. }) => {
                let (expected, actual) = first_difference(expected, actual);
                format!("expected {expected}, got {actual}")
            }
            Kind::Test(kind) => kind.to_string(),
            Kind::Text(text) => text.clone(),
        };
        // DataFusion puts what it did first, and the reason behind the last `caused by`.
        let cause = text.rsplit("caused by\n").next().unwrap_or(&text);
        cause.lines().next().unwrap_or_default().to_owned()
    }
}

/// The first lines that differ.
fn first_difference<'a>(expected: &'a str, actual: &'a str) -> (&'a str, &'a str) {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    loop {
        match (expected.next(), actual.next()) {
            (Some(a), Some(b)) if a == b => {}
            (a, b) => return (a.unwrap_or("nothing"), b.unwrap_or("nothing")),
        }
    }
}

/// How one file is to be compared; changes with its `control` records.
#[derive(Debug)]
pub(super) struct Rules {
    dialect: Dialect,
    result_mode: Option<ResultMode>,
    /// The first result under each label, and its line.
    labelled: HashMap<String, (String, u32)>,
}

impl Rules {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, result_mode: None, labelled: HashMap::new() }
    }

    pub(super) fn set_result_mode(&mut self, mode: ResultMode) {
        self.result_mode = Some(mode);
    }

    /// The letters that decide how values of a record are written, if letters do.
    pub(super) fn letters(&self, record: &Record<SltType>) -> Option<Vec<char>> {
        match record {
            Record::Query { expected: QueryExpect::Results { types, .. }, .. }
                if self.dialect == Dialect::Sqlite && !types.is_empty() =>
            {
                Some(types.iter().map(ColumnType::to_char).collect())
            }
            _ => None,
        }
    }

    /// What decides how the values of a record are written.
    pub(super) fn writing(&self, record: &Record<SltType>) -> Writing {
        match self.letters(record) {
            Some(letters) => Writing::ByLetters(letters),
            None if self.dialect == Dialect::DataFusion => Writing::DataFusion,
            None => Writing::ByType,
        }
    }

    pub(super) fn check(&mut self, placed: &Placed, output: &RecordOutput<SltType>) -> Verdict {
        if matches!(output, RecordOutput::Nothing) {
            return Verdict::LeftOut;
        }
        let checked = match &placed.record {
            Record::Statement { sql, expected, .. } => self.statement(sql, expected, output),
            Record::Query { expected, .. } => self.query(placed, expected, output),
            Record::System { command, stdout, .. } => system(command, stdout.as_deref(), output),
            Record::Let { sql, .. } => binding(sql, output),
            _ => Ok(Likeness::Same),
        };
        match checked {
            Ok(likeness) => Verdict::Expected(likeness),
            Err(problem) if placed.may_fail && problem.class != Class::Connection => {
                Verdict::Expected(Likeness::Same)
            }
            Err(problem) => Verdict::Unexpected(problem),
        }
    }

    fn statement(
        &self,
        sql: &str,
        expected: &StatementExpect,
        output: &RecordOutput<SltType>,
    ) -> Checked {
        let (count, returned) = match output {
            RecordOutput::Statement { count, error: None } => (*count, "affected"),
            // A query behind `statement ok`: its rows do not matter.
            RecordOutput::Query { rows, error: None, .. } => (rows.len() as u64, "returned"),
            RecordOutput::Statement { error: Some(error), .. }
            | RecordOutput::Query { error: Some(error), .. } => {
                return match expected {
                    StatementExpect::Error(expected) => {
                        self.error(sql, expected, error, RecordKind::Statement)
                    }
                    _ => Err(Problem::failed(sql, error, RecordKind::Statement)),
                };
            }
            _ => return Ok(Likeness::Same),
        };
        let sql = sql.to_owned();
        match expected {
            StatementExpect::Error(_) => {
                let kind = TestErrorKind::Ok { sql, kind: RecordKind::Statement };
                Err(Problem::new(Class::NoError, kind))
            }
            StatementExpect::Count(expected) if *expected != count => {
                let actual = format!("{returned} {count} rows");
                let expected = *expected;
                let kind = TestErrorKind::StatementResultMismatch { sql, expected, actual };
                Err(Problem::new(Class::WrongCount, kind))
            }
            _ => Ok(Likeness::Same),
        }
    }

    fn query(
        &mut self,
        placed: &Placed,
        expected: &QueryExpect<SltType>,
        output: &RecordOutput<SltType>,
    ) -> Checked {
        let sql = source::sql(&placed.record);
        let mut counted = Vec::new();
        let (types, rows, error) = match output {
            RecordOutput::Query { types, rows, error } => (Some(types), rows, error),
            RecordOutput::Statement { count, error } => {
                if self.dialect == Dialect::DataFusion {
                    // There an INSERT is a query of its count.
                    counted.push(vec![count.to_string()]);
                }
                (None, &counted, error)
            }
            _ => return Ok(Likeness::Same),
        };
        match (expected, error) {
            (QueryExpect::Error(expected), Some(error)) => {
                self.error(sql, expected, error, RecordKind::Query)
            }
            (QueryExpect::Error(_), None) => {
                let kind = TestErrorKind::Ok { sql: sql.to_owned(), kind: RecordKind::Query };
                Err(Problem::new(Class::NoError, kind))
            }
            (QueryExpect::Results { .. }, Some(error)) => {
                Err(Problem::failed(sql, error, RecordKind::Query))
            }
            (QueryExpect::Results { types: letters, results, label, .. }, None) => {
                if let Some(types) = types
                    && !self.columns_match(types, letters)
                {
                    return Err(wrong_columns(sql, types, letters));
                }
                let types = types.map_or(&[][..], Vec::as_slice);
                if self.rows_match(rows, types, results) {
                    return self.same_label(label.as_deref(), rows, placed.line);
                }
                if self.dialect == Dialect::DataFusion
                    && !agree::is_ordered(sql)
                    && datafusion::same_in_some_order(rows, results)
                {
                    return Ok(Likeness::OtherOrder);
                }
                Err(self.wrong_rows(sql, rows, results))
            }
        }
    }

    fn error(
        &self,
        sql: &str,
        expected: &ExpectedError,
        error: &AnyError,
        kind: RecordKind,
    ) -> Checked {
        let engine = error.downcast_ref::<EngineError>();
        if engine.is_some_and(|error| error.is_disconnect) {
            return Err(Problem::failed(sql, error, kind));
        }
        // The words of DuckDB's errors are its own; that there is one is what another can match.
        if self.dialect == Dialect::DuckDb {
            return Ok(Likeness::Same);
        }
        let sqlstate = engine.and_then(|error| error.sqlstate.clone());
        if expected.is_match(&error.to_string(), sqlstate.as_deref()) {
            return Ok(Likeness::Same);
        }
        if self.dialect == Dialect::DataFusion {
            let text = datafusion::error_text(&error.to_string());
            if expected.is_match(&text, sqlstate.as_deref()) {
                return Ok(Likeness::Same);
            }
            if !engine.is_some_and(|error| is_beside(error, expected)) {
                return Ok(Likeness::OtherWords);
            }
        }
        let mismatch = TestErrorKind::ErrorMismatch {
            sql: sql.to_owned(),
            err: error.clone(),
            expected_err: expected.to_string(),
            kind,
            actual_sqlstate: sqlstate,
        };
        Err(Problem::new(Class::OtherError, mismatch))
    }

    /// Whether the columns are the ones the letters name: in SQLite's and DuckDB's dialect as
    /// many, else each of its kind.
    fn columns_match(&self, actual: &Vec<SltType>, expected: &Vec<SltType>) -> bool {
        match self.dialect {
            Dialect::Postgres | Dialect::DataFusion => columns_match(actual, expected),
            Dialect::Sqlite | Dialect::DuckDb => columns_count_matches(actual, expected),
        }
    }

    fn rows_match(&self, rows: &[Vec<String>], types: &[SltType], expected: &[String]) -> bool {
        let values = || rows.iter().flatten().map(String::as_str);
        if let [only] = expected
            && digest::is_digest(only)
        {
            return digest::of(values()) == only.trim();
        }
        match self.dialect {
            Dialect::Sqlite => values().eq(expected.iter().map(|line| line.trim_end())),
            Dialect::DuckDb => duckdb::rows_match(rows, types, expected),
            Dialect::DataFusion => datafusion::rows_match(rows, expected),
            Dialect::Postgres => {
                if self.result_mode == Some(ResultMode::ValueWise) {
                    let rows: Vec<_> = values().map(|value| vec![value.to_owned()]).collect();
                    return default_validator(default_normalizer, &rows, expected);
                }
                default_validator(default_normalizer, rows, expected)
            }
        }
    }

    /// The lines that a result is written as.
    pub(super) fn lines(&self, rows: &[Vec<String>]) -> Vec<String> {
        match self.dialect {
            Dialect::Sqlite => rows.iter().flatten().cloned().collect(),
            Dialect::DuckDb => rows.iter().map(|row| row.join("\t")).collect(),
            Dialect::Postgres if self.result_mode == Some(ResultMode::ValueWise) => {
                rows.iter().flatten().cloned().collect()
            }
            Dialect::Postgres | Dialect::DataFusion => {
                rows.iter().map(|row| row.join(" ")).collect()
            }
        }
    }

    fn wrong_rows(&self, sql: &str, rows: &[Vec<String>], expected: &[String]) -> Problem {
        let mut actual = self.lines(rows);
        let mut expected = expected.to_vec();
        if let [only] = &expected[..]
            && digest::is_digest(only)
        {
            // The rows first: from the digest alone nobody learns what is wrong.
            actual.truncate(LINES_SHOWN_MAX);
            actual.push(digest::of(rows.iter().flatten().map(String::as_str)));
        }
        for lines in [&mut actual, &mut expected] {
            let hidden = lines.len().saturating_sub(LINES_SHOWN_MAX + 1);
            if hidden > 0 {
                lines.truncate(LINES_SHOWN_MAX);
                lines.push(format!("... and {hidden} more lines"));
            }
        }
        let kind = TestErrorKind::QueryResultMismatch {
            sql: sql.to_owned(),
            expected: expected.join("\n"),
            actual: actual.join("\n"),
        };
        Problem::new(Class::WrongResult, kind)
    }

    /// SQLite's rule: queries of one label have one result.
    fn same_label(&mut self, label: Option<&str>, rows: &[Vec<String>], line: u32) -> Checked {
        let has_labels = matches!(self.dialect, Dialect::Sqlite | Dialect::DuckDb);
        let Some(label) = label.filter(|_| has_labels) else { return Ok(Likeness::Same) };
        let result = digest::of(rows.iter().flatten().map(String::as_str));
        let (first, at) =
            self.labelled.entry(label.to_owned()).or_insert_with(|| (result.clone(), line));
        if *first == result {
            return Ok(Likeness::Same);
        }
        let text = format!(
            "the queries labelled {label} give different results: line {at} gave {first}, \
             this one {result}"
        );
        Err(Problem { class: Class::WrongResult, kind: Box::new(Kind::Text(text)) })
    }
}

/// Whether an error has nothing to do with the one that the file expects: the engine's own fault,
/// or a table that is not there because an earlier record failed.
fn is_beside(error: &EngineError, expected: &ExpectedError) -> bool {
    let wanted = Class::of_message(&expected.to_string());
    match Class::of(error) {
        Class::Internal => wanted != Class::Internal,
        Class::MissingTable => {
            let is_table = error.sqlstate.as_deref().is_none_or(|state| state == "42P01");
            is_table && !matches!(wanted, Class::MissingTable | Class::MissingColumn)
        }
        _ => false,
    }
}

fn wrong_columns(sql: &str, actual: &[SltType], expected: &[SltType]) -> Problem {
    let letters = |types: &[SltType]| types.iter().map(ColumnType::to_char).collect();
    let kind = TestErrorKind::QueryResultColumnsMismatch {
        sql: sql.to_owned(),
        expected: letters(expected),
        actual: letters(actual),
    };
    Problem::new(Class::WrongColumns, kind)
}

fn system(command: &str, expected: Option<&str>, output: &RecordOutput<SltType>) -> Checked {
    let RecordOutput::System { stdout, error, .. } = output else { return Ok(Likeness::Same) };
    let command = command.to_owned();
    if let Some(error) = error {
        let kind = TestErrorKind::SystemFail { command, err: error.clone() };
        return Err(Problem::new(Class::Failed, kind));
    }
    let actual = stdout.clone().unwrap_or_default();
    match expected {
        Some(expected) if expected != actual.trim() => {
            let expected_stdout = expected.to_owned();
            let kind = TestErrorKind::SystemStdoutMismatch {
                command,
                expected_stdout,
                actual_stdout: actual,
            };
            Err(Problem::new(Class::WrongResult, kind))
        }
        _ => Ok(Likeness::Same),
    }
}

fn binding(sql: &str, output: &RecordOutput<SltType>) -> Checked {
    let RecordOutput::Let { error: Some(error), .. } = output else { return Ok(Likeness::Same) };
    let class = match error {
        sqllogictest::LetError::Fail(source) => {
            source.downcast_ref::<EngineError>().map_or(Class::Failed, Class::of)
        }
        _ => Class::WrongResult,
    };
    let kind = TestErrorKind::LetFail { sql: sql.to_owned(), err: error.clone() };
    Err(Problem::new(class, kind))
}
