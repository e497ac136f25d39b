//! Names that the user may have meant.

use super::SqlError;

/// How many names are listed when none is close.
const LISTED_MAX: usize = 10;

/// Adds the hint `did you mean "..."?` when one of the candidates is close to what was written.
pub fn did_you_mean<'a>(
    error: SqlError,
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> SqlError {
    match closest(written, candidates) {
        Some(close) if close.eq_ignore_ascii_case(written) => error.with_hint(format!(
            "did you mean \"{close}\"? names with capitals are written in double quotes"
        )),
        Some(close) => error.with_hint(format!("did you mean \"{close}\"?")),
        None => error,
    }
}

/// As [`did_you_mean`]; when nothing is close, lists what there is: `columns are a, b, c`.
pub fn did_you_mean_among(
    error: SqlError,
    written: &str,
    kind: &str,
    candidates: &[&str],
) -> SqlError {
    let error = did_you_mean(error, written, candidates.iter().copied());
    if error.hint.is_some() || candidates.is_empty() {
        return error;
    }
    let listed = candidates.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = candidates.len().saturating_sub(LISTED_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    error.with_hint(format!("{kind} are {listed}{rest}"))
}

/// The candidate with the fewest edits to `written`, if it is close enough to be meant.
///
/// Close is one edit for short names and up to a third of the letters for longer ones; case does
/// not count. Ties go to the first.
pub fn closest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written: Vec<char> = written.chars().flat_map(char::to_lowercase).collect();
    let edits_max = (written.len() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let chars: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
            let edits = edits(&written, &chars, edits_max)?;
            Some((edits, candidate))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Damerau's distance with adjacent transpositions (optimal string alignment); `None` when it is
/// more than `max`.
fn edits(a: &[char], b: &[char], max: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > max {
        return None;
    }
    let mut before_last: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, cb) in b.iter().enumerate() {
            let replaced = cell(&last, j) + usize::from(ca != cb);
            let mut best = replaced.min(cell(&last, j + 1) + 1).min(cell(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(cell(&before_last, j - 1) + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|edits| *edits <= max)
}

fn cell(row: &[usize], index: usize) -> usize {
    row.get(index).copied().unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn swapped_missing_and_extra_letters_are_close() {
        for written in ["amuont", "amont", "amountt", "AMOUNT"] {
            assert_eq!(closest(written, ["quantity", "amount"]), Some("amount"), "{written}");
        }
    }

    #[test]
    fn another_word_is_not_close() {
        assert_eq!(closest("price", ["amount", "quantity"]), None);
        assert_eq!(closest("a", ["xyz"]), None);
    }

    #[test]
    fn the_closest_wins() {
        assert_eq!(closest("l_ordrkey", ["l_partkey", "l_orderkey"]), Some("l_orderkey"));
    }
}
