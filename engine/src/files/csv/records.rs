//! From bytes to records: RFC 4180, with the deviations that files in the wild need.
//!
//! Lines end in LF, CR LF or CR. Quoted fields may contain delimiters, doubled quotes and line
//! breaks. A quote inside an unquoted field is an ordinary character. Blank lines are skipped in
//! files with more than one column. A byte order mark is skipped.
//!
//! Invariant: memory is bounded by [`RECORD_BYTES_MAX`], whatever the file.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::super::{CsvOptions, file_error};
use crate::error::SqlError;

/// The longest record. A longer one is a quote that nobody closed, or not CSV.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;

/// Bytes read from the file at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// One record: its fields with quotes removed.
#[derive(Debug, Default)]
pub(super) struct Record {
    text: Vec<u8>,
    /// Where each field ends in `text`, and whether it was quoted.
    fields: Vec<(usize, bool)>,
    line: u64,
}

impl Record {
    /// How many fields.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Bytes of all fields.
    pub(super) fn byte_len(&self) -> usize {
        self.text.len()
    }

    /// The line that the record begins in, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// A field's bytes.
    pub(super) fn bytes(&self, index: usize) -> Option<&[u8]> {
        let (end, _) = *self.fields.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => self.fields.get(before)?.0,
            None => 0,
        };
        self.text.get(start..end)
    }

    /// A field's bytes; `None` when it means NULL, which a quoted field never does.
    pub(super) fn value(&self, index: usize, options: &CsvOptions) -> Option<&[u8]> {
        let bytes = self.bytes(index)?;
        let quoted = self.fields.get(index).is_some_and(|(_, quoted)| *quoted);
        (quoted || bytes != options.null.as_bytes()).then_some(bytes)
    }

    fn end_field(&mut self, quoted: bool) {
        self.fields.push((self.text.len(), quoted));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Unquoted,
    Quoted,
    /// After the escape character in a quoted field.
    Escaped,
    /// After a quote in a quoted field: its end, or half of a doubled one.
    QuoteSeen,
}

/// Reads records from a file.
pub(super) struct Records<R> {
    input: BufReader<R>,
    path: PathBuf,
    delimiter: u8,
    quote: u8,
    escape: Option<u8>,
    /// The line that the next byte is in.
    line: u64,
    /// The last byte was a CR, so a LF now belongs to it.
    after_cr: bool,
    bytes: u64,
    /// Fields of the first record: with more than one, blank lines mean nothing.
    columns: usize,
}

impl<R: Read> Records<R> {
    /// A reader from the start of a file.
    pub(super) fn new(input: R, path: &Path, options: &CsvOptions) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            path: path.to_owned(),
            delimiter: options.delimiter,
            quote: options.quote,
            escape: options.escape.filter(|escape| *escape != options.quote),
            line: 1,
            after_cr: false,
            bytes: 0,
            columns: 0,
        }
    }

    /// Bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// The file.
    pub(super) fn file(&self) -> &R {
        self.input.get_ref()
    }

    /// Reads the next record; `false` at the end of the file.
    pub(super) fn next(&mut self, record: &mut Record) -> Result<bool, SqlError> {
        if self.bytes == 0 {
            self.skip_byte_order_mark()?;
        }
        loop {
            record.text.clear();
            record.fields.clear();
            record.line = self.line;
            let more = self.read_one(record)?;
            let blank = record.fields.len() == 1 && record.fields.first() == Some(&(0, false));
            if more && blank && self.columns != 1 {
                continue;
            }
            if more && self.columns == 0 {
                self.columns = record.fields.len();
            }
            return Ok(more);
        }
    }

    /// Reads one record, blank or not.
    fn read_one(&mut self, record: &mut Record) -> Result<bool, SqlError> {
        let mut state = State::FieldStart;
        let mut begun = false;
        loop {
            let (consumed, ended) = {
                let buffer = match self.input.fill_buf() {
                    Ok(buffer) => buffer,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        return Err(file_error(
                            &self.path,
                            format_args!("cannot be read: {error}"),
                        ));
                    }
                };
                if buffer.is_empty() {
                    return self.at_end(state, begun, record);
                }
                let mut consumed = 0;
                let mut ended = false;
                for &byte in buffer {
                    consumed += 1;
                    if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                        // The second half of a line break; the line was counted with the first.
                        if state == State::Quoted {
                            record.text.push(byte);
                        } else if !begun {
                            record.line = self.line;
                        }
                        continue;
                    }
                    if byte == b'\n' || byte == b'\r' {
                        self.line += 1;
                        self.after_cr = byte == b'\r';
                    }
                    begun = true;
                    state = match (state, byte) {
                        (State::Escaped, byte) => {
                            record.text.push(byte);
                            State::Quoted
                        }
                        (State::Quoted, byte) if self.escape == Some(byte) => State::Escaped,
                        (State::Quoted, byte) if byte == self.quote => State::QuoteSeen,
                        (State::Quoted, byte) => {
                            record.text.push(byte);
                            State::Quoted
                        }
                        (State::QuoteSeen, byte) if byte == self.quote && self.escape.is_none() => {
                            record.text.push(byte);
                            State::Quoted
                        }
                        (State::FieldStart, byte) if byte == self.quote => State::Quoted,
                        (state, b'\n' | b'\r') => {
                            record.end_field(state == State::QuoteSeen);
                            ended = true;
                            break;
                        }
                        (state, byte) if byte == self.delimiter => {
                            record.end_field(state == State::QuoteSeen);
                            State::FieldStart
                        }
                        (State::QuoteSeen, _) => {
                            let line = self.line;
                            let what = format_args!("line {line}: text after a closing quote");
                            return Err(file_error(&self.path, what)
                                .with_hint("double quotes inside quoted fields, or set ESCAPE"));
                        }
                        (State::FieldStart | State::Unquoted, byte) => {
                            record.text.push(byte);
                            State::Unquoted
                        }
                    };
                }
                (consumed, ended)
            };
            self.input.consume(consumed);
            self.bytes += consumed as u64;
            if ended {
                return Ok(true);
            }
            let size = record.text.len() + record.fields.len() * size_of::<(usize, bool)>();
            if size > RECORD_BYTES_MAX {
                let (line, mib) = (record.line, RECORD_BYTES_MAX >> 20);
                let what =
                    format_args!("line {line}: the record that begins here is over {mib} MiB");
                return Err(file_error(&self.path, what).with_hint("a quote may not be closed"));
            }
        }
    }

    /// The file is over: what was begun is a record without a line break, unless a quote is open.
    fn at_end(&self, state: State, begun: bool, record: &mut Record) -> Result<bool, SqlError> {
        match state {
            State::Quoted | State::Escaped => {
                let line = record.line;
                let what = format_args!("line {line}: a quote is not closed before the file ends");
                Err(file_error(&self.path, what))
            }
            _ if !begun => Ok(false),
            state => {
                record.end_field(state == State::QuoteSeen);
                Ok(true)
            }
        }
    }

    fn skip_byte_order_mark(&mut self) -> Result<(), SqlError> {
        let failed = |error| file_error(&self.path, format_args!("cannot be read: {error}"));
        let buffer = self.input.fill_buf().map_err(failed)?;
        if buffer.starts_with(&[0xff, 0xfe]) || buffer.starts_with(&[0xfe, 0xff]) {
            return Err(file_error(&self.path, "is UTF-16").with_hint("convert the file to UTF-8"));
        }
        if buffer.starts_with(&[0xef, 0xbb, 0xbf]) {
            self.input.consume(3);
            self.bytes += 3;
        }
        Ok(())
    }
}
