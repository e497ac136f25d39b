//! CSV made to break readers: each file gives its rows, or an error that names file and line
//! (FAULTS A5: 30, 39, 40, 42).

use std::fs;

use basalt_engine::error::{ErrorCode, SqlError};
use tempfile::TempDir;

async fn read(content: impl AsRef<[u8]>, select: &str) -> Result<String, SqlError> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.csv"), content).unwrap();
    let sql = format!("SELECT {select} FROM read_csv('{{}}/a.csv')");
    let batch = crate::files::query(folder.path(), &sql).await?;
    let shown = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
    let rows = shown.lines().skip(3).filter_map(|line| line.strip_prefix('|'));
    let trimmed = rows.map(|row| row.trim_end_matches('|').split('|').map(str::trim).collect());
    Ok(trimmed.map(|row: Vec<_>| row.join("|")).collect::<Vec<_>>().join("\n"))
}

async fn check(content: impl AsRef<[u8]>, select: &str, expected: &str) {
    assert_eq!(read(content, select).await.unwrap(), expected);
}

async fn check_error(content: impl AsRef<[u8]>, part: &str) {
    let error = read(content, "*").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SourceFile, "{error:?}");
    assert!(error.message.contains(part) && error.message.contains("a.csv"), "{error:?}");
}

#[tokio::test]
async fn line_breaks_of_all_kinds_in_one_file_end_records() {
    check("a,b\r\n1,x\n2,y\r3,z\r\n4,\"p\r\nq\"", "count(*), sum(a)", "4|10").await;
}

#[tokio::test]
async fn records_are_whole_wherever_the_buffer_ends() {
    // Every place of a quote, a line break and a wide character meets the end of a buffer.
    let record = "\"ü\"\"\r\n,\",x\r\n";
    for shift in 0..record.len() + 3 {
        let mut content = "a,b\n".to_owned() + &"y".repeat(shift) + ",y\n";
        while content.len() < 600 << 10 {
            content.push_str(record);
        }
        let records = content.matches(record).count();
        let expected = format!("{}|1", records + 1);
        check(&content, "count(*), count(*) FILTER (WHERE b = 'y')", &expected).await;
        let odd = "count(*) FILTER (WHERE a <> 'ü\"\r\n,')";
        check(&content, odd, if shift == 0 { "0" } else { "1" }).await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_named() {
    check("a,b\n1,x\0y\n", "octet_length(b)", "3").await;
    check_error([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9], "not valid UTF-8")
        .await;
    check_error(b"a\0,\0b\0\n\x001\0,\x002\0\n\0", "").await;
    check_error([0xfe, 0xff, 0, b'a'], "is UTF-16").await;
    check_error(b"a,b\n1,\xed\xa0\x80\n", "line 2: text is not valid UTF-8").await;
}

#[tokio::test]
async fn records_and_columns_without_end_are_refused() {
    check_error(vec![b'x'; 20 << 20], "over 16 MiB").await;
    check_error(vec![b','; 20 << 20], "over 16 MiB").await;
    check_error(vec![b','; 500_000], "500001 columns: at most 20000").await;
    check_error([b"a,b\n1,\"".to_vec(), vec![b'\n'; 17 << 20]].concat(), "line 2: ").await;
    check_error(vec![b'\n'; 20 << 20], "is empty").await;
}

#[tokio::test]
async fn numbers_that_are_written_otherwise_stay_text() {
    let content = "a\n 42 \n+5\n0x10\n1_000\n\"1,5\"\n1e400\nyes\n2026-02-30\n٣\n";
    check(content, "count(*), arrow_typeof(max(a))", "9|Utf8View").await;
    for number in [" 42", "+5", "0x10", "1_000", "1e400", "inf", "NaN", "٣"] {
        let content = format!("a\n{number}\n");
        check(&content, "arrow_typeof(a)", "Utf8View").await;
    }
}
