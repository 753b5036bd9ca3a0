//! Layouts that several kernels share, and the conversions to and from bf16.
//!
//! ```text
//! rows in f32       [k][row of the block]
//! columns in f32    [k][column]
//! columns in bf16   [pair of k][column][2]: a pair is a little-endian u32, the even k in its low half
//! ```

use super::{as_u32, as_u32_mut, bf16};
use crate::TILE_COLS;
use crate::matrix::MatrixRef;

/// Values of a row that are packed together: with four rows at a time, all that a cache line holds is used while it is there, also
/// where the rows' distance is a power of two and they compete for the same few places of the cache.
const PIECE: usize = 64;

/// Packs `rows` rows of width `k` as `[k][block_rows]`; rows that are missing are zeros.
pub(crate) fn rows_f32(x: &[f32], rows: usize, k: usize, block: &mut [f32], block_rows: usize) {
    if rows < block_rows {
        block.fill(0.0);
    }
    for_each_four(rows, k, |first, ks| {
        let x: [&[f32]; 4] = std::array::from_fn(|i| match first + i {
            row if row < rows => &x[row * k..][ks.clone()],
            _ => &[0.0; PIECE][..ks.len()],
        });
        transpose(x, &mut block[ks.start * block_rows + first..], block_rows);
    });
}

/// Packs `rows` rows of width `k`, rounded to bf16, as `[pair of k][block_rows]`; rows that are missing are zeros.
#[inline(always)]
pub(crate) fn rows_bf16(x: &[f32], rows: usize, k: usize, block: &mut [u32], block_rows: usize) {
    if rows < block_rows {
        block.fill(0);
    }
    for_each_four(rows, k, |first, ks| {
        let mut pairs = [[0f32; PIECE / 2]; 4];
        for (i, pairs) in pairs.iter_mut().enumerate().take(rows - first) {
            let (whole, last) = x[(first + i) * k..][ks.clone()].as_chunks::<2>();
            let pair = |a: f32, b: f32| f32::from_bits(u32::from(bf16::round(a)) | u32::from(bf16::round(b)) << 16);
            pairs.iter_mut().zip(whole).for_each(|(out, [a, b])| *out = pair(*a, *b));
            last.iter().for_each(|a| pairs[whole.len()] = pair(*a, 0.0));
        }
        let pairs = pairs.each_ref().map(|pairs| &pairs[..ks.len().div_ceil(2)]);
        let out = &mut block[ks.start / 2 * block_rows + first..];
        transpose(pairs, out, block_rows);
    });
}

/// Calls `each(first row, values of k)` for pieces of four rows; the last four may start before the end of those before.
#[inline(always)]
fn for_each_four(rows: usize, k: usize, mut each: impl FnMut(usize, std::ops::Range<usize>)) {
    for start in (0..k).step_by(PIECE) {
        for row in (0..rows).step_by(4) {
            each(row.min(rows.saturating_sub(4)), start..(start + PIECE).min(k));
        }
    }
}

/// Writes four runs of equal length side by side: value `j` of run `i` to `out[j * stride + i]`.
///
/// # Panics
/// If `out` is too short, or the stride less than 4.
#[inline(always)]
pub(crate) fn transpose<T: Bits>(x: [&[f32]; 4], out: &mut [T], stride: usize) {
    let len = x[0].len();
    assert!(stride >= 4 && x.iter().all(|x| x.len() == len));
    assert!(len == 0 || (len - 1).checked_mul(stride).and_then(|at| at.checked_add(4)).is_some_and(|n| n <= out.len()));
    let whole = len / 4 * 4;
    for j in (0..whole).step_by(4) {
        // SAFETY: `j + 4 <= len`, the length of every run.
        let quad = x.map(|x| unsafe { x.as_ptr().add(j).cast::<[f32; 4]>().read_unaligned() });
        for (i, values) in transpose_4x4(quad).into_iter().enumerate() {
            // SAFETY: `j + i < len`, and `out` was asserted to hold the four values of the last of them. `T` has the size of an f32, and any
            // bits are one.
            unsafe { out.as_mut_ptr().add((j + i) * stride).cast::<[f32; 4]>().write_unaligned(values) };
        }
    }
    for j in whole..len {
        out[j * stride..][..4].iter_mut().zip(x).for_each(|(out, x)| *out = T::of(x[j]));
    }
}

/// Four bytes: a value, or a pair of bf16 that was moved as if it were one.
///
/// # Safety
/// Has the size of an f32, and any bits are one.
pub(crate) unsafe trait Bits: Copy {
    /// The same bits.
    fn of(x: f32) -> Self;
}

// SAFETY: itself.
unsafe impl Bits for f32 {
    fn of(x: f32) -> Self {
        x
    }
}

// SAFETY: four bytes without a meaning.
unsafe impl Bits for u32 {
    fn of(x: f32) -> Self {
        x.to_bits()
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
        std::mem::transmute::<[__m128; 4], [[f32; 4]; 4]>([
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

/// Packs a panel of columns rounded to bf16; an odd last `k` is paired with zeros.
#[inline(always)]
pub(crate) fn columns_bf16(matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
    let lines = as_u32_mut(panel).as_chunks_mut::<TILE_COLS>().0;
    matrix.for_each_k(first, |k, values| {
        for (pair, value) in lines[k / 2].iter_mut().zip(values) {
            let value = u32::from(bf16::round(*value));
            *pair = if k.is_multiple_of(2) { value } else { *pair | value << 16 };
        }
    });
}

/// The lines of a panel of [`columns_bf16`].
pub(crate) fn as_pairs(panel: &[u8]) -> &[[u32; TILE_COLS]] {
    as_u32(panel).as_chunks::<TILE_COLS>().0
}

/// Widens lines of [`columns_bf16`].
#[inline(always)]
pub(crate) fn widen(pairs: &[[u32; TILE_COLS]], wide: &mut [[f32; TILE_COLS]]) {
    for ([even, odd], pairs) in wide.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
        for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
            *even = f32::from_bits(pair << 16);
            *odd = f32::from_bits(pair & 0xffff_0000);
        }
    }
}

/// Reads back a column of [`columns_bf16`].
pub(crate) fn unpack_bf16(panel: &[u8], col: usize, out: &mut [f32]) {
    let values = as_pairs(panel).iter().flat_map(|pairs| [pairs[col] as u16, (pairs[col] >> 16) as u16]);
    out.iter_mut().zip(values).for_each(|(out, value)| *out = bf16::widen(value));
}

/// Copies a `k` of a panel that is made of lines of f32.
pub(crate) fn copy_row_f32(from: &[u8], from_k: usize, to: &mut [u8], to_k: usize) {
    let bytes = TILE_COLS * size_of::<f32>();
    to[to_k * bytes..][..bytes].copy_from_slice(&from[from_k * bytes..][..bytes]);
}

/// Copies a `k` of a panel of [`columns_bf16`].
pub(crate) fn copy_row_bf16(from: &[u8], from_k: usize, to: &mut [u8], to_k: usize) {
    let to = &mut as_u32_mut(to).as_chunks_mut::<TILE_COLS>().0[to_k / 2];
    copy_halves(&as_pairs(from)[from_k / 2], from_k, to, to_k);
}

/// Copies the even or odd `k` of pairs to the even or odd `k` of others.
pub(crate) fn copy_halves(from: &[u32], from_k: usize, to: &mut [u32], to_k: usize) {
    let shift = |k: usize| 16 * (k % 2) as u32;
    let kept = !(0xffff << shift(to_k));
    for (to, from) in to.iter_mut().zip(from) {
        *to = *to & kept | (from >> shift(from_k) & 0xffff) << shift(to_k);
    }
}

/// Copies a column of a panel that is made of lines of [`TILE_COLS`] values of 4 bytes: one f32 or two bf16.
pub(crate) fn copy_column(from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
    let from = as_u32(from).as_chunks::<TILE_COLS>().0;
    let to = as_u32_mut(to).as_chunks_mut::<TILE_COLS>().0;
    from.iter().zip(to).for_each(|(from, to)| to[to_col] = from[from_col]);
}
