//! AVX2 and FMA: blocks of 6 rows by 16 columns, half a panel; 12 of the 16 registers hold sums.

use super::pack;
use super::single::Single;
use crate::TILE_COLS;
use std::arch::x86_64::*;

/// 256-bit registers with fused multiply-adds.
pub(crate) struct Avx2;

/// Rows of a block.
const ROWS: usize = 6;
/// Values of a register.
const LANES: usize = 8;
/// Columns that are computed together.
const HALF: usize = 2 * LANES;

impl Single for Avx2 {
    const NAME: &'static str = "avx2 f32";
    const NAME_WIDENED: &'static str = "avx2 bf16 widened";
    const ROWS: usize = ROWS;

    fn is_available() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    unsafe fn block(x: &[f32], w: &[f32], rows: usize, sums: &mut [f32], first: bool) {
        for half in 0..TILE_COLS / HALF {
            // SAFETY: the caller promises that the machine has AVX2 and FMA.
            unsafe {
                match rows {
                    1 => block::<1>(x, w, half, sums, first),
                    2 => block::<2>(x, w, half, sums, first),
                    3 => block::<3>(x, w, half, sums, first),
                    4 => block::<4>(x, w, half, sums, first),
                    _ => block::<ROWS>(x, w, half, sums, first),
                }
            }
        }
    }

    unsafe fn widen(pairs: &[[u32; TILE_COLS]], wide: &mut [[f32; TILE_COLS]]) {
        // SAFETY: as above.
        unsafe { widen(pairs, wide) }
    }
}

/// The first `M` rows of one half of the columns.
#[target_feature(enable = "avx2,fma")]
fn block<const M: usize>(x: &[f32], w: &[f32], half: usize, sums: &mut [f32], first: bool) {
    let (x, w) = (x.as_chunks::<ROWS>().0, w.as_chunks::<TILE_COLS>().0);
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    for (x, w) in x.iter().zip(w) {
        let w: &[f32; HALF] = &w.as_chunks().0[half];
        // SAFETY: both registers of a half.
        let (w0, w1) = unsafe { (_mm256_loadu_ps(w.as_ptr()), _mm256_loadu_ps(w.as_ptr().add(LANES))) };
        for (acc, x) in acc.iter_mut().zip(x) {
            let x = _mm256_set1_ps(*x);
            acc[0] = _mm256_fmadd_ps(x, w0, acc[0]);
            acc[1] = _mm256_fmadd_ps(x, w1, acc[1]);
        }
    }
    for (acc, sums) in acc.iter().zip(sums.as_chunks_mut::<TILE_COLS>().0) {
        let sums: &mut [f32; HALF] = &mut sums.as_chunks_mut().0[half];
        for (acc, sums) in acc.iter().zip(sums.as_chunks_mut::<LANES>().0) {
            // SAFETY: eight values.
            unsafe {
                let new = if first { *acc } else { _mm256_add_ps(_mm256_loadu_ps(sums.as_ptr()), *acc) };
                _mm256_storeu_ps(sums.as_mut_ptr(), new);
            }
        }
    }
}

/// See [`pack::widen`].
#[target_feature(enable = "avx2,fma")]
fn widen(pairs: &[[u32; TILE_COLS]], wide: &mut [[f32; TILE_COLS]]) {
    pack::widen(pairs, wide);
}
