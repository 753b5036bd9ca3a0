use crate::{Error, Result, open_regular};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// An opened file that is read at places, by any number of threads. Nothing is mapped and nothing is kept.
#[derive(Debug)]
pub(crate) struct Bytes {
    path: PathBuf,
    format: &'static str,
    file: Mutex<File>,
    len: u64,
}

impl Bytes {
    /// Opens `path`, to be read as `format` (a word for the errors).
    pub(crate) fn open(path: &Path, format: &'static str) -> Result<Self> {
        let io = |source| Error::Io { path: path.into(), source };
        let file = open_regular(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        Ok(Self { path: path.into(), format, file: Mutex::new(file), len })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { path: self.path.clone(), format: self.format, reason: reason.into() }
    }

    pub(crate) fn io(&self, source: std::io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }

    /// Fills `bytes` from a place in the file.
    pub(crate) fn read_at(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        // A poisoned lock only means that another reader panicked between seek and read; this one seeks anew.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(bytes)).map_err(|e| self.io(e))
    }

    /// A reader of `len` bytes from `at` on.
    pub(crate) fn section(&self, at: u64, len: u64) -> Section<'_> {
        Section { bytes: self, at, left: len }
    }
}

/// A part of a file as a stream.
pub(crate) struct Section<'a> {
    bytes: &'a Bytes,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let mut file = self.bytes.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.at))?;
        let read = (&mut *file).take(self.left).read(out)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
