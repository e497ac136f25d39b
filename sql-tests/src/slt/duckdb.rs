//! DuckDB's dialect: its directives turned into records of the sqllogictest crate, and its way to
//! compare rows.
//!
//! Loops are written out, `${variables}` put in, sections under `mode skip` put behind a condition
//! that never holds. A file that `require`s what is not here is skipped with the reason. What has
//! no meaning for another engine (`load`, `set seed`, the words of an error) is left out.

use std::collections::HashSet;

use super::engine::SltType;

/// Lines that loops may make of one file.
const LINES_MAX: usize = 2_000_000;
/// Relative difference of two floats that are one value.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// A label that no engine has.
const NEVER: &str = "onlyif mode-skip";
/// What `require` names and every engine has, or has no use for.
const HAD: [&str; 11] = [
    "skip_reload",
    "no_alternative_verify",
    "noalternativeverify",
    "noforcestorage",
    "no_vector_verification",
    "vector_size",
    "notwindows",
    "notmusl",
    "64bit",
    "longdouble",
    "core_functions",
];
/// The types behind a name in `foreach`.
const TYPE_LISTS: [(&str, &str); 3] = [
    ("<signed>", "tinyint smallint integer bigint"),
    ("<integral>", "tinyint smallint integer bigint utinyint usmallint uinteger ubigint"),
    (
        "<numeric>",
        "tinyint smallint integer bigint utinyint usmallint uinteger ubigint float double",
    ),
];

/// A text that the sqllogictest crate reads, and where its lines come from.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The line of the file behind each line of the text; empty if they are the same.
    lines: Vec<u32>,
    /// Lines of the text with statements that may fail.
    pub(super) may_fail: HashSet<u32>,
    /// Why the file cannot run.
    pub(super) skip: Option<String>,
    /// Whether every record stands in the file once.
    pub(super) is_verbatim: bool,
}

impl Expanded {
    /// The line of the file behind a line of the text.
    pub(super) fn line(&self, generated: u32) -> u32 {
        let index = usize::try_from(generated).unwrap_or(0).checked_sub(1);
        index.and_then(|index| self.lines.get(index)).copied().unwrap_or(generated)
    }

    fn push(&mut self, line: &str, number: u32) -> Result<(), (u32, String)> {
        if self.lines.len() == LINES_MAX {
            return Err((number, format!("the loops make more than {LINES_MAX} lines")));
        }
        self.text.push_str(line);
        self.text.push('\n');
        self.lines.push(number);
        Ok(())
    }
}

/// Turns a file of DuckDB into one that the crate reads.
///
/// # Errors
/// With the line, where the file is none.
pub(super) fn expand(text: &str) -> Result<Expanded, (u32, String)> {
    let lines: Vec<(u32, &str)> = (1..).zip(text.lines()).collect();
    let mut expanded = Expanded { is_verbatim: true, ..Expanded::default() };
    let mut state = State { variables: Vec::new(), skipping: false };
    block(&lines, &mut state, &mut expanded)?;
    Ok(expanded)
}

struct State {
    variables: Vec<(String, String)>,
    skipping: bool,
}

impl State {
    fn substitute(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (name, value) in &self.variables {
            line = line.replace(&format!("${{{name}}}"), value);
            line = line.replace(&format!("{{{name}}}"), value);
        }
        line
    }
}

fn block(
    lines: &[(u32, &str)],
    state: &mut State,
    out: &mut Expanded,
) -> Result<(), (u32, String)> {
    let mut at = 0;
    while at < lines.len() {
        let (number, line) = lines[at];
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["loop" | "concurrentloop" | "foreach" | "concurrentforeach", name, values @ ..] => {
                let length = loop_length(&lines[at + 1..])
                    .ok_or_else(|| (number, format!("{line:?} has no endloop")))?;
                out.is_verbatim = false;
                for value in loop_values(words[0], values).map_err(|why| (number, why))? {
                    state.variables.push(((*name).to_owned(), value));
                    let done = block(&lines[at + 1..at + 1 + length], state, out);
                    state.variables.pop();
                    done?;
                }
                at += length + 2;
            }
            ["statement" | "query", ..] => at += record(&lines[at..], &words, state, out)?,
            _ => {
                directive(&words, line, number, state, out)?;
                at += 1;
            }
        }
    }
    Ok(())
}

/// The lines before the `endloop` that belongs to the loop they follow.
fn loop_length(lines: &[(u32, &str)]) -> Option<usize> {
    let mut depth = 0u32;
    lines.iter().position(|(_, line)| {
        match line.split_whitespace().next() {
            Some("loop" | "foreach" | "concurrentloop" | "concurrentforeach") => depth += 1,
            Some("endloop") if depth == 0 => return true,
            Some("endloop") => depth -= 1,
            _ => {}
        }
        false
    })
}

fn loop_values(kind: &str, words: &[&str]) -> Result<Vec<String>, String> {
    if kind.ends_with("foreach") {
        let values = words.iter().flat_map(|word| {
            let list = TYPE_LISTS.iter().find(|(name, _)| name == word).map(|(_, list)| *list);
            list.unwrap_or(word).split(' ').map(str::to_owned)
        });
        return Ok(values.collect());
    }
    let bounds: Vec<i64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    match (words.len(), bounds.as_slice()) {
        (2, [first, end]) => Ok((*first..*end).map(|value| value.to_string()).collect()),
        _ => Err("a loop has a variable, a first value and an end".to_owned()),
    }
}

/// Everything that is no statement, query or loop.
fn directive(
    words: &[&str],
    line: &str,
    number: u32,
    state: &mut State,
    out: &mut Expanded,
) -> Result<(), (u32, String)> {
    let mut skip = |reason: String| {
        out.skip.get_or_insert(reason);
    };
    match words {
        ["require", what, ..] if !HAD.contains(what) => skip(format!("requires {what}")),
        ["require-env", what, ..] => skip(format!("requires the environment variable {what}")),
        ["restart" | "reconnect" | "unzip", ..] => skip(format!("{} is not possible", words[0])),
        ["test-env", name, value @ ..] => {
            state.variables.push(((*name).to_owned(), value.join(" ")));
        }
        ["mode", "skip", ..] => state.skipping = true,
        ["mode", "unskip", ..] => state.skipping = false,
        ["require" | "mode" | "load" | "set" | "reset" | "tags", ..] => {}
        ["sleep", count, unit, ..] => {
            return out.push(&format!("sleep {count}{}", unit.trim_end_matches('s')), number);
        }
        _ => return out.push(&state.substitute(line), number),
    }
    out.push("", number)
}

/// A statement or query; returns its lines.
fn record(
    lines: &[(u32, &str)],
    words: &[&str],
    state: &State,
    out: &mut Expanded,
) -> Result<usize, (u32, String)> {
    let length = lines.iter().position(|(_, line)| line.is_empty()).unwrap_or(lines.len());
    let number = lines[0].0;
    let is_connection = |word: &str| {
        word.strip_prefix("con").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut words = words.to_vec();
    let connection = words.last().copied().filter(|word| words.len() > 2 && is_connection(word));
    if let Some(name) = connection {
        words.pop();
        out.push(&format!("connection {name}"), number)?;
    }
    let body = &lines[1..length];
    let results = body.iter().position(|(_, line)| *line == "----");
    let reads_file = body.iter().skip_while(|(_, line)| *line != "----").nth(1);
    if state.skipping || reads_file.is_some_and(|(_, line)| line.starts_with("<FILE>:")) {
        out.push(NEVER, number)?;
    }
    let is_statement = words[0] == "statement";
    if words.get(1) == Some(&"maybe") {
        words[1] = "ok";
        let line = u32::try_from(out.lines.len() + 1).unwrap_or(u32::MAX);
        out.may_fail.insert(line);
    }
    if words.get(2) == Some(&"sort") {
        words[2] = "rowsort";
    }
    out.push(&words.join(" "), number)?;
    // The words of an error are DuckDB's own.
    let kept = if is_statement { results.unwrap_or(body.len()) } else { body.len() };
    for (number, line) in &body[..kept] {
        out.push(&state.substitute(line), *number)?;
    }
    Ok(length)
}

/// Whether rows are the expected lines: a row per line with tabs, or a value per line.
pub(super) fn rows_match(rows: &[Vec<String>], types: &[SltType], expected: &[String]) -> bool {
    let columns = rows.first().map_or(1, Vec::len);
    let is_by_row = columns > 1 && expected.len() == rows.len();
    let values: Vec<&str> = if is_by_row {
        expected.iter().flat_map(|line| line.split('\t')).collect()
    } else {
        expected.iter().map(String::as_str).collect()
    };
    let actual: Vec<&String> = rows.iter().flatten().collect();
    actual.len() == values.len()
        && actual.iter().zip(&values).enumerate().all(|(index, (actual, expected))| {
            let is_float = types.get(index % columns) == Some(&SltType::FloatingPoint);
            value_matches(actual, expected, is_float)
        })
}

fn value_matches(actual: &str, expected: &str, is_float: bool) -> bool {
    let matches = |pattern: &str| {
        regex::Regex::new(&format!("(?s)^(?:{pattern})$")).is_ok_and(|re| re.is_match(actual))
    };
    if let Some(pattern) = expected.strip_prefix("<REGEX>:") {
        return matches(pattern);
    }
    if let Some(pattern) = expected.strip_prefix("<!REGEX>:") {
        return !matches(pattern);
    }
    if actual == expected {
        return true;
    }
    match (actual.parse::<f64>(), expected.parse::<f64>()) {
        (Ok(a), Ok(b)) if is_float => (a - b).abs() <= FLOAT_TOLERANCE * a.abs().max(b.abs()),
        // DuckDB's runner writes booleans either way.
        _ => matches!((actual, expected), ("true", "1") | ("false", "0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) -> Expanded {
        let expanded = expand(text).unwrap();
        assert_eq!(expanded.text, expected, "{text}");
        expanded
    }

    #[test]
    fn loops_are_written_out_and_lines_stay_true() {
        let text =
            "loop i 0 2\n\nforeach t a b\n\nstatement ok\nSELECT ${i} ${t}\n\nendloop\n\nendloop\n";
        let expanded = expand(text).unwrap();
        let sql: Vec<&str> =
            expanded.text.lines().filter(|line| line.starts_with("SELECT")).collect();
        assert_eq!(sql, ["SELECT 0 a", "SELECT 0 b", "SELECT 1 a", "SELECT 1 b"]);
        let at = expanded.text.lines().position(|line| line == "SELECT 1 b").unwrap();
        assert_eq!(expanded.line(u32::try_from(at + 1).unwrap()), 6);
        assert!(!expanded.is_verbatim);
        assert_eq!(expand("\nloop i 0 2\n").unwrap_err().0, 2);
    }

    #[test]
    fn what_may_fail_is_remembered() {
        let expanded = check("statement maybe\nX\n----\nerror\n", "statement ok\nX\n");
        assert!(expanded.may_fail.contains(&1));
    }

    #[test]
    fn what_is_required_and_not_there_skips_the_file() {
        assert_eq!(expand("require tpcds\n").unwrap().skip.unwrap(), "requires tpcds");
        assert_eq!(expand("require vector_size 512\n").unwrap().skip, None);
    }

    #[test]
    fn skipped_sections_never_run() {
        check(
            "mode skip\n\nstatement ok\nX\n\nmode unskip\n\nstatement ok con1\nY\n",
            "\n\nonlyif mode-skip\nstatement ok\nX\n\n\n\nconnection con1\nstatement ok\nY\n",
        );
    }

    #[test]
    fn rows_are_compared_as_duckdb_compares_them() {
        let row = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        let types = [SltType::Integer, SltType::FloatingPoint];
        let rows = [row(&["1", "0.30000000000000004"]), row(&["2", "x y"])];
        let by_row = row(&["1\t0.3", "2\tx y"]);
        assert!(rows_match(&rows, &types, &by_row));
        assert!(rows_match(&rows, &types, &row(&["1", "0.3", "2", "<REGEX>:x.*"])));
        assert!(!rows_match(&rows, &types, &row(&["1\t0.3", "2\t<!REGEX>:x.*"])));
        assert!(!rows_match(&rows, &types, &row(&["1\t0.31", "2\tx y"])));
        assert!(!rows_match(&rows[..1], &types, &by_row));
    }
}
