//! DataFusion's own files: how many records need more than SQL, and the shares that pass.

use std::io::{self, Write};

use basalt_sql_tests::slt::{Answers, Tallies, Tally};
use serde_json::{Value, json};

/// The answers of one side.
type Side = fn(&Tally) -> Answers;

/// What the records are called that no rule excludes.
const PLAIN: (&str, &str) = ("sql", "nothing but SQL");

pub(super) fn print_needs(
    out: &mut impl Write,
    tallies: &Tallies,
    oracle: Option<&str>,
) -> io::Result<()> {
    let theirs = oracle.unwrap_or("-");
    writeln!(
        out,
        "records by what they need, and how many of them are answered as the file says:"
    )?;
    writeln!(out, "{:>10} {:>10} {:>10} {theirs:>10}", "records", "not run", "ours")?;
    for (need, tally) in tallies.iter() {
        let (name, text) = need.map_or(PLAIN, |need| (need.name(), need.text()));
        print_row(out, tally, oracle, &format!("{name}: {text}"))?;
    }
    print_row(out, &tallies.sum(), oracle, "all")?;
    let sides: [(&str, Side); 2] = [("ours", |tally| tally.ours), (theirs, |tally| tally.oracle)];
    for (name, answers) in sides.iter().take(1 + usize::from(oracle.is_some())) {
        for (what, tally) in
            [("all records", tallies.sum()), ("those that need nothing but SQL", tallies.plain())]
        {
            let Answers { other_order, other_words, .. } = answers(&tally);
            writeln!(
                out,
                "{name}: {} of {what} ({} of {}), {other_order} of them in another order where SQL \
                 names none, {other_words} an error for an error in other words",
                percent(answers(&tally).all(), tally.records),
                answers(&tally).all(),
                tally.records,
            )?;
        }
    }
    Ok(())
}

fn print_row(
    out: &mut impl Write,
    tally: &Tally,
    oracle: Option<&str>,
    what: &str,
) -> io::Result<()> {
    let theirs = oracle.map_or("-".to_owned(), |_| tally.oracle.all().to_string());
    let Tally { records, not_run, ours, .. } = tally;
    writeln!(out, "{records:>10} {not_run:>10} {:>10} {theirs:>10}  {what}", ours.all())
}

fn percent(part: u64, all: u64) -> String {
    let share = if all > 0 { part as f64 * 100.0 / all as f64 } else { 0.0 };
    format!("{share:.2} %")
}

pub(super) fn json(tallies: &Tallies) -> Value {
    let answers = |answers: &Answers| {
        json!({
            "same": answers.same,
            "other_order": answers.other_order,
            "other_words": answers.other_words,
        })
    };
    let rows = tallies.iter().map(|(need, tally)| {
        json!({
            "need": need.map_or(PLAIN.0, |need| need.name()),
            "records": tally.records,
            "not_run": tally.not_run,
            "ours": answers(&tally.ours),
            "oracle": answers(&tally.oracle),
        })
    });
    rows.collect()
}
