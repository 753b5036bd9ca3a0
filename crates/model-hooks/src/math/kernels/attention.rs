//! Attention between its projections, and the contributions of its heads.

use super::Kernels;
use super::value::{Axes, Value};
use crate::forward::pass::{BlockPass, Cached, PassResult};
use crate::math::AttentionSpec;
use crate::weights::Linear;
use crate::{Result, Site};
use candle_core::Tensor;
use rayon::prelude::*;
use tensor_kernels::{
    AttentionOptions, AttentionShape, AttentionTaps, KeyValues, MatrixRef, Store, attention_mix, attention_scores,
    product, softmax_rows,
};

/// As [`Math::attention`](crate::math::Math::attention). Scores and pattern are stored in memory only if they are tapped; then the three stages
/// run one by one, with the same bits.
pub(super) fn attention(
    kernels: &Kernels,
    at: &mut BlockPass<'_, '_>,
    [q, k, v]: [Value; 3],
    rule: AttentionSpec,
) -> PassResult<Value> {
    let arithmetic = kernels.arithmetic;
    let Axes { batch, pos, width: d_head, .. } = q.axes;
    let heads = |x: &Value| x.axes.heads.unwrap_or(1);
    let columns = at.stage().columns().clone();
    let mut shape = AttentionShape::new(batch, pos, heads(&q), heads(&k), d_head);
    if at.cached().is_some() {
        at.append([k.data()?, v.data()?])?;
    }
    if let Some(Cached::Packed(panels)) = at.cached() {
        (shape.keys, shape.room) = (columns.end(), panels.room());
    }
    let mut options = AttentionOptions::new(rule.divisor as f32);
    (options.softcap, options.window) = (rule.softcap.map(|cap| cap as f32), rule.window);
    options.kept_keys = columns.kept();
    if [Site::AttnScores, Site::Pattern].into_iter().all(|site| at.interest(site).is_none()) {
        let (q_data, k, v) = (q.data()?, held(at, &k)?, held(at, &v)?);
        let z = |z: &mut [f32]| {
            let taps = AttentionTaps::default();
            Ok(tensor_kernels::attention(arithmetic, &shape, &options, q_data, k, v, taps, z)?)
        };
        return Ok(Value::new(kernels, q.axes, z)?);
    }
    let square = Axes { batch, pos: heads(&q), heads: Some(pos), width: shape.keys };
    let (q_data, k) = (q.data()?, held(at, &k)?);
    let scores =
        Value::new(kernels, square, |out| Ok(attention_scores(arithmetic, &shape, &options, q_data, k, out)?))?;
    let mut scores = at.tap(Site::AttnScores, scores)?;
    softmax_rows(arithmetic.backend(), scores.data_mut()?, shape.keys)?;
    let pattern = at.tap(Site::Pattern, scores)?;
    let (pattern, v) = (pattern.data()?, held(at, &v)?);
    Ok(Value::new(kernels, q.axes, |z| Ok(attention_mix(arithmetic, &shape, pattern, v, z)?))?)
}

/// All keys that the queries may see: this run's own, or what the cache holds of them and of earlier ones. The same of values.
fn held<'v>(at: &'v BlockPass<'_, '_>, own: &'v Value) -> Result<KeyValues<'v>> {
    match at.cached() {
        Some(Cached::Packed(panels)) => Ok(KeyValues::Packed(panels)),
        _ => own.data().map(KeyValues::Plain),
    }
}

/// `z[h] W_O[h]` for each head. The rows of `W_O` are read back from its packed form, as the path's product sees them.
pub(super) fn result(kernels: &Kernels, z: &Value, w_o: &Linear<Kernels>) -> Result<Value> {
    let Axes { heads, width: d_head, .. } = z.axes;
    let (heads, d_model, tokens) = (heads.unwrap_or(1), w_o.w.n(), z.axes.tokens());
    let w: Tensor = super::Math::columns(kernels, &w_o.w, 0, d_model)?.t()?;
    let row = heads * d_head;
    let (mut x, mut out) = (kernels.space.floats(tokens * d_head), kernels.space.floats(tokens * d_model));
    let mut packed = kernels.borrow_rows(Axes { heads: None, ..z.axes });
    let z_data = z.data()?;
    Value::new(kernels, Axes { width: d_model, ..z.axes }, |result| {
        crate::ops::with_slice(&w, |w| {
            for head in 0..heads {
                let from = z_data.par_chunks_exact(row);
                x.par_chunks_exact_mut(d_head).zip(from).for_each(|(x, z)| {
                    x.copy_from_slice(&z[head * d_head..(head + 1) * d_head]);
                });
                packed.pack(kernels.arithmetic, &x, d_head)?;
                // `w` is W_O's transpose `[d_model, head * d_head]`.
                let w = MatrixRef::strided(&w[head * d_head..], d_head, d_model, 1, row)?;
                product(&packed, w, Store::new(&mut out, d_model, None)?)?;
                let to = result.par_chunks_exact_mut(heads * d_model).zip(out.par_chunks_exact(d_model));
                to.for_each(|(to, out)| to[head * d_model..(head + 1) * d_model].copy_from_slice(out));
            }
            Ok(())
        })
    })
}

/// `sum_h result[h] + b_O`.
pub(super) fn sum_heads(kernels: &Kernels, result: &Value, w_o: &Linear<Kernels>) -> Result<Value> {
    let d_model = result.axes.width;
    let data = result.data()?;
    Value::new(kernels, result.axes.with_width(d_model), |out| {
        let tokens = out.par_chunks_exact_mut(d_model).zip(data.par_chunks_exact(result.axes.row()));
        tokens.for_each(|(out, heads)| {
            out.fill(0.0);
            let add = |out: &mut [f32], x: &[f32]| out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
            heads.chunks_exact(d_model).for_each(|head| add(out, head));
            w_o.b.iter().for_each(|b| add(out, b));
        });
        Ok(())
    })
}
