//! A statement by its words: enough to tell what it is about in whatever dialect it is.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// The words and texts of a statement.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq)]
enum Part {
    /// A word as SQL reads it: lower case unless it is quoted.
    Word(String),
    Text(String),
    Number(String),
    Other(String),
}

impl Sketch {
    /// Nothing of a text that has no tokens.
    pub(super) fn of(sql: &str) -> Self {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
        let parts = tokens.into_iter().filter_map(|token| match token {
            Token::Whitespace(_) => None,
            Token::Word(word) if word.quote_style.is_some() => Some(Part::Word(word.value)),
            Token::Word(word) => Some(Part::Word(word.value.to_ascii_lowercase())),
            Token::SingleQuotedString(text) => Some(Part::Text(text)),
            Token::Number(digits, _) => Some(Part::Number(digits)),
            other => Some(Part::Other(other.to_string())),
        });
        Self { parts: parts.collect() }
    }

    /// Whether it begins with a word.
    pub(super) fn starts_with(&self, word: &str) -> bool {
        matches!(self.parts.first(), Some(Part::Word(first)) if first == word)
    }

    /// Whether a word is in it.
    pub(super) fn has(&self, word: &str) -> bool {
        self.words().any(|other| other == word)
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Word(word) => Some(word.as_str()),
            _ => None,
        })
    }

    /// Its texts, `'...'`.
    pub(super) fn strings(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The relation or the prepared statement that it makes, without its schema.
    pub(super) fn made(&self) -> Option<String> {
        if self.starts_with("prepare") {
            return self.name_at(1).map(prepared);
        }
        if self.starts_with("create") {
            return self.relation();
        }
        // SELECT ... INTO makes a table; `INSERT INTO` is none of these.
        if self.starts_with("select") || self.starts_with("with") {
            return self.name_behind("into");
        }
        None
    }

    /// The relation whose rows it changes, without its schema.
    pub(super) fn changed(&self) -> Option<String> {
        let before = ["insert", "update", "delete"].iter().find(|word| self.starts_with(word))?;
        self.name_behind(match *before {
            "insert" => "into",
            "delete" => "from",
            update => update,
        })
    }

    /// The relation or the prepared statement that it drops, without its schema.
    pub(super) fn dropped(&self) -> Option<String> {
        if self.starts_with("deallocate") {
            let at = if self.word_at(1) == Some("prepare") { 2 } else { 1 };
            return self.name_at(at).map(prepared);
        }
        if self.starts_with("drop") { self.relation() } else { None }
    }

    /// The prepared statement that it runs or drops.
    pub(super) fn executed(&self) -> Option<String> {
        if self.starts_with("execute") { self.name_at(1).map(prepared) } else { self.dropped() }
    }

    /// The setting that it changes, to which value; none where it is reset.
    pub(super) fn setting(&self) -> Option<(String, Option<String>)> {
        if !self.starts_with("set") && !self.starts_with("reset") {
            return None;
        }
        let mut name = self.word_at(1)?.to_owned();
        let mut at = 2;
        while self.parts.get(at) == Some(&Part::Other(".".to_owned())) {
            name.push('.');
            name.push_str(self.word_at(at + 1)?);
            at += 2;
        }
        if self.starts_with("reset") {
            return Some((name, None));
        }
        let value = self.parts.get(at + 1..)?.iter().filter_map(|part| match part {
            Part::Word(text) | Part::Text(text) | Part::Number(text) => Some(text.as_str()),
            Part::Other(text) if text == ";" => None,
            Part::Other(text) => Some(text.as_str()),
        });
        Some((name, Some(value.collect())))
    }

    /// The name behind the first word of that kind.
    fn name_behind(&self, word: &str) -> Option<String> {
        let is_word = |part: &Part| matches!(part, Part::Word(other) if other == word);
        self.name_at(self.parts.iter().position(is_word)? + 1)
    }

    fn word_at(&self, at: usize) -> Option<&str> {
        match self.parts.get(at) {
            Some(Part::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// The last part of the dotted name at a place.
    fn name_at(&self, mut at: usize) -> Option<String> {
        while self.parts.get(at + 1) == Some(&Part::Other(".".to_owned())) {
            at += 2;
        }
        self.word_at(at).map(str::to_owned)
    }

    /// The name behind `TABLE` or `VIEW` and `IF [NOT] EXISTS`.
    fn relation(&self) -> Option<String> {
        let kind = self.parts.iter().position(
            |part| matches!(part, Part::Word(word) if word == "table" || word == "view"),
        )?;
        let mut at = kind + 1;
        while self.word_at(at).is_some_and(|word| ["if", "not", "exists"].contains(&word)) {
            at += 1;
        }
        self.name_at(at)
    }
}

/// Prepared statements have names of their own.
fn prepared(name: String) -> String {
    format!("prepared statement {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(sql: &str) -> Option<String> {
        Sketch::of(sql).made()
    }

    #[test]
    fn names_of_what_is_made_are_found() {
        assert_eq!(made("CREATE TABLE T (a INT)").as_deref(), Some("t"));
        assert_eq!(made("create or replace view s.\"V\" as select 1").as_deref(), Some("V"));
        assert_eq!(made("CREATE EXTERNAL TABLE IF NOT EXISTS a.b.c STORED").as_deref(), Some("c"));
        assert_eq!(made("PREPARE p(INT) AS SELECT $1").as_deref(), Some("prepared statement p"));
        assert_eq!(made("SELECT * INTO t FROM s").as_deref(), Some("t"));
        assert_eq!(made("SELECT * FROM table"), None);
        let changed = |sql| Sketch::of(sql).changed();
        assert_eq!(changed("INSERT INTO s.t SELECT 1").as_deref(), Some("t"));
        assert_eq!(changed("UPDATE t SET a = 1").as_deref(), Some("t"));
        assert_eq!(changed("DELETE FROM t WHERE a = 1").as_deref(), Some("t"));
        assert_eq!(changed("SELECT 1"), None);
        let dropped = Sketch::of("DROP TABLE IF EXISTS s.t;").dropped();
        assert_eq!(dropped.as_deref(), Some("t"));
    }

    #[test]
    fn settings_have_a_name_and_a_value() {
        let setting = |sql| Sketch::of(sql).setting();
        let of =
            |name: &str, value: Option<&str>| Some((name.to_owned(), value.map(str::to_owned)));
        assert_eq!(setting("SET a.b = 'c';"), of("a.b", Some("c")));
        assert_eq!(setting("set a.b.c to -1"), of("a.b.c", Some("-1")));
        assert_eq!(setting("RESET a.b"), of("a.b", None));
        assert_eq!(setting("SELECT 1"), None);
    }
}
