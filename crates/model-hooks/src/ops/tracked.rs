//! The same operations composed of the tensor library's own, for tensors through which gradients are tracked: an operation on
//! slices is invisible to them. Slower, and with the rounding of other orders of addition.

use super::attention::seen;
use super::{Activation, Norm, NormKind};
use crate::Result;
use crate::families::angles::RopeTable;
use crate::forward::positions::Positions;
use crate::math::AttentionSpec;
use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape, Tensor};
use tensor_kernels::RopeLayout;

pub(super) fn scale(norm: Norm, x: &Tensor) -> Result<Tensor> {
    Ok((centered(norm, x)?.sqr()?.mean_keepdim(D::Minus1)? + norm.eps)?.sqrt()?)
}

pub(super) fn normalize(norm: Norm, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    Ok(centered(norm, x)?.broadcast_div(scale)?)
}

fn centered(norm: Norm, x: &Tensor) -> Result<Tensor> {
    Ok(match norm.kind {
        NormKind::Layer => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        NormKind::Rms => x.clone(),
    })
}

pub(super) fn masked_scores(scores: &Tensor, rule: AttentionSpec, columns: &Positions) -> Result<Tensor> {
    let (batch, _, queries, keys) = scores.dims4()?;
    let visible = |row: usize, q: usize, k: usize| {
        seen(rule, queries, keys, q).contains(&k) && columns.kept().is_none_or(|kept| kept[row * keys + k])
    };
    let mask = (0..batch).flat_map(|row| {
        (0..queries).flat_map(move |q| (0..keys).map(move |k| if visible(row, q, k) { 0.0 } else { f32::NEG_INFINITY }))
    });
    let mask = Tensor::from_iter(mask.collect::<Vec<_>>(), &Device::Cpu)?.reshape((batch, 1, queries, keys))?;
    let scores = (scores / rule.divisor)?;
    let scores = match rule.softcap {
        Some(cap) => ((scores / cap)?.tanh()? * cap)?,
        None => scores,
    };
    Ok(scores.broadcast_add(&mask)?)
}

/// A row of nothing but -inf becomes zeros, and passes no gradient on.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    let largest = x.detach().max_keepdim(D::Minus1)?.maximum(f64::from(f32::MIN))?;
    let e = x.broadcast_sub(&largest)?.exp()?;
    let sum = e.sum_keepdim(D::Minus1)?;
    // 1 for such a row, whose sum is 0; any other row's is at least 1.
    let nothing = sum.detach().eq(0f64)?.to_dtype(sum.dtype())?;
    Ok(e.broadcast_div(&(sum + nothing)?)?)
}

/// `x W` of rows `x` `[rows, n]`. The tensor library's own product would compute the gradient of `W` too, and keep it.
pub(super) fn product(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let y = x.detach().matmul(w)?;
    Ok(x.apply_op1(Product { y, w: w.clone() })?)
}

/// A product that has been computed, with what its gradient needs.
struct Product {
    y: Tensor,
    w: Tensor,
}

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.y.flatten_all()?.to_vec1()?), self.y.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        gradient.contiguous()?.matmul(&self.w.t()?).map(Some)
    }
}

pub(super) fn rotate(x: &Tensor, angles: &RopeTable, columns: &Positions) -> Result<Tensor> {
    let (batch, pos, heads, d_head) = x.dims4()?;
    let half = angles.d_rotary / 2;
    let places = || (0..batch).flat_map(|row| (0..pos).map(move |column| columns.position(row, column)));
    let table = |values: Vec<f32>| Tensor::from_vec(values, (batch, pos, 1, half), &Device::Cpu);
    let cos = table(places().flat_map(|position| angles.at(position).0.iter().copied()).collect())?;
    let sin = table(places().flat_map(|position| angles.at(position).1.iter().copied()).collect())?;
    let (turned, rest) = (x.narrow(3, 0, 2 * half)?, x.narrow(3, 2 * half, d_head - 2 * half)?);
    // The two of each pair, side by side along a new axis.
    let (pairs, axis) = match angles.pairs {
        RopeLayout::Interleaved => (turned.reshape((batch, pos, heads, half, 2))?, 4),
        _ => (turned.reshape((batch, pos, heads, 2, half))?, 3),
    };
    let (low, high) = (pairs.narrow(axis, 0, 1)?.squeeze(axis)?, pairs.narrow(axis, 1, 1)?.squeeze(axis)?);
    let new_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let new_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
    let turned = Tensor::stack(&[new_low, new_high], axis)?.reshape((batch, pos, heads, 2 * half))?;
    Ok(if 2 * half == d_head { turned } else { Tensor::cat(&[turned, rest], 3)? })
}

pub(super) fn activation(act: Activation, x: &Tensor) -> Result<Tensor> {
    Ok(match act {
        Activation::GeluTanh => x.gelu()?,
        Activation::GeluErf => x.gelu_erf()?,
        Activation::Relu => x.relu()?,
        Activation::Silu => x.silu()?,
    })
}
