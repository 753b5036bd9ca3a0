//! Rows and columns as tiles of bf16.

use super::{ROWS, STEP, TILE};
use crate::TILE_COLS;
use crate::kernel::pack::copy_halves;
use crate::kernel::{as_u32, as_u32_mut, bf16};
use crate::matrix::MatrixRef;

/// Two bf16 of one column or row, in memory order.
type Pair = [u8; 4];
/// A row of a tile: 32 values of a row, or 16 pairs, one of each column.
type Line = [u8; 64];

/// The bf16 parts of some values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn split<const P: usize, const N: usize>(x: &[f32; N]) -> [[u16; N]; P] {
    let mut parts = [[0; N]; P];
    for (i, &x) in x.iter().enumerate() {
        if P == 1 {
            parts[0][i] = bf16::round(x);
        } else {
            (parts[0][i], parts[1][i]) = bf16::split(x);
        }
    }
    parts
}

/// Packs up to 32 rows of width `k`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn rows<const P: usize>(x: &[f32], rows: usize, k: usize, block: &mut [u8]) {
    let lines = block.as_chunks_mut::<64>().0;
    for row in 0..ROWS {
        let x = if row < rows { &x[row * k..(row + 1) * k] } else { &[] };
        let (whole, rest) = x.as_chunks::<STEP>();
        let mut last = [0f32; STEP];
        last[..rest.len()].copy_from_slice(rest);
        for (step, lines) in lines.chunks_exact_mut(P * ROWS).enumerate() {
            let zeros = [0f32; STEP];
            let x = whole.get(step).unwrap_or(if step == whole.len() { &last } else { &zeros });
            for (part, values) in split::<P, STEP>(x).iter().enumerate() {
                let out = lines[part * ROWS + row].as_chunks_mut::<2>().0;
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value.to_ne_bytes());
            }
        }
    }
}

/// Packs a panel of columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn columns<const P: usize>(matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
    panel.fill(0);
    let lines = panel.as_chunks_mut::<64>().0;
    let mut even = [[0; TILE_COLS]; P];
    matrix.for_each_k(first, |k, values| {
        let mut odd = split(values);
        if k % 2 == 0 {
            (even, odd) = (odd, [[0; TILE_COLS]; P]);
        }
        if k % 2 == 1 || k + 1 == matrix.k() {
            let step = &mut lines[k / STEP * P * ROWS..][..P * ROWS];
            for part in 0..P {
                write_pairs(&even[part], &odd[part], &mut step[part * ROWS..][..ROWS], k % STEP / 2);
            }
        }
    });
}

/// Writes a pair of values of every column: a line of each of two tiles.
#[inline(always)]
fn write_pairs(even: &[u16; TILE_COLS], odd: &[u16; TILE_COLS], lines: &mut [Line], pair: usize) {
    for half in 0..2 {
        let values = even[half * 16..].iter().zip(&odd[half * 16..]);
        for (out, (even, odd)) in lines[half * 16 + pair].as_chunks_mut::<4>().0.iter_mut().zip(values) {
            let ([a, b], [c, d]) = (even.to_ne_bytes(), odd.to_ne_bytes());
            *out = [a, b, c, d];
        }
    }
}

/// Reads back a column: the sum of its parts.
pub(super) fn unpack_column<const P: usize>(panel: &[u8], col: usize, out: &mut [f32]) {
    let pairs = panel.as_chunks::<4>().0;
    for (k, out) in out.iter_mut().enumerate() {
        let part = |part: usize| {
            let [a, b, c, d] = pairs[pair_at((k / STEP * P + part) * 2, k % STEP / 2, col)];
            bf16::widen(u16::from_ne_bytes(if k % 2 == 0 { [a, b] } else { [c, d] }))
        };
        *out = if P == 1 { part(0) } else { part(0) + part(1) };
    }
}

/// Copies a column of a panel to a column of another.
pub(super) fn copy_column(from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
    let (from, to): (&[Pair], &mut [Pair]) = (from.as_chunks().0, to.as_chunks_mut().0);
    for tiles in (0..from.len() / (TILE / 4)).step_by(2) {
        for pair in 0..STEP / 2 {
            to[pair_at(tiles, pair, to_col)] = from[pair_at(tiles, pair, from_col)];
        }
    }
}

/// Copies a `k` of a panel to a `k` of another: a line of each of a step's tiles.
pub(super) fn copy_row<const P: usize>(from: &[u8], from_k: usize, to: &mut [u8], to_k: usize) {
    let (from, to) = (as_u32(from).as_chunks::<16>().0, as_u32_mut(to).as_chunks_mut::<16>().0);
    let line = |k: usize, tile: usize| (k / STEP * 2 * P + tile) * 16 + k % STEP / 2;
    for tile in 0..2 * P {
        copy_halves(&from[line(from_k, tile)], from_k, &mut to[line(to_k, tile)], to_k);
    }
}

/// Index in a panel of this pair of `k` of this column, in the two tiles from number `tiles` on.
fn pair_at(tiles: usize, pair: usize, col: usize) -> usize {
    (tiles + col / 16) * (TILE / 4) + pair * 16 + col % 16
}
