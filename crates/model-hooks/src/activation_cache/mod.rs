//! Decomposition of the residual stream, and the contribution of each part to a logit.

mod heads;
mod logit_attribution;
mod stack;

pub use stack::ResidualStack;

use crate::{Capture, Error, HookPoint, HookedModel, NormSite, Result, Site, TokenBatch};
use candle_core::Tensor;
use std::ops::Range;

/// The activations of one run, with the sums that the residual stream consists of (TransformerLens' `ActivationCache`).
///
/// Wherever a layer is named, it is the one whose input is meant: `up_to: Some(2)` is the stream that enters block 2, `None` the one
/// that leaves the last block.
///
/// ```no_run
/// # fn demo(model: &dyn model_hooks::HookedModel, tokens: &model_hooks::TokenBatch) -> model_hooks::Result<()> {
/// use model_hooks::ActivationCache;
/// let last = tokens.pos() - 1;
/// let (cache, logits) = ActivationCache::run(model, tokens, Some(last..last + 1))?;
/// let parts = cache.full_decomposition(None)?; // heads, MLPs, embeddings, biases
/// let attrs = cache.logit_attrs(&parts, &[11], Some(&[7]))?; // [component, batch, pos]
/// for (label, attr) in parts.labels().iter().zip(attrs.flatten_from(1)?.to_vec2::<f32>()?) {
///     println!("{label}: {attr:?}");
/// }
/// # Ok(()) }
/// ```
pub struct ActivationCache<'m> {
    model: &'m dyn HookedModel,
    capture: Capture,
}

impl<'m> ActivationCache<'m> {
    /// Runs the model and keeps what the decompositions need, at these positions (`None`: at all). Also gives the logits of the run,
    /// at all positions. Memory: most is `hook_result`, `n_layers * n_heads * d_model` values for each position that is kept.
    ///
    /// # Errors
    /// Those of the run; [`Error::IndexOutOfRange`] for positions that the tokens do not have.
    pub fn run(
        model: &'m dyn HookedModel,
        tokens: &TokenBatch,
        positions: Option<Range<usize>>,
    ) -> Result<(Self, Tensor)> {
        let mut capture = Capture::new(model.hook_points().iter().copied().filter(needed));
        if let Some(positions) = positions {
            capture = capture.positions(positions);
        }
        let logits = model.forward(tokens, &mut capture)?;
        Ok((Self { model, capture }, logits))
    }

    /// The activations that a capture holds, whole or cut to positions. What it lacks is an error where it is needed.
    #[must_use]
    pub fn new(model: &'m dyn HookedModel, capture: Capture) -> Self {
        Self { model, capture }
    }

    /// The value at a point.
    ///
    /// # Errors
    /// [`Error::NotCaptured`].
    pub fn get(&self, point: HookPoint) -> Result<&Tensor> {
        self.capture.get(point)
    }

    /// The stream as it enters each block up to a layer, and with `incl_mid` also between attention and MLP (families whose attention and
    /// MLP work side by side have no such place). Labels `0_pre`, `0_mid` ... `final_post`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::NotCaptured`].
    pub fn accumulated_resid(&self, up_to: Option<usize>, incl_mid: bool) -> Result<ResidualStack> {
        let (last, n_layers) = (self.layer(up_to)?, self.model.shape().n_layers);
        let mut parts = Vec::new();
        for layer in 0..=last {
            if layer == n_layers {
                parts.push(("final_post".into(), self.at(layer - 1, Site::ResidPost)?.clone()));
                break;
            }
            parts.push((format!("{layer}_pre"), self.at(layer, Site::ResidPre)?.clone()));
            if incl_mid && layer < last && self.has(layer, Site::ResidMid) {
                parts.push((format!("{layer}_mid"), self.at(layer, Site::ResidMid)?.clone()));
            }
        }
        ResidualStack::of(parts)
    }

    /// Contributions of the embeddings, each attention and each MLP to the stream before a layer: their sum is the stream. Biases are part of
    /// what they belong to, norms after attention or MLP are applied. Labels `embed`, `pos_embed`, `0_attn_out`, `0_mlp_out` ...
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::NotCaptured`].
    pub fn decompose_resid(&self, up_to: Option<usize>) -> Result<ResidualStack> {
        let mut parts = self.embeddings()?;
        for layer in 0..self.layer(up_to)? {
            parts.push((format!("{layer}_attn_out"), self.at(layer, Site::AttnOut)?.clone()));
            parts.push((format!("{layer}_mlp_out"), self.at(layer, Site::MlpOut)?.clone()));
        }
        ResidualStack::of(parts)
    }

    /// Contribution of each head of each layer before a layer to the stream. Labels `L0H0`, `L0H1` ... Where a norm follows attention, each
    /// head's result is divided by the scale of the sum and multiplied by the gain, so that the heads still add up.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] (also for `up_to` 0, before which there are no heads), [`Error::NotCaptured`], [`Error::NotExposed`] from a model
    /// with a norm after attention that does not give its weights.
    pub fn stack_head_results(&self, up_to: Option<usize>) -> Result<ResidualStack> {
        ResidualStack::of(self.heads(self.layer(up_to)?)?.0)
    }

    /// Every head, every MLP, the embeddings, and as `bias` what attention adds beside its heads: together the stream before a layer.
    /// Labels as above. Biases of MLPs are part of `mlp_out`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::NotCaptured`].
    pub fn full_decomposition(&self, up_to: Option<usize>) -> Result<ResidualStack> {
        let layers = self.layer(up_to)?;
        let (mut parts, bias) = self.heads(layers)?;
        for layer in 0..layers {
            parts.push((format!("{layer}_mlp_out"), self.at(layer, Site::MlpOut)?.clone()));
        }
        parts.extend(self.embeddings()?);
        parts.extend(bias.map(|bias| ("bias".to_string(), bias)));
        ResidualStack::of(parts)
    }

    fn embeddings(&self) -> Result<Vec<Part>> {
        let mut parts = vec![("embed".into(), self.get(HookPoint::Embed)?.clone())];
        if self.model.hook_points().contains(&HookPoint::PosEmbed) {
            parts.push(("pos_embed".into(), self.get(HookPoint::PosEmbed)?.clone()));
        }
        Ok(parts)
    }

    fn layer(&self, up_to: Option<usize>) -> Result<usize> {
        let n_layers = self.model.shape().n_layers;
        match up_to {
            Some(layer) if layer > n_layers => {
                Err(Error::OutOfRange { what: "layer up to which", found: layer, limit: n_layers + 1 })
            }
            layer => Ok(layer.unwrap_or(n_layers)),
        }
    }

    fn at(&self, layer: usize, site: Site) -> Result<&Tensor> {
        self.capture.get(HookPoint::Block { layer: layer as u16, site })
    }

    fn has(&self, layer: usize, site: Site) -> bool {
        self.model.hook_points().contains(&HookPoint::Block { layer: layer as u16, site })
    }
}

/// A component `[batch, pos, d_model]` with its label.
type Part = (String, Tensor);

fn needed(point: &HookPoint) -> bool {
    let Some(site) = point.site() else { return !matches!(point, HookPoint::Logits) && *point != NORMALIZED };
    let stream = [Site::ResidPre, Site::ResidMid, Site::ResidPost, Site::AttnOut, Site::MlpOut, Site::Result];
    stream.contains(&site) || site == Site::Ln1PostScale
}

const NORMALIZED: HookPoint = HookPoint::FinalNorm(NormSite::Normalized);
