//! A file of JSON as records: its lines, or the elements of one list.

use super::emit::Utf8;
use super::files::{Bytes, Input};
use crate::{Error, Place};
use std::io::{BufRead, Read};

/// How the records of a file are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One a line.
    Lines,
    /// Elements of one JSON list that is the whole file.
    List,
}

/// The records of a file, one after another.
pub(super) struct Records<'a> {
    input: &'a Input,
    bytes: Bytes,
    layout: Layout,
    /// Records begun so far; blank lines are counted.
    begun: u64,
    over: bool,
}

/// A record: whole, or a stream if it is too long to hold.
pub(super) enum Body<'a, 'b> {
    Whole(&'a [u8]),
    Long(&'a mut LongRecord<'b>),
}

/// A record's index, and its position for error messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) ordinal: u64,
    pub(super) place: Place,
}

impl<'a> Records<'a> {
    /// Opens the file; its first character that is no whitespace says how records are told apart.
    pub(super) fn open(input: &'a Input) -> crate::Result<Self> {
        let mut records = Self { input, bytes: input.open()?, layout: Layout::Lines, begun: 0, over: false };
        let layout = records.find_layout();
        records.layout = layout.map_err(|e| input.read_error(e, &records.bytes))?;
        Ok(records)
    }

    fn find_layout(&mut self) -> std::io::Result<Layout> {
        loop {
            let chunk = self.bytes.fill_buf()?;
            match chunk.iter().copied().enumerate().find(|(_, b)| !b.is_ascii_whitespace()) {
                Some((at, b'[')) => {
                    self.bytes.consume(at + 1);
                    return Ok(Layout::List);
                }
                // The line's own indentation stays, so that columns are right.
                Some((at, _)) => {
                    let blank = chunk.split_at_checked(at).map_or(chunk, |(blank, _)| blank);
                    self.begun += count_lines(blank);
                    let lines = blank.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
                    self.bytes.consume(lines);
                    return Ok(Layout::Lines);
                }
                None if chunk.is_empty() => return Ok(Layout::Lines),
                None => {
                    let n = chunk.len();
                    self.begun += count_lines(chunk);
                    self.bytes.consume(n);
                }
            }
        }
    }

    fn at(&self, ordinal: u64) -> At {
        let place = match self.layout {
            Layout::Lines => Place::Line(ordinal + 1),
            Layout::List => Place::Element(ordinal + 1),
        };
        At { ordinal, place }
    }

    fn failed(&self, at: At, fault: Option<RecordFault>) -> crate::Result<()> {
        match fault {
            None => Ok(()),
            Some(RecordFault::Read(error)) => Err(self.input.read_error(error, &self.bytes)),
            Some(RecordFault::NotUtf8(offset)) => {
                Err(self.input.not_utf8(at.place, format!(", column {}", offset + 1)))
            }
        }
    }

    fn syntax(&self, at: At, reason: &str) -> Error {
        Error::Json { path: self.input.path.clone(), place: at.place, column: 1, reason: reason.into() }
    }

    /// Hands the next record to `visit`: whole if it has at most `most` bytes, else as a stream that it should read to its end. `None` when
    /// there is none. `record` is memory for it.
    pub(super) fn next<T>(
        &mut self,
        record: &mut Vec<u8>,
        most: usize,
        visit: impl FnOnce(At, Body) -> T,
    ) -> crate::Result<Option<T>> {
        if self.over {
            return Ok(None);
        }
        let at = self.at(self.begun);
        record.clear();
        let mut ends = Ends::of(self.layout);
        let end = fill(&mut self.bytes, &mut ends, record, most.saturating_add(1));
        let end = end.map_err(|e| self.input.read_error(e, &self.bytes))?;
        if end == End::File && self.layout == Layout::Lines && record.is_empty() {
            self.over = true;
            return Ok(None);
        }
        self.begun += 1;
        if end == End::Open {
            let mut long = LongRecord::new(record, &mut self.bytes, ends);
            let outcome = visit(at, Body::Long(&mut long));
            let (fault, end) = (long.fault, long.end);
            self.failed(at, fault)?;
            self.close(at, end, false)?;
            return Ok(Some(outcome));
        }
        let blank = record.iter().all(u8::is_ascii_whitespace);
        // `[]` has no element at all.
        let none = blank && end == End::List && at.ordinal == 0;
        if blank && self.layout == Layout::List && !none {
            let reason = if end == End::File { "the list has no end" } else { "no value between two commas" };
            return Err(self.syntax(at, reason));
        }
        self.close(at, end, none)?;
        if none {
            return Ok(None);
        }
        Ok(Some(visit(at, Body::Whole(record))))
    }

    /// What comes after a record: in a list, a comma, or the list's end and nothing more.
    fn close(&mut self, at: At, end: End, none: bool) -> crate::Result<()> {
        match (self.layout, end) {
            (_, End::Record) => {}
            (Layout::Lines, _) => self.over = true,
            (Layout::List, End::List) => {
                self.over = true;
                let rest = skip_blank(&mut self.bytes).map_err(|e| self.input.read_error(e, &self.bytes))?;
                if rest {
                    let at = if none { at } else { self.at(self.begun) };
                    return Err(self.syntax(at, "more text after the end of the list"));
                }
            }
            // A stream that its reader left early, with an error of its own.
            (Layout::List, End::Open) => self.over = true,
            (Layout::List, End::File) => return Err(self.syntax(at, "the list has no end")),
        }
        Ok(())
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

/// Passes over whitespace; whether anything else comes.
fn skip_blank(bytes: &mut Bytes) -> std::io::Result<bool> {
    loop {
        let chunk = bytes.fill_buf()?;
        let length = chunk.len();
        if length == 0 {
            return Ok(false);
        }
        if chunk.iter().any(|b| !b.is_ascii_whitespace()) {
            return Ok(true);
        }
        bytes.consume(length);
    }
}

/// Where the record at hand ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not yet.
    Open,
    /// Here; another may come.
    Record,
    /// Here, and the list too.
    List,
    /// Here, and the file too.
    File,
}

/// Finds the end of a record in its bytes. Does not validate the JSON: the parser of the record does.
struct Ends {
    layout: Layout,
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Ends {
    fn of(layout: Layout) -> Self {
        Self { layout, depth: 0, in_string: false, escaped: false }
    }

    /// The place of the byte that ends the record, and what it ends.
    fn find(&mut self, bytes: &[u8]) -> Option<(usize, End)> {
        if self.layout == Layout::Lines {
            return bytes.iter().position(|b| *b == b'\n').map(|at| (at, End::Record));
        }
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                if self.escaped {
                    self.escaped = false;
                } else {
                    self.escaped = *byte == b'\\';
                    self.in_string = *byte != b'"';
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' if self.depth == 0 => return Some((at, End::Record)),
                b']' if self.depth == 0 => return Some((at, End::List)),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        None
    }
}

/// Reads a record, or its first `most` bytes.
fn fill(bytes: &mut Bytes, ends: &mut Ends, record: &mut Vec<u8>, most: usize) -> std::io::Result<End> {
    while record.len() < most {
        let chunk = match bytes.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            return Ok(End::File);
        }
        let chunk = chunk.get(..most - record.len()).unwrap_or(chunk);
        let found = ends.find(chunk);
        let n = found.map_or(chunk.len(), |(at, _)| at);
        record.extend_from_slice(chunk.get(..n).unwrap_or(chunk));
        bytes.consume(n + usize::from(found.is_some()));
        if let Some((_, end)) = found {
            return Ok(end);
        }
    }
    Ok(End::Open)
}

/// Why the bytes of a record stop: kept aside, because the JSON reader would wrap it beyond recognition.
enum RecordFault {
    Read(std::io::Error),
    NotUtf8(u64),
}

/// A record as a stream: `prefix`, then the bytes up to its end.
pub(super) struct LongRecord<'a> {
    prefix: &'a [u8],
    rest: &'a mut Bytes,
    ends: Ends,
    end: End,
    utf8: Utf8,
    fault: Option<RecordFault>,
}

impl<'a> LongRecord<'a> {
    fn new(prefix: &'a [u8], rest: &'a mut Bytes, ends: Ends) -> Self {
        Self { prefix, rest, ends, end: End::Open, utf8: Utf8::default(), fault: None }
    }

    fn read_raw(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.prefix.is_empty() {
            return self.prefix.read(buffer);
        }
        if self.end != End::Open || buffer.is_empty() {
            return Ok(0);
        }
        let chunk = self.rest.fill_buf()?;
        let chunk = chunk.get(..buffer.len()).unwrap_or(chunk);
        if chunk.is_empty() {
            self.end = End::File;
            return Ok(0);
        }
        let found = self.ends.find(chunk);
        let n = found.map_or(chunk, |(at, _)| chunk.get(..at).unwrap_or(chunk)).read(buffer)?;
        self.end = found.map_or(End::Open, |(_, end)| end);
        self.rest.consume(n + usize::from(found.is_some()));
        Ok(n)
    }

    fn fail(&mut self, fault: RecordFault) -> std::io::Error {
        self.fault = Some(fault);
        std::io::Error::other("the record cannot be read")
    }
}

impl Read for LongRecord<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = match self.read_raw(buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.fail(RecordFault::Read(error))),
        };
        let checked =
            if n == 0 { self.utf8.finish() } else { self.utf8.feed(buffer.get(..n).unwrap_or_default()).map(|_| ()) };
        checked.map_err(|offset| self.fail(RecordFault::NotUtf8(offset)))?;
        Ok(n)
    }
}
