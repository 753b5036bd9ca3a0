use super::Place;
use crate::{Error, Result};
use std::io::{BufRead, BufReader, Read};

/// Pickles above this are refused. Tensors lie outside the pickle; a state dict of 100,000 tensors needs 15 MB.
const MAX_PICKLE: u64 = 32 << 20;

/// A pickle's bytes as a stream, with the place for errors. Nothing is taken before it is known to be there.
pub(crate) struct Input<R> {
    stream: BufReader<R>,
    at: u64,
    len: u64,
    place: Place,
}

impl<R: Read> Input<R> {
    /// A stream of `len` bytes, of which a pickle may be only the start.
    pub(crate) fn new(stream: R, len: u64, place: Place) -> Self {
        Self { stream: BufReader::with_capacity(1 << 14, stream), at: 0, len: len.min(MAX_PICKLE), place }
    }

    /// Bytes consumed.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Names the pickle that starts here.
    pub(crate) fn enter(&mut self, part: &str) {
        self.place.part = part.into();
    }

    pub(crate) fn malformed(&self, reason: impl std::fmt::Display) -> Error {
        self.place.malformed(self.at, reason)
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.room(N as u64)?;
        self.stream.read_exact(&mut bytes).map_err(|source| Error::Io { path: self.place.path.clone(), source })?;
        self.at += N as u64;
        Ok(bytes)
    }

    pub(super) fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.room(len)?;
        let mut bytes = vec![0; len as usize];
        self.stream.read_exact(&mut bytes).map_err(|source| Error::Io { path: self.place.path.clone(), source })?;
        self.at += len;
        Ok(bytes)
    }

    pub(super) fn text(&mut self, len: u64) -> Result<String> {
        let bytes = self.bytes(len)?;
        String::from_utf8(bytes).map_err(|e| self.malformed(format_args!("a text is not UTF-8: {e}")))
    }

    /// Text up to the end of the line, which is short where it is honest: the name of a class or a module.
    pub(super) fn line(&mut self) -> Result<String> {
        const LONGEST: u64 = 512;
        let mut line = Vec::new();
        let limit = LONGEST.min(self.len.saturating_sub(self.at));
        let read = (&mut self.stream).take(limit).read_until(b'\n', &mut line);
        self.at += read.map_err(|source| Error::Io { path: self.place.path.clone(), source })? as u64;
        if line.pop() != Some(b'\n') {
            return Err(self.malformed("a name has no end"));
        }
        String::from_utf8(line).map_err(|e| self.malformed(format_args!("a name is not UTF-8: {e}")))
    }

    pub(super) fn room(&self, wanted: u64) -> Result<()> {
        let left = self.len.saturating_sub(self.at);
        if wanted <= left {
            Ok(())
        } else {
            Err(self.malformed(format_args!("{wanted} bytes are due, and {left} are left")))
        }
    }
}
