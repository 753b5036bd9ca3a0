//! Layouts that several kernels share, and the conversions to and from bf16.
//!
//! ```text
//! rows in f32       [k][row of the block]
//! columns in f32    [k][column]
//! columns in bf16   [pair of k][column][2]: a pair is a little-endian u32, the even k in its low half
//! ```

use super::as_u32;
use crate::TILE_COLS;
use crate::matrix::MatrixRef;

/// Packs `rows` rows of width `k` as `[k][block_rows]`; rows that are missing are zeros.
pub(crate) fn rows_f32(x: &[f32], rows: usize, k: usize, block: &mut [f32], block_rows: usize) {
    if rows < block_rows {
        block.fill(0.0);
    }
    if rows < 4 {
        for (row, x) in x.chunks_exact(k.max(1)).enumerate() {
            block.chunks_exact_mut(block_rows).zip(x).for_each(|(values, x)| values[row] = *x);
        }
        return;
    }
    // Pieces of a cache line: its values are all used while it is there, whatever the distance of the rows.
    for start in (0..k).step_by(LINE) {
        let end = (start + LINE).min(k);
        let mut row = 0;
        while row < rows {
            // The last four rows may overlap those before: they are written twice.
            let first = row.min(rows - 4);
            let x: [&[f32]; 4] = std::array::from_fn(|i| &x[(first + i) * k + start..(first + i) * k + end]);
            transpose(x, &mut block[start * block_rows + first..], block_rows);
            row += 4;
        }
    }
}

/// Packs `rows` rows of width `k`, rounded to bf16, as `[pair of k][block_rows]`; rows that are missing are zeros.
pub(crate) fn rows_bf16(x: &[f32], rows: usize, k: usize, block: &mut [u32], block_rows: usize) {
    block.fill(0);
    for (row, x) in x.chunks_exact(k.max(1)).take(rows).enumerate() {
        for (values, pair) in block.chunks_exact_mut(block_rows).zip(x.chunks(2)) {
            values[row] = pair.iter().rev().fold(0, |pair, x| pair << 16 | u32::from(to_bf16(*x)));
        }
    }
}

/// Values of a cache line.
pub(crate) const LINE: usize = 16;

/// Writes four runs of equal length side by side: value `j` of run `i` to `out[j * stride + i]`.
pub(crate) fn transpose(x: [&[f32]; 4], out: &mut [f32], stride: usize) {
    let quads = x.map(|x| x.as_chunks::<4>());
    let whole = quads[0].0.len();
    for q in 0..whole {
        let [a, b, c, d] = transpose_4x4(quads.map(|x| x.0[q]));
        for (j, values) in [a, b, c, d].into_iter().enumerate() {
            out[(4 * q + j) * stride..][..4].copy_from_slice(&values);
        }
    }
    for j in 0..quads[0].1.len() {
        for i in 0..4 {
            out[(4 * whole + j) * stride + i] = quads[i].1[j];
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline(always)]
fn transpose_4x4(x: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    use std::arch::x86_64::*;
    // SAFETY: 16 bytes each, and every bit pattern is a value of both types; SSE2 is part of what this is compiled for.
    unsafe {
        let [a, b, c, d] = std::mem::transmute::<[[f32; 4]; 4], [__m128; 4]>(x);
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        std::mem::transmute([
            _mm_movelh_ps(ab, cd),
            _mm_movehl_ps(cd, ab),
            _mm_movelh_ps(ab_high, cd_high),
            _mm_movehl_ps(cd_high, ab_high),
        ])
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
#[inline(always)]
fn transpose_4x4(x: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    std::array::from_fn(|j| std::array::from_fn(|i| x[i][j]))
}

/// Rounds to the nearest bf16, ties to even; a NaN stays a NaN.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded }) as u16
}

/// The value of a bf16.
#[inline(always)]
pub(crate) fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// Packs a panel of columns rounded to bf16; an odd last `k` is paired with zeros.
pub(crate) fn columns_bf16(matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
    let lines = super::as_u32_mut(panel).as_chunks_mut::<TILE_COLS>().0;
    matrix.for_each_k(first, |k, values| {
        for (pair, value) in lines[k / 2].iter_mut().zip(values) {
            let value = u32::from(to_bf16(*value));
            *pair = if k.is_multiple_of(2) { value } else { *pair | value << 16 };
        }
    });
}

/// The lines of a panel of [`columns_bf16`].
pub(crate) fn as_pairs(panel: &[u8]) -> &[[u32; TILE_COLS]] {
    as_u32(panel).as_chunks::<TILE_COLS>().0
}

/// Reads back a column of [`columns_bf16`].
pub(crate) fn unpack_bf16(panel: &[u8], col: usize, out: &mut [f32]) {
    let values = as_pairs(panel).iter().flat_map(|pairs| [pairs[col] as u16, (pairs[col] >> 16) as u16]);
    out.iter_mut().zip(values).for_each(|(out, value)| *out = widen(value));
}

/// Copies a column of a panel that is made of lines of [`TILE_COLS`] values of 4 bytes, whatever the values are: one f32, two bf16.
pub(crate) fn copy_column(from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
    let from = as_u32(from).as_chunks::<TILE_COLS>().0;
    let to = super::as_u32_mut(to).as_chunks_mut::<TILE_COLS>().0;
    from.iter().zip(to).for_each(|(from, to)| to[to_col] = from[from_col]);
}
