//! Single bytes and lengths at random, from a seed: rows, as many as the footer says, or an error
//! about the file.
//!
//! A changed byte of a value is another value: pages have no checksum that the decoder looks at,
//! so equal rows cannot be asked for. What a file's footer promises can.

use basalt_engine::error::ErrorCode;
use parquet::basic::Compression;
use parquet::file::properties::WriterVersion;

use super::forge::{file, read, rows};

/// A generator of numbers that is the same everywhere (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

async fn check(what: &str, bytes: &[u8]) {
    match read(bytes, "count(*), count(n), count(f)").await {
        Ok(rows) => assert!(rows.starts_with("| 1000"), "{what}: {rows}"),
        Err(error) => {
            let codes =
                [ErrorCode::SourceFile, ErrorCode::UndefinedColumn, ErrorCode::DatatypeMismatch];
            assert!(codes.contains(&error.code), "{what}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_changed_byte_gives_all_rows_or_an_error() {
    std::panic::set_hook(Box::new(|_| {})); // panics of the decoder are caught, and noisy
    let mut numbers = Numbers(0x5eed_5eed_5eed_5eed);
    let codecs = [
        (Compression::UNCOMPRESSED, WriterVersion::PARQUET_1_0),
        (Compression::ZSTD(Default::default()), WriterVersion::PARQUET_2_0),
        (Compression::SNAPPY, WriterVersion::PARQUET_1_0),
        (Compression::GZIP(Default::default()), WriterVersion::PARQUET_2_0),
    ];
    for (codec, version) in codecs {
        let good = file(&rows(), |set| set.set_compression(codec).set_writer_version(version));
        check("unchanged", &good).await;
        for _ in 0..100 {
            let mut bytes = good.clone();
            let place = numbers.below(good.len());
            bytes[place] ^= 1 << numbers.below(8);
            check(&format!("{codec}: byte {place} is {}", bytes[place]), &bytes).await;
            // Once more in the footer, which is a small part of the file and says the most.
            let mut bytes = good.clone();
            let place = good.len() - 1 - numbers.below(2_000.min(good.len()));
            bytes[place] = numbers.below(256) as u8;
            check(&format!("{codec}: byte {place} is {}", bytes[place]), &bytes).await;
        }
        for _ in 0..20 {
            let length = numbers.below(good.len());
            let error = read(&good[..length], "count(n)").await.unwrap_err();
            assert_eq!(error.code, ErrorCode::SourceFile, "{codec}: {length} bytes: {error:?}");
        }
    }
    let _default = std::panic::take_hook();
}
