//! `ENCODE name` of a column: how its values are written.
//!
//! Invariant: only encodings that exist here are taken, under Redshift's names for them. One that
//! Redshift has besides is refused by name, with the one that does its work: a table would
//! otherwise say that it is written in a way that it is not.

use basalt_storage::encoding::ChunkEncoding;

use super::parser::StatementParser;
use crate::error::{ErrorCode, Position, SqlError, closest, printable};

/// Measured for each column chunk: what a column has that declares nothing.
const AUTO: &str = "auto";

/// Encodings of Redshift's that are not here, and what to write instead.
const ELSEWHERE: [(&str, &str); 9] = [
    ("az64", "delta"),
    ("delta32k", "delta"),
    ("lzo", "lz4"),
    ("mostly8", "delta"),
    ("mostly16", "delta"),
    ("mostly32", "delta"),
    ("runlength", "bytedict"),
    ("text255", "bytedict"),
    ("text32k", "bytedict"),
];

/// Reads `ENCODE name`, when that is next: the encoding, which is `None` for AUTO, and where its
/// name is.
pub(super) fn encode(
    parser: &mut StatementParser<'_>,
) -> Result<Option<(Option<ChunkEncoding>, Position)>, SqlError> {
    if !parser.word("ENCODE") {
        return Ok(None);
    }
    let position = parser.position();
    let Some(name) = parser.peek_word(0).map(str::to_ascii_lowercase) else {
        return parser.expected("the name of an encoding");
    };
    let encoding = ChunkEncoding::from_name(&name);
    if encoding.is_none() && name != AUTO {
        return Err(unknown(&name).at(position));
    }
    parser.next_token();
    Ok(Some((encoding, position)))
}

/// The encodings that fit a type, or all of them, as a hint lists them.
pub fn encodings(fitting: impl Fn(ChunkEncoding) -> bool) -> String {
    let fitting = ChunkEncoding::ALL.into_iter().filter(|encoding| fitting(*encoding));
    let names: Vec<_> = [AUTO].into_iter().chain(fitting.map(ChunkEncoding::name)).collect();
    names.join(", ")
}

fn unknown(name: &str) -> SqlError {
    let all = encodings(|_| true);
    if let Some((_, instead)) = ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == name) {
        let message = format!("ENCODE {name} is not supported");
        return SqlError::new(ErrorCode::FeatureNotSupported, message)
            .with_hint(format!("write ENCODE {instead}; encodings are {all}"));
    }
    let message = format!("encoding \"{}\" does not exist", printable(name));
    let known = ChunkEncoding::ALL.into_iter().map(ChunkEncoding::name);
    let meant = match closest(name, known) {
        Some(close) => format!("did you mean {close}? "),
        None => String::new(),
    };
    SqlError::new(ErrorCode::InvalidParameter, message)
        .with_hint(format!("{meant}encodings are {all}"))
}
