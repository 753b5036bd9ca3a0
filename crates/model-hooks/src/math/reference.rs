//! The equations on candle's tensors.

use super::{AttentionSpec, Math, NormAxis};
use crate::families::angles::RopeTable;
use crate::forward::pass::{BlockPass, Cached, ForwardPass, PassResult};
use crate::forward::positions::Positions;
use crate::ops::{self, Activation, Norm};
use crate::weights::{Form, Hold, Linear, NormWeights, Plain};
use crate::{Error, HookPoint, Result, Site, TokenBatch};
use candle_core::{Device, Tensor};

/// candle's operations on plain f32 weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference;

impl Form for Reference {
    type Matrix = Tensor;
    type Vector = Tensor;
    type Table = Tensor;
}

impl Hold for Reference {
    fn hold_matrix(&self, raw: Plain) -> Result<Tensor> {
        raw.into_tensor()
    }

    fn hold_vector(&self, raw: Vec<f32>) -> Result<Tensor> {
        let len = raw.len();
        Ok(Tensor::from_vec(raw, len, &Device::Cpu)?)
    }

    fn hold_table(&self, raw: Plain) -> Result<Tensor> {
        raw.into_tensor()
    }

    fn hold_tied(&self, raw: Plain) -> Result<(Tensor, Tensor)> {
        let table = raw.into_tensor()?;
        let transposed = table.t()?;
        Ok((table, transposed))
    }
}

impl Math for Reference {
    type Value = Tensor;
    type Rows = Tensor;

    fn embed(&self, table: &Tensor, tokens: &TokenBatch) -> Result<Tensor> {
        let ids = tokens.to_tensor(table.device())?.flatten_all()?;
        Ok(table.index_select(&ids, 0)?.reshape((tokens.batch(), tokens.pos(), ()))?)
    }

    fn positions(&self, table: &Tensor, batch: usize, columns: &Positions) -> Result<Tensor> {
        let places =
            (0..batch).flat_map(|row| (0..columns.pos).map(move |column| columns.position(row, column) as u32));
        let rows = Tensor::from_iter(places, table.device())?;
        Ok(table.index_select(&rows, 0)?.reshape((batch, columns.pos, ()))?)
    }

    fn residual(&self, resid: &Tensor) -> Result<Tensor> {
        Ok(resid.clone())
    }

    /// All columns: candle's products round differently for another number of rows, and watching must not change what is chosen.
    fn last_column(&self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

    fn norm(
        &self,
        at: &mut ForwardPass<'_>,
        points: [HookPoint; 2],
        norm: Norm,
        w: &NormWeights<Self>,
        x: &Tensor,
    ) -> PassResult<Tensor> {
        let scale = at.tap(points[0], norm.scale(x)?)?;
        let normalized = at.tap(points[1], norm.normalize(x, &scale)?)?;
        Ok(ops::scale_and_shift(normalized, w.w.as_ref(), w.b.as_ref())?)
    }

    fn norm_value(
        &self,
        at: &mut ForwardPass<'_>,
        points: [HookPoint; 2],
        norm: Norm,
        w: &NormWeights<Self>,
        x: Tensor,
        over: NormAxis,
    ) -> PassResult<Tensor> {
        let shape = x.shape().clone();
        let x = if over == NormAxis::Row { self.rows(x)? } else { x };
        let scale = at.tap(points[0], norm.scale(&x)?)?;
        let normalized = norm.normalize(&x, &scale)?;
        let by_head = at.tap(points[1], normalized.reshape(&shape)?)?;
        let normalized = by_head.reshape(x.shape())?;
        Ok(ops::scale_and_shift(normalized, w.w.as_ref(), w.b.as_ref())?.reshape(&shape)?)
    }

    fn norm_alone(&self, norm: Norm, w: &NormWeights<Self>, resid: &Tensor) -> Result<Tensor> {
        let normalized = norm.normalize(resid, &norm.scale(resid)?)?;
        ops::scale_and_shift(normalized, w.w.as_ref(), w.b.as_ref())
    }

    fn rows(&self, x: Tensor) -> Result<Tensor> {
        Ok(if x.rank() > 3 { x.flatten_from(2)? } else { x })
    }

    fn linear(&self, x: &Tensor, w: &Linear<Self>) -> Result<Tensor> {
        ops::linear(x, &w.w, w.b.as_ref())
    }

    fn heads(&self, x: &Tensor, w: &Linear<Self>, heads: usize) -> Result<Tensor> {
        let (batch, pos, _) = x.dims3()?;
        Ok(self.linear(x, w)?.reshape((batch, pos, heads, ()))?)
    }

    fn repeat_heads(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (batch, pos, width) = x.dims3()?;
        Ok(x.unsqueeze(2)?.broadcast_as((batch, pos, heads, width))?.contiguous()?)
    }

    fn project_heads(&self, norm: Option<(Norm, &NormWeights<Self>)>, x: &Tensor, w: &Linear<Self>) -> Result<Tensor> {
        let (batch, pos, heads, d_model) = x.dims4()?;
        let x = match norm {
            Some((norm, weights)) => self.norm_alone(norm, weights, x)?,
            None => x.clone(),
        };
        let by_head = w.w.contiguous()?.reshape((d_model, heads, ()))?.transpose(0, 1)?.contiguous()?;
        let x = x.reshape((batch * pos, heads, d_model))?.transpose(0, 1)?.contiguous()?;
        let y = x.matmul(&by_head)?.transpose(0, 1)?.contiguous()?;
        let y = match &w.b {
            Some(b) => y.broadcast_add(&b.reshape((heads, ()))?)?,
            None => y,
        };
        Ok(y.reshape((batch, pos, heads, ()))?)
    }

    fn rotate(&self, x: Tensor, angles: &RopeTable, columns: &Positions) -> Result<Tensor> {
        ops::rotate(&x, angles, columns)
    }

    /// The group's queries are stacked, so that keys are never repeated.
    fn attention(&self, at: &mut BlockPass<'_, '_>, [q, k, v]: [Tensor; 3], rule: AttentionSpec) -> PassResult<Tensor> {
        let (batch, pos, n_heads, d_head) = q.dims4()?;
        let (n_kv_heads, columns) = (k.dim(2)?, at.stage().columns().clone());
        let (products, stacked) = (batch * n_kv_heads, n_heads / n_kv_heads * pos);
        let by_head = |x: &Tensor, rows| x.transpose(1, 2)?.contiguous()?.reshape((products, rows, d_head));
        let [k, v] = with_cached(at, &q, [k, v], &columns)?;
        let keys = k.dim(1)?;
        let scores = by_head(&q, stacked)?.matmul(&by_head(&k, keys)?.t()?)?;
        let scores = ops::masked_scores(scores.reshape((batch, n_heads, pos, keys))?, rule, &columns)?;
        let scores = at.tap(Site::AttnScores, scores)?;
        let pattern = at.tap(Site::Pattern, ops::softmax(&scores)?)?;
        let z = pattern.contiguous()?.reshape((products, stacked, keys))?.matmul(&by_head(&v, keys)?)?;
        Ok(z.reshape((batch, n_heads, pos, d_head))?.transpose(1, 2)?.contiguous()?)
    }

    fn result(&self, z: &Tensor, w_o: &Linear<Self>) -> Result<Tensor> {
        let (batch, pos, n_heads, d_head) = z.dims4()?;
        let d_model = w_o.w.dim(1)?;
        let w_o = w_o.w.contiguous()?.reshape((n_heads, d_head, d_model))?;
        let each = z.contiguous()?.reshape((batch * pos, n_heads, d_head))?.transpose(0, 1)?.matmul(&w_o)?;
        Ok(each.transpose(0, 1)?.contiguous()?.reshape((batch, pos, n_heads, d_model))?)
    }

    fn sum_heads(&self, result: Tensor, w_o: &Linear<Self>) -> Result<Tensor> {
        let sum = result.sum(2)?;
        Ok(match &w_o.b {
            Some(b) => sum.broadcast_add(b)?,
            None => sum,
        })
    }

    fn copy(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn scale(&self, x: Tensor, factor: f64) -> Result<Tensor> {
        Ok((x * factor)?)
    }

    fn add(&self, a: Tensor, b: Tensor) -> Result<Tensor> {
        Ok((a + b)?)
    }

    fn activate(&self, act: Activation, x: Tensor) -> Result<Tensor> {
        act.apply(&x)
    }

    fn gate(&self, act: Activation, gate: Tensor, x: Tensor) -> Result<Tensor> {
        act.gate(&gate, &x)
    }

    fn logits(&self, x: &Tensor, w_u: &Linear<Self>, softcap: Option<f64>) -> Result<Tensor> {
        let logits = self.linear(x, w_u)?;
        Ok(match softcap {
            Some(cap) => ((logits / cap)?.tanh()? * cap)?,
            None => logits,
        })
    }

    fn columns(&self, w: &Tensor, start: usize, len: usize) -> Result<Tensor> {
        Ok(w.narrow(1, start, len)?)
    }

    fn vector(&self, v: &Tensor) -> Result<Tensor> {
        Ok(v.clone())
    }
}

/// Keys and values as they are; with a cache, put there, and all that it holds.
fn with_cached(
    at: &mut BlockPass<'_, '_>,
    q: &Tensor,
    [k, v]: [Tensor; 2],
    columns: &Positions,
) -> Result<[Tensor; 2]> {
    if at.cached().is_none() {
        return Ok([k, v]);
    }
    for (what, x) in [("queries", q), ("keys", &k), ("values", &v)] {
        if x.track_op() {
            return Err(Error::GradientsThroughCache { what });
        }
    }
    ops::with_slice(&k, |k| ops::with_slice(&v, |v| at.append([k, v])))?;
    let (batch, _, heads, d_head) = k.dims4()?;
    let Some(Cached::Plain { keys, values, room }) = at.cached() else { return Ok([k, v]) };
    let (row, shape) = (heads * d_head, (batch, columns.end(), heads, d_head));
    let held = |x: &[f32]| -> Result<Tensor> {
        let rows = x.chunks_exact((room * row).max(1)).flat_map(|x| &x[..columns.end() * row]);
        Ok(Tensor::from_vec(rows.copied().collect(), shape, &Device::Cpu)?)
    };
    Ok([held(keys)?, held(values)?])
}
