//! AVX-512: blocks of 12 rows by 32 columns, 24 of the 32 registers hold sums.

use super::pack;
use super::single::Single;
use crate::TILE_COLS;
use std::arch::x86_64::*;

/// 512-bit registers with fused multiply-adds.
pub(crate) struct Avx512;

/// Rows of a block.
pub(super) const ROWS: usize = 12;
/// Values of a register.
pub(super) const LANES: usize = 16;

impl Single for Avx512 {
    const NAME: &'static str = "avx512 f32";
    const NAME_WIDENED: &'static str = "avx512 bf16 widened";
    const ROWS: usize = ROWS;

    fn is_available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
    }

    unsafe fn block(x: &[f32], w: &[f32], rows: usize, sums: &mut [f32], first: bool) {
        // SAFETY: the caller promises that the machine has AVX-512.
        unsafe {
            match rows {
                1 => block::<1>(x, w, sums, first),
                2 => block::<2>(x, w, sums, first),
                3 => block::<3>(x, w, sums, first),
                4 => block::<4>(x, w, sums, first),
                5..=6 => block::<6>(x, w, sums, first),
                7..=8 => block::<8>(x, w, sums, first),
                9..=10 => block::<10>(x, w, sums, first),
                _ => block::<ROWS>(x, w, sums, first),
            }
        }
    }

    unsafe fn widen(pairs: &[[u32; TILE_COLS]], wide: &mut [[f32; TILE_COLS]]) {
        // SAFETY: as above.
        unsafe { widen(pairs, wide) }
    }
}

/// The first `M` rows of a block.
#[target_feature(enable = "avx512f")]
fn block<const M: usize>(x: &[f32], w: &[f32], sums: &mut [f32], first: bool) {
    let (x, w) = (x.as_chunks::<ROWS>().0, w.as_chunks::<TILE_COLS>().0);
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
    park(acc, sums, first);
}

/// Writes the sums of `M` rows, or adds them to what is there.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn park<const M: usize>(acc: [[__m512; 2]; M], sums: &mut [f32], first: bool) {
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

/// See [`pack::widen`].
#[target_feature(enable = "avx512f")]
fn widen(pairs: &[[u32; TILE_COLS]], wide: &mut [[f32; TILE_COLS]]) {
    pack::widen(pairs, wide);
}
