//! Plain Rust.

use super::Lanes;
use crate::TILE_COLS;

/// Values in an array.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; TILE_COLS]);

impl Plain {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    /// The bits; nearly always none is set, which the compiler's vectors find out faster than which are.
    #[inline(always)]
    fn bits(self, other: Self, f: impl Fn(f32, f32) -> bool) -> u32 {
        let any = (0..TILE_COLS).fold(false, |any, i| any | f(self.0[i], other.0[i]));
        if any { (0..TILE_COLS).fold(0, |bits, i| bits | u32::from(f(self.0[i], other.0[i])) << i) } else { 0 }
    }
}

impl Lanes for Plain {
    #[inline(always)]
    unsafe fn load(from: &[f32; TILE_COLS]) -> Self {
        Self(*from)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; TILE_COLS])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }

    #[inline(always)]
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    unsafe fn not_at_most(self, other: Self) -> u32 {
        self.bits(other, |a, b| !(a <= b))
    }

    #[inline(always)]
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    unsafe fn not_at_least(self, other: Self) -> u32 {
        self.bits(other, |a, b| !(a >= b))
    }
}
