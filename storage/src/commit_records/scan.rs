//! Reading a commit records file back, frame by frame.
//!
//! Invariant: a put counts only when all of its frames are whole, in order, and follow a full one;
//! what comes after the first frame that is not is not looked at.

use std::io;

use bytes::Bytes;

use super::frame::{HEADER_BYTES, Header, Kind};
use crate::chunk_store::lacks_resources;
use crate::command_log::Chain;

/// Why a file ends before its bytes do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Its last put is not there to its end, as after a crash: it was never acknowledged.
    Torn,
    /// Bytes are not what was written, or not in the order.
    Bytes(String),
}

/// A put as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRead {
    /// What it is.
    pub kind: Kind,
    /// The commit that is known after it.
    pub at: Chain,
    /// What it says.
    pub bodies: Vec<Bytes>,
}

/// What is in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The puts, the first of them full.
    pub puts: Vec<PutRead>,
    /// Why there are no more.
    pub damage: Option<Damage>,
}

impl Contents {
    /// Reads a file that is in memory.
    pub fn of(bytes: &Bytes) -> Self {
        let read = |offset: u64, length: usize| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let end = start.checked_add(length).filter(|end| *end <= bytes.len());
            let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(bytes.slice(start..end).to_vec())
        };
        let mut puts = Puts::default();
        // Memory cannot fail to be read: every range is checked above.
        let scan = Scan::run(bytes.len() as u64, read, |header, body| puts.add(header, body));
        let damage = scan.map_or(None, |scan| scan.damage);
        Self { puts: puts.done, damage }
    }
}

#[derive(Default)]
struct Puts {
    done: Vec<PutRead>,
    bodies: Vec<Bytes>,
}

impl Puts {
    fn add(&mut self, header: &Header, body: Vec<u8>) {
        self.bodies.push(body.into());
        if header.is_last {
            let bodies = std::mem::take(&mut self.bodies);
            self.done.push(PutRead { kind: header.kind, at: header.at, bodies });
        }
    }
}

/// What a walk over a file found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The commit of the last whole put.
    pub(super) at: Option<Chain>,
    /// Bytes up to the end of that put.
    pub(super) valid: u64,
    /// Bytes of the full put.
    pub(super) full: u64,
    /// Why it ended there, if bytes follow.
    pub(super) damage: Option<Damage>,
}

impl Scan {
    /// Walks over a file of `length` bytes, and shows every good frame to `visit`.
    pub(super) fn run(
        length: u64,
        mut read: impl FnMut(u64, usize) -> io::Result<Vec<u8>>,
        mut visit: impl FnMut(&Header, Vec<u8>),
    ) -> io::Result<Self> {
        let mut scan = Self::default();
        let (mut offset, mut before) = (0, None);
        while offset < length {
            let found = match next(length, offset, &mut read) {
                // The process lacks something, not the file.
                Err(error) if lacks_resources(&error) => return Err(error),
                Err(error) => Err(Damage::Bytes(format!("it cannot be read at {offset}: {error}"))),
                Ok(found) => found,
            };
            match found {
                Ok((header, body)) => {
                    if !follows(before.as_ref(), &header) {
                        let problem = "a frame does not follow the one before it".to_owned();
                        scan.damage = Some(Damage::Bytes(problem));
                        return Ok(scan);
                    }
                    offset += (HEADER_BYTES + body.len()) as u64;
                    if header.is_last {
                        scan.at = Some(header.at);
                        scan.valid = offset;
                        if header.kind == Kind::Full {
                            scan.full = offset;
                        }
                    }
                    visit(&header, body);
                    before = Some(header);
                }
                Err(damage) => {
                    scan.damage = Some(damage);
                    return Ok(scan);
                }
            }
        }
        if scan.valid < length {
            scan.damage = Some(Damage::Torn);
        }
        Ok(scan)
    }
}

/// The frame at `offset`, with its body.
fn next(
    length: u64,
    offset: u64,
    read: &mut impl FnMut(u64, usize) -> io::Result<Vec<u8>>,
) -> io::Result<Result<(Header, Vec<u8>), Damage>> {
    let rest = length - offset;
    if rest < HEADER_BYTES as u64 {
        return Ok(Err(Damage::Torn));
    }
    let header = match Header::decode(&read(offset, HEADER_BYTES)?) {
        Ok(header) => header,
        Err(damage) => return Ok(Err(damage)),
    };
    if rest - (HEADER_BYTES as u64) < u64::from(header.body) {
        return Ok(Err(Damage::Torn));
    }
    let body = read(offset + HEADER_BYTES as u64, header.body as usize)?;
    if crc32c::crc32c(&body) != header.body_crc {
        return Ok(Err(Damage::Bytes(format!(
            "what is known of commit {} is damaged",
            header.at.seq
        ))));
    }
    Ok(Ok((header, body)))
}

/// Whether a frame can follow another one: the full put comes first and once, and the frames of a
/// put are in order.
fn follows(before: Option<&Header>, header: &Header) -> bool {
    match before {
        None => header.kind == Kind::Full && header.part == 0,
        Some(before) if before.is_last => {
            let (old, new) = (before.at, header.at);
            let is_newer = (old.log_epoch, old.seq) < (new.log_epoch, new.seq);
            header.kind == Kind::Delta && header.part == 0 && is_newer
        }
        Some(before) => {
            let next = before.part.checked_add(1);
            (header.kind, header.at, Some(header.part)) == (before.kind, before.at, next)
        }
    }
}
