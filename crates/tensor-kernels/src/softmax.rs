//! Softmax and the logarithm of its denominator.

use crate::parallel::{count_rows, for_rows};
use crate::simd::{Simd, Vector, entry, exp, fold, largest, map};
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
    pub(crate) fn softmax_serial(x: &mut [f32], width: usize) = softmax_serial_on;
}

#[inline(always)]
fn softmax_serial_on<S: Simd>(s: S, x: &mut [f32], width: usize) {
    x.chunks_exact_mut(width.max(1)).for_each(|x| softmax_row_on(s, x));
}

/// -inf at the end of a row changes nothing: it adds zeros to the sum.
#[inline(always)]
pub(crate) fn softmax_row_on<S: Simd>(s: S, x: &mut [f32]) {
    let max = largest(s, x);
    if max == f32::NEG_INFINITY {
        return x.fill(0.0);
    }
    let shift = s.splat(max);
    map(s, x, |x| exp(s, x - shift));
    let [a, b, c, d] = fold(s, x, 0.0, 0.0, |sum, x| sum + x);
    let total = ((a + b) + (c + d)).sum();
    if total.is_nan() {
        return x.fill(0.0);
    }
    let inverse = s.splat(1.0 / total);
    map(s, x, |x| x * inverse);
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
    let mut total = 0.0;
    for block in x.chunks(BLOCK) {
        let [a, b, c, d] = fold(s, block, 0.0, f32::NEG_INFINITY, |sum, x| sum + exp(s, x - shift));
        total += f64::from(((a + b) + (c + d)).sum());
    }
    total.ln() + f64::from(max)
}
