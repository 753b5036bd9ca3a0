//! The zip archives that numpy and torch write, and no more of the format: stored or deflated entries, one volume, no encryption.
//!
//! The central directory is believed only as far as the local headers and the file's length agree with it: names are plain and
//! unique, entries lie one after another without overlap, sizes are possible.

use crate::bytes::{Bytes, Section};
use crate::{Error, Result};
use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::collections::HashSet;
use std::io::Read;

/// Directories above this are refused: a checkpoint of 100,000 tensors needs 10 MB.
const MAX_DIRECTORY: u64 = 64 << 20;
/// No deflate stream inflates by more than this.
const MAX_RATIO: u64 = 1032;

/// One file inside an archive.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) deflated: bool,
    /// Its length, inflated.
    pub(crate) size: u64,
    crc: u32,
    packed: u64,
    header_at: u64,
    /// Offset of its bytes.
    pub(crate) at: u64,
}

/// The checked directory of an archive, in the directory's order.
pub(crate) fn directory(file: &Bytes) -> Result<Vec<Entry>> {
    let end = find_end(file)?;
    if end.size > MAX_DIRECTORY || end.at.checked_add(end.size).is_none_or(|to| to > end.end) {
        return Err(file.malformed(format!("its directory claims {} bytes at {} of {}", end.size, end.at, file.len())));
    }
    let mut raw = vec![0; end.size as usize];
    file.read_at(end.at, &mut raw)?;
    let mut fields = Fields { file, bytes: &raw, what: "the archive's directory" };
    let (mut entries, mut names) = (Vec::new(), HashSet::new());
    while !fields.bytes.is_empty() {
        let mut entry = one(file, &mut fields)?;
        if !names.insert(entry.name.clone()) {
            return Err(file.malformed(format!("two entries are named `{}`", entry.name)));
        }
        entry.at = local_header(file, &entry)?;
        entries.push(entry);
    }
    if entries.len() as u64 != end.count {
        return Err(file.malformed(format!("its directory claims {} entries and holds {}", end.count, entries.len())));
    }
    refuse_overlaps(file, &entries, end.at)?;
    Ok(entries)
}

struct End {
    count: u64,
    size: u64,
    at: u64,
    /// Offset at which the directory must have ended.
    end: u64,
}

/// Finds the record at the archive's end: the one whose comment reaches exactly to the end of the file. Two of them would be two archives.
fn find_end(file: &Bytes) -> Result<End> {
    const RECORD: usize = 22;
    let tail_len = file.len().min((RECORD + 0xFFFF) as u64);
    let mut tail = vec![0; tail_len as usize];
    let tail_at = file.len() - tail_len;
    file.read_at(tail_at, &mut tail)?;
    // A record ends with the length of the comment.
    let comment = |record: &[u8]| record.last_chunk().map(|len| usize::from(u16::from_le_bytes(*len)));
    let reaches = |i: usize, record: &[u8]| comment(record).is_some_and(|len| i + RECORD + len == tail.len());
    let mut found =
        (0..).zip(tail.windows(RECORD)).filter(|(i, record)| record.starts_with(b"PK\x05\x06") && reaches(*i, record));
    let (i, record) = match (found.next(), found.next()) {
        (Some(found), None) => found,
        (None, _) => return Err(file.malformed("the directory at the end of a zip archive is missing")),
        (Some(_), Some(_)) => return Err(file.malformed("two directories at the end of a zip archive")),
    };
    let end = tail_at + i as u64;
    let mut fields = Fields { file, bytes: record, what: "the archive's end" };
    fields.take(4)?;
    let (disk, first_disk) = (fields.u16()?, fields.u16()?);
    let (here, count) = (fields.u16()?, fields.u16()?);
    let (size, at) = (fields.u32()?, fields.u32()?);
    let small = End { count: count.into(), size: size.into(), at: at.into(), end };
    if let Some(large) = find_end_64(file, end)? {
        return Ok(large);
    }
    if disk != 0 || first_disk != 0 || here != count {
        return Err(file.malformed("an archive of several volumes"));
    }
    Ok(small)
}

/// The record of archives beyond 4 GiB, which torch always writes.
fn find_end_64(file: &Bytes, end: u64) -> Result<Option<End>> {
    let Some(locator_at) = end.checked_sub(20) else { return Ok(None) };
    let mut locator = [0; 20];
    file.read_at(locator_at, &mut locator)?;
    let mut fields = Fields { file, bytes: &locator, what: "the archive's zip64 locator" };
    if fields.take(4)? != b"PK\x06\x07" {
        return Ok(None);
    }
    fields.u32()?;
    let at = fields.u64()?;
    if at.checked_add(56).is_none_or(|to| to > locator_at) {
        return Err(file.malformed(format!("the zip64 record is said to be at {at} of {}", file.len())));
    }
    let mut record = [0; 56];
    file.read_at(at, &mut record)?;
    let mut fields = Fields { file, bytes: &record, what: "the archive's zip64 end" };
    if fields.take(4)? != b"PK\x06\x06" {
        return Err(file.malformed("the zip64 record has another signature"));
    }
    fields.take(8 + 4)?;
    let (disk, first_disk) = (fields.u32()?, fields.u32()?);
    let (here, count) = (fields.u64()?, fields.u64()?);
    if disk != 0 || first_disk != 0 || here != count {
        return Err(file.malformed("an archive of several volumes"));
    }
    Ok(Some(End { count, size: fields.u64()?, at: fields.u64()?, end: at }))
}

/// One entry of the directory.
fn one(file: &Bytes, fields: &mut Fields<'_>) -> Result<Entry> {
    if fields.take(4)? != b"PK\x01\x02" {
        return Err(file.malformed("an entry of the directory has another signature"));
    }
    fields.take(4)?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.take(4)?;
    let crc = fields.u32()?;
    let (packed, size) = (fields.u32()?, fields.u32()?);
    let (name_len, extra_len, comment_len) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.take(2 + 2 + 4)?;
    let header_at = fields.u32()?;
    let name = plain_name(file, fields.take(name_len.into())?)?;
    let extra = fields.take(extra_len.into())?;
    fields.take(comment_len.into())?;
    let refused = |why: String| file.malformed(format!("entry `{name}` {why}"));
    if flags & (1 | 1 << 6 | 1 << 13) != 0 {
        return Err(refused("is encrypted".into()));
    }
    if method != 0 && method != 8 {
        return Err(refused(format!("is compressed by method {method}; stored (0) and deflated (8) are read")));
    }
    let [size, packed, header_at] = widen(file, extra, [size, packed, header_at])?;
    if method == 0 && size != packed {
        return Err(refused(format!("is stored, and claims {packed} bytes for {size}")));
    }
    if packed > file.len() || size / MAX_RATIO > packed {
        return Err(refused(format!("claims {size} bytes, from {packed} in a file of {}", file.len())));
    }
    Ok(Entry { deflated: method == 8, crc, size, packed, header_at, at: 0, name })
}

/// Replaces fields that are all ones by those of the zip64 extra field, which holds only these, in this order.
fn widen(file: &Bytes, extra: &[u8], small: [u32; 3]) -> Result<[u64; 3]> {
    let mut wide = small.map(u64::from);
    if !small.contains(&u32::MAX) {
        return Ok(wide);
    }
    let mut fields = Fields { file, bytes: extra, what: "an entry's extra fields" };
    while fields.bytes.len() >= 4 {
        let (id, len) = (fields.u16()?, fields.u16()?);
        let body = fields.take(len.into())?;
        if id == 1 {
            let mut body = Fields { file, bytes: body, what: "an entry's zip64 field" };
            for value in wide.iter_mut().filter(|value| **value == u64::from(u32::MAX)) {
                *value = body.u64()?;
            }
            break;
        }
    }
    Ok(wide)
}

/// Names are relative paths of plain parts: nothing here becomes a path on disk, but a file that tries is not what it says.
fn plain_name(file: &Bytes, raw: &[u8]) -> Result<String> {
    let name = std::str::from_utf8(raw).map_err(|e| file.malformed(format!("an entry's name is not UTF-8: {e}")))?;
    let plain = !name.is_empty()
        && !name.starts_with('/')
        && !name.chars().any(|c| c == '\\' || c.is_control())
        && !name.split('/').any(|part| part == "..");
    if plain {
        Ok(name.into())
    } else {
        Err(file.malformed(format!("an entry is named {name:?}, which is no plain relative name")))
    }
}

/// Checks an entry's own header and returns where its bytes start.
fn local_header(file: &Bytes, entry: &Entry) -> Result<u64> {
    const HEADER: u64 = 30;
    let refused = |why: String| file.malformed(format!("entry `{}` {why}", entry.name));
    if entry.header_at.checked_add(HEADER + entry.name.len() as u64).is_none_or(|to| to > file.len()) {
        return Err(refused(format!("is said to be at {} of {}", entry.header_at, file.len())));
    }
    let mut header = vec![0; HEADER as usize + entry.name.len()];
    file.read_at(entry.header_at, &mut header)?;
    let mut fields = Fields { file, bytes: &header, what: "an entry's header" };
    if fields.take(4)? != b"PK\x03\x04" {
        return Err(refused("has no header where the directory says".into()));
    }
    fields.take(2)?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.take(4 + 4 + 4 + 4)?;
    let (name_len, extra_len) = (fields.u16()?, fields.u16()?);
    if usize::from(name_len) != entry.name.len() || fields.bytes != entry.name.as_bytes() {
        return Err(refused("has another name in its own header".into()));
    }
    if flags & 1 != 0 || (method == 8) != entry.deflated {
        return Err(refused("has another method or encryption in its own header".into()));
    }
    let at = entry.header_at + HEADER + u64::from(name_len) + u64::from(extra_len);
    match at.checked_add(entry.packed) {
        Some(to) if to <= file.len() => Ok(at),
        _ => Err(refused(format!("claims {} bytes at {at} of {}", entry.packed, file.len()))),
    }
}

fn refuse_overlaps(file: &Bytes, entries: &[Entry], directory_at: u64) -> Result<()> {
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by_key(|entry| entry.header_at);
    for (i, entry) in order.iter().enumerate() {
        let limit = order.get(i + 1).map_or(directory_at, |next| next.header_at);
        if entry.at + entry.packed > limit {
            let next = order.get(i + 1).map_or("the directory".into(), |next| format!("`{}`", next.name));
            return Err(file.malformed(format!("entry `{}` overlaps {next}", entry.name)));
        }
    }
    Ok(())
}

/// An entry's bytes as a stream that counts and sums what it gives.
pub(crate) struct EntryReader<'a> {
    file: &'a Bytes,
    entry: &'a Entry,
    stream: Stream<'a>,
    crc: Crc,
}

enum Stream<'a> {
    Stored(Section<'a>),
    Deflated(DeflateDecoder<Section<'a>>),
}

impl<'a> EntryReader<'a> {
    pub(crate) fn new(file: &'a Bytes, entry: &'a Entry) -> Self {
        let section = file.section(entry.at, entry.packed);
        let stream =
            if entry.deflated { Stream::Deflated(DeflateDecoder::new(section)) } else { Stream::Stored(section) };
        Self { file, entry, stream, crc: Crc::new() }
    }

    /// Fills `bytes` with what comes next.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut left = &mut *bytes;
        while !left.is_empty() {
            match self.some(left)? {
                0 => return Err(self.broken("ends early")),
                n => left = left.get_mut(n..).unwrap_or_default(),
            }
        }
        self.crc.update(bytes);
        Ok(())
    }

    /// To be called where the entry should end: that it does, and that the checksum is the directory's.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.some(&mut [0])? != 0 {
            return Err(self.broken("is longer than it says"));
        }
        if self.crc.sum() != self.entry.crc {
            return Err(self.broken("is damaged: its checksum differs"));
        }
        Ok(())
    }

    fn some(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let read = match &mut self.stream {
            Stream::Stored(stream) => stream.read(bytes).map_err(|e| self.file.io(e)),
            Stream::Deflated(stream) => {
                stream.read(bytes).map_err(|e| self.file.malformed(format!("entry `{}`: {e}", self.entry.name)))
            }
        }?;
        Ok(read)
    }

    fn broken(&self, how: &str) -> Error {
        self.file.malformed(format!("entry `{}` {how}", self.entry.name))
    }
}

/// Little-endian fields of a record.
struct Fields<'a> {
    file: &'a Bytes,
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((head, rest)) = self.bytes.split_at_checked(n) else {
            return Err(self.file.malformed(format!("{} is cut", self.what)));
        };
        self.bytes = rest;
        Ok(head)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    fn u16(&mut self) -> Result<u16> {
        self.number().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.number().map(u64::from_le_bytes)
    }
}
