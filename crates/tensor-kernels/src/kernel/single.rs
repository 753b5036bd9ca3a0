//! Shared by the kernels in single precision: everything but the innermost loop.
//!
//! [`InF32`] takes operands as they are. [`Widened`] rounds both to bf16 and then computes in f32: weights take half the memory and half
//! the bandwidth, and are widened a piece at a time while they are in the first-level cache, once for all rows of a cell.

use super::{Kernel, Part, as_f32, as_f32_mut, bf16, pack};
use crate::TILE_COLS;
use crate::matrix::MatrixRef;
use std::marker::PhantomData;

/// The innermost loop on some instruction set.
pub(crate) trait Single: Send + Sync + 'static + std::panic::RefUnwindSafe {
    /// `avx2 f32` ...
    const NAME: &'static str;
    /// `avx2 bf16 widened` ...
    const NAME_WIDENED: &'static str;
    /// Rows of a block, at least 4 (packing goes by fours).
    const ROWS: usize;

    /// Whether the machine can run it.
    fn is_available() -> bool;

    /// The first `rows` rows of a block: `sums = x w` if `first`, else `sums += x w`, with `x` `[k][ROWS]`, `w` `[k][TILE_COLS]`,
    /// `sums` `[ROWS, TILE_COLS]`. Each sum is one chain of multiply-adds from zero on in the order of `k`; then it is added.
    ///
    /// # Safety
    /// [`is_available`](Self::is_available).
    unsafe fn block(x: &[f32], w: &[f32], rows: usize, sums: &mut [f32], first: bool);

    /// Widens lines of pairs of bf16 to twice as many lines of f32.
    ///
    /// # Safety
    /// [`is_available`](Self::is_available).
    unsafe fn widen(pairs: &[[u32; TILE_COLS]], wide: &mut [[f32; TILE_COLS]]);
}

/// Values of `k` after which sums are parked: with 256, a panel fills the 32 KiB of a first-level cache, a block of rows streams
/// through it. 128 to 384 were equally fast.
const K_BLOCK: usize = 256;

/// Calls [`Single::block`] for every block of a part: `w` holds the lines of the part's `k` in `ks`.
fn each_block<S: Single>(part: &Part<'_>, ks: std::ops::Range<usize>, k: usize, w: &[f32], sums: &mut [f32]) {
    let blocks = as_f32(part.blocks).chunks_exact(k * S::ROWS);
    for (i, (x, sums)) in blocks.zip(sums.chunks_exact_mut(S::ROWS * TILE_COLS)).enumerate() {
        let rows = (part.rows - i * S::ROWS).min(S::ROWS);
        // SAFETY: kernels are handed out on machines that can run them only (`kernel::of`).
        unsafe { S::block(&x[ks.start * S::ROWS..ks.end * S::ROWS], w, rows, sums, ks.start == 0) };
    }
}

/// Single precision.
pub(crate) struct InF32<S>(pub PhantomData<S>);

impl<S: Single> Kernel for InF32<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn block_rows(&self) -> usize {
        S::ROWS
    }

    fn k_step(&self) -> usize {
        1
    }

    fn k_block(&self) -> usize {
        K_BLOCK
    }

    fn block_bytes(&self, k: usize) -> usize {
        k * S::ROWS * size_of::<f32>()
    }

    fn panel_bytes(&self, k: usize) -> usize {
        k * TILE_COLS * size_of::<f32>()
    }

    fn pack_rows(&self, x: &[f32], rows: usize, k: usize, block: &mut [u8]) {
        pack::rows_f32(x, rows, k, as_f32_mut(block), S::ROWS);
    }

    fn pack_columns(&self, matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
        let lines = as_f32_mut(panel).as_chunks_mut::<TILE_COLS>().0;
        matrix.for_each_k(first, |k, values| lines[k] = *values);
    }

    fn unpack_column(&self, panel: &[u8], col: usize, out: &mut [f32]) {
        let lines = as_f32(panel).as_chunks::<TILE_COLS>().0;
        out.iter_mut().zip(lines).for_each(|(out, values)| *out = values[col]);
    }

    fn copy_column(&self, from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
        pack::copy_column(from, from_col, to, to_col);
    }

    fn copy_row(&self, from: &[u8], from_k: usize, to: &mut [u8], to_k: usize) {
        pack::copy_row_f32(from, from_k, to, to_k);
    }

    fn multiply(&self, part: &Part<'_>, sums: &mut [f32]) {
        part.check(self, sums);
        let w = &as_f32(part.panel)[part.steps.start * TILE_COLS..part.steps.end * TILE_COLS];
        each_block::<S>(part, part.steps.clone(), part.k, w, sums);
    }
}

/// Operands rounded to bf16, computed in single precision: rows are stored as f32, columns as pairs of bf16.
pub(crate) struct Widened<S>(pub PhantomData<S>);

impl<S: Single> Kernel for Widened<S> {
    fn name(&self) -> &'static str {
        S::NAME_WIDENED
    }

    fn block_rows(&self) -> usize {
        S::ROWS
    }

    fn k_step(&self) -> usize {
        2
    }

    fn k_block(&self) -> usize {
        K_BLOCK / 2
    }

    fn block_bytes(&self, k: usize) -> usize {
        k.next_multiple_of(2) * S::ROWS * size_of::<f32>()
    }

    fn panel_bytes(&self, k: usize) -> usize {
        k.div_ceil(2) * TILE_COLS * size_of::<u32>()
    }

    fn pack_rows(&self, x: &[f32], rows: usize, k: usize, block: &mut [u8]) {
        let (block, past) = as_f32_mut(block).split_at_mut(k * S::ROWS);
        pack::rows_f32(x, rows, k, block, S::ROWS);
        block.iter_mut().for_each(|x| *x = bf16::widen(bf16::round(*x)));
        past.fill(0.0);
    }

    fn pack_columns(&self, matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
        pack::columns_bf16(matrix, first, panel);
    }

    fn unpack_column(&self, panel: &[u8], col: usize, out: &mut [f32]) {
        pack::unpack_bf16(panel, col, out);
    }

    fn copy_column(&self, from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
        pack::copy_column(from, from_col, to, to_col);
    }

    fn copy_row(&self, from: &[u8], from_k: usize, to: &mut [u8], to_k: usize) {
        pack::copy_row_bf16(from, from_k, to, to_k);
    }

    fn multiply(&self, part: &Part<'_>, sums: &mut [f32]) {
        part.check(self, sums);
        let mut wide = [[0f32; TILE_COLS]; K_BLOCK];
        let pairs = &pack::as_pairs(part.panel)[part.steps.clone()];
        // One piece for every call of the driver, whose steps are at most a block of `k`.
        for (i, pairs) in pairs.chunks(K_BLOCK / 2).enumerate() {
            let first = 2 * (part.steps.start + i * K_BLOCK / 2);
            // SAFETY: kernels are handed out on machines that can run them only (`kernel::of`).
            unsafe { S::widen(pairs, &mut wide) };
            let w = &wide.as_flattened()[..2 * pairs.len() * TILE_COLS];
            each_block::<S>(part, first..first + 2 * pairs.len(), part.k.next_multiple_of(2), w, sums);
        }
    }
}
