//! Four vectors of eight.

use super::{Hit, Lanes, Rows, tests};
use crate::TILE_COLS;
use std::arch::x86_64::*;

/// See [`scan`](super::scan).
///
/// # Safety
/// The processor must have AVX2, and `room` a place for every row.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn scan(tile: &Rows<'_>, room: &mut [Hit]) -> usize {
    // SAFETY: the caller's promise.
    unsafe { tests::run::<Four>(tile, room) }
}

/// Values in registers.
#[derive(Clone, Copy)]
struct Four([__m256; 4]);

impl Four {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
        let ([a, b, c, d], [e, g, h, i]) = (self.0, other.0);
        Self([f(a, e), f(b, g), f(c, h), f(d, i)])
    }

    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn bits(self) -> u32 {
        // SAFETY: the caller's promise.
        let [a, b, c, d] = self.0.map(|x| unsafe { _mm256_movemask_ps(x) } as u32);
        a | b << 8 | c << 16 | d << 24
    }
}

impl Lanes for Four {
    #[inline(always)]
    unsafe fn load(from: &[f32; TILE_COLS]) -> Self {
        // SAFETY: 32 values are four vectors; loads may be unaligned.
        unsafe {
            let at = from.as_ptr();
            Self([
                _mm256_loadu_ps(at),
                _mm256_loadu_ps(at.add(8)),
                _mm256_loadu_ps(at.add(16)),
                _mm256_loadu_ps(at.add(24)),
            ])
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { _mm256_set1_ps(value) }; 4])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        self.with(other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        self.with(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn not_at_most(self, other: Self) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.with(other, |a, b| _mm256_cmp_ps::<_CMP_NLE_UQ>(a, b)).bits() }
    }

    #[inline(always)]
    unsafe fn not_at_least(self, other: Self) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.with(other, |a, b| _mm256_cmp_ps::<_CMP_NGE_UQ>(a, b)).bits() }
    }
}
