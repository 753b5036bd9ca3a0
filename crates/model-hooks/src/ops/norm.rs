//! Layer norm and RMS norm, in the two steps that have hook points: what they divide by, and the quotient.

use super::{map_rows, sum, tracked, with_slice};
use crate::Result;
use candle_core::Tensor;

/// Divisor of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// Centers, then divides by the root mean square.
    Layer,
    /// Divides by the root mean square.
    Rms,
}

/// The norm that a family uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norm {
    /// Its divisor.
    pub kind: NormKind,
    /// Added to the mean square.
    pub eps: f64,
}

impl Norm {
    /// `sqrt(mean((x - m)^2) + eps)` over the last axis, `[.., 1]`; `m` is the mean for layer norm, 0 for RMS norm.
    pub(crate) fn scale(self, x: &Tensor) -> Result<Tensor> {
        if x.track_op() {
            return tracked::scale(self, x);
        }
        map_rows(x, 1, |_, x, out| {
            let mean = self.mean(x);
            let square = sum(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
            out[0] = (square + self.eps as f32).sqrt();
        })
    }

    /// `(x - m) / scale`.
    pub(crate) fn normalize(self, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
        if x.track_op() || scale.track_op() {
            return tracked::normalize(self, x, scale);
        }
        let cols = x.dims().last().copied().unwrap_or(1);
        with_slice(scale, |scale| {
            map_rows(x, cols, |row, x, out| {
                let mean = self.mean(x);
                out.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) / scale[row]);
            })
        })
    }

    fn mean(self, x: &[f32]) -> f32 {
        match self.kind {
            NormKind::Layer => sum(x, |x| x) / x.len() as f32,
            NormKind::Rms => 0.0,
        }
    }
}

/// `x * w + b` over the last axis, each part if there is one (processing folds them away).
pub(crate) fn scale_and_shift(x: Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Result<Tensor> {
    let cols = x.dims().last().copied().unwrap_or(1);
    match (w, b) {
        (None, None) => Ok(x),
        (Some(w), b) if x.track_op() => scale_and_shift(x.broadcast_mul(w)?, None, b),
        (Some(w), None) => with_slice(w, |w| {
            map_rows(&x, cols, |_, x, y| y.iter_mut().zip(x).zip(w).for_each(|((y, x), w)| *y = x * w))
        }),
        (None, Some(b)) => Ok(x.broadcast_add(b)?),
        (Some(w), Some(b)) => with_slice(w, |w| {
            with_slice(b, |b| {
                map_rows(&x, cols, |_, x, y| {
                    y.iter_mut().zip(x).zip(w.iter().zip(b)).for_each(|((y, x), (w, b))| *y = x * w + b);
                })
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn norms_equal_the_f64_oracle() {
        for width in [1, 7, 8, 64, 771] {
            // An offset of 3 makes a one-pass variance lose digits.
            let x = (Tensor::randn(0f32, 2f32, (5, width), &Device::Cpu).unwrap() + 3.0).unwrap();
            for kind in [NormKind::Layer, NormKind::Rms] {
                let norm = Norm { kind, eps: 1e-5 };
                let scale = norm.scale(&x).unwrap();
                let y: Vec<Vec<f32>> = norm.normalize(&x, &scale).unwrap().to_vec2().unwrap();
                for (x, y) in x.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap().iter().zip(y) {
                    let n = x.len() as f64;
                    let mean = if kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
                    let scale = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
                    for (x, y) in x.iter().zip(y) {
                        assert!(((x - mean) / scale - f64::from(y)).abs() < 1e-4 / scale.min(1.0) * 1e-1);
                    }
                }
            }
        }
    }
}
