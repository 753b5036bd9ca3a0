//! Softmax and the logarithm of its denominator.

use crate::parallel::{count_rows, for_rows};
use crate::simd::{Simd, entry, exp, fold, largest, map, total};
use crate::{Backend, Result};

/// Softmax of every row of `x`, `[rows, width]`: `e^(x - max) / sum e^(x - max)`, within `(6 + |x - max| / 2)` ulp.
///
/// A row of nothing but -inf becomes zeros, and so does one with a NaN or +inf: as in TransformerLens, whose patterns have zeros
/// where they would have NaN.
///
/// # Errors
/// [`Error::Length`](crate::Error::Length).
pub fn softmax_rows(backend: Backend, x: &mut [f32], width: usize) -> Result<()> {
    count_rows("rows of a softmax", x, width)?;
    for_rows(x, width, |_, x| softmax_serial(backend, x, width));
    Ok(())
}

entry! {
    /// Softmax of rows, serial.
    fn softmax_serial(x: &mut [f32], width: usize) = softmax_serial_on;
}

#[inline(always)]
fn softmax_serial_on<S: Simd>(s: S, x: &mut [f32], width: usize) {
    for x in x.chunks_exact_mut(width.max(1)) {
        softmax_row_on(s, x);
    }
}

/// -inf at the end of a row changes nothing: it adds zeros to the sum.
#[inline(always)]
fn softmax_row_on<S: Simd>(s: S, x: &mut [f32]) {
    let max = largest(s, x);
    if max == f32::NEG_INFINITY {
        return x.fill(0.0);
    }
    let total = exp_and_sum(s, x, s.splat(max));
    if total.is_nan() {
        return x.fill(0.0);
    }
    let inverse = s.splat(1.0 / total);
    map!(s, x, |x| x * inverse);
}

/// `x = e^(x - shift)`, and its sum in the order of [`sum`](crate::simd::sum).
#[inline(always)]
fn exp_and_sum<S: Simd>(s: S, x: &mut [f32], shift: S::V) -> f32 {
    let [mut a, mut b, mut c, mut d] = [s.splat(0.0); 4];
    let mut quads = x.chunks_exact_mut(4 * S::LANES);
    for x in &mut quads {
        let [p, q, r, t] = [0, 1, 2, 3].map(|i| s.load(&x[i * S::LANES..]) - shift);
        let (p, q, r, t) = (exp(s, p), exp(s, q), exp(s, r), exp(s, t));
        s.store(p, x);
        s.store(q, &mut x[S::LANES..]);
        s.store(r, &mut x[2 * S::LANES..]);
        s.store(t, &mut x[3 * S::LANES..]);
        (a, b, c, d) = (a + p, b + q, c + r, d + t);
    }
    let mut all = [a, b, c, d];
    for (sum, x) in all.iter_mut().zip(quads.into_remainder().chunks_mut(S::LANES)) {
        let y = exp(s, s.load_part(x, f32::NEG_INFINITY) - shift);
        s.store_part(y, x);
        *sum = *sum + y;
    }
    total(all)
}

entry! {
    /// Softmax of rows whose first one ends, but for -inf, at `end`, and each further one a value later; with the bits of
    /// [`softmax_serial`].
    pub(crate) fn softmax_causal(x: &mut [f32], width: usize, end: usize) = softmax_causal_on;
}

#[inline(always)]
fn softmax_causal_on<S: Simd>(s: S, x: &mut [f32], width: usize, end: usize) {
    for (i, x) in x.chunks_exact_mut(width.max(1)).enumerate() {
        let (x, rest) = x.split_at_mut((end + i).min(width));
        softmax_row_on(s, x);
        rest.fill(0.0);
    }
}

/// Values whose exponentials are summed in f32; the sums of such blocks are summed in f64.
const BLOCK: usize = 1024;

/// `log sum e^x`, within 2e-7 of its absolute value plus 2e-7. -inf for nothing and for nothing but -inf, NaN if there is one.
#[must_use]
pub fn log_sum_exp(backend: Backend, x: &[f32]) -> f64 {
    log_sum_exp_entry(backend, x)
}

entry! {
    fn log_sum_exp_entry(x: &[f32]) -> f64 = log_sum_exp_on;
}

#[inline(always)]
fn log_sum_exp_on<S: Simd>(s: S, x: &[f32]) -> f64 {
    let max = largest(s, x);
    if !max.is_finite() {
        return if x.iter().any(|x| x.is_nan()) { f64::NAN } else { f64::from(max) };
    }
    let shift = s.splat(max);
    let mut sum = 0.0;
    for block in x.chunks(BLOCK) {
        sum += f64::from(total(fold!(s, block, 0.0, f32::NEG_INFINITY, |sum, x| sum + exp(s, x - shift))));
    }
    sum.ln() + f64::from(max)
}
