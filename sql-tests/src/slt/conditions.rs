//! Conditions as SQLite's files write them, turned into what the sqllogictest crate reads.
//!
//! The crate knows no comment behind a condition (`skipif mysql # not compatible`) and no
//! condition before `halt`. Invariant: the text keeps its lines, so that line numbers stay true.

/// Settles conditions of `halt` by `labels`, and cuts comments behind directives.
pub(super) fn settle(text: &str, labels: &[String]) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let mut body = false;
    // The lines of conditions that wait for their record.
    let mut pending: Vec<usize> = Vec::new();
    for index in 0..lines.len() {
        let line = lines[index];
        if line.trim().is_empty() {
            body = false;
            continue;
        }
        if body || line.starts_with('#') {
            continue;
        }
        match line.split_whitespace().next() {
            Some("skipif" | "onlyif") => {
                lines[index] = line.split('#').next().unwrap_or(line).trim_end();
                pending.push(index);
            }
            Some("halt") => {
                let halts = pending.iter().all(|at| holds(lines[*at], labels));
                for at in pending.drain(..) {
                    lines[at] = "";
                }
                lines[index] = if halts { "halt" } else { "" };
            }
            Some("hash-threshold") => {
                lines[index] = line.split('#').next().unwrap_or(line).trim_end();
            }
            Some("statement" | "query" | "system" | "let") => {
                body = true;
                pending.clear();
            }
            _ => {}
        }
    }
    let mut settled = lines.join("\n");
    settled.push('\n');
    settled
}

/// Whether a condition lets its record run.
fn holds(condition: &str, labels: &[String]) -> bool {
    let mut words = condition.split_whitespace();
    let only = words.next() == Some("onlyif");
    let label = words.next().unwrap_or_default();
    labels.iter().any(|known| known == label) == only
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(settle(text, &["basalt".to_owned()]), expected, "{text}");
    }

    #[test]
    fn a_halt_obeys_its_conditions_and_takes_them_along() {
        check("onlyif mssql\nhalt\n", "\n\n");
        check("skipif sqlite\nhalt\n", "\nhalt\n");
        check("onlyif basalt\nhalt\n", "\nhalt\n");
        check("skipif sqlite\nskipif basalt\nhalt\n", "\n\n\n");
        check("halt\n", "halt\n");
    }

    #[test]
    fn comments_behind_directives_are_cut() {
        check(
            "skipif mysql # a # b\nstatement ok\nSELECT 1\n",
            "skipif mysql\nstatement ok\nSELECT 1\n",
        );
    }

    #[test]
    fn sql_and_results_stay() {
        let text = "query T\nSELECT 1 -- #\nskipif x # y\n----\nhalt\n";
        check(text, text);
    }
}
