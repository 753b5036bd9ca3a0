//! The same operations composed of the tensor library's own, for tensors through which gradients are tracked: an operation on
//! slices is invisible to them. Slower, and with the rounding of other orders of addition.

use super::{Activation, Norm, NormKind};
use crate::Result;
use candle_core::{D, Device, Tensor};

pub(super) fn scale(norm: Norm, x: &Tensor) -> Result<Tensor> {
    Ok((centred(norm, x)?.sqr()?.mean_keepdim(D::Minus1)? + norm.eps)?.sqrt()?)
}

pub(super) fn normalize(norm: Norm, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    Ok(centred(norm, x)?.broadcast_div(scale)?)
}

fn centred(norm: Norm, x: &Tensor) -> Result<Tensor> {
    Ok(match norm.kind {
        NormKind::Layer => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        NormKind::Rms => x.clone(),
    })
}

pub(super) fn causal_mask_scaled(scores: &Tensor, divisor: f64) -> Result<Tensor> {
    let (queries, keys) = (scores.dim(D::Minus2)?, scores.dim(D::Minus1)?);
    let hidden = (0..queries).flat_map(|q| (0..keys).map(move |k| if k > q { f32::NEG_INFINITY } else { 0.0 }));
    let mask = Tensor::from_iter(hidden, &Device::Cpu)?.reshape((queries, keys))?;
    Ok((scores / divisor)?.broadcast_add(&mask)?)
}

/// For rows with at least one finite value.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
}

/// `cos` and `sin` are `[pos * d_head/2]` or longer.
pub(super) fn rotate(x: &Tensor, cos: &[f32], sin: &[f32]) -> Result<Tensor> {
    let (_, pos, _, d_head) = x.dims4()?;
    let half = d_head / 2;
    let angles = |of: &[f32]| Tensor::from_slice(&of[..pos * half], (1, pos, 1, half), &Device::Cpu);
    let (cos, sin) = (angles(cos)?, angles(sin)?);
    let (low, high) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
    let new_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let new_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
    Ok(Tensor::cat(&[new_low, new_high], 3)?)
}

pub(super) fn activation(act: Activation, x: &Tensor) -> Result<Tensor> {
    Ok(match act {
        Activation::GeluTanh => x.gelu()?,
        Activation::GeluErf => x.gelu_erf()?,
        Activation::Relu => x.relu()?,
        Activation::Silu => x.silu()?,
    })
}
