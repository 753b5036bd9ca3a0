//! What the decoder families share: checks before a run, norms, attention after its projections, MLP, unembedding.

use crate::ops::{Activation, Norm, causal_mask_scaled, gain_and_bias, linear, softmax};
use crate::run::{Block, Stage, Step};
use crate::weights::{BlockWeights, NormWeights, Weights};
use crate::{Error, HookPoint, Interest, ModelShape, NormSite, Result, Site, Start, Tap, TokenBatch};
use candle_core::Tensor;

/// The parts of a decoder that do not depend on its family.
#[derive(Debug)]
pub(super) struct Decoder {
    pub shape: ModelShape,
    pub weights: Weights,
    pub norm: Norm,
    pub eps: f64,
    pub activation: Activation,
    pub points: Vec<HookPoint>,
}

impl Decoder {
    /// Checks the weights against the shape and lists the hook points: those outside the blocks, and in each block the sites
    /// that the family has.
    pub fn new(
        shape: ModelShape,
        weights: Weights,
        (norm, eps): (Norm, f64),
        activation: Activation,
        has: impl Fn(Site) -> bool,
    ) -> Result<Self> {
        weights.check(&shape)?;
        let layers = u16::try_from(shape.n_layers).map_err(|_| Error::OutOfRange {
            what: "number of layers",
            found: shape.n_layers,
            limit: usize::from(u16::MAX) + 1,
        })?;
        let mut points = vec![HookPoint::Embed];
        points.extend(weights.w_pos.is_some().then_some(HookPoint::PosEmbed));
        for layer in 0..layers {
            points.extend(Site::all().filter(|&site| has(site)).map(|site| HookPoint::Block { layer, site }));
        }
        points.extend([NormSite::Scale, NormSite::Normalized].map(HookPoint::FinalNorm));
        points.push(HookPoint::Logits);
        Ok(Self { shape, weights, norm, eps, activation, points })
    }

    /// Everything that can be wrong is found here, before anything runs.
    pub fn plan<'a>(
        &self,
        tokens: &'a TokenBatch,
        start: Start<'_>,
        last: Option<HookPoint>,
        tap: &'a mut dyn Tap,
    ) -> Result<Stage<'a>> {
        self.check_tokens(tokens)?;
        let start = match start {
            Start::Tokens => None,
            Start::Residual { layer, resid } => Some(self.check_start(tokens, layer, resid)?),
        };
        Stage::plan(&self.points, tokens, start, last, tap)
    }

    fn check_tokens(&self, tokens: &TokenBatch) -> Result<()> {
        let ModelShape { d_vocab, n_ctx, .. } = self.shape;
        if tokens.pos() > n_ctx {
            return Err(Error::ContextExceeded { pos: tokens.pos(), n_ctx });
        }
        match tokens.ids().iter().position(|&id| id as usize >= d_vocab) {
            None => Ok(()),
            Some(i) => Err(Error::TokenOutOfVocabulary {
                id: tokens.ids()[i],
                row: i / tokens.pos(),
                pos: i % tokens.pos(),
                d_vocab,
            }),
        }
    }

    fn check_start(&self, tokens: &TokenBatch, layer: usize, resid: &Tensor) -> Result<HookPoint> {
        let expected = [tokens.batch(), tokens.pos(), self.shape.d_model];
        if resid.dims() != expected {
            let expected = format!("[batch, pos, d_model] = {expected:?}");
            return Err(Error::Shape { what: "the residual to start from", expected, found: resid.dims().to_vec() });
        }
        match u16::try_from(layer) {
            Ok(index) if layer < self.shape.n_layers => Ok(HookPoint::Block { layer: index, site: Site::ResidPre }),
            _ => Err(Error::OutOfRange { what: "start layer", found: layer, limit: self.shape.n_layers }),
        }
    }

    /// `W_E[tokens]` `[batch, pos, d_model]`.
    pub fn embed(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let ids = tokens.to_tensor(self.weights.w_e.device())?.flatten_all()?;
        Ok(self.weights.w_e.index_select(&ids, 0)?.reshape((tokens.batch(), tokens.pos(), self.shape.d_model))?)
    }

    /// The norm before attention, tapped, with gain and bias where they are not folded away.
    pub fn ln1(&self, at: &mut Block<'_, '_>, w: &BlockWeights, x: &Tensor) -> Step<Tensor> {
        let points = [at.point(Site::Ln1Scale), at.point(Site::Ln1Normalized)];
        self.normed(at.stage(), points, &w.ln1, x)
    }

    /// The norm before the MLP.
    pub fn ln2(&self, at: &mut Block<'_, '_>, w: &BlockWeights, x: &Tensor) -> Step<Tensor> {
        let points = [at.point(Site::Ln2Scale), at.point(Site::Ln2Normalized)];
        self.normed(at.stage(), points, &w.ln2, x)
    }

    fn normed(&self, at: &mut Stage<'_>, points: [HookPoint; 2], w: &NormWeights, x: &Tensor) -> Step<Tensor> {
        let scale = at.tap(points[0], self.norm.scale(x, self.eps)?)?;
        let normalized = at.tap(points[1], self.norm.normalize(x, &scale)?)?;
        Ok(gain_and_bias(normalized, w.w.as_ref(), w.b.as_ref())?)
    }

    /// `x W + b`, split into heads: `[batch, pos, heads, d_head]`.
    pub fn heads(&self, x: &Tensor, w: &Tensor, b: Option<&Tensor>, heads: usize) -> Result<Tensor> {
        let (batch, pos, _) = x.dims3()?;
        Ok(linear(x, w, b)?.reshape((batch, pos, heads, self.shape.d_head))?)
    }

    /// From queries, keys and values to what attention adds to the stream:
    ///
    /// ```text
    /// scores  = q k^T / divisor, -inf where k_pos > q_pos
    /// pattern = softmax(scores)
    /// z       = pattern v
    /// out     = z W_O + b_O
    /// ```
    /// Query head `h` reads key-value head `h / (n_heads / n_kv_heads)`; the group's queries are stacked, keys are never repeated.
    pub fn attention(
        &self,
        at: &mut Block<'_, '_>,
        w: &BlockWeights,
        [q, k, v]: [&Tensor; 3],
        divisor: f64,
    ) -> Step<Tensor> {
        let ModelShape { n_heads, n_kv_heads, d_head, .. } = self.shape;
        let (batch, pos, _, _) = q.dims4()?;
        let (products, stacked) = (batch * n_kv_heads, n_heads / n_kv_heads * pos);
        let by_head = |x: &Tensor, rows| x.transpose(1, 2)?.contiguous()?.reshape((products, rows, d_head));
        let scores = by_head(q, stacked)?.matmul(&by_head(k, pos)?.t()?)?;
        let scores = causal_mask_scaled(scores.reshape((batch, n_heads, pos, pos))?, divisor)?;
        let scores = at.tap(Site::AttnScores, scores)?;
        let pattern = at.tap(Site::Pattern, softmax(&scores)?)?;
        let z = pattern.contiguous()?.reshape((products, stacked, pos))?.matmul(&by_head(v, pos)?)?;
        let z = at.tap(Site::Z, z.reshape((batch, n_heads, pos, d_head))?.transpose(1, 2)?.contiguous()?)?;
        let out = self.out_projection(at, w, &z)?;
        at.tap(Site::AttnOut, out)
    }

    /// `z W_O + b_O`. The contribution of each head alone is computed only when somebody looks, beside the path; if somebody edits
    /// it, the edited contributions are summed instead.
    fn out_projection(&self, at: &mut Block<'_, '_>, w: &BlockWeights, z: &Tensor) -> Step<Tensor> {
        match at.interest(Site::Result) {
            Some(Interest::Edit) => {
                let sum = at.tap(Site::Result, self.result(w, z)?)?.sum(2)?;
                return Ok(match &w.b_o {
                    Some(b) => sum.broadcast_add(b)?,
                    None => sum,
                });
            }
            Some(Interest::Watch) => drop(at.tap(Site::Result, self.result(w, z)?)?),
            None => {}
        }
        Ok(linear(&z.flatten_from(2)?, &w.w_o, w.b_o.as_ref())?)
    }

    /// `z[h] W_O[h]` for each head: `[batch, pos, head, d_model]`.
    fn result(&self, w: &BlockWeights, z: &Tensor) -> Result<Tensor> {
        let ModelShape { n_heads, d_head, d_model, .. } = self.shape;
        let (batch, pos, _, _) = z.dims4()?;
        let w_o = w.w_o.contiguous()?.reshape((n_heads, d_head, d_model))?;
        let each = z.contiguous()?.reshape((batch * pos, n_heads, d_head))?.transpose(0, 1)?.matmul(&w_o)?;
        Ok(each.transpose(0, 1)?.contiguous()?.reshape((batch, pos, n_heads, d_model))?)
    }

    /// Final norm, tapped, and unembedding: `normalized W_U + b_U`.
    pub fn logits(&self, at: &mut Stage<'_>, resid: &Tensor) -> Step<Tensor> {
        let points = [NormSite::Scale, NormSite::Normalized].map(HookPoint::FinalNorm);
        let x = self.normed(at, points, &self.weights.ln_final, resid)?;
        let logits = linear(&x, &self.weights.w_u, self.weights.b_u.as_ref())?;
        at.tap(HookPoint::Logits, logits)
    }

    /// As [`HookedModel::unembed`](crate::HookedModel::unembed).
    pub fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        if resid.dims().last() != Some(&self.shape.d_model) {
            let expected = format!("[.., {}]", self.shape.d_model);
            return Err(Error::Shape { what: "the residual to unembed", expected, found: resid.dims().to_vec() });
        }
        let w = &self.weights.ln_final;
        let normalized = self.norm.normalize(resid, &self.norm.scale(resid, self.eps)?)?;
        linear(&gain_and_bias(normalized, w.w.as_ref(), w.b.as_ref())?, &self.weights.w_u, self.weights.b_u.as_ref())
    }

    /// As [`HookedModel::w_u_columns`](crate::HookedModel::w_u_columns).
    pub fn w_u_columns(&self, start: usize, len: usize) -> Result<Tensor> {
        match start.checked_add(len) {
            Some(end) if end <= self.shape.d_vocab => Ok(self.weights.w_u.narrow(1, start, len)?),
            _ => Err(Error::OutOfRange {
                what: "last column of W_U",
                found: start.saturating_add(len).saturating_sub(1),
                limit: self.shape.d_vocab,
            }),
        }
    }
}
