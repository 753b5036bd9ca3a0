//! Gemma 2: Gemma with norms before and after attention and MLP, soft-caps on scores and logits, windows in every other layer.

use super::Family;
use super::angles::RotaryEmbedding;
use super::grouped::{Biases, Checkpoint, parse_shape, parse_windows, spares};
use super::rope::Rope;
use super::steps::{attention, gated_mlp, mlp_input, post_norm, qkv, rotate};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// The arithmetic of a Gemma 2 `config.json`.
#[derive(Clone, Debug)]
struct Gemma2Config {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    rope: Rope,
    /// Scores are divided by its root.
    query_pre_attn_scalar: f64,
    /// `c` in `c tanh(score / c)`.
    attn_softcap: Option<f64>,
    /// `c` in `c tanh(logit / c)`.
    logit_softcap: Option<f64>,
    /// Number of keys that a query of each layer sees.
    windows: Vec<Option<usize>>,
    attention_bias: bool,
    tied: bool,
}

impl Gemma2Config {
    fn parse(c: &Config) -> Result<Self> {
        let c = &c.with_defaults([
            ("head_dim", 256.into()),
            ("sliding_window", 4096.into()),
            ("attn_logit_softcapping", 50.0.into()),
            ("final_logit_softcapping", 30.0.into()),
        ]);
        c.refuse_unless("use_bidirectional_attention", &false.into(), "false: attention is causal")?;
        let shape = parse_shape(c)?;
        Ok(Self {
            rope: Rope::parse(c, shape.d_head)?,
            windows: parse_windows(c, shape.n_layers, |layer| layer % 2 == 0)?,
            shape,
            eps: c.positive("rms_norm_eps", Some(1e-6))?,
            activation: c.activation("hidden_activation", "gelu_pytorch_tanh")?,
            query_pre_attn_scalar: c.positive("query_pre_attn_scalar", Some(256.0))?,
            attn_softcap: c.optional_positive("attn_logit_softcapping")?,
            logit_softcap: c.optional_positive("final_logit_softcapping")?,
            attention_bias: c.flag("attention_bias", false)?,
            tied: c.flag("tie_word_embeddings", true)?,
        })
    }
}

/// Gemma 2's equations.
#[derive(Debug)]
pub(crate) struct Gemma2 {
    config: Gemma2Config,
    angles: RotaryEmbedding,
}

impl Gemma2 {
    fn checkpoint<'a>(&'a self, files: &'a dyn TensorSource) -> Checkpoint<'a> {
        Checkpoint { files, shape: self.shape(), gain_plus: 1.0 }
    }
}

impl Family for Gemma2 {
    fn parse(c: &Config) -> Result<Self> {
        Ok(Self { config: Gemma2Config::parse(c)?, angles: RotaryEmbedding::default() })
    }

    fn spares(&self, tensor: &str) -> bool {
        spares(tensor, self.config.tied)
    }

    fn shape(&self) -> &ModelShape {
        &self.config.shape
    }

    fn norm(&self) -> Norm {
        Norm { kind: NormKind::Rms, eps: self.config.eps }
    }

    fn logit_softcap(&self) -> Option<f64> {
        self.config.logit_softcap
    }

    fn has_positions(&self) -> bool {
        false
    }

    fn turns_alike(&self, columns: [usize; 2]) -> bool {
        self.config.rope.turns_alike(columns)
    }

    fn has(&self, site: Site) -> bool {
        !matches!(site, Site::QNormScale | Site::QNormNormalized | Site::KNormScale | Site::KNormNormalized)
    }

    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed> {
        self.checkpoint(files).ends(self.config.tied)
    }

    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let (files, d_model, bias) = (self.checkpoint(files), self.shape().d_model, self.config.attention_bias);
        Ok(BlockWeights {
            ln1: files.norm(layer, "input_layernorm", d_model)?,
            ln1_post: files.norm(layer, "post_attention_layernorm", d_model)?,
            ln2: files.norm(layer, "pre_feedforward_layernorm", d_model)?,
            ln2_post: files.norm(layer, "post_feedforward_layernorm", d_model)?,
            ..files.block(layer, Biases { qkv: bias, o: bias, mlp: false })?
        })
    }

    /// `hook_embed` is `sqrt(d_model) W_E[token]`; a tied `W_U` is the transpose of `W_E` without the factor.
    fn embed<M: Math>(
        &self,
        m: &M,
        at: &mut ForwardPass<'_>,
        w: &EmbedWeights<M>,
        tokens: &TokenBatch,
    ) -> PassResult<M::Value> {
        let embed = m.embed(&w.w_e, tokens)?;
        at.tap(HookPoint::Embed, m.scale(embed, (self.shape().d_model as f64).sqrt())?)
    }

    fn block<M: Math>(
        &self,
        m: &M,
        at: &mut BlockPass<'_, '_>,
        w: &BlockWeights<M>,
        layer: usize,
        resid: M::Value,
    ) -> PassResult<M::Value> {
        let resid_pre = at.tap(Site::ResidPre, resid)?;
        let [q, k, v] = qkv(m, at, w, self.norm(), self.shape(), &resid_pre)?;
        let [q, k] = rotate(m, at, (&self.config.rope, &self.angles), [q, k])?;
        let rule = AttentionSpec {
            divisor: self.config.query_pre_attn_scalar.sqrt(),
            softcap: self.config.attn_softcap,
            window: self.config.windows[layer],
        };
        let attn_out = attention(m, at, w, [q, k, v], rule)?;
        let points = [Site::Ln1PostScale, Site::Ln1PostNormalized];
        let attn_out = post_norm(m, at, points, self.norm(), &w.ln1_post, attn_out)?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let x = mlp_input(m, at, w, self.norm(), &resid_mid)?;
        let mlp_out = gated_mlp(m, at, w, self.config.activation, &x)?;
        let points = [Site::Ln2PostScale, Site::Ln2PostNormalized];
        let mlp_out = post_norm(m, at, points, self.norm(), &w.ln2_post, mlp_out)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::published::published;

    #[test]
    fn even_layers_slide() {
        let config = Gemma2Config::parse(&published!("gemma-2-2b")).unwrap();
        assert_eq!(config.windows, [Some(4096), None].repeat(13));
        assert_eq!((config.attn_softcap, config.query_pre_attn_scalar), (Some(50.0), 256.0));
    }
}
