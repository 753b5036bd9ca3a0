//! The ring: activation rows in storage of fixed size, each written once and drawn once.

use crate::{ActivationBatch, Error, Result, Shuffle, TokenPos};
use candle_core::{DType, Device, Storage, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

/// Slots for activation rows, allocated once.
///
/// A row is copied into a free slot when it comes and out of it when it is drawn; between the two it does not move. Which rows are
/// resident is a list of slot numbers: a seeded draw takes a uniformly chosen one and puts the last in its place, so that each batch
/// is a uniform sample without replacement of the rows in the ring, and each row is drawn exactly once.
pub struct Ring {
    widths: Vec<usize>,
    /// For each hook `[slots, width]`.
    rows: Vec<Vec<f32>>,
    at: Vec<TokenPos>,
    tokens: Vec<u32>,
    resident: VecDeque<u32>,
    free: Vec<u32>,
    draw: Draw,
}

enum Draw {
    Uniform(Box<ChaCha8Rng>),
    FirstIn,
}

impl Ring {
    /// A ring of `slots` rows, one row being `widths[h]` numbers for each hook `h`.
    ///
    /// # Errors
    /// [`Error::Option`] for more slots than 32 bits can number, or none.
    pub fn new(widths: &[usize], slots: usize, shuffle: Shuffle) -> Result<Self> {
        let count = u32::try_from(slots).ok().filter(|n| *n > 0).ok_or_else(|| Error::Option {
            option: "n_batches_in_buffer",
            found: format!("a ring of {slots} rows"),
            expected: format!("between 1 and {} rows", u32::MAX),
        })?;
        let draw = match shuffle {
            Shuffle::Seeded(seed) => Draw::Uniform(Box::new(ChaCha8Rng::seed_from_u64(seed))),
            Shuffle::Unshuffled => Draw::FirstIn,
        };
        Ok(Self {
            widths: widths.to_vec(),
            rows: widths.iter().map(|width| vec![0.0; width * slots]).collect(),
            at: vec![TokenPos::default(); slots],
            tokens: vec![0; slots],
            resident: VecDeque::with_capacity(slots),
            free: (0..count).rev().collect(),
            draw,
        })
    }

    /// Rows in the ring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.resident.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resident.is_empty()
    }

    /// Free slots.
    #[must_use]
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// The rows in the ring, by address.
    pub fn resident(&self) -> impl Iterator<Item = TokenPos> {
        self.resident.iter().map(|&slot| self.at[slot as usize])
    }

    /// Copies rows of `batch`, from row `from` on, into free slots, and says how many there was room for.
    ///
    /// # Errors
    /// [`Error::BatchShape`] when the batch's tensors are not `[n, width]` with the ring's widths.
    pub fn push(&mut self, batch: &ActivationBatch, from: usize) -> Result<usize> {
        self.check(batch)?;
        let count = self.room().min(batch.len().saturating_sub(from));
        let slots = self.free.split_off(self.free.len() - count);
        // The free list is a stack: its end is the next slot.
        let slots: Vec<u32> = slots.into_iter().rev().collect();
        for ((tensor, stored), &width) in batch.rows.iter().zip(&mut self.rows).zip(&self.widths) {
            scatter(tensor, from, stored, &slots, width)?;
        }
        for (row, &slot) in (from..).zip(&slots) {
            self.at[slot as usize] = batch.at[row];
            self.tokens[slot as usize] = batch.tokens[row];
        }
        self.resident.extend(slots);
        Ok(count)
    }

    /// Takes `count` rows out, or all if there are fewer.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn draw(&mut self, count: usize) -> Result<ActivationBatch> {
        let slots: Vec<u32> = (0..count).map_while(|_| self.pick()).collect();
        let gather = |(stored, &width): (&Vec<f32>, &usize)| {
            let mut data = Vec::with_capacity(slots.len() * width);
            for &slot in &slots {
                data.extend_from_slice(&stored[slot as usize * width..][..width]);
            }
            Ok(Tensor::from_vec(data, (slots.len(), width), &Device::Cpu)?)
        };
        let rows = self.rows.iter().zip(&self.widths).map(gather).collect::<Result<_>>()?;
        let batch = ActivationBatch {
            rows,
            at: slots.iter().map(|&slot| self.at[slot as usize]).collect(),
            tokens: slots.iter().map(|&slot| self.tokens[slot as usize]).collect(),
        };
        self.free.extend(slots);
        Ok(batch)
    }

    fn pick(&mut self) -> Option<u32> {
        match &mut self.draw {
            Draw::FirstIn => self.resident.pop_front(),
            Draw::Uniform(_) if self.resident.is_empty() => None,
            // Drawn as u64, so that the sequence is the same on every platform.
            Draw::Uniform(rng) => {
                self.resident.swap_remove_back(rng.random_range(0..self.resident.len() as u64) as usize)
            }
        }
    }

    fn check(&self, batch: &ActivationBatch) -> Result<()> {
        let expected: Vec<[usize; 2]> = self.widths.iter().map(|&width| [batch.at.len(), width]).collect();
        let found: Vec<&[usize]> = batch.rows.iter().map(Tensor::dims).collect();
        if batch.tokens.len() != batch.at.len() || found != expected {
            return Err(Error::BatchShape { expected: format!("{expected:?}"), found: format!("{found:?}") });
        }
        Ok(())
    }
}

/// Copies rows `from..` of `tensor` `[n, width]` into the given slots.
fn scatter(tensor: &Tensor, from: usize, stored: &mut [f32], slots: &[u32], width: usize) -> Result<()> {
    // Nothing is copied here where the values already are contiguous f32 in main memory.
    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        unreachable!("the tensor was just brought to the CPU");
    };
    let rows = storage.as_slice::<f32>()?[layout.start_offset()..].chunks_exact(width.max(1)).skip(from);
    for (row, &slot) in rows.zip(slots) {
        stored[slot as usize * width..][..width].copy_from_slice(row);
    }
    Ok(())
}
