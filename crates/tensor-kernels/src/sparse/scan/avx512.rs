//! Two vectors of sixteen.

use super::{Hit, Lanes, Rows, tests};
use crate::TILE_COLS;
use std::arch::x86_64::*;

/// See [`scan`](super::scan).
///
/// # Safety
/// The processor must have AVX-512 F, and `room` a place for every row.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn scan(tile: &Rows<'_>, room: &mut [Hit]) -> usize {
    // SAFETY: the caller's promise.
    unsafe { tests::run::<Two>(tile, room) }
}

/// Values in registers.
#[derive(Clone, Copy)]
struct Two(__m512, __m512);

impl Lanes for Two {
    #[inline(always)]
    unsafe fn load(from: &[f32; TILE_COLS]) -> Self {
        // SAFETY: 32 values are two vectors; loads may be unaligned.
        unsafe { Self(_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from.as_ptr().add(16))) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise.
        let value = unsafe { _mm512_set1_ps(value) };
        Self(value, value)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_add_ps(self.0, other.0), _mm512_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_mul_ps(self.0, other.0), _mm512_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn not_at_most(self, other: Self) -> u32 {
        // SAFETY: the caller's promise.
        let (a, b) = unsafe {
            (_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, other.0), _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.1, other.1))
        };
        u32::from(a) | u32::from(b) << 16
    }

    #[inline(always)]
    unsafe fn not_at_least(self, other: Self) -> u32 {
        // SAFETY: the caller's promise.
        let (a, b) = unsafe {
            (_mm512_cmp_ps_mask::<_CMP_NGE_UQ>(self.0, other.0), _mm512_cmp_ps_mask::<_CMP_NGE_UQ>(self.1, other.1))
        };
        u32::from(a) | u32::from(b) << 16
    }
}
