//! Reports for machines: JSON, and the XML of JUnit.

use std::fmt::Write as _;

use basalt_sql_tests::slt::{Engine, Failure, FileReport, FlightEngine, Output, Place, text};
use serde_json::{Value, json};

use super::needs;
use super::totals::Totals;

/// The versions that a report is about: this program's, and those of the places.
pub(super) async fn versions(ours: &Place, oracle: Option<&Place>) -> Value {
    json!({
        "basalt": env!("CARGO_PKG_VERSION"),
        "engine": version(ours).await,
        "oracle": match oracle {
            Some(oracle) => Some(version(oracle).await),
            None => None,
        },
    })
}

async fn version(place: &Place) -> String {
    match place {
        Place::DataFusion => format!("datafusion {}", datafusion::DATAFUSION_VERSION),
        Place::Server { url, .. } => server_version(url).await.unwrap_or_else(|| url.clone()),
        Place::DuckDb => "duckdb".to_owned(),
    }
}

/// What a server says about itself, if it does.
async fn server_version(url: &str) -> Option<String> {
    let mut engine = FlightEngine::connect(url).await.ok()?;
    let Output::Rows { batches, .. } = engine.run("SELECT version()").await.ok()? else {
        return None;
    };
    let mut rows = Vec::new();
    for batch in &batches {
        text::append_rows(batch, &mut rows).ok()?;
    }
    rows.first()?.first().cloned()
}

pub(super) fn json(
    reports: &[FileReport],
    totals: &Totals,
    versions: Value,
) -> serde_json::Result<String> {
    let report = json!({
        "versions": versions,
        "totals": totals,
        "needs": needs::json(&totals.tallies),
        "slowest": totals.slowest.iter().map(|slow| json!({
            "file": &*slow.file,
            "line": slow.line,
            "seconds": slow.time.as_secs_f64(),
            "sql": slow.sql,
        })).collect::<Vec<_>>(),
        "files": reports.iter().map(file).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&report).map(|text| text + "\n")
}

fn file(report: &FileReport) -> Value {
    json!({
        "file": report.path.to_string_lossy(),
        "dialect": report.dialect.map(|dialect| dialect.name()),
        "passed": report.passed,
        "failed": report.failed,
        "skipped": report.skipped,
        "known": report.known,
        "rewritten": report.rewritten,
        "skip_reason": report.skip,
        "records": report.records,
        "seconds": report.elapsed.as_secs_f64(),
        "failures": report.failures.iter().map(failure).collect::<Vec<_>>(),
        "differences": report.oracle.as_ref().map(|oracle| {
            oracle.differences.iter().map(failure).collect::<Vec<_>>()
        }),
    })
}

fn failure(failure: &Failure) -> Value {
    json!({ "file": failure.file, "line": failure.line, "text": failure.text })
}

/// A test suite per file: a case for all that passed and one per failure.
pub(super) fn junit(reports: &[FileReport]) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for report in reports {
        let name = escaped(&report.path.to_string_lossy());
        // Writing to a String does not fail.
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            report.failures.len() + 1,
            report.failures.len(),
            u8::from(report.skip.is_some()),
            report.elapsed.as_secs_f64(),
        );
        let case = format!("{} passed, {} skipped", report.passed, report.skipped);
        let time = report.elapsed.as_secs_f64();
        let _ =
            write!(xml, "    <testcase classname=\"{name}\" name=\"{case}\" time=\"{time:.3}\"");
        let _ = match &report.skip {
            Some(reason) => {
                writeln!(xml, "><skipped message=\"{}\"/></testcase>", escaped(reason))
            }
            None => writeln!(xml, "/>"),
        };
        for failure in &report.failures {
            let first = failure.text.lines().next().unwrap_or_default();
            let _ = writeln!(
                xml,
                "    <testcase classname=\"{name}\" name=\"{}:{}\"><failure message=\"{}\">{}\
                 </failure></testcase>",
                escaped(&failure.file),
                failure.line,
                escaped(first),
                escaped(&failure.text),
            );
        }
        xml.push_str("  </testsuite>\n");
    }
    xml + "</testsuites>\n"
}

/// Text as XML takes it; what XML cannot hold at all becomes a question mark.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            '\0'..=' ' if character != ' ' => escaped.push('?'),
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_holds_what_a_failure_says() {
        assert_eq!(escaped("a<b>&\"c\"\n\u{1}é"), "a&lt;b&gt;&amp;&quot;c&quot;\n?é");
    }
}
