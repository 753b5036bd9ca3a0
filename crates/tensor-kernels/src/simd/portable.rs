//! Plain Rust: eight lanes, which compilers turn into the vectors that an architecture has.

use super::{Simd, Vector};
use std::ops::{Add, Div, Mul, Sub};

/// Needs no proof.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Eight values.
#[derive(Clone, Copy)]
pub(crate) struct F32x8([f32; 8]);

impl Simd for Portable {
    const LANES: usize = 8;
    type V = F32x8;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x8 {
        F32x8([x; 8])
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> F32x8 {
        F32x8(std::array::from_fn(|i| x[i]))
    }

    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> F32x8 {
        let mut lanes = [fill; 8];
        lanes[..x.len()].copy_from_slice(x);
        F32x8(lanes)
    }

    #[inline(always)]
    fn store(self, v: F32x8, out: &mut [f32]) {
        out[..8].copy_from_slice(&v.0);
    }

    #[inline(always)]
    fn store_part(self, v: F32x8, out: &mut [f32]) {
        out.copy_from_slice(&v.0[..out.len()]);
    }
}

impl F32x8 {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

macro_rules! operators {
    ($($trait:ident $name:ident $op:tt;)*) => {$(
        impl $trait for F32x8 {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                self.zip(other, |a, b| a $op b)
            }
        }
    )*};
}

operators! {
    Add add +;
    Sub sub -;
    Mul mul *;
    Div div /;
}

impl Vector for F32x8 {
    // Not fused: without the instruction, a fused product is a call of hundreds of cycles.
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        self * b + c
    }

    #[inline(always)]
    fn neg_mul_add(self, b: Self, c: Self) -> Self {
        c - self * b
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        self.zip(sign, f32::copysign)
    }

    #[inline(always)]
    fn if_below(self, limit: Self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < limit.0[i] { yes.0[i] } else { no.0[i] }))
    }

    #[inline(always)]
    fn low_bits_as_exponent(self) -> Self {
        Self(self.0.map(|x| f32::from_bits(x.to_bits() << 23)))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |largest, x| if x > largest { x } else { largest })
    }
}
