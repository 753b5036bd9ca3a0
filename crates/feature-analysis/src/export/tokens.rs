//! The rows of tokens of an export, on disk.

use super::ExportError;
use super::folder::io;
use crate::Result;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use tensor_files::AtomicFolder;

/// The rows of tokens, on disk: all of one length.
pub(crate) struct Tokens {
    file: BufWriter<File>,
    pub(crate) rows: usize,
    pub(crate) context: usize,
}

impl Tokens {
    pub(crate) fn new(folder: &AtomicFolder) -> Result<Self> {
        Ok(Self { file: BufWriter::new(folder.scratch_file()?), rows: 0, context: 0 })
    }

    /// Takes row `row` of the source.
    pub(crate) fn push(&mut self, row: u64, tokens: &[u32]) -> Result<()> {
        if self.rows == 0 {
            self.context = tokens.len();
        } else if tokens.len() != self.context {
            return Err(ExportError::Length { row, found: tokens.len(), expected: self.context }.into());
        }
        self.rows += 1;
        let write = |token: &u32| self.file.write_all(&i64::from(*token).to_le_bytes());
        tokens.iter().try_for_each(write).map_err(|source| io("tokens on their way to disk", source))
    }

    /// Writes all of them, as they lie there: row after row, eight bytes each.
    pub(crate) fn copy(&mut self, out: &mut dyn Write) -> Result<()> {
        let mut all = || -> std::io::Result<()> {
            self.file.flush()?;
            let file = self.file.get_mut();
            file.seek(SeekFrom::Start(0))?;
            std::io::copy(file, out).map(drop)
        };
        all().map_err(|source| io("tokens on their way to disk", source))
    }

    /// One of them again.
    pub(crate) fn read(&mut self, row: u32) -> Result<Vec<u32>> {
        let mut bytes = vec![0; self.context * size_of::<i64>()];
        let at = u64::from(row) * bytes.len() as u64;
        let mut all = || -> std::io::Result<()> {
            self.file.flush()?;
            let file = self.file.get_mut();
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut bytes)
        };
        all().map_err(|source| io("tokens on their way to disk", source))?;
        let (tokens, _) = bytes.as_chunks::<8>();
        Ok(tokens.iter().map(|token| i64::from_le_bytes(*token) as u32).collect())
    }
}
