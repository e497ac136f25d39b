//! Commands of the shell itself: `\d` and friends, with sqlite's `.tables` spellings as aliases.

/// A meta command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meta {
    /// Leave.
    Quit,
    /// Show the commands.
    Help,
    /// List or toggle something by a query.
    Query(String),
    /// Show the time of every statement, or stop doing so.
    Timing,
    /// One line per value, or back to one line per row.
    Expanded,
}

/// What `\?` prints.
pub(super) const HELP: &str = "\
Statements end with a semicolon. Ctrl-C cancels, Ctrl-D leaves.

  \\d            tables and views          (.tables)
  \\d NAME       columns of a table        (.schema NAME)
  \\dt           tables
  \\l            schemas                   (.schemas)
  \\timing       times on or off           (.timing)
  \\x            one line per value, or back
  \\?            this help                 (.help)
  \\q            leave                     (.quit)
";

const RELATIONS: &str = "SELECT table_schema AS schema, table_name AS name, table_type AS type \
     FROM information_schema.tables WHERE table_schema <> 'information_schema'";

/// Reads a line as a meta command: `None` when it is not one.
///
/// # Errors
/// A sentence for a line that looks like one and is unknown or incomplete.
pub fn parse_meta(line: &str) -> Option<Result<Meta, String>> {
    let line = line.trim().trim_end_matches(';').trim_end();
    // `.5` may start an expression on a line of its own; a meta command starts with a letter.
    let is_dotted = line.strip_prefix('.').is_some_and(|l| l.starts_with(char::is_alphabetic));
    if !line.starts_with('\\') && !is_dotted {
        return None;
    }
    let (command, argument) = match line.split_once(char::is_whitespace) {
        Some((command, argument)) => (command, Some(argument.trim())),
        None => (line, None),
    };
    Some(match (command, argument) {
        ("\\q" | ".quit" | ".exit", None) => Ok(Meta::Quit),
        ("\\?" | "\\h" | ".help", _) => Ok(Meta::Help),
        ("\\timing" | ".timing", _) => Ok(Meta::Timing),
        ("\\x", _) => Ok(Meta::Expanded),
        ("\\d" | ".tables", None) => {
            Ok(Meta::Query(format!("{RELATIONS} AND table_schema <> 'sys' ORDER BY 1, 2")))
        }
        ("\\dt", None) => Ok(Meta::Query(format!(
            "{RELATIONS} AND table_schema <> 'sys' AND table_type = 'BASE TABLE' ORDER BY 1, 2"
        ))),
        ("\\l" | "\\dn" | ".schemas" | ".databases", None) => Ok(Meta::Query(
            "SELECT catalog_name AS catalog, schema_name AS schema \
             FROM information_schema.schemata ORDER BY 1, 2"
                .to_owned(),
        )),
        ("\\d" | ".schema", Some(name)) => Ok(Meta::Query(columns_of(name))),
        (".schema", None) => Err(".schema needs the name of a table".to_owned()),
        (command, _) => Err(format!("{command} is not a command of the shell: \\? lists them")),
    })
}

fn columns_of(name: &str) -> String {
    let literal = |name: &str| match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\"").replace('\'', "''"),
        // Unquoted names are lower-case, as in every statement.
        None => name.to_lowercase().replace('\'', "''"),
    };
    let condition = match name.split_once('.') {
        Some((schema, table)) => {
            format!("table_schema = '{}' AND table_name = '{}'", literal(schema), literal(table))
        }
        None => format!("table_name = '{}'", literal(name)),
    };
    format!(
        "SELECT column_name AS column, data_type AS type, is_nullable AS nullable \
         FROM information_schema.columns WHERE {condition} ORDER BY table_schema, ordinal_position"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(line: &str) -> String {
        match parse_meta(line) {
            Some(Ok(Meta::Query(sql))) => sql,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn both_spellings_of_a_command_are_known() {
        assert_eq!(parse_meta("\\q"), Some(Ok(Meta::Quit)));
        assert_eq!(parse_meta(" .quit ;"), Some(Ok(Meta::Quit)));
        assert_eq!(query("\\d"), query(".tables"));
        assert_eq!(query("\\d sales"), query(".schema sales"));
    }

    #[test]
    fn names_are_quoted_so_that_they_cannot_become_sql() {
        assert!(query("\\d O'Brien").contains("table_name = 'o''brien'"));
        assert!(query("\\d sys.\"Odd\"").contains("table_schema = 'sys' AND table_name = 'Odd'"));
    }

    #[test]
    fn sql_is_not_taken_for_a_command_and_a_wrong_command_is_not_taken_for_sql() {
        assert_eq!(parse_meta("select 1"), None);
        assert_eq!(parse_meta(".5 + 1"), None);
        assert!(parse_meta("\\foo").unwrap().is_err());
    }
}
