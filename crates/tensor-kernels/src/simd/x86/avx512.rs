//! Vectors of 16.

use super::super::{Simd, Vector};
use crate::Backend;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

/// Proof that the processor has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, where a back end asks for it and the processor has it.
    #[inline]
    pub fn of(backend: Backend) -> Option<Self> {
        let found = backend >= Backend::Avx512
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }
}

/// Sixteen values; exists only where there is an [`Avx512`].
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

/// The lowest `n` of 16 lanes.
#[inline(always)]
fn lowest(n: usize) -> __mmask16 {
    assert!(n <= 16);
    ((1u32 << n) - 1) as __mmask16
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    type V = F32x16;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        // SAFETY: `self` proves the instructions.
        F32x16(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> F32x16 {
        let x = &x[..16];
        // SAFETY: 16 values are there; `self` proves the instructions.
        F32x16(unsafe { _mm512_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> F32x16 {
        // SAFETY: reads the lanes of the mask only, which are the slice's; `self` proves the instructions.
        F32x16(unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), lowest(x.len()), x.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, v: F32x16, out: &mut [f32]) {
        let out = &mut out[..16];
        // SAFETY: 16 values are there; `self` proves the instructions.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v.0) }
    }

    #[inline(always)]
    fn store_part(self, v: F32x16, out: &mut [f32]) {
        // SAFETY: writes the lanes of the mask only, which are the slice's; `self` proves the instructions.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), lowest(out.len()), v.0) }
    }
}

macro_rules! operators {
    ($($trait:ident $name:ident $intrinsic:ident;)*) => {$(
        impl $trait for F32x16 {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                // SAFETY: a vector exists only where the processor has the instructions.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}

operators! {
    Add add _mm512_add_ps;
    Sub sub _mm512_sub_ps;
    Mul mul _mm512_mul_ps;
    Div div _mm512_div_ps;
}

impl Vector for F32x16 {
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: a vector exists only where the processor has the instructions.
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn neg_mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_fnmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe {
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, self.0), _mm512_and_ps(bit, sign.0))
        })
    }

    #[inline(always)]
    fn if_below(self, limit: Self, yes: Self, no: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, limit.0), no.0, yes.0) })
    }

    #[inline(always)]
    fn low_bits_as_exponent(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0))) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
            let x = _mm512_max_ps(self.0, lowest);
            let eight = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
