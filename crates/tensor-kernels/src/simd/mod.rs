//! Elementwise kernels, written once: a body that is generic over [`Simd`] is compiled for every set of instructions.
//!
//! ```text
//! entry! {
//!     /// `y = y + x`.
//!     pub(crate) fn add_row(x: &[f32], y: &mut [f32]) = add_row_on;
//! }
//!
//! #[inline(always)]
//! fn add_row_on<S: Simd>(s: S, x: &[f32], y: &mut [f32]) { .. }
//! ```
//! gives `add_row(backend, x, y)`. Bodies and everything they call are `#[inline(always)]`, so that they are compiled with the
//! instructions of the entry point that they end up in.
//!
//! The result of a lane depends on its value alone: the last, partial vector of a slice gives the same bits as a full one.

mod math;
mod portable;
mod rows;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::{Add, Div, Mul, Sub};

pub(crate) use math::{exp, phi, tanh};
pub(crate) use portable::Portable;
pub(crate) use rows::{fold, largest, map, sum, total, zip_map};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Proof that the processor has a set of instructions, and how its vectors come from and go to memory.
///
/// Values of the vector types exist only where such a proof was at hand, which is what makes their arithmetic safe.
pub(crate) trait Simd: Copy {
    /// Values of a vector.
    const LANES: usize;
    /// A vector of f32.
    type V: Vector;

    /// [`LANES`](Self::LANES).
    #[inline(always)]
    fn lanes(self) -> usize {
        Self::LANES
    }

    /// The same value in every lane.
    fn splat(self, x: f32) -> Self::V;

    /// The first [`LANES`](Self::LANES) values of a slice that has at least so many.
    fn load(self, x: &[f32]) -> Self::V;

    /// The values of a slice that has at most [`LANES`](Self::LANES), then `fill`.
    fn load_part(self, x: &[f32], fill: f32) -> Self::V;

    /// Writes the first [`LANES`](Self::LANES) values of a slice that has at least so many.
    fn store(self, v: Self::V, out: &mut [f32]);

    /// Writes all values of a slice that has at most [`LANES`](Self::LANES).
    fn store_part(self, v: Self::V, out: &mut [f32]);
}

/// A vector of f32. Products are fused with sums where the instructions are: one definition for a back end, not for all of them.
pub(crate) trait Vector:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// `self * b + c`.
    fn mul_add(self, b: Self, c: Self) -> Self;

    /// `c - self * b`.
    fn neg_mul_add(self, b: Self, c: Self) -> Self;

    /// `if self > other { self } else { other }`: `other` where one is NaN.
    fn max(self, other: Self) -> Self;

    /// `if self < other { self } else { other }`: `other` where one is NaN.
    fn min(self, other: Self) -> Self;

    /// Without its sign.
    fn abs(self) -> Self;

    /// With the sign of another.
    fn copy_sign(self, sign: Self) -> Self;

    /// `if self < limit { yes } else { no }`.
    fn if_below(self, limit: Self, yes: Self, no: Self) -> Self;

    /// The number whose bits are these, moved 23 places to the left: the low bits become the exponent.
    fn low_bits_as_exponent(self) -> Self;

    /// The sum of all lanes, the upper half added to the lower until one is left.
    fn sum(self) -> f32;

    /// The largest of all lanes that are no NaN; -inf if there is none.
    fn largest(self) -> f32;
}

/// Defines `fn name(backend, ..)`, which runs a generic body with the instructions of that back end.
///
/// A back end that this machine lacks is replaced by the next lower one that it has.
macro_rules! entry {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? = $body:path;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(backend: $crate::Backend, $($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512(s: $crate::simd::Avx512, $($arg: $ty),*) $(-> $out)? {
                    $body(s, $($arg),*)
                }
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx2,fma")]
                fn avx2(s: $crate::simd::Avx2, $($arg: $ty),*) $(-> $out)? {
                    $body(s, $($arg),*)
                }
                if let Some(s) = $crate::simd::Avx512::of(backend) {
                    // SAFETY: `s` is the proof that the processor has these instructions.
                    return unsafe { avx512(s, $($arg),*) };
                }
                if let Some(s) = $crate::simd::Avx2::of(backend) {
                    // SAFETY: `s` is the proof that the processor has these instructions.
                    return unsafe { avx2(s, $($arg),*) };
                }
            }
            let _ = backend;
            $body($crate::simd::Portable, $($arg),*)
        }
    };
}

pub(crate) use entry;
