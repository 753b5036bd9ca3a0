//! The layouts that several kernels share: f32 rows `[k][block row]`, columns in lines of 32 values of 4 bytes.

use super::{as_f32, as_f32_mut};
use crate::TILE_COLS;
use crate::matrix::MatrixRef;

/// Packs up to `M` rows of width `k` as `[k][M]`.
pub(crate) fn rows_f32<const M: usize>(x: &[f32], rows: usize, k: usize, block: &mut [u8]) {
    for (step, values) in as_f32_mut(block).as_chunks_mut::<M>().0.iter_mut().enumerate() {
        for (row, value) in values.iter_mut().enumerate() {
            *value = if row < rows { x[row * k + step] } else { 0.0 };
        }
    }
}

/// Packs a panel of columns as `[k][TILE_COLS]`.
pub(crate) fn columns_f32(matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
    let lines = as_f32_mut(panel).as_chunks_mut::<TILE_COLS>().0;
    matrix.for_each_k(first, |k, values| lines[k] = *values);
}

/// Reads back a column of [`columns_f32`].
pub(crate) fn unpack_f32(panel: &[u8], col: usize, out: &mut [f32]) {
    for (out, values) in out.iter_mut().zip(as_f32(panel).as_chunks::<TILE_COLS>().0) {
        *out = values[col];
    }
}

/// Copies a column of a panel that is made of lines of [`TILE_COLS`] values of 4 bytes, whatever the values are: one f32, two bf16.
pub(crate) fn copy_column(from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
    let lines = from.as_chunks::<{ 4 * TILE_COLS }>().0.iter().zip(to.as_chunks_mut::<{ 4 * TILE_COLS }>().0);
    for (from, to) in lines {
        to.as_chunks_mut::<4>().0[to_col] = from.as_chunks::<4>().0[from_col];
    }
}
