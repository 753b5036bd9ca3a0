//! Plain text: a file is a document, or each of its paragraphs is one.

use super::TextSplit;
use super::emit::{Cutter, Emitter, Stop, Utf8};
use super::files::{Bytes, Input};
use crate::{DocId, Place};
use std::io::BufRead;

pub(super) fn read(input: &Input, file: u32, split: TextSplit, out: &mut Emitter) -> Result<(), Stop> {
    let mut bytes = input.open()?;
    let mut utf8 = Utf8::default();
    let mut sink = match split {
        TextSplit::File => Sink::File(Cutter::new(DocId { file, ordinal: 0 })),
        TextSplit::BlankLines => Sink::Paragraphs(Paragraphs::new(file)),
    };
    // Offsets count from the start of the file; the byte order mark is skipped.
    let not_utf8 = |bytes: &Bytes, offset| input.not_utf8(Place::Byte(bytes.get_ref().mark + offset), String::new());
    loop {
        let n = match bytes.fill_buf() {
            Ok(chunk) => {
                let length = chunk.len();
                let text = utf8.feed(chunk);
                sink.push(text.map_err(|offset| not_utf8(&bytes, offset))?, out)?;
                length
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(input.read_error(error, &bytes).into()),
        };
        if n == 0 {
            break;
        }
        bytes.consume(n);
    }
    utf8.finish().map_err(|offset| not_utf8(&bytes, offset))?;
    sink.finish(out)
}

enum Sink {
    File(Cutter),
    Paragraphs(Paragraphs),
}

impl Sink {
    fn push(&mut self, text: &str, out: &mut Emitter) -> Result<(), Stop> {
        match self {
            Self::File(cutter) => cutter.push(text, out),
            Self::Paragraphs(paragraphs) => paragraphs.push(text, out),
        }
    }

    fn finish(self, out: &mut Emitter) -> Result<(), Stop> {
        match self {
            Self::File(cutter) => cutter.finish(out),
            Self::Paragraphs(mut paragraphs) => paragraphs.close(out),
        }
    }
}

/// Cuts a stream of text at blank lines. A paragraph is a longest run of lines that are not blank, without the last line's end.
struct Paragraphs {
    next: DocId,
    open: Option<Cutter>,
    /// Text that belongs to the paragraph only if it goes on: a line's end, and whitespace at the start of a line.
    held: String,
    /// Nothing but whitespace in this line so far.
    blank: bool,
}

impl Paragraphs {
    fn new(file: u32) -> Self {
        Self { next: DocId { file, ordinal: 0 }, open: None, held: String::new(), blank: true }
    }

    fn push(&mut self, text: &str, out: &mut Emitter) -> Result<(), Stop> {
        for part in text.split_inclusive('\n') {
            let line = part.strip_suffix('\n').unwrap_or(part);
            // What is held must stay bounded: a "blank" line longer than a piece counts as text.
            if line.is_empty() {
                // Nothing before the line's end, or nothing of it in this chunk.
            } else if self.blank && line.chars().all(char::is_whitespace) && self.held.len() <= out.max_piece_bytes {
                self.held.push_str(line);
            } else {
                self.text(line, out)?;
            }
            if line.len() < part.len() {
                if self.blank {
                    self.close(out)?;
                } else {
                    self.held.push('\n');
                    self.blank = true;
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, line: &str, out: &mut Emitter) -> Result<(), Stop> {
        self.blank = false;
        let next = &mut self.next;
        let cutter = self.open.get_or_insert_with(|| {
            let doc = *next;
            next.ordinal += 1;
            Cutter::new(doc)
        });
        let body = line.strip_suffix('\r').unwrap_or(line);
        cutter.push(&self.held, out)?;
        cutter.push(body, out)?;
        self.held.clear();
        self.held.push_str(&line[body.len()..]);
        Ok(())
    }

    fn close(&mut self, out: &mut Emitter) -> Result<(), Stop> {
        self.held.clear();
        self.blank = true;
        self.open.take().map_or(Ok(()), |cutter| cutter.finish(out))
    }
}
