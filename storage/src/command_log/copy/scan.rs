//! Reading a copy from its files: which frames count, where the records are, and where it ends.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::disk::LogDisk;
use super::super::frame::{Frame, Kind, MAGIC, Promise};
use super::super::parts;
use super::super::record::{Chain, RawRecord, RecordError, has_checksum};
use super::{BODY_AT, LogError};

/// Where the bytes of a record are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// The name of a log file.
pub(super) fn file_name(file: u32) -> String {
    format!("{file:08}.log")
}

fn file_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".log")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// What a copy's files say.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) index: Vec<Place>,
    pub(super) tail: Chain,
    pub(super) promised: Option<Promise>,
    pub(super) complete: bool,
    /// The highest number of a file.
    pub(super) last_file: u32,
    /// Why the copy ends before its files do, if it does.
    pub(super) problem: Option<String>,
    /// The files of the log in order, each with how much of it is valid.
    extents: Vec<(u32, u64)>,
    /// Bytes of each file.
    lengths: BTreeMap<u32, u64>,
    /// Whether what follows is void, until a start frame says from where it goes on.
    broken: bool,
    /// Whether that is because a file ends within a frame. An append that was answered is whole,
    /// so at the end of the last file nothing is missing that anybody was told of.
    pub(super) torn: bool,
}

impl Scan {
    /// Reads all files, or those up to a valid end.
    pub(super) fn run(disk: &dyn LogDisk, until: Option<(u32, u64)>) -> Result<Self, LogError> {
        let mut scan = Self {
            index: Vec::new(),
            tail: Chain::start(),
            promised: None,
            complete: false,
            last_file: 0,
            problem: None,
            extents: Vec::new(),
            lengths: BTreeMap::new(),
            broken: false,
            torn: false,
        };
        let names = disk.list().map_err(LogError::io("listing"))?;
        let mut files: Vec<u32> = names.iter().filter_map(|name| file_number(name)).collect();
        files.sort_unstable();
        for file in files {
            if until.is_some_and(|(last, _)| file > last) {
                break;
            }
            let name = file_name(file);
            let mut length = disk.length(&name).map_err(LogError::io("reading"))?;
            if let Some((last, end)) = until
                && file == last
            {
                length = length.min(end);
            }
            scan.last_file = file;
            scan.lengths.insert(file, length);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let bytes = disk.read_at(&name, 0, length).map_err(LogError::io("reading"))?;
            scan.file(file, Bytes::from(bytes), disk)?;
        }
        if scan.broken && !scan.torn {
            scan.complete = false;
        }
        Ok(scan)
    }

    /// The valid end of the log: its last file, and how much of it.
    pub(super) fn end(&self) -> (u32, u64) {
        self.extents.last().copied().unwrap_or((0, 0))
    }

    /// The file to go on in, when the last one is whole.
    pub(super) fn appendable(&self) -> Option<u32> {
        let (file, valid) = self.extents.last().copied()?;
        let whole = !self.broken && self.lengths.get(&file) == Some(&valid);
        (whole && file == self.last_file).then_some(file)
    }

    /// Reads one file up to its first bad frame, and promises beyond that.
    fn file(&mut self, file: u32, bytes: Bytes, disk: &dyn LogDisk) -> Result<(), LogError> {
        // There is a file after the one that ended early.
        self.torn = false;
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.slice(at..);
            let frame = Frame::decode(&rest);
            let end = super::HEADER_BYTES + frame.map_or(0, |frame| frame.body as usize);
            if rest.len() < end {
                self.torn = !self.broken;
                self.ends_early(file, at, "is torn");
                break;
            }
            let Some(frame) = frame else {
                self.ends_early(file, at, "has no frame");
                break;
            };
            let body = rest.slice(super::HEADER_BYTES..end);
            let is_start = matches!(frame.kind, Kind::Start { .. });
            if is_start != (at == 0) {
                self.ends_early(file, at, "has a frame that does not belong there");
                break;
            }
            let is_ok = match frame.kind {
                Kind::Start { file: before, valid } => {
                    self.start(file, before, valid, disk)?;
                    true
                }
                Kind::Promise => true,
                Kind::Append { .. } if self.broken => true,
                Kind::Append { after } => {
                    self.append(after, file, at as u64 + BODY_AT, body, disk)?
                }
            };
            if !is_ok {
                self.ends_early(file, at, "is damaged");
                break;
            }
            // Also of what is void: a promise is never taken back.
            self.promise(frame.promised);
            at += end;
            if !self.broken {
                self.complete = frame.complete;
                if let Some(last) = self.extents.last_mut() {
                    last.1 = at as u64;
                }
            }
        }
        self.salvage_promises(&bytes[at..]);
        Ok(())
    }

    /// Takes the promises of all headers that are whole after the first bad frame, wherever they
    /// are: what follows damage is void, but a promise is never taken back. No record has the bytes
    /// of a header, because a command is text.
    fn salvage_promises(&mut self, rest: &[u8]) {
        let starts = (0..rest.len()).filter(|at| rest[*at..].starts_with(MAGIC));
        for frame in starts.filter_map(|at| Frame::decode(&rest[at..])) {
            self.promise(frame.promised);
        }
    }

    fn ends_early(&mut self, file: u32, at: usize, what: &str) {
        let problem = format!("log file {} {what} at byte {at}", file_name(file));
        self.problem.get_or_insert(problem);
        self.broken = true;
    }

    fn promise(&mut self, promised: Option<Promise>) {
        if let Some(new) = promised
            && self.promised.is_none_or(|old| old.epoch <= new.epoch)
        {
            self.promised = Some(new);
        }
    }

    /// A file begins: the log goes on after `valid` bytes of file `before`, if we have them.
    fn start(
        &mut self,
        file: u32,
        before: u32,
        valid: u64,
        disk: &dyn LogDisk,
    ) -> Result<(), LogError> {
        let kept = match before {
            0 => Some(0),
            _ => {
                let found = self.extents.iter().position(|(number, _)| *number == before);
                found.filter(|&at| self.extents[at].1 >= valid).map(|at| at + 1)
            }
        };
        let Some(kept) = kept else {
            let what = format!("does not follow what is left of {}", file_name(before));
            self.ends_early(file, 0, &what);
            return Ok(());
        };
        self.extents.truncate(kept);
        if let Some(last) = self.extents.last_mut() {
            last.1 = valid;
        }
        let live: Vec<u32> = self.extents.iter().map(|(number, _)| *number).collect();
        let is_kept = |place: &Place| {
            live.contains(&place.file) && (place.file != before || place.offset < valid)
        };
        let count = self.index.iter().take_while(|place| is_kept(place)).count();
        if count < self.index.len() {
            self.cut(count, disk)?;
        }
        (self.broken, self.torn, self.problem) = (false, false, None);
        self.extents.push((file, 0));
        Ok(())
    }

    /// Takes in the records of one frame; `false` when they are not what they should be.
    fn append(
        &mut self,
        after: u64,
        file: u32,
        body_at: u64,
        body: Bytes,
        disk: &dyn LogDisk,
    ) -> Result<bool, LogError> {
        let Some(records) = parts::split(body) else { return Ok(false) };
        if after > self.tail.seq {
            return Ok(false);
        }
        if after < self.tail.seq {
            self.cut(usize::try_from(after).unwrap_or(usize::MAX), disk)?;
        }
        let mut chain = self.tail;
        let mut places = Vec::with_capacity(records.len());
        let mut offset = body_at;
        for (seq, record) in (after + 1..).zip(&records) {
            let raw = match RawRecord::decode(seq, record) {
                Err(newer @ RecordError::NewerFormat { .. }) if has_checksum(record) => {
                    return Err(newer.into());
                }
                decoded => decoded,
            };
            if !raw.is_ok_and(|raw| chain.follow(seq, &raw).is_ok()) {
                return Ok(false);
            }
            offset += 4;
            let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
            places.push(Place { file, offset, length });
            offset += record.len() as u64;
        }
        self.index.extend(places);
        self.tail = chain;
        Ok(true)
    }

    /// Drops all but the first `count` records.
    fn cut(&mut self, count: usize, disk: &dyn LogDisk) -> Result<(), LogError> {
        self.index.truncate(count);
        let Some(Place { file, offset, length }) = self.index.last().copied() else {
            self.tail = Chain::start();
            return Ok(());
        };
        let read = disk.read_at(&file_name(file), offset, length as usize);
        let bytes = read.map_err(LogError::io("reading"))?;
        self.tail = RawRecord::decode(count as u64, &bytes)?.chain();
        Ok(())
    }
}
