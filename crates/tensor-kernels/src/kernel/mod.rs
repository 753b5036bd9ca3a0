//! What a back end has to offer: packing, and the product of blocks of packed rows with a panel of packed columns.
//!
//! One file per kernel. Everything above this module is the same for all of them.

mod portable;

use crate::{Backend, Precision, TILE_COLS};
use std::ops::Range;

/// How one set of instructions multiplies.
///
/// `k` is counted in steps of [`k_step`](Self::k_step) values; the last step of a row or column is filled up with zeros, as are the last
/// block of rows and the last panel of columns.
///
/// ```text
/// packed rows     [row block][k step][..]      block_bytes(k) each
/// packed columns  [panel][k step][..]          panel_bytes(k) each
/// sums            [row][TILE_COLS] of f32
/// ```
pub(crate) trait Kernel: Send + Sync {
    /// For reports.
    fn name(&self) -> &'static str;

    /// Rows that are computed together.
    fn block_rows(&self) -> usize;

    /// Values of `k` that one step takes.
    fn k_step(&self) -> usize;

    /// Steps after which the sums are parked, so that the operands of so many steps stay in the first-level cache. Part of the
    /// definition of a product: it decides the order of the additions.
    fn k_block(&self) -> usize;

    /// Bytes of a block of rows of width `k`.
    fn block_bytes(&self, k: usize) -> usize;

    /// Bytes of a panel of [`TILE_COLS`] columns of height `k`.
    fn panel_bytes(&self, k: usize) -> usize;

    /// Packs up to [`block_rows`](Self::block_rows) rows: `x` holds `rows` rows of width `k`. Writes every byte of `block`.
    fn pack_rows(&self, x: &[f32], rows: usize, k: usize, block: &mut [u8]);

    /// Packs up to [`TILE_COLS`] columns of height `k`; `at(row of k, column)` reads. Writes every byte of `panel`.
    fn pack_columns(&self, at: &dyn Fn(usize, usize) -> f32, cols: usize, k: usize, panel: &mut [u8]);

    /// Reads back one column of a panel as the product sees it: exact for f32, rounded for bf16.
    fn unpack_column(&self, panel: &[u8], col: usize, out: &mut [f32]);

    /// `sums += rows x panel` over the given steps of `k` for every block of rows in `blocks`; `first` starts from zero instead.
    ///
    /// `blocks` holds whole blocks of `block_bytes(k)`, `panel` one panel, `sums` `[blocks * block_rows, TILE_COLS]` 64-byte aligned.
    fn multiply(&self, blocks: &[u8], panel: &[u8], k: usize, steps: Range<usize>, sums: &mut [f32], first: bool);
}

/// Whether this machine can run a back end.
pub(crate) fn is_available(backend: Backend) -> bool {
    matches!(backend, Backend::Portable)
}

/// The kernel of a back end that is available.
pub(crate) fn of(_backend: Backend, _precision: Precision) -> &'static dyn Kernel {
    &portable::F32
}

/// The bytes of a buffer as f32.
pub(crate) fn as_f32(bytes: &[u8]) -> &[f32] {
    // SAFETY: any bits are an f32; a misaligned start or odd end would land in the parts that are asserted to be empty.
    let (before, values, after) = unsafe { bytes.align_to::<f32>() };
    assert!(before.is_empty() && after.is_empty(), "packed operands are aligned");
    values
}

/// The bytes of a buffer as f32.
pub(crate) fn as_f32_mut(bytes: &mut [u8]) -> &mut [f32] {
    // SAFETY: as above, and any f32 is bytes.
    let (before, values, after) = unsafe { bytes.align_to_mut::<f32>() };
    assert!(before.is_empty() && after.is_empty(), "packed operands are aligned");
    values
}

const _: () = assert!(TILE_COLS == 32, "the kernels are written for panels of 32 columns");
