//! Steps that several families share, with the names of their hook points.

use super::angles::RotaryEmbedding;
use super::rope::Rope;
use crate::forward::pass::{BlockPass, PassResult};
use crate::math::{AttentionSpec, Math, NormAxis};
use crate::ops::{Activation, Norm};
use crate::weights::{BlockWeights, Linear, NormWeights};
use crate::{Interest, ModelShape, Site};
use candle_core::Error as TensorError;

/// From the stream to queries, keys and values `[batch, pos, head, d_head]`: the norm before attention, and three projections.
///
/// The inputs of single heads stand beside the path until one is edited; then every head of that projection has its own copy of the
/// norm, whose points still show the stream that was not split.
pub(super) fn qkv<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    w: &BlockWeights<M>,
    norm: Norm,
    shape: &ModelShape,
    resid_pre: &M::Value,
) -> PassResult<[M::Value; 3]> {
    let inputs = inputs(m, at, shape, resid_pre)?;
    let points = [at.point(Site::Ln1Scale), at.point(Site::Ln1Normalized)];
    let x = m.norm(at.stage(), points, norm, &w.ln1, resid_pre)?;
    project(m, at, w, shape, &x, &inputs, Some((norm, &w.ln1)))
}

/// As [`qkv`], for families that have no norm before attention.
pub(super) fn qkv_unnormed<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    w: &BlockWeights<M>,
    shape: &ModelShape,
    resid_pre: &M::Value,
) -> PassResult<[M::Value; 3]> {
    let inputs = inputs(m, at, shape, resid_pre)?;
    let x = m.rows(m.copy(resid_pre)?)?;
    project(m, at, w, shape, &x, &inputs, None)
}

/// The stream as each head's query, key and value read it, where an edit may have changed it: what `hook_attn_in` became goes into all
/// three.
fn inputs<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    shape: &ModelShape,
    resid_pre: &M::Value,
) -> PassResult<[Option<M::Value>; 3]> {
    let &ModelShape { n_heads, n_kv_heads, .. } = shape;
    let shared = input(m, at, Site::AttnIn, n_heads, resid_pre, None)?;
    Ok([
        input(m, at, Site::QInput, n_heads, resid_pre, shared.as_ref())?,
        input(m, at, Site::KInput, n_kv_heads, resid_pre, shared.as_ref())?,
        input(m, at, Site::VInput, n_kv_heads, resid_pre, shared.as_ref())?,
    ])
}

/// The stream once for each head; `None` where it is nothing but that.
fn input<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    site: Site,
    heads: usize,
    resid_pre: &M::Value,
    shared: Option<&M::Value>,
) -> PassResult<Option<M::Value>> {
    let interest = at.interest(site);
    if interest.is_none() && shared.is_none() {
        return Ok(None);
    }
    let each = shared.map_or_else(|| m.repeat_heads(resid_pre, heads), |shared| m.copy(shared))?;
    let each = at.tap(site, each)?;
    Ok((interest == Some(Interest::Edit) || shared.is_some()).then_some(each))
}

/// Queries, keys and values of `x`, or of the inputs of their heads.
fn project<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    w: &BlockWeights<M>,
    shape: &ModelShape,
    x: &M::Rows,
    inputs: &[Option<M::Value>; 3],
    norm: Option<(Norm, &NormWeights<M>)>,
) -> PassResult<[M::Value; 3]> {
    let &ModelShape { n_heads, n_kv_heads, .. } = shape;
    let of = |input: &Option<M::Value>, w: &Linear<M>, heads| match input {
        Some(input) => m.project_heads(norm, input, w),
        None => m.heads(x, w, heads),
    };
    let [q, k, v] = inputs;
    let q = at.tap(Site::Q, of(q, &w.q, n_heads)?)?;
    let k = at.tap(Site::K, of(k, &w.k, n_kv_heads)?)?;
    let v = at.tap(Site::V, of(v, &w.v, n_kv_heads)?)?;
    Ok([q, k, v])
}

/// The norms of queries and keys, over each head or over all heads of a token.
pub(super) fn qk_norm<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    w: &BlockWeights<M>,
    norm: Norm,
    over: NormAxis,
    [q, k]: [M::Value; 2],
) -> PassResult<[M::Value; 2]> {
    let points = [at.point(Site::QNormScale), at.point(Site::QNormNormalized)];
    let q = m.norm_value(at.stage(), points, norm, &w.q_norm, q, over)?;
    let points = [at.point(Site::KNormScale), at.point(Site::KNormNormalized)];
    let k = m.norm_value(at.stage(), points, norm, &w.k_norm, k, over)?;
    Ok([q, k])
}

/// Queries and keys, turned by the angles of their positions.
pub(super) fn rotate<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    (rope, angles): (&Rope, &RotaryEmbedding),
    [q, k]: [M::Value; 2],
) -> PassResult<[M::Value; 2]> {
    let columns = at.stage().columns().clone();
    let angles = angles.of_run(rope, &columns);
    let q = at.tap(Site::RotQ, m.rotate(q, &angles, &columns)?)?;
    let k = at.tap(Site::RotK, m.rotate(k, &angles, &columns)?)?;
    Ok([q, k])
}

/// From queries, keys and values to attention's output `z W_O + b_O`, which no tap has seen yet.
///
/// The contribution of each head alone is computed only if a tap captures it, beside the main path; if a tap edits it, the
/// edited contributions are summed instead.
pub(super) fn attention<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    w: &BlockWeights<M>,
    qkv: [M::Value; 3],
    rule: AttentionSpec,
) -> PassResult<M::Value> {
    let z = m.attention(at, qkv, rule)?;
    let z = at.tap(Site::Z, z)?;
    match at.interest(Site::Result) {
        Some(Interest::Edit) => {
            let result = at.tap(Site::Result, m.result(&z, &w.o)?)?;
            return Ok(m.sum_heads(result, &w.o)?);
        }
        Some(Interest::Watch) => drop(at.tap(Site::Result, m.result(&z, &w.o)?)?),
        None => {}
    }
    Ok(m.linear(&m.rows(z)?, &w.o)?)
}

/// The stream as the MLP reads it, normalized.
pub(super) fn mlp_input<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    w: &BlockWeights<M>,
    norm: Norm,
    resid: &M::Value,
) -> PassResult<M::Rows> {
    let points = [at.point(Site::Ln2Scale), at.point(Site::Ln2Normalized)];
    let [stream, input] = [Site::MlpIn, Site::MlpInput].map(|site| at.interest(site).is_some());
    if !stream && !input {
        return m.norm(at.stage(), points, norm, &w.ln2, resid);
    }
    let mlp_in = m.copy(resid)?;
    let mlp_in = if stream { at.tap(Site::MlpIn, mlp_in)? } else { mlp_in };
    if !input {
        return m.norm(at.stage(), points, norm, &w.ln2, &mlp_in);
    }
    let x = m.norm_value(at.stage(), points, norm, &w.ln2, mlp_in, NormAxis::Width)?;
    let x = at.tap(Site::MlpInput, x)?;
    Ok(m.rows(x)?)
}

/// `act(x W_in + b_in) W_out + b_out`, which no tap has seen yet.
pub(super) fn plain_mlp<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    w: &BlockWeights<M>,
    act: Activation,
    x: &M::Rows,
) -> PassResult<M::Value> {
    let pre = at.tap(Site::MlpPre, m.linear(x, &w.mlp_in)?)?;
    let post = at.tap(Site::MlpPost, m.activate(act, pre)?)?;
    Ok(m.linear(&m.rows(post)?, &w.mlp_out)?)
}

/// `(act(x W_gate) * (x W_in)) W_out`, with biases where there are some, which no tap has seen yet.
pub(super) fn gated_mlp<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    w: &BlockWeights<M>,
    act: Activation,
    x: &M::Rows,
) -> PassResult<M::Value> {
    let w_gate = w.gate.as_ref().ok_or(TensorError::Msg("a gated MLP needs W_gate".into()))?;
    let pre = at.tap(Site::MlpPre, m.linear(x, w_gate)?)?;
    let pre_linear = at.tap(Site::MlpPreLinear, m.linear(x, &w.mlp_in)?)?;
    let post = at.tap(Site::MlpPost, m.gate(act, pre, pre_linear)?)?;
    Ok(m.linear(&m.rows(post)?, &w.mlp_out)?)
}

/// The norm of what attention or the MLP returns, before it is added to the stream; its points are `scale` and `normalized`.
pub(super) fn post_norm<M: Math>(
    m: &M,
    at: &mut BlockPass<'_, '_>,
    [scale, normalized]: [Site; 2],
    norm: Norm,
    w: &NormWeights<M>,
    x: M::Value,
) -> PassResult<M::Value> {
    let points = [at.point(scale), at.point(normalized)];
    m.norm_value(at.stage(), points, norm, w, x, NormAxis::Width)
}
