//! Activations: rows packed for a back end, in memory that is reused from batch to batch.

use crate::buffer::Buffer;
use crate::scratch::{self, Slot};
use crate::{Arithmetic, Error, Result};
use rayon::prelude::*;
use std::fmt;

/// Blocks of rows that are packed by one task.
const BLOCKS_PER_TASK: usize = 8;

/// Rows of activations `[rows, k]` packed for one [`Arithmetic`]. Packed once, they can be multiplied with any number of matrices.
#[derive(Default)]
pub struct PackedRows {
    arithmetic: Arithmetic,
    rows: usize,
    k: usize,
    blocks: Buffer,
}

impl PackedRows {
    /// No rows; memory is taken by the first packing and kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Packs rows of width `k`, which lie one after another in `x`.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is no whole number of rows.
    pub fn pack(&mut self, arithmetic: Arithmetic, x: &[f32], k: usize) -> Result<()> {
        let rows = x.len().checked_div(k).unwrap_or(0);
        if rows * k != x.len() {
            return Err(Error::Length { what: "rows of activations", expected: rows * k, found: x.len() });
        }
        self.resize(arithmetic, rows, k)?;
        let block_rows = arithmetic.kernel().block_rows();
        self.for_each_block(|first, block| {
            let rows = block_rows.min(rows - first);
            arithmetic.kernel().pack_rows(&x[first * k..(first + rows) * k], rows, k, block);
        });
        Ok(())
    }

    /// Packs rows of width `k` that `write(row, out)` computes one by one, for instance a norm of another matrix's rows: they
    /// are never stored unpacked.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn pack_with(
        &mut self,
        arithmetic: Arithmetic,
        rows: usize,
        k: usize,
        write: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        self.resize(arithmetic, rows, k)?;
        let block_rows = arithmetic.kernel().block_rows();
        self.for_each_block(|first, block| {
            scratch::with(Slot::Operand, block_rows * k * size_of::<f32>(), |buffer| {
                let rows = block_rows.min(rows - first);
                let x = &mut buffer.as_mut_slice::<f32>()[..rows * k];
                x.chunks_exact_mut(k.max(1)).enumerate().for_each(|(i, x)| write(first + i, x));
                arithmetic.kernel().pack_rows(x, rows, k, block);
            });
        });
        Ok(())
    }

    fn resize(&mut self, arithmetic: Arithmetic, rows: usize, k: usize) -> Result<()> {
        let too_large = Error::TooLarge { rows, cols: k };
        let bound = k.max(64).checked_mul(rows.saturating_add(64)).and_then(|entries| entries.checked_mul(8));
        if bound.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(too_large);
        }
        let kernel = arithmetic.kernel();
        (self.arithmetic, self.rows, self.k) = (arithmetic, rows, k);
        self.blocks.reserve(kernel.block_bytes(k) * rows.div_ceil(kernel.block_rows()));
        Ok(())
    }

    /// Calls `pack(first row, block)` for every block, in parallel.
    fn for_each_block(&mut self, pack: impl Fn(usize, &mut [u8]) + Sync) {
        let kernel = self.arithmetic.kernel();
        let (block_rows, bytes) = (kernel.block_rows(), kernel.block_bytes(self.k));
        let blocks = &mut self.blocks.as_mut_slice::<u8>()[..bytes * self.rows.div_ceil(block_rows)];
        blocks.par_chunks_mut((BLOCKS_PER_TASK * bytes).max(1)).enumerate().for_each(|(task, blocks)| {
            for (i, block) in blocks.chunks_exact_mut(bytes.max(1)).enumerate() {
                pack((task * BLOCKS_PER_TASK + i) * block_rows, block);
            }
        });
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Width: the inner size of products.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// The arithmetic they are packed for.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Memory that so many rows of width `k` take.
    #[must_use]
    pub fn bytes_for(arithmetic: Arithmetic, rows: usize, k: usize) -> usize {
        let kernel = arithmetic.kernel();
        kernel.block_bytes(k).saturating_mul(rows.div_ceil(kernel.block_rows()))
    }

    /// Memory that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks.len()
    }

    /// The blocks of these rows, which start and (but for the last) end at whole blocks.
    pub(crate) fn blocks(&self, rows: std::ops::Range<usize>) -> &[u8] {
        let kernel = self.arithmetic.kernel();
        let (block_rows, bytes) = (kernel.block_rows(), kernel.block_bytes(self.k));
        &self.blocks.as_slice()[rows.start / block_rows * bytes..rows.end.div_ceil(block_rows) * bytes]
    }
}

impl fmt::Debug for PackedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedRows([{}, {}], {})", self.rows, self.k, self.arithmetic)
    }
}
