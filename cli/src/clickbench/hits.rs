//! The rows of `hits`: each value follows from the row's number and its column alone, so any part can be
//! made by itself.
//!
//! Rows are in the order of the original: by site, then by day. The sites' shares, the users' and those of
//! what is searched for follow power laws.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringBuilder,
};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::columns::{VALUES, Values, schema};
use super::texts;
use crate::workload::Batches;

/// Rows of a batch.
const BATCH_ROWS: u64 = 8_192;
/// Sites.
const COUNTERS: f64 = 6_506.0;
/// The site that queries ask about, the one with the second most hits.
const COUNTER_ASKED: i64 = 62;
/// The first of July 2013, in days and in seconds since 1970.
const FIRST_DAY: i64 = 15_887;
const DAY_SECONDS: u64 = 86_400;
const DAYS: f64 = 31.0;
/// What queries ask for by its number.
const USER_ASKED: i64 = 435_090_932_899_640_449;
const REFERER_ASKED: i64 = 3_594_120_000_172_545_465;
const URL_ASKED: i64 = 2_868_770_270_353_813_622;

/// A number that looks random and follows from another (SplitMix64, Steele et al., OOPSLA 2014).
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One of `distinct` numbers: 0 most often, the more so the larger the power.
fn skewed(random: u64, distinct: f64, power: i32) -> u64 {
    let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
    (unit.powi(power) * distinct) as u64
}

/// The rows of part `part` (from 1) of `parts`, at a scale of which 1 is a million rows.
pub(super) fn batches(scale: f64, part: i32, parts: i32) -> Batches {
    let all = (scale * 1_000_000.0).round().max(1.0) as u64;
    let (part, parts) = (u64::from(part.unsigned_abs()), u64::from(parts.unsigned_abs()));
    let (first, end) = (all * (part - 1) / parts, all * part / parts);
    let starts = (first..end).step_by(usize::try_from(BATCH_ROWS).unwrap_or(1));
    Box::new(starts.map(move |start| {
        let rows: Vec<_> =
            (start..end.min(start + BATCH_ROWS)).map(|row| Hit::new(row, all)).collect();
        batch(&rows)
    }))
}

/// What columns of one row have in common.
struct Hit {
    row: u64,
    /// The site, by its share, and its number.
    site: u64,
    counter: i64,
    /// Days since the first.
    day: u64,
    second: u64,
    user: u64,
    /// The page, of this site, and the one before.
    page: u64,
    referer: (u64, u64),
    all: f64,
}

impl Hit {
    fn new(row: u64, all: u64) -> Self {
        // The sites' shares: that of site s grows with the difference of cube roots at s + 1 and s.
        let place = COUNTERS * (row as f64 / all as f64).powi(3);
        let site = place as u64;
        let day = ((place - place.floor()) * DAYS) as u64;
        let random = mix(row);
        // A visit has four hits or so.
        let visitors = all as f64 / 5.0;
        let user = skewed(mix(row / 4 + 1), visitors, 2);
        let pages = (all as f64 / COUNTERS).max(50.0) * 20.0;
        let page = skewed(mix(random ^ 1), pages, 4);
        let referer = (skewed(mix(random ^ 2), COUNTERS, 3), skewed(mix(random ^ 3), pages, 4));
        let counter = match site {
            0 => 38,
            1 => COUNTER_ASKED,
            site => COUNTER_ASKED + 37 * (site as i64 - 1),
        };
        let second = mix(random ^ 4) % DAY_SECONDS;
        Self { row, site, counter, day, second, user, page, referer, all: all as f64 }
    }

    /// A random number for a column.
    fn random(&self, column: u64) -> u64 {
        mix(self.row.wrapping_mul(131).wrapping_add(column) ^ 0x5bd1)
    }

    fn has_referer(&self) -> bool {
        !self.random(1_000).is_multiple_of(5)
    }

    fn number(&self, column: u64, values: Values) -> i64 {
        let random = self.random(column);
        let of_user = mix(self.user.wrapping_mul(131).wrapping_add(column));
        match values {
            Values::RowId => mix(self.row ^ 0x1f3d) as i64,
            Values::RowNumber => self.row as i64,
            Values::Counter => self.counter,
            Values::Date => FIRST_DAY + self.day as i64,
            Values::Time => (FIRST_DAY + self.day as i64) * DAY_SECONDS as i64 + self.second as i64,
            Values::User if self.user == 7 => USER_ASKED,
            Values::User => mix(self.user) as i64,
            Values::OfUser(0, _) => of_user as i64,
            Values::OfUser(distinct, power) => skewed(of_user, distinct as f64, power) as i64,
            Values::Screen(most) => (most - most / 4 * (of_user % 4) + of_user % 3 * 16) as i64,
            Values::Flag(per_mille) => i64::from(random % 1_000 < per_mille),
            Values::Mostly(zeros, distinct) => match random % 1_000 < zeros {
                true => 0,
                false => 1 + skewed(mix(random), distinct as f64, 3) as i64,
            },
            Values::Traffic => random as i64 % 6 + 5 - 6 * i64::from(random.is_multiple_of(4)),
            Values::UrlHash if self.site == 1 && self.page == 0 => URL_ASKED,
            Values::UrlHash => mix(self.site.rotate_left(32) ^ self.page) as i64,
            Values::RefererHash if !self.has_referer() => 0,
            Values::RefererHash if self.referer == (0, 0) => REFERER_ASKED,
            Values::RefererHash => mix(self.referer.0.rotate_left(32) ^ self.referer.1) as i64,
            Values::OfUserWords(_)
            | Values::Words(..)
            | Values::Phrase
            | Values::Title
            | Values::Url
            | Values::Referer
            | Values::OriginalUrl => 0,
        }
    }

    fn text(&self, text: &mut String, column: u64, values: Values) {
        let random = self.random(column);
        match values {
            Values::OfUserWords(distinct) => {
                let of_user = mix(self.user.wrapping_mul(131).wrapping_add(column));
                texts::word(text, skewed(of_user, distinct as f64, 3) ^ column << 32);
            }
            Values::Words(empty, distinct) if random % 1_000 >= empty => {
                texts::word(text, skewed(mix(random), distinct as f64, 3) ^ column << 32);
            }
            Values::Phrase if random % 100 >= 87 => {
                texts::phrase(text, skewed(mix(random), self.all / 16.0, 3));
            }
            Values::Title => texts::title(text, self.site << 32 ^ self.page),
            Values::Url => texts::address(text, self.site, self.page),
            Values::Referer if self.has_referer() => {
                texts::address(text, self.referer.0, self.referer.1);
            }
            Values::OriginalUrl if random.is_multiple_of(8) => {
                texts::address(text, self.site, self.page);
            }
            _ => {}
        }
    }
}

fn batch(rows: &[Hit]) -> Result<RecordBatch, ArrowError> {
    let schema = schema();
    let mut text = String::new();
    let columns = (0..).zip(VALUES).zip(schema.fields()).map(|((column, (_, values)), field)| {
        // Numbers of 16 and 32 bits are the low bits, as those of the original wrap.
        let numbers = rows.iter().map(|row| row.number(column, values));
        let array: ArrayRef = match field.data_type() {
            DataType::Int16 => Arc::new(Int16Array::from_iter_values(numbers.map(|n| n as i16))),
            DataType::Int32 => Arc::new(Int32Array::from_iter_values(numbers.map(|n| n as i32))),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values(numbers)),
            DataType::Date32 => Arc::new(Date32Array::from_iter_values(numbers.map(|n| n as i32))),
            _ => {
                let mut builder = StringBuilder::new();
                for row in rows {
                    text.clear();
                    row.text(&mut text, column, values);
                    builder.append_value(&text);
                }
                Arc::new(builder.finish())
            }
        };
        array
    });
    let columns = columns.collect();
    RecordBatch::try_new(schema, columns)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use arrow::array::{Array, AsArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Date32Type, Int32Type, Int64Type};

    use super::*;

    fn rows(part: i32, parts: i32) -> RecordBatch {
        let batches: Vec<_> = batches(0.05, part, parts).map(Result::unwrap).collect();
        concat_batches(&schema(), &batches).unwrap()
    }

    #[test]
    fn parts_are_the_whole_in_order() {
        let whole = rows(1, 1);
        let parts: Vec<_> = (1..=3).map(|part| rows(part, 3)).collect();
        assert_eq!(concat_batches(&schema(), &parts).unwrap(), whole);
    }

    #[test]
    fn the_table_has_the_shape_of_the_original() {
        let rows = rows(1, 1);
        let column = |name| rows.column_by_name(name).unwrap();
        let all = rows.num_rows();
        assert_eq!(all, 50_000);

        let counters = column("CounterID").as_primitive::<Int32Type>().values();
        assert!(counters.is_sorted());
        let asked = counters.iter().filter(|counter| **counter == 62).count();
        assert!((all / 100..all / 50).contains(&asked), "{asked} hits of site 62");

        let days = column("EventDate").as_primitive::<Date32Type>().values();
        assert_eq!((days.iter().min(), days.iter().max()), (Some(&15_887), Some(&15_917)));

        let users: HashSet<_> =
            column("UserID").as_primitive::<Int64Type>().values().iter().collect();
        assert!((all / 20..all / 4).contains(&users.len()), "{} users", users.len());
        let ids: HashSet<_> =
            column("WatchID").as_primitive::<Int64Type>().values().iter().collect();
        assert_eq!(ids.len(), all);

        let empty = |name| {
            let texts = column(name).as_string::<i32>();
            (0..texts.len()).filter(|row| texts.value(*row).is_empty()).count() * 100 / all
        };
        assert!((85..89).contains(&empty("SearchPhrase")));
        assert_eq!(empty("URL"), 0);
        let google = column("URL").as_string::<i32>().iter().flatten();
        let google = google.filter(|url| url.contains("google")).count();
        assert!((1..all / 500).contains(&google), "{google} of google");
    }
}
