//! Aligned tables in the manner of psql.
//!
//! ```text
//!  name  | qty
//! -------+-----
//!  apple |   3
//!  NULL  |  12
//! ```
//! Widths come from the first 1,000 rows, so that a result of any size streams in
//! bounded memory; a later, wider value pushes its own row out of line and nothing else.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::escape::escaped;
use super::value::{ColumnText, is_number};

/// Rows that decide the widths of the columns.
const LAYOUT_ROWS: usize = 1000;

/// No column is made narrower than this to fit the screen.
const COLUMN_WIDTH_MIN: usize = 8;

/// How a table looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Columns of the screen: wider tables have their widest columns cut with `…`.
    pub width: Option<usize>,
    /// Show so many rows only; the others are counted.
    pub rows_max: Option<u64>,
    /// Dim NULL with terminal codes, so that it differs from the text `NULL`.
    pub color: bool,
    /// One line per value instead of one per row (`\x`).
    pub expanded: bool,
}

struct Column {
    name: String,
    is_number: bool,
    width: usize,
}

/// Writes a table.
pub struct TableWriter {
    options: TableOptions,
    columns: Vec<Column>,
    /// Rows that wait for the layout.
    pending: Vec<Vec<Option<String>>>,
    has_layout: bool,
    rows_seen: u64,
    rows_shown: u64,
}

impl TableWriter {
    pub(super) fn new(schema: &SchemaRef, options: TableOptions) -> Self {
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let name = escaped(field.name());
                Column { width: name.width(), name, is_number: is_number(field.data_type()) }
            })
            .collect();
        let pending = Vec::new();
        Self { options, columns, pending, has_layout: false, rows_seen: 0, rows_shown: 0 }
    }

    /// Rows that came.
    pub fn rows_seen(&self) -> u64 {
        self.rows_seen
    }

    /// Rows that were printed: fewer than came when there is a limit.
    pub fn rows_shown(&self) -> u64 {
        self.rows_shown
    }

    pub(super) fn write(
        &mut self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
    ) -> Result<(), ArrowError> {
        let rows = batch.num_rows() as u64;
        let left = self.options.rows_max.map_or(rows, |max| max.saturating_sub(self.rows_seen));
        self.rows_seen += rows;
        let shown = rows.min(left);
        let columns = batch.columns().iter().map(ColumnText::new).collect::<Result<Vec<_>, _>>()?;
        for row in 0..usize::try_from(shown).unwrap_or(batch.num_rows()) {
            let cells = columns
                .iter()
                .map(|column| Ok(column.value(row)?.map(|text| escaped(&text))))
                .collect::<Result<Vec<_>, ArrowError>>()?;
            self.pending.push(cells);
            self.rows_shown += 1;
            if self.has_layout || self.pending.len() >= LAYOUT_ROWS {
                self.flush(out);
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.has_layout {
            self.lay_out();
            self.has_layout = true;
            if !self.options.expanded && !self.columns.is_empty() {
                self.header(out);
            }
        }
        let first = self.rows_shown - self.pending.len() as u64;
        for (index, row) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if self.options.expanded {
                self.record(first + index as u64 + 1, &row, out);
            } else if !self.columns.is_empty() {
                self.row(&row, out);
            }
        }
    }

    /// Decides the widths: as wide as the values, then cut to the screen from the widest down.
    fn lay_out(&mut self) {
        for row in &self.pending {
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(cell.as_deref().unwrap_or("NULL").width());
            }
        }
        let Some(screen) = self.options.width else { return };
        // " a | b " takes three more than its values per column, less the outer bars.
        let frame = (3 * self.columns.len()).saturating_sub(1);
        let mut total: usize = self.columns.iter().map(|column| column.width).sum();
        while frame + total > screen {
            let Some(widest) = self.columns.iter_mut().max_by_key(|column| column.width) else {
                return;
            };
            if widest.width <= COLUMN_WIDTH_MIN {
                return;
            }
            widest.width -= 1;
            total -= 1;
        }
    }

    fn header(&self, out: &mut Vec<u8>) {
        let mut line = String::new();
        let mut rule = String::new();
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                line.push('|');
                rule.push('+');
            }
            let name = self.fitted(&column.name, column.width);
            let padding = column.width.saturating_sub(name.width());
            line.push_str(&format!(" {name}{} ", " ".repeat(padding)));
            rule.push_str(&"-".repeat(column.width + 2));
        }
        push_line(out, line.trim_end());
        push_line(out, &rule);
    }

    fn row(&self, row: &[Option<String>], out: &mut Vec<u8>) {
        let mut line = String::new();
        for (index, (column, cell)) in self.columns.iter().zip(row).enumerate() {
            if index > 0 {
                line.push('|');
            }
            let text = self.fitted(cell.as_deref().unwrap_or("NULL"), column.width);
            let padding = " ".repeat(column.width.saturating_sub(text.width()));
            let text = self.marked(text, cell.is_none());
            line.push_str(&match column.is_number {
                true => format!(" {padding}{text} "),
                false => format!(" {text}{padding} "),
            });
        }
        push_line(out, line.trim_end());
    }

    fn record(&self, number: u64, row: &[Option<String>], out: &mut Vec<u8>) {
        let name_width = self.columns.iter().map(|column| column.name.width()).max().unwrap_or(0);
        push_line(out, &format!("-[ RECORD {number} ]{}", "-".repeat(name_width)));
        for (column, cell) in self.columns.iter().zip(row) {
            let padding = " ".repeat(name_width - column.name.width());
            let text = cell.clone().unwrap_or_else(|| "NULL".to_owned());
            let text = self.marked(text, cell.is_none());
            push_line(out, format!("{}{padding} | {text}", column.name).trim_end());
        }
    }

    fn marked(&self, text: String, is_null: bool) -> String {
        if is_null && self.options.color { format!("\x1b[2m{text}\x1b[0m") } else { text }
    }

    /// The text cut to the column's width where the screen is the limit.
    fn fitted(&self, text: &str, width: usize) -> String {
        if self.options.width.is_none() || text.width() <= width {
            return text.to_owned();
        }
        let mut cut = String::new();
        let mut used = 1;
        for letter in text.chars() {
            used += letter.width().unwrap_or(0);
            if used > width {
                break;
            }
            cut.push(letter);
        }
        cut.push('…');
        cut
    }
}

fn push_line(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}
