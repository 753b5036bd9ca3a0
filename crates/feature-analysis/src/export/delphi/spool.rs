//! The activations of a range of features while the text is read: on disk, 14 bytes each.

use super::LEAST;
use crate::Result;
use crate::export::ExportError;
use crate::export::scratch::{Scratch, Stream};
use crate::export::tokens::Tokens;
use activation_store::TokenPos;
use half::f16;
use std::ops::RangeInclusive;
use std::path::Path;
use tensor_files::{Dtype, stream_safetensors};

/// Row, position and feature in four bytes each, and the activation in two; little-endian.
const RECORD: usize = 14;

/// One range of features.
pub(super) struct Spool {
    pub(super) features: RangeInclusive<u32>,
    records: Stream<RECORD>,
    /// The largest of the numbers in the locations.
    largest: u32,
}

impl Spool {
    pub(super) fn new(features: RangeInclusive<u32>) -> Self {
        Self { features, records: Stream::default(), largest: 0 }
    }

    /// Takes an activation of a feature of the range on row `row` of the cache; `at` is for errors.
    pub(super) fn push(
        &mut self,
        scratch: &mut Scratch,
        row: u32,
        at: TokenPos,
        feature: u32,
        value: f32,
    ) -> Result<()> {
        // Not a number is not small.
        if value.abs() <= LEAST {
            return Ok(());
        }
        let rounded = f16::from_f32(value);
        if !rounded.is_finite() {
            return Err(ExportError::Value { feature, value, at, most: f16::MAX.to_f32() }.into());
        }
        let latent = feature - self.features.start();
        self.largest = self.largest.max(row).max(at.pos).max(latent);
        let mut record = [0; RECORD];
        for (bytes, number) in record.chunks_exact_mut(4).zip([row, at.pos, latent]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        record[12..].copy_from_slice(&rounded.to_le_bytes());
        self.records.push(scratch, &record)
    }

    pub(super) fn count(&self) -> u64 {
        self.records.count()
    }

    /// Writes the range's file into a folder.
    pub(super) fn write(self, scratch: &mut Scratch, folder: &Path, tokens: &mut Tokens) -> Result<()> {
        let Self { features, records, largest } = self;
        let path = folder.join(format!("{}_{}.safetensors", features.start(), features.end()));
        let narrow = largest <= u32::from(u16::MAX);
        let n = records.count() as usize;
        let tensors = [
            ("tokens", Dtype::I64, vec![tokens.rows, tokens.context]),
            ("locations", if narrow { Dtype::U16 } else { Dtype::U32 }, vec![n, 3]),
            ("activations", Dtype::F16, vec![n]),
        ];
        stream_safetensors(&path, &tensors, |out| {
            tokens.copy(out)?;
            records.each(scratch, |record| {
                let (numbers, _) = record[..12].as_chunks::<4>();
                // The low half comes first.
                numbers.iter().try_for_each(|number| out.write_all(&number[..if narrow { 2 } else { 4 }]))
            })?;
            records.each(scratch, |record| out.write_all(&record[12..]))
        })
    }
}
