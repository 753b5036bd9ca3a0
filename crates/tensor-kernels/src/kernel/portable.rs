//! Plain Rust: the kernel of machines without a better one. Products are rounded before they are added, so its results are the same
//! on every architecture.

use super::pack;
use super::single::Single;
use crate::TILE_COLS;

/// Plain Rust.
pub(crate) struct Portable;

/// Columns of a strip: with 6 rows its sums take 12 registers of 4 values, as many as SSE2 can spare.
const STRIP: usize = 8;
/// Rows of a block.
const ROWS: usize = 6;

impl Single for Portable {
    const NAME: &'static str = "portable f32";
    const NAME_WIDENED: &'static str = "portable bf16 widened";
    const ROWS: usize = ROWS;

    fn is_available() -> bool {
        true
    }

    unsafe fn block(x: &[f32], w: &[f32], rows: usize, sums: &mut [f32], first: bool) {
        for strip in 0..TILE_COLS / STRIP {
            match rows {
                1 => block::<1>(x, w, strip, sums, first),
                2..=3 => block::<3>(x, w, strip, sums, first),
                _ => block::<ROWS>(x, w, strip, sums, first),
            }
        }
    }

    unsafe fn widen(pairs: &[[u32; TILE_COLS]], wide: &mut [[f32; TILE_COLS]]) {
        pack::widen(pairs, wide);
    }
}

/// The first `M` rows of one strip of columns.
fn block<const M: usize>(x: &[f32], w: &[f32], strip: usize, sums: &mut [f32], first: bool) {
    let (x, w) = (x.as_chunks::<ROWS>().0, w.as_chunks::<TILE_COLS>().0);
    let mut acc = [[0f32; STRIP]; M];
    for (x, w) in x.iter().zip(w) {
        let w: [f32; STRIP] = w.as_chunks().0[strip];
        for (acc, x) in acc.iter_mut().zip(x) {
            for (acc, w) in acc.iter_mut().zip(w) {
                *acc += x * w;
            }
        }
    }
    for (acc, sums) in acc.iter().zip(sums.as_chunks_mut::<TILE_COLS>().0) {
        for (acc, sum) in acc.iter().zip(&mut sums.as_chunks_mut::<STRIP>().0[strip]) {
            *sum = if first { *acc } else { *sum + acc };
        }
    }
}
