//! The non-linearities of the MLPs.

use super::{exp, map_rows, tracked, with_slice};
use crate::{Error, Result};
use candle_core::{Tensor, bail};
use rayon::prelude::*;

/// A non-linearity, under the names that configurations use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt 2))`
    GeluErf,
    /// `max(x, 0)`
    Relu,
    /// `x / (1 + e^-x)`
    Silu,
}

impl Activation {
    /// The names that [`parse`](Self::parse) knows.
    pub(crate) const KNOWN: &str = "gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu or swish";

    /// Hugging Face's name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Self::GeluTanh,
            "gelu" => Self::GeluErf,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            _ => return None,
        })
    }

    /// `act(x)`.
    pub(crate) fn apply(self, x: &Tensor) -> Result<Tensor> {
        if x.track_op() {
            return tracked::activation(self, x);
        }
        match self {
            Self::GeluTanh => map(x, gelu_tanh),
            Self::GeluErf => Ok(x.gelu_erf()?),
            Self::Relu => map(x, |x| if x < 0.0 { 0.0 } else { x }),
            Self::Silu => map(x, silu),
        }
    }

    /// `act(gate) * x`, the inside of a gated MLP.
    pub(crate) fn gate(self, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
        if gate.shape() != x.shape() {
            bail_shape(gate, x)?;
        }
        match self {
            Self::Silu if !gate.track_op() && !x.track_op() => zip(gate, x, |g, x| silu(g) * x),
            _ => Ok((self.apply(gate)? * x)?),
        }
    }
}

fn bail_shape(gate: &Tensor, x: &Tensor) -> candle_core::Result<()> {
    bail!("gate has shape {:?}, its partner {:?}", gate.shape(), x.shape())
}

/// Written with the logistic function, which has no cancellation: `0.5 (1 + tanh u) = 1 / (1 + e^-2u)`.
#[inline]
fn gelu_tanh(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769; // 2 sqrt(2/pi)
    x / (1.0 + exp(-TWICE_ROOT * x * (1.0 + 0.044_715 * x * x)))
}

#[inline]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

fn map(x: &Tensor, f: impl Fn(f32) -> f32 + Sync) -> Result<Tensor> {
    let cols = x.dims().last().copied().unwrap_or(1);
    map_rows(x, cols, |_, x, y| y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x)))
}

fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Tensor> {
    let mut out = vec![0f32; a.elem_count()];
    with_slice(a, |a| {
        with_slice(b, |b| {
            let parts = out.par_chunks_mut(super::MIN_PART);
            parts.zip(a.par_chunks(super::MIN_PART)).zip(b.par_chunks(super::MIN_PART)).for_each(|((y, a), b)| {
                y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = f(*a, *b));
            });
            Ok::<_, Error>(())
        })
    })?;
    Ok(Tensor::from_vec(out, a.shape(), a.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn oracle(act: Activation, x: f64) -> f64 {
        match act {
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
            }
            Activation::GeluErf => unreachable!("the tensor library's own"),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x / (1.0 + (-x).exp()),
        }
    }

    #[test]
    fn activations_equal_the_f64_oracle() {
        let xs: Vec<f32> = (-40_000..40_000).map(|i| i as f32 * 0.000_5).collect();
        let x = Tensor::from_slice(&xs, (400, 200), &Device::Cpu).unwrap();
        for act in [Activation::GeluTanh, Activation::Relu, Activation::Silu] {
            let y: Vec<f32> = act.apply(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            for (&x, &y) in xs.iter().zip(&y) {
                let right = oracle(act, f64::from(x));
                assert!((f64::from(y) - right).abs() <= 1e-7 + 5e-7 * right.abs(), "{act:?} {x}: {y} {right}");
            }
            let gated: Vec<f32> = act.gate(&x, &x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert!(gated.iter().zip(&xs).zip(&y).all(|((g, x), y)| *g == x * y));
        }
    }
}
