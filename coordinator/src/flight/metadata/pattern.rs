//! Filter patterns of metadata requests: `%` is any text, `_` any one character, and there is no
//! escape. Case counts.

/// Whether a name passes a filter; no filter lets everything through.
///
/// Takes time proportional to the product of the lengths, however many `%` there are.
pub(super) fn matches(pattern: Option<&str>, name: &str) -> bool {
    let Some(pattern) = pattern else { return true };
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on after a mismatch: behind the last `%`, one character of the name later.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('%') => {
                p += 1;
                retry = Some((p, n));
            }
            Some(c) if *c == '_' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                p = after;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_and_underscore_are_the_only_wildcards() {
        for (pattern, name) in [
            ("%", ""),
            ("%", "anything"),
            ("a%", "a"),
            ("%b%", "abc"),
            ("a_c", "abc"),
            ("a_c", "aüc"),
            ("%%_%%", "x"),
            ("a%b%c", "a1b2b3c"),
            ("100%", "100%"),
            ("a*c", "a*c"),
        ] {
            assert!(matches(Some(pattern), name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("", "a"), ("a", "A"), ("a_c", "ac"), ("a%b", "a1c"), ("a*c", "abc"), ("a", "ab")]
        {
            assert!(!matches(Some(pattern), name), "{pattern} {name}");
        }
        assert!(matches(None, "x"));
    }

    #[test]
    fn many_wildcards_end_soon() {
        let pattern = "%a".repeat(500);
        assert!(!matches(Some(&pattern), &"b".repeat(10_000)));
    }
}
