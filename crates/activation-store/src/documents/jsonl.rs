//! JSON Lines: one object a line, one document in one of its fields.
//!
//! A line that fits into a piece is parsed whole ([`super::json_line`]); a longer one is parsed as it streams by
//! ([`super::json_stream`]), so that no line has to fit into memory.

use super::emit::{Emitter, Stop, Utf8};
use super::files::{Bytes, Input, skip_mark};
use super::{json_line, json_stream};
use crate::{DocId, Error, Place};
use std::io::{BufRead, Read};

/// What is wrong with a line; [`Fault::locate`] adds where.
pub(super) enum Fault {
    Syntax { column: u64, reason: String },
    Missing { found: Vec<String> },
    Repeated,
    WrongType(String),
    NotAToken { index: u64, found: String },
}

impl Fault {
    pub(super) fn locate(self, input: &Input, line: u64) -> Error {
        let (path, place, field) = (input.path.clone(), Place::Line(line), input.field.clone());
        match self {
            Self::Syntax { column, reason } => Error::Json { path, place, column, reason },
            Self::Missing { found } => {
                Error::MissingField { path, place, wanted: quoted(&[field]), found: quoted(&found) }
            }
            Self::Repeated => Error::RepeatedField { path, place, field },
            Self::WrongType(found) => input.wrong_type(place, found),
            Self::NotAToken { index, found } => Error::NotAToken { path, place, field, index, found },
        }
    }
}

/// Names for a message: the first few, shortened.
pub(super) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 12;
    let mut list: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{}`", name.as_ref().chars().take(40).collect::<String>()))
        .collect();
    if names.len() > SHOWN {
        list.push(format!("and {} more", names.len() - SHOWN));
    }
    if list.is_empty() { "no fields".into() } else { list.join(", ") }
}

pub(super) fn read(input: &Input, file: u32, out: &mut Emitter) -> Result<(), Stop> {
    let mut bytes = input.open()?;
    skip_mark(&mut bytes).map_err(|e| input.read_error(e, &bytes))?;
    let mut line = Vec::new();
    for ordinal in 0.. {
        line.clear();
        let longest = out.max_piece_bytes as u64 + 1;
        let n = (&mut bytes).take(longest).read_until(b'\n', &mut line).map_err(|e| input.read_error(e, &bytes))?;
        if n == 0 {
            break;
        }
        let doc = DocId { file, ordinal };
        if line.ends_with(b"\n") || (n as u64) < longest {
            whole(input, doc, &line, out)?;
        } else {
            let mut long = LongLine::new(&line, &mut bytes);
            let outcome = json_stream::read(&mut long, input, doc, out);
            let fault = long.fault;
            explain(input, ordinal + 1, fault, &bytes)?;
            outcome?;
        }
    }
    Ok(())
}

fn whole(input: &Input, doc: DocId, line: &[u8], out: &mut Emitter) -> Result<(), Stop> {
    let number = doc.ordinal + 1;
    let text = std::str::from_utf8(line)
        .map_err(|e| input.not_utf8(Place::Line(number), format!(", column {}", e.valid_up_to() + 1)))?;
    if text.bytes().all(|b| b.is_ascii_whitespace()) {
        return Ok(());
    }
    match json_line::parse(text, input).map_err(|fault| fault.locate(input, number))? {
        json_line::Document::Text(text) => out.text(doc, text),
        json_line::Document::Tokens(ids) => out.tokens(doc, &ids),
    }
}

/// The fields of the first line that is not blank, and the line's number.
///
/// # Errors
/// A file of nothing but blank lines; a first line that is not an object.
pub(super) fn first_fields(input: &Input) -> crate::Result<(u64, Vec<(String, json_stream::Type)>)> {
    let mut bytes = input.open()?;
    let skipped =
        skip_mark(&mut bytes).and_then(|()| skip_blank(&mut bytes)).map_err(|e| input.read_error(e, &bytes))?;
    let number = 1 + skipped.ok_or_else(|| Error::EmptyFile { path: input.path.clone() })?;
    let mut line = LongLine::new(&[], &mut bytes);
    let outcome = json_stream::fields(&mut line);
    let fault = line.fault;
    explain(input, number, fault, &bytes)?;
    outcome.map(|fields| (number, fields)).map_err(|fault| fault.locate(input, number))
}

/// Passes over whitespace; the number of line ends in it, or `None` where there is nothing else.
fn skip_blank(bytes: &mut Bytes) -> std::io::Result<Option<u64>> {
    let mut lines = 0;
    loop {
        let chunk = bytes.fill_buf()?;
        let length = chunk.len();
        let blank = chunk.iter().take_while(|b| b.is_ascii_whitespace()).count();
        lines += chunk[..blank].iter().filter(|b| **b == b'\n').count() as u64;
        bytes.consume(blank);
        if blank < length {
            return Ok(Some(lines));
        }
        if length == 0 {
            return Ok(None);
        }
    }
}

fn explain(input: &Input, line: u64, fault: Option<LineFault>, bytes: &Bytes) -> crate::Result<()> {
    match fault {
        None => Ok(()),
        Some(LineFault::Read(error)) => Err(input.read_error(error, bytes)),
        Some(LineFault::NotUtf8(offset)) => Err(input.not_utf8(Place::Line(line), format!(", column {}", offset + 1))),
    }
}

/// Why the bytes of a line stop: kept aside, because the JSON reader would wrap it beyond recognition.
enum LineFault {
    Read(std::io::Error),
    NotUtf8(u64),
}

/// The rest of one line as a stream: `prefix`, then the bytes up to the line's end.
pub(super) struct LongLine<'a> {
    prefix: &'a [u8],
    rest: &'a mut Bytes,
    over: bool,
    utf8: Utf8,
    fault: Option<LineFault>,
}

impl<'a> LongLine<'a> {
    fn new(prefix: &'a [u8], rest: &'a mut Bytes) -> Self {
        Self { prefix, rest, over: false, utf8: Utf8::default(), fault: None }
    }

    fn read_raw(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.prefix.is_empty() {
            return self.prefix.read(buffer);
        }
        if self.over || buffer.is_empty() {
            return Ok(0);
        }
        let chunk = self.rest.fill_buf()?;
        let chunk = &chunk[..chunk.len().min(buffer.len())];
        let end = chunk.iter().position(|b| *b == b'\n');
        let n = end.unwrap_or(chunk.len());
        buffer[..n].copy_from_slice(&chunk[..n]);
        self.over = end.is_some() || chunk.is_empty();
        self.rest.consume(n + usize::from(end.is_some()));
        Ok(n)
    }

    fn fail(&mut self, fault: LineFault) -> std::io::Error {
        self.fault = Some(fault);
        std::io::Error::other("the line cannot be read")
    }
}

impl Read for LongLine<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = match self.read_raw(buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.fail(LineFault::Read(error))),
        };
        let checked = if n == 0 { self.utf8.finish() } else { self.utf8.feed(&buffer[..n]).map(|_| ()) };
        checked.map_err(|offset| self.fail(LineFault::NotUtf8(offset)))?;
        Ok(n)
    }
}
