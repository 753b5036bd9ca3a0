//! Functions of a real number, on vectors. Polynomials are minimax fits in f64, rounded to f32.

use super::{Simd, Vector};

/// `1.5 * 2^23 + 127`: added to a small number it rounds it to an integer, and leaves that plus an exponent's bias in the low bits.
const ROUND: f32 = 12_583_039.0;
/// `ln 2 = LN_2_HIGH - LN_2_LOW`; a product of the first with any exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = 2.121_944_4e-4;

/// `a + x (b + x (c + ..))`.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut value = s.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        value = value.mul_add(x, s.splat(coefficients[i]));
    }
    value
}

/// `(e^r - 1, 2^n)` with `x = n ln 2 + r`, `|r| <= ln(2) / 2`, for `x` in `-88.3..=88.8`.
#[inline(always)]
fn exp_parts<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let shifted = x.mul_add(s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = shifted - s.splat(ROUND);
    let r = n.neg_mul_add(s.splat(LN_2_HIGH), x);
    let r = n.mul_add(s.splat(LN_2_LOW), r);
    // (e^r - 1 - r) / r^2
    let p = polynomial(s, r, [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_724, 0.001_381_458_4]);
    ((r * r).mul_add(p, r), shifted.low_bits_as_exponent())
}

/// `e^x` within 2 ulp where that is a normal number below `2.4e38`; beyond it infinity, below it 0 (or a few bits of a subnormal
/// number). NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // The limits come first: of a NaN and a limit, min and max keep the NaN.
    let x = s.splat(-88.3).max(s.splat(88.8).min(x));
    let (p, two_to_n) = exp_parts(s, x);
    (s.splat(1.0) + p) * two_to_n
}

/// `tanh x` within 4 ulp. NaN stays NaN.
///
/// With `e = e^2|x| - 1`, which keeps its digits where `x` is small, it is `e / (e + 2)`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // From 9.02 on it rounds to 1.
    let y = s.splat(10.0).min(x.abs());
    let (p, two_to_n) = exp_parts(s, y + y);
    let e = p.mul_add(two_to_n, two_to_n - s.splat(1.0));
    (e / (e + s.splat(2.0))).copy_sign(x)
}

/// The normal distribution function `(1 + erf(x / sqrt 2)) / 2` within 4 ulp for `x > -1`. Below, where it goes to 0, the exponent's
/// rounding adds up to `x^2 / 2` ulp of the small value. NaN stays NaN.
///
/// With `t = 1 / (1 + |x| / 4)`, the tail on the side of `x` is `e^(-x^2 / 2) P(t - 1/2)`.
#[inline(always)]
pub(crate) fn phi<S: Simd>(s: S, x: S::V) -> S::V {
    const P: [f32; 10] = [
        0.094_410_64,
        0.340_795_5,
        0.497_516_8,
        0.573_653_94,
        0.493_848,
        0.271_933_35,
        0.032_163_262,
        -0.084_193_61,
        -0.042_963_25,
        0.033_425_6,
    ];
    let one = s.splat(1.0);
    let t = one / x.abs().mul_add(s.splat(0.25), one);
    let tail = exp(s, (x * x) * s.splat(-0.5)) * polynomial(s, t - s.splat(0.5), P);
    x.if_below(s.splat(0.0), tail, one - tail)
}

#[cfg(test)]
mod tests {
    use super::{Simd, exp, tanh};
    use crate::Backend;
    use crate::simd::{entry, map};

    entry! {
        fn exps(x: &mut [f32]) = exps_on;
    }

    #[inline(always)]
    fn exps_on<S: Simd>(s: S, x: &mut [f32]) {
        map!(s, x, |x| exp(s, x));
    }

    entry! {
        fn tanhs(x: &mut [f32]) = tanhs_on;
    }

    #[inline(always)]
    fn tanhs_on<S: Simd>(s: S, x: &mut [f32]) {
        map!(s, x, |x| tanh(s, x));
    }

    /// Values of both signs over many scales.
    fn values(largest: f32) -> Vec<f32> {
        let positive = (0..200_000).map(|i| largest * (i as f32 / 200_000.0).powi(3) + 1e-30);
        positive.flat_map(|x| [x, -x]).collect()
    }

    /// The largest error in units of 2^-24 of the right value.
    fn worst(x: &[f32], y: &[f32], right: impl Fn(f64) -> f64) -> f64 {
        let errors = x.iter().zip(y).map(|(x, y)| (f64::from(*y) / right(f64::from(*x)) - 1.0).abs());
        errors.fold(0.0, f64::max) * 2f64.powi(24)
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for backend in Backend::available() {
            let x = values(87.3);
            let mut y = x.clone();
            exps(backend, &mut y);
            let worst = worst(&x, &y, f64::exp);
            println!("{backend}: {worst} half ulp");
            assert!(worst <= 4.0, "{backend}: {worst}");
            let inf = f32::INFINITY;
            let mut y = [0.0, -inf, -1000.0, 88.3, 89.0, inf, f32::NAN];
            exps(backend, &mut y);
            assert_eq!((y[0], y[1], y[2], y[4], y[5]), (1.0, 0.0, 0.0, inf, inf), "{backend}");
            assert!(y[3].is_finite() && y[6].is_nan(), "{backend}");
        }
    }

    #[test]
    fn tanh_is_within_four_ulp() {
        for backend in Backend::available() {
            let x = values(12.0);
            let mut y = x.clone();
            tanhs(backend, &mut y);
            let worst = worst(&x, &y, f64::tanh);
            println!("{backend}: {worst} half ulp");
            assert!(worst <= 8.0, "{backend}: {worst}");
            let mut y = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1e9, f32::NAN];
            tanhs(backend, &mut y);
            assert_eq!(y.map(f32::to_bits)[..5], [0.0, -0.0, 1.0, -1.0, 1.0f32].map(f32::to_bits), "{backend}");
            assert!(y[5].is_nan(), "{backend}");
        }
    }
}
