//! The activations of a range of features while the text is read: on disk, 16 bytes each.

use crate::Result;
use crate::export::folder::io;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use tensor_files::AtomicFolder;

const RECORD: usize = 16;
const WHAT: &str = "activations on their way to disk";

/// A token on which a feature fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Firing {
    pub(super) row: u32,
    pub(super) pos: u32,
    pub(super) value: f32,
}

/// Files that follow each other, and the activations of their features.
pub(super) struct Spool {
    pub(super) files: Range<usize>,
    pub(super) features: Range<u32>,
    file: BufWriter<File>,
    count: usize,
}

impl Spool {
    pub(super) fn new(files: Range<usize>, features: Range<u32>, folder: &AtomicFolder) -> Result<Self> {
        Ok(Self { files, features, file: BufWriter::with_capacity(1 << 16, folder.scratch_file()?), count: 0 })
    }

    /// Takes an activation of a feature of the range.
    pub(super) fn push(&mut self, feature: u32, firing: Firing) -> Result<()> {
        self.count += 1;
        let mut record = [0; RECORD];
        let words = [feature, firing.row, firing.pos, firing.value.to_bits()];
        record.chunks_exact_mut(4).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
        self.file.write_all(&record).map_err(|source| io(WHAT, source))
    }

    pub(super) fn count(&self) -> u64 {
        self.count as u64
    }

    /// All of them again: for each feature of the range its own, by row and position.
    pub(super) fn read(self) -> Result<Vec<Vec<Firing>>> {
        let mut bytes = Vec::with_capacity(self.count * RECORD);
        let mut file = self.file.into_inner().map_err(|error| io(WHAT, error.into_error()))?;
        let mut all = || -> std::io::Result<()> {
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut bytes).map(drop)
        };
        all().map_err(|source| io(WHAT, source))?;
        let mut firings = vec![Vec::new(); self.features.len()];
        let (records, _) = bytes.as_chunks::<RECORD>();
        for record in records {
            let (words, _) = record.as_chunks::<4>();
            let word = |i: usize| u32::from_le_bytes(words[i]);
            let firing = Firing { row: word(1), pos: word(2), value: f32::from_bits(word(3)) };
            firings[(word(0) - self.features.start) as usize].push(firing);
        }
        Ok(firings)
    }
}
