//! Cutting text into statements at `;`, line by line as it arrives.
//!
//! A semicolon inside `'...'`, `E'...'`, `"..."`, `$tag$...$tag$`, `-- ...` or `/* ... */` (which
//! nest) is no end. Text is never changed: what the server gets is what was typed, so that the
//! line numbers of its errors hold.

/// One statement without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its text, from its first character that is not white space.
    pub text: String,
    /// The line on which it starts, from 1.
    pub line: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Between tokens, or in one that needs no care.
    Plain,
    /// Inside `'...'` or `"..."`; backslashes escape in `E'...'`.
    Quoted { quote: char, escapes: bool },
    /// Inside `/* ... */`, so deep.
    Comment { depth: u32 },
    /// Inside `$tag$ ... $tag$`; the text is the whole mark.
    Dollar { mark: String },
}

/// Collects lines and gives out statements.
#[derive(Debug, Clone)]
pub struct Splitter {
    state: State,
    text: String,
    /// Lines pushed so far.
    lines: u64,
    /// Where the statement in `text` starts.
    start: u64,
    /// Whether `text` holds more than comments.
    has_content: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { state: State::Plain, text: String::new(), lines: 0, start: 1, has_content: false }
    }
}

impl Splitter {
    /// Takes the next line, with or without its newline, and returns the statements it completes.
    pub fn push_line(&mut self, line: &str) -> Vec<Statement> {
        self.lines += 1;
        let mut done = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            rest = self.step(rest, &mut done);
        }
        if !line.ends_with('\n') && !self.text.is_empty() {
            self.text.push('\n');
        }
        done
    }

    /// What is left without a semicolon, as a statement of its own; starts afresh.
    pub fn finish(&mut self) -> Option<Statement> {
        let statement = self.take();
        *self = Self { lines: self.lines, ..Self::default() };
        statement
    }

    /// Forgets what was typed since the last statement (Ctrl-C).
    pub fn clear(&mut self) {
        *self = Self { lines: self.lines, ..Self::default() };
    }

    /// Whether the next line starts a new statement, or a meta command.
    pub fn is_at_start(&self) -> bool {
        self.state == State::Plain && !self.has_content
    }

    /// What is open, as one character for the prompt: a quote, `*` for a comment, `$`, or `-`.
    pub fn open(&self) -> char {
        match &self.state {
            State::Plain => '-',
            State::Quoted { quote, .. } => *quote,
            State::Comment { .. } => '*',
            State::Dollar { .. } => '$',
        }
    }

    /// Takes one token off the front of `rest`, which is not empty.
    fn step<'a>(&mut self, rest: &'a str, done: &mut Vec<Statement>) -> &'a str {
        let length = match &mut self.state {
            State::Plain => return self.step_plain(rest, done),
            State::Quoted { quote, escapes } => {
                let first = first_char(rest);
                if first == '\\' && *escapes {
                    let escaped = rest[1..].chars().next().map_or(0, char::len_utf8);
                    1 + escaped
                } else {
                    // A doubled quote closes and opens again, which comes to the same.
                    if first == *quote {
                        self.state = State::Plain;
                    }
                    first.len_utf8()
                }
            }
            State::Comment { depth } if rest.starts_with("*/") => {
                *depth -= 1;
                if *depth == 0 {
                    self.state = State::Plain;
                }
                2
            }
            State::Comment { depth } if rest.starts_with("/*") => {
                *depth += 1;
                2
            }
            State::Comment { .. } => first_char(rest).len_utf8(),
            State::Dollar { mark } => match rest.find(mark.as_str()) {
                Some(at) => {
                    let end = at + mark.len();
                    self.state = State::Plain;
                    end
                }
                None => rest.len(),
            },
        };
        self.keep(rest, length)
    }

    fn step_plain<'a>(&mut self, rest: &'a str, done: &mut Vec<Statement>) -> &'a str {
        let first = first_char(rest);
        if first == ';' {
            done.extend(self.take());
            return &rest[1..];
        }
        if first.is_whitespace() {
            if self.text.is_empty() {
                return &rest[first.len_utf8()..];
            }
            return self.keep(rest, first.len_utf8());
        }
        if rest.starts_with("--") {
            return self.keep(rest, rest.find('\n').map_or(rest.len(), |end| end + 1));
        }
        if rest.starts_with("/*") {
            self.state = State::Comment { depth: 1 };
            return self.keep(rest, 2);
        }
        let word = word_length(rest);
        let mut length = word.max(first.len_utf8());
        if matches!(first, '\'' | '"') {
            self.state = State::Quoted { quote: first, escapes: false };
        } else if let Some(mark) = dollar_mark(rest) {
            length = mark.len();
            self.state = State::Dollar { mark: mark.to_owned() };
        } else if matches!(&rest[..word], "e" | "E") && rest[word..].starts_with('\'') {
            length = word + 1;
            self.state = State::Quoted { quote: '\'', escapes: true };
        }
        let rest = self.keep(rest, length);
        self.has_content = true;
        rest
    }

    /// Keeps `length` bytes of `rest` and returns what follows.
    fn keep<'a>(&mut self, rest: &'a str, length: usize) -> &'a str {
        if self.text.is_empty() {
            self.start = self.lines;
        }
        let (token, rest) = rest.split_at(length);
        self.text.push_str(token);
        rest
    }

    fn take(&mut self) -> Option<Statement> {
        let text = std::mem::take(&mut self.text);
        let has_content = std::mem::take(&mut self.has_content);
        has_content.then(|| Statement { text: text.trim_end().to_owned(), line: self.start })
    }
}

fn first_char(text: &str) -> char {
    text.chars().next().unwrap_or('\0')
}

/// Bytes of the identifier, keyword or number at the front; 0 when there is none. A word is one
/// token so that `a$1$b` opens no dollar quote and `name'` no escape string.
fn word_length(text: &str) -> usize {
    let is_start = |c: char| c.is_alphanumeric() || c == '_';
    if !text.starts_with(is_start) {
        return 0;
    }
    text.find(|c: char| !is_start(c) && c != '$').unwrap_or(text.len())
}

/// The mark `$$` or `$tag$` at the front; `$1` is a parameter and no mark.
fn dollar_mark(text: &str) -> Option<&str> {
    let tag = text.strip_prefix('$')?;
    let end = tag.find('$')?;
    let is_tag = !tag.starts_with(|c: char| c.is_ascii_digit())
        && tag[..end].chars().all(|c| c.is_alphanumeric() || c == '_');
    is_tag.then(|| &text[..end + 2])
}
