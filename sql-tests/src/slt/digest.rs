//! Results as digests: `N values hashing to <md5>`, the MD5 of every value and a line feed.

use md5::{Digest as _, Md5};

const INFIX: &str = " values hashing to ";

/// The digest of values in their order.
pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let mut md5 = Md5::new();
    let mut count = 0u64;
    for value in values {
        md5.update(value.as_bytes());
        md5.update(b"\n");
        count += 1;
    }
    format!("{count}{INFIX}{:x}", md5.finalize())
}

/// Whether a line is a digest.
pub(super) fn is_digest(line: &str) -> bool {
    line.trim().split_once(INFIX).is_some_and(|(count, md5)| {
        count.bytes().all(|byte| byte.is_ascii_digit())
            && !count.is_empty()
            && md5.len() == 32
            && md5.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_each_value_and_a_line_feed() {
        // printf '1\n2\n3\n' | md5sum
        assert_eq!(of(["1", "2", "3"]), "3 values hashing to c0710d6b4f15dfa88f600b0e6b624077");
        assert!(is_digest(&of([])));
    }

    #[test]
    fn what_is_not_quite_a_digest_is_a_value() {
        for text in ["3 values hashing to c0710d", " values hashing to ", "3", ""] {
            assert!(!is_digest(text), "{text}");
        }
    }
}
