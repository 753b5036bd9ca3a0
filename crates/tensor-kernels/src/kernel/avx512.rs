//! AVX-512: blocks of 12 rows by 32 columns, 24 of the 32 registers hold sums.

use super::{Kernel, Part, as_f32, pack};
use crate::TILE_COLS;
use crate::matrix::MatrixRef;
use std::arch::x86_64::*;

/// Rows of a block.
const MR: usize = 12;
/// Values of a register.
const LANES: usize = 16;

/// Whether the processor and the system have what the kernels use.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
}

/// Single precision.
pub(crate) static F32: Avx512F32 = Avx512F32;

/// See [`F32`].
pub(crate) struct Avx512F32;

impl Kernel for Avx512F32 {
    fn name(&self) -> &'static str {
        "avx512 f32"
    }

    fn block_rows(&self) -> usize {
        MR
    }

    fn k_step(&self) -> usize {
        1
    }

    fn k_block(&self) -> usize {
        256
    }

    fn block_bytes(&self, k: usize) -> usize {
        k * MR * size_of::<f32>()
    }

    fn panel_bytes(&self, k: usize) -> usize {
        k * TILE_COLS * size_of::<f32>()
    }

    fn pack_rows(&self, x: &[f32], rows: usize, k: usize, block: &mut [u8]) {
        pack::rows_f32::<MR>(x, rows, k, block);
    }

    fn pack_columns(&self, matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
        pack::columns_f32(matrix, first, panel);
    }

    fn unpack_column(&self, panel: &[u8], col: usize, out: &mut [f32]) {
        pack::unpack_f32(panel, col, out);
    }

    fn copy_column(&self, from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
        pack::copy_column(from, from_col, to, to_col);
    }

    fn multiply(&self, part: &Part<'_>, sums: &mut [f32]) {
        part.check(self, sums);
        let (x, w) = (as_f32(part.blocks), as_f32(part.panel));
        let steps = part.steps.len();
        for first_row in (0..part.rows).step_by(MR) {
            let x = &x[first_row * part.k + part.steps.start * MR..][..steps * MR];
            let w = &w[part.steps.start * TILE_COLS..][..steps * TILE_COLS];
            let sums = &mut sums[first_row * TILE_COLS..][..MR * TILE_COLS];
            // SAFETY: the kernel is only handed out where `is_available`.
            unsafe {
                match part.rows - first_row {
                    1 => block::<1>(x, w, sums, part.steps.start == 0),
                    2 => block::<2>(x, w, sums, part.steps.start == 0),
                    3..=4 => block::<4>(x, w, sums, part.steps.start == 0),
                    5..=8 => block::<8>(x, w, sums, part.steps.start == 0),
                    _ => block::<MR>(x, w, sums, part.steps.start == 0),
                }
            }
        }
    }
}

/// The first `M` rows of a block: `sums (+)= x w`, with `x` `[steps][MR]`, `w` `[steps][32]`.
#[target_feature(enable = "avx512f")]
fn block<const M: usize>(x: &[f32], w: &[f32], sums: &mut [f32], first: bool) {
    let (x, w) = (x.as_chunks::<MR>().0, w.as_chunks::<TILE_COLS>().0);
    let mut acc = [[_mm512_setzero_ps(); 2]; M];
    for (x, w) in x.iter().zip(w) {
        // SAFETY: both halves of a line of 32.
        let (w0, w1) = unsafe { (_mm512_loadu_ps(w.as_ptr()), _mm512_loadu_ps(w.as_ptr().add(LANES))) };
        for (acc, x) in acc.iter_mut().zip(x) {
            let x = _mm512_set1_ps(*x);
            acc[0] = _mm512_fmadd_ps(x, w0, acc[0]);
            acc[1] = _mm512_fmadd_ps(x, w1, acc[1]);
        }
    }
    for (acc, sums) in acc.iter().zip(sums.as_chunks_mut::<TILE_COLS>().0) {
        for (acc, sums) in acc.iter().zip(sums.as_chunks_mut::<LANES>().0) {
            // SAFETY: sixteen values.
            unsafe {
                let new = if first { *acc } else { _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), *acc) };
                _mm512_storeu_ps(sums.as_mut_ptr(), new);
            }
        }
    }
}
