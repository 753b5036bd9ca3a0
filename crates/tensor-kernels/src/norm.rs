//! Layer norm and RMS norm, in the two steps that have hook points: what rows are divided by, and the quotient.

use crate::parallel::{check_len, count_rows, for_row_pairs, for_rows};
use crate::simd::{Simd, Vector, entry, fold, sum, total, zip_map};
use crate::{Backend, Result};

/// A norm over rows.
///
/// ```text
/// scale      s = sqrt(mean((x - m)^2) + eps)      m = mean(x) for layer norm, 0 for RMS norm
/// normalized (x - m) / s                          as a product with 1 / s
/// ```
/// Two passes over the row, so that an offset costs no digits: the error of `s` is a few ulp of `s` and of `|m|`, that of the
/// quotient a few ulp of `max|x| / s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    centered: bool,
    eps: f32,
}

impl Norm {
    /// Layer norm, without gain and bias.
    #[must_use]
    pub fn layer(eps: f64) -> Self {
        Self { centered: true, eps: eps as f32 }
    }

    /// RMS norm, without gain.
    #[must_use]
    pub fn rms(eps: f64) -> Self {
        Self { centered: false, eps: eps as f32 }
    }

    /// `s` of one row.
    #[must_use]
    pub fn scale_row(self, backend: Backend, x: &[f32]) -> f32 {
        scale_row(backend, self, x)
    }

    /// `out = (x - m) / s` for one row; `s` may be another than the row's own.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn normalize_row(self, backend: Backend, x: &[f32], scale: f32, out: &mut [f32]) {
        normalize_row(backend, self, x, scale, out);
    }

    /// Both steps for one row, with the bits of one after the other; gives `s`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn row(self, backend: Backend, x: &[f32], out: &mut [f32]) -> f32 {
        norm_row(backend, self, x, out)
    }

    /// `s` of every row of `x`, `[rows, width]` into `[rows]`.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length).
    pub fn scale(self, backend: Backend, x: &[f32], width: usize, out: &mut [f32]) -> Result<()> {
        check_len("the scales of rows", count_rows("rows to normalize", x, width)?, out.len())?;
        for_row_pairs(x, width, out, 1, |_, x, out| {
            let rows = x.chunks_exact(width.max(1)).zip(out);
            rows.for_each(|(x, out)| *out = scale_row(backend, self, x));
        });
        Ok(())
    }

    /// `(x - m) / s` for every row of `x`, `[rows, width]`, with the scales `[rows]`.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length).
    pub fn normalize(self, backend: Backend, x: &[f32], width: usize, scale: &[f32], out: &mut [f32]) -> Result<()> {
        check_len("the scales of rows", count_rows("rows to normalize", x, width)?, scale.len())?;
        check_len("normalized rows", x.len(), out.len())?;
        for_row_pairs(x, width, out, width, |first, x, out| {
            let rows = x.chunks_exact(width.max(1)).zip(out.chunks_exact_mut(width.max(1)));
            rows.zip(&scale[first..]).for_each(|((x, out), scale)| normalize_row(backend, self, x, *scale, out));
        });
        Ok(())
    }

    /// Both steps for every row of `x`, `[rows, width]`.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length).
    pub fn rows(self, backend: Backend, x: &[f32], width: usize, out: &mut [f32]) -> Result<()> {
        count_rows("rows to normalize", x, width)?;
        check_len("normalized rows", x.len(), out.len())?;
        for_row_pairs(x, width, out, width, |_, x, out| {
            let rows = x.chunks_exact(width.max(1)).zip(out.chunks_exact_mut(width.max(1)));
            rows.for_each(|(x, out)| {
                norm_row(backend, self, x, out);
            });
        });
        Ok(())
    }

    #[inline(always)]
    fn mean_on<S: Simd>(self, s: S, x: &[f32]) -> f32 {
        if self.centered { sum(s, x) / x.len() as f32 } else { 0.0 }
    }

    #[inline(always)]
    fn scale_on<S: Simd>(self, s: S, x: &[f32], mean: f32) -> f32 {
        let m = s.splat(mean);
        let squares = fold!(s, x, 0.0, mean, |sum, x| (x - m).mul_add(x - m, sum));
        (total(squares) / x.len() as f32 + self.eps).sqrt()
    }
}

entry! {
    fn scale_row(norm: Norm, x: &[f32]) -> f32 = scale_row_on;
}

#[inline(always)]
fn scale_row_on<S: Simd>(s: S, norm: Norm, x: &[f32]) -> f32 {
    norm.scale_on(s, x, norm.mean_on(s, x))
}

entry! {
    fn normalize_row(norm: Norm, x: &[f32], scale: f32, out: &mut [f32]) = normalize_row_on;
}

#[inline(always)]
fn normalize_row_on<S: Simd>(s: S, norm: Norm, x: &[f32], scale: f32, out: &mut [f32]) {
    let (mean, inverse) = (s.splat(norm.mean_on(s, x)), s.splat(1.0 / scale));
    zip_map!(s, x, out, |x, _y| (x - mean) * inverse);
}

entry! {
    fn norm_row(norm: Norm, x: &[f32], out: &mut [f32]) -> f32 = norm_row_on;
}

#[inline(always)]
fn norm_row_on<S: Simd>(s: S, norm: Norm, x: &[f32], out: &mut [f32]) -> f32 {
    let mean = norm.mean_on(s, x);
    let scale = norm.scale_on(s, x, mean);
    let (mean, inverse) = (s.splat(mean), s.splat(1.0 / scale));
    zip_map!(s, x, out, |x, _y| (x - mean) * inverse);
    scale
}

/// `x = x * gain + bias` for one row, each part if there is one.
///
/// # Panics
/// If the lengths differ.
pub fn gain_and_bias_row(backend: Backend, x: &mut [f32], gain: Option<&[f32]>, bias: Option<&[f32]>) {
    match (gain, bias) {
        (None, None) => {}
        (Some(gain), None) => multiply_row(backend, gain, x),
        (None, Some(bias)) => crate::elementwise::add_row(backend, bias, x),
        (Some(gain), Some(bias)) => multiply_add_row(backend, gain, bias, x),
    }
}

/// `x = x * gain + bias` for every row of `x`, `[rows, width]`, each part if there is one.
///
/// # Errors
/// [`Error::Length`](crate::Error::Length).
pub fn scale_and_shift(
    backend: Backend,
    x: &mut [f32],
    width: usize,
    gain: Option<&[f32]>,
    bias: Option<&[f32]>,
) -> Result<()> {
    count_rows("rows to scale and shift", x, width)?;
    check_len("a gain", width, gain.map_or(width, <[f32]>::len))?;
    check_len("a bias", width, bias.map_or(width, <[f32]>::len))?;
    if gain.is_some() || bias.is_some() {
        for_rows(x, width, |_, x| {
            x.chunks_exact_mut(width.max(1)).for_each(|x| gain_and_bias_row(backend, x, gain, bias));
        });
    }
    Ok(())
}

entry! {
    /// `x = x * gain`.
    fn multiply_row(gain: &[f32], x: &mut [f32]) = multiply_row_on;
}

#[inline(always)]
fn multiply_row_on<S: Simd>(s: S, gain: &[f32], x: &mut [f32]) {
    zip_map!(s, gain, x, |gain, x| x * gain);
}

entry! {
    /// `x = x * gain + bias`.
    fn multiply_add_row(gain: &[f32], bias: &[f32], x: &mut [f32]) = multiply_add_row_on;
}

#[inline(always)]
fn multiply_add_row_on<S: Simd>(s: S, gain: &[f32], bias: &[f32], x: &mut [f32]) {
    assert!(gain.len() == x.len() && bias.len() == x.len(), "slices of equal length");
    let mut chunks = x.chunks_exact_mut(S::LANES);
    let (mut gains, mut biases) = (gain.chunks_exact(S::LANES), bias.chunks_exact(S::LANES));
    for ((x, gain), bias) in chunks.by_ref().zip(gains.by_ref()).zip(biases.by_ref()) {
        s.store(s.load(x).mul_add(s.load(gain), s.load(bias)), x);
    }
    let (x, gain, bias) = (chunks.into_remainder(), gains.remainder(), biases.remainder());
    if !x.is_empty() {
        s.store_part(s.load_part(x, 0.0).mul_add(s.load_part(gain, 0.0), s.load_part(bias, 0.0)), x);
    }
}
