//! One attention layer over codes.

use super::{TemporalLayerParts, TemporalLinear, TemporalSae};
use crate::encoder::Encoder;
use crate::encoder::selection::Selection;
use crate::normalization::{check_finite, matrix};
use crate::{Error, Result};
use rayon::prelude::*;
use tensor_kernels::Engine;

/// Weights of a layer.
#[derive(Clone)]
pub(super) struct Layer {
    heads: usize,
    q: Encoder,
    k: Encoder,
    v: Encoder,
    o: Encoder,
}

impl Layer {
    pub(super) fn new(engine: Engine, parts: &TemporalLayerParts, heads: usize, d_sae: usize) -> Result<Self> {
        let width = parts.k.weight.dims().first().copied().unwrap_or_default();
        for (name, value) in [("width of queries and keys", width), ("d_sae", d_sae)] {
            if heads == 0 || value == 0 || value % heads != 0 {
                let expected = format!("a multiple of n_heads={heads}");
                return Err(Error::Parameter { name, expected, found: value.to_string() });
            }
        }
        Ok(Self {
            heads,
            q: linear(engine, "q_target", &parts.q, width, d_sae)?,
            k: linear(engine, "k_ctx", &parts.k, width, d_sae)?,
            v: linear(engine, "v_ctx", &parts.v, d_sae, d_sae)?,
            o: linear(engine, "c_proj", &parts.o, d_sae, d_sae)?,
        })
    }

    /// Codes predicted for each position of one row of tokens, of codes `[pos, d_sae]`.
    pub(super) fn predict(&self, sae: &TemporalSae, z: &[f32]) -> Result<Vec<f32>> {
        let d_sae = self.v.columns();
        let mut before = vec![0f32; z.len()];
        if let Some(rest) = z.len().checked_sub(d_sae) {
            before[d_sae..].copy_from_slice(&z[..rest]);
        }
        let q = sae.dense(&self.q, z, d_sae, |x| x)?;
        let k = sae.dense(&self.k, &before, d_sae, |x| x)?;
        let v = sae.dense(&self.v, &before, d_sae, |x| x)?;
        let mixed = self.attend(&q, &k, &v);
        sae.dense(&self.o, &mixed, d_sae, |x| x.max(0.0))
    }

    /// `softmax(q k^T / sqrt(d_head)) v` of each head, causal.
    fn attend(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let (width, d_sae) = (self.k.columns(), self.v.columns());
        let (d_key, d_value) = (width / self.heads, d_sae / self.heads);
        let mut out = vec![0f32; v.len()];
        out.par_chunks_exact_mut(d_sae).enumerate().for_each(|(at, out)| {
            for head in 0..self.heads {
                let query = &q[at * width + head * d_key..][..d_key];
                let score = |s: usize| {
                    let key = &k[s * width + head * d_key..][..d_key];
                    let dot = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
                    dot / (d_key as f64).sqrt()
                };
                let scores: Vec<f64> = (0..=at).map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let out = &mut out[head * d_value..][..d_value];
                for (s, weight) in weights.iter().enumerate() {
                    let (weight, value) = ((weight / sum) as f32, &v[s * d_sae + head * d_value..][..d_value]);
                    out.iter_mut().zip(value).for_each(|(out, v)| *out += weight * v);
                }
            }
        });
        out
    }
}

/// `x W^T + b` as a product.
fn linear(engine: Engine, name: &'static str, linear: &TemporalLinear, rows: usize, columns: usize) -> Result<Encoder> {
    let expected = vec![rows, columns];
    if linear.weight.dims() != expected {
        return Err(Error::Shape { name, expected, found: linear.weight.dims().to_vec() });
    }
    if linear.bias.len() != rows {
        return Err(Error::Shape { name, expected: vec![rows], found: vec![linear.bias.len()] });
    }
    check_finite(name, &linear.bias, rows)?;
    let weight = matrix(name, &linear.weight)?.contiguous()?;
    Encoder::new(engine, &weight.t()?, linear.bias.clone().into(), Selection::Relu)
}
