//! Counters out of `EXPLAIN ANALYZE VERBOSE`, for tests of what a query really read, and exchanges out of `EXPLAIN`.
//!
//! The text has three significant digits (`local_bytes={0:393.2 K}`), and so have the counters.

use crate::client::{Client, ClientError};
use arrow::array::AsArray;

/// What each task's scan of a table counted as `name`, in the order of the plan.
///
/// # Errors
/// What the server says of the query.
pub async fn scan_counters(
    client: &mut Client,
    sql: &str,
    table: &str,
    name: &str,
) -> Result<Vec<f64>, ClientError> {
    let text = plan_text(client, &format!("EXPLAIN ANALYZE VERBOSE {sql}")).await?;
    let scan = format!("SegmentScanExec: table=public.{table},");
    let lines = text.lines().filter(|line| line.contains(&scan));
    Ok(lines.filter_map(|line| counter(line, name)).collect())
}

/// The exchanges of a query's plan by the names of their nodes, in the order of the plan. The first brings the
/// answer to the coordinator.
///
/// # Errors
/// What the server says of the query.
pub async fn exchanges(client: &mut Client, sql: &str) -> Result<Vec<String>, ClientError> {
    let text = plan_text(client, &format!("EXPLAIN {sql}")).await?;
    let name = |line: &str| {
        let (_, exchange) = line.split_once("] => Network")?;
        exchange.split_once("Exec:").map(|(name, _)| name.to_owned())
    };
    Ok(text.lines().filter_map(name).collect())
}

/// The text of all plans that a statement shows.
///
/// # Errors
/// What the server says of the statement.
pub async fn plan_text(client: &mut Client, sql: &str) -> Result<String, ClientError> {
    let (_, batches) = client.query_all(sql).await?;
    let plans = batches.iter().filter_map(|batch| batch.column_by_name("plan")?.as_string_opt());
    let text: Vec<&str> = plans.flat_map(arrow::array::StringArray::iter).flatten().collect();
    Ok(text.join("\n"))
}

/// The value of `name={<task>:<number>}` in a line, such as `{0:224.3 K}`.
fn counter(line: &str, name: &str) -> Option<f64> {
    let (entry, _) = line.split_once(&format!("{name}={{"))?.1.split_once('}')?;
    let (_, value) = entry.split_once(':')?;
    let (number, unit) = value.split_once(' ').unwrap_or((value, ""));
    let factor = match unit {
        "" | "B" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::counter;

    #[test]
    fn counters_have_units() {
        let line = "t1: SegmentScanExec: metrics=[output_rows={1:188.5 K}, peer_bytes={1:0}]";
        assert_eq!(counter(line, "output_rows"), Some(188_500.0));
        assert_eq!(counter(line, "peer_bytes"), Some(0.0));
        assert_eq!(counter(line, "local_bytes"), None);
    }
}
