//! Interface of a back end: packing, and the product of blocks of packed rows with a panel of packed columns.
//!
//! One file per kernel, AMX a folder. Everything above this module is the same for all of them.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
mod bf16;
#[cfg(all(test, unix))]
mod bounds_test;
mod pack;
mod portable;
mod single;

use crate::matrix::MatrixRef;
use crate::{Backend, Precision, TILE_COLS};
pub(crate) use pack::transpose;
use single::{InF32, Single, Widened};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::RefUnwindSafe;

/// Multiplication with one instruction set.
///
/// `k` is counted in steps of [`k_step`](Self::k_step) values; the last step of a row or column is filled up with zeros, as are the last
/// block of rows and the last panel of columns.
///
/// ```text
/// packed rows     [row block][k step][..]      block_bytes(k) each
/// packed columns  [panel][k step][..]          panel_bytes(k) each
/// sums            [row][TILE_COLS] of f32
/// ```
pub(crate) trait Kernel: Send + Sync + RefUnwindSafe {
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

    /// Packs the up to [`TILE_COLS`] columns of a matrix from column `first` on; [`MatrixRef::for_each_k`] reads them. Writes every
    /// byte of `panel`.
    fn pack_columns(&self, matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]);

    /// Reads back one column of a panel as the product sees it: exact for f32, rounded for bf16.
    fn unpack_column(&self, panel: &[u8], col: usize, out: &mut [f32]);

    /// Copies one column of a panel to a column of another, bit for bit.
    fn copy_column(&self, from: &[u8], from_col: usize, to: &mut [u8], to_col: usize);

    /// Copies one `k` of a panel, a value of each column, to a `k` of another panel, bit for bit.
    fn copy_row(&self, from: &[u8], from_k: usize, to: &mut [u8], to_k: usize);

    /// The product of a part's rows and columns over its steps: written to `sums` where the steps start at 0, else added to what
    /// is there. `sums` is `[whole blocks of rows, TILE_COLS]`, 64-byte aligned; rows past [`Part::rows`] may be written or not.
    ///
    /// Checks the lengths of all operands by [`Part::check`] before it relies on them.
    fn multiply(&self, part: &Part<'_>, sums: &mut [f32]);
}

/// Operands of [`Kernel::multiply`].
pub(crate) struct Part<'a> {
    /// Whole blocks of packed rows.
    pub blocks: &'a [u8],
    /// Number of rows: at most as many as `blocks` holds, more than all but its last block hold.
    pub rows: usize,
    /// One panel of packed columns.
    pub panel: &'a [u8],
    /// Inner size of the operands.
    pub k: usize,
    /// The steps of `k` to be summed.
    pub steps: Range<usize>,
}

impl Part<'_> {
    /// Checks that the operands are as long as the shape says and `sums` takes the result.
    ///
    /// # Panics
    /// If not: the driver is wrong.
    pub fn check(&self, kernel: &dyn Kernel, sums: &[f32]) {
        let block_rows = kernel.block_rows();
        let blocks = self.rows.div_ceil(block_rows);
        assert_eq!(self.blocks.len(), blocks * kernel.block_bytes(self.k), "blocks of packed rows");
        assert_eq!(self.panel.len(), kernel.panel_bytes(self.k), "a panel of packed columns");
        assert!(self.steps.start < self.steps.end && self.steps.end <= self.k.div_ceil(kernel.k_step()), "steps");
        assert_eq!(sums.len(), blocks * block_rows * TILE_COLS, "sums of whole blocks");
        assert!(sums.as_ptr().addr().is_multiple_of(64), "sums are aligned");
    }
}

/// Whether this machine can run a back end.
pub(crate) fn is_available(backend: Backend) -> bool {
    match backend {
        Backend::Portable => true,
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 => avx2::Avx2::is_available(),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512 => avx512::Avx512::is_available(),
        #[cfg(target_arch = "x86_64")]
        Backend::Amx => amx::is_available(),
        #[cfg(not(target_arch = "x86_64"))]
        _ => false,
    }
}

/// The kernel of a back end that is available.
pub(crate) fn of(backend: Backend, precision: Precision) -> &'static dyn Kernel {
    assert!(is_available(backend), "this machine has no {backend}");
    match (backend, precision) {
        #[cfg(target_arch = "x86_64")]
        (Backend::Amx, Precision::Bf16) => &amx::BF16,
        #[cfg(target_arch = "x86_64")]
        (Backend::Amx, Precision::F32Fast) => &amx::BF16X3,
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2, _) => single::<avx2::Avx2>(precision),
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512, Precision::Bf16) if avx512_bf16::is_fast() => &avx512_bf16::DotBf16,
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512 | Backend::Amx, _) => single::<avx512::Avx512>(precision),
        _ => single::<portable::Portable>(precision),
    }
}

/// The kernels that compute in single precision.
fn single<S: Single>(precision: Precision) -> &'static dyn Kernel {
    match precision {
        Precision::F32 | Precision::F32Fast => &InF32(PhantomData::<S>),
        Precision::Bf16 => &Widened(PhantomData::<S>),
    }
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

/// The bytes of a buffer as u32: pairs of bf16.
pub(crate) fn as_u32(bytes: &[u8]) -> &[u32] {
    // SAFETY: as above.
    let (before, values, after) = unsafe { bytes.align_to::<u32>() };
    assert!(before.is_empty() && after.is_empty(), "packed operands are aligned");
    values
}

/// The bytes of a buffer as u32: pairs of bf16.
pub(crate) fn as_u32_mut(bytes: &mut [u8]) -> &mut [u32] {
    // SAFETY: as above.
    let (before, values, after) = unsafe { bytes.align_to_mut::<u32>() };
    assert!(before.is_empty() && after.is_empty(), "packed operands are aligned");
    values
}

const _: () = assert!(TILE_COLS == 32, "the kernels are written for panels of 32 columns");
