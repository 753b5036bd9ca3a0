//! The activations of a range of features while the text is read: on disk, 16 bytes each.

use crate::Result;
use crate::export::scratch::{Scratch, Stream};
use std::ops::Range;

const RECORD: usize = 16;

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
    records: Stream<RECORD>,
}

impl Spool {
    pub(super) fn new(files: Range<usize>, features: Range<u32>) -> Self {
        Self { files, features, records: Stream::default() }
    }

    /// Takes an activation of a feature of the range.
    pub(super) fn push(&mut self, scratch: &mut Scratch, feature: u32, firing: Firing) -> Result<()> {
        let mut record = [0; RECORD];
        let words = [feature, firing.row, firing.pos, firing.value.to_bits()];
        record.chunks_exact_mut(4).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
        self.records.push(scratch, &record)
    }

    pub(super) fn count(&self) -> u64 {
        self.records.count()
    }

    /// All of them again: for each feature of the range its own, by row and position.
    pub(super) fn read(self, scratch: &mut Scratch) -> Result<Vec<Vec<Firing>>> {
        let mut firings = vec![Vec::new(); self.features.len()];
        self.records.each(scratch, |record| {
            let (words, _) = record.as_chunks::<4>();
            let word = |i: usize| u32::from_le_bytes(words[i]);
            let firing = Firing { row: word(1), pos: word(2), value: f32::from_bits(word(3)) };
            firings[(word(0) - self.features.start) as usize].push(firing);
            Ok(())
        })?;
        Ok(firings)
    }
}
