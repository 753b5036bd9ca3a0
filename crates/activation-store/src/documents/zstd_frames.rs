//! A zstd file, frame by frame: windows of up to 2 GiB, each checked before a decoder takes memory for it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// The longest header of a frame: magic number, descriptor, window, dictionary, size.
const MAX_HEADER_BYTES: usize = 18;
const MAGIC: u32 = 0xfd2f_b528;
/// Largest window log that the zstd library decodes: `zstd --long=31`.
pub(super) const MAX_WINDOW_LOG: u32 = if usize::BITS == 64 { 31 } else { 30 };

/// A frame that needs a larger window than is allowed.
#[derive(Debug, thiserror::Error)]
#[error("its window is {window} bytes, allowed are {max}")]
pub(super) struct WindowTooLarge {
    pub(super) window: u64,
    pub(super) max: u64,
}

/// The decompressed bytes of all frames, one after another. Memory: the filled part of the current frame's window.
pub(super) struct ZstdFrames {
    max_window: u64,
    state: State,
}

enum State {
    /// Between two frames.
    Between(Peeked),
    Inside(Box<zstd::stream::read::Decoder<'static, Peeked>>),
    /// After an error.
    Over,
}

impl ZstdFrames {
    pub(super) fn new(file: BufReader<File>, max_window: u64) -> Self {
        let max_window = max_window.min(1 << MAX_WINDOW_LOG);
        Self { max_window, state: State::Between(Peeked { head: [0; MAX_HEADER_BYTES], at: 0, len: 0, inner: file }) }
    }
}

impl Read for ZstdFrames {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Ok(0),
                State::Between(mut bytes) => {
                    let head = bytes.peek()?;
                    if head.is_empty() {
                        return Ok(0);
                    }
                    if let Some(window) = window(head).filter(|window| *window > self.max_window) {
                        return Err(std::io::Error::other(WindowTooLarge { window, max: self.max_window }));
                    }
                    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame();
                    decoder.window_log_max(MAX_WINDOW_LOG)?;
                    self.state = State::Inside(Box::new(decoder));
                }
                State::Inside(mut decoder) => match decoder.read(buffer) {
                    Ok(0) => self.state = State::Between(decoder.finish()),
                    Ok(n) => {
                        self.state = State::Inside(decoder);
                        return Ok(n);
                    }
                    Err(error) => {
                        if error.kind() == std::io::ErrorKind::Interrupted {
                            self.state = State::Inside(decoder);
                        }
                        return Err(error);
                    }
                },
            }
        }
    }
}

/// A file of which some bytes were looked at before they are read.
struct Peeked {
    head: [u8; MAX_HEADER_BYTES],
    at: usize,
    len: usize,
    inner: BufReader<File>,
}

impl Peeked {
    /// What was looked at and not read.
    fn held(&self) -> &[u8] {
        self.head.get(self.at..self.len).unwrap_or_default()
    }

    /// The next bytes, as many as a header may have; fewer at the end of the file.
    fn peek(&mut self) -> std::io::Result<&[u8]> {
        self.head.copy_within(self.at..self.len, 0);
        (self.at, self.len) = (0, self.len - self.at);
        while self.len < MAX_HEADER_BYTES {
            match self.inner.read(self.head.get_mut(self.len..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(n) => self.len += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.held())
    }
}

impl Read for Peeked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Peeked {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.at < self.len { Ok(self.held()) } else { self.inner.fill_buf() }
    }

    fn consume(&mut self, n: usize) {
        if self.at < self.len {
            self.at += n;
        } else {
            self.inner.consume(n);
        }
    }
}

/// The window that a frame's header states: of a frame in one segment, the size of its content. `None` for a skippable frame, and for what
/// is no frame, which the decoder says better.
fn window(head: &[u8]) -> Option<u64> {
    let (magic, rest) = head.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) != MAGIC {
        return None;
    }
    let (&descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let &byte = rest.first()?;
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // The number of a dictionary takes 0, 1, 2 or 4 bytes, the size of the content 1, 2, 4 or 8.
    let rest = rest.get((1usize << (descriptor & 3)) >> 1..)?;
    match descriptor >> 6 {
        0 => rest.first().map(|byte| u64::from(*byte)),
        1 => rest.first_chunk().map(|bytes| u64::from(u16::from_le_bytes(*bytes)) + 256),
        2 => rest.first_chunk().map(|bytes| u64::from(u32::from_le_bytes(*bytes))),
        _ => rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_of_a_header() {
        let head = |rest: &[u8]| window(&[&MAGIC.to_le_bytes()[..], rest].concat());
        assert_eq!(head(&[0x00, 0xa8]), Some(1 << 31));
        assert_eq!(head(&[0x00, 0xa9]), Some((1 << 31) + (1 << 28)));
        assert_eq!(head(&[0x04, 0x88, 0, 0]), Some(1 << 27), "with a checksum");
        assert_eq!(head(&[0x20, 17]), Some(17), "one segment");
        assert_eq!(head(&[0x61, 9, 1, 0]), Some(257), "one segment, a dictionary of one byte, a size of two");
        assert_eq!(head(&[0xa0, 0, 0, 0, 0xc0]), Some(3 << 30));
        assert_eq!(head(&[0xe0, 0, 0]), None, "cut off");
        assert_eq!(window(&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]), None, "skippable");
    }
}
