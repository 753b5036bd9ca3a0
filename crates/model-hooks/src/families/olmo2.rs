//! OLMo 2: attention and MLP read the stream as it is, and what they return is normalized; queries and keys are normalized over all heads.
//!
//! TransformerLens calls the two norms `ln1` and `ln2`. Here they have the names of norms in this place, `ln1_post` and `ln2_post`.

use super::Family;
use super::angles::RotaryEmbedding;
use super::grouped::{Biases, Checkpoint, parse_shape, spares};
use super::rope::Rope;
use super::steps::{attention, gated_mlp, post_norm, qk_norm, qkv_unnormed, rotate};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math, NormAxis};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// The arithmetic of an OLMo 2 `config.json`.
#[derive(Clone, Debug)]
struct Olmo2Config {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    rope: Rope,
    attention_bias: bool,
    tied: bool,
}

impl Olmo2Config {
    fn parse(c: &Config) -> Result<Self> {
        let shape = parse_shape(c)?;
        Ok(Self {
            rope: Rope::parse(c, shape.d_head)?,
            shape,
            eps: c.positive("rms_norm_eps", Some(1e-5))?,
            activation: c.activation("hidden_act", "silu")?,
            attention_bias: c.flag("attention_bias", false)?,
            tied: c.flag("tie_word_embeddings", false)?,
        })
    }
}

/// OLMo 2's equations.
#[derive(Debug)]
pub(crate) struct Olmo2 {
    config: Olmo2Config,
    angles: RotaryEmbedding,
}

impl Olmo2 {
    fn checkpoint<'a>(&'a self, files: &'a dyn TensorSource) -> Checkpoint<'a> {
        Checkpoint { files, shape: self.shape(), gain_plus: 0.0 }
    }
}

impl Family for Olmo2 {
    fn parse(c: &Config) -> Result<Self> {
        Ok(Self { config: Olmo2Config::parse(c)?, angles: RotaryEmbedding::default() })
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

    /// TransformerLens 3.9 folds no norm of this family.
    fn folds_norms(&self) -> bool {
        false
    }

    fn has_positions(&self) -> bool {
        false
    }

    fn turns_alike(&self, columns: [usize; 2]) -> bool {
        self.config.rope.turns_alike(columns)
    }

    fn has(&self, site: Site) -> bool {
        !matches!(site, Site::Ln1Scale | Site::Ln1Normalized | Site::Ln2Scale | Site::Ln2Normalized)
    }

    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed> {
        self.checkpoint(files).ends(self.config.tied)
    }

    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, n_heads, n_kv_heads, d_head, .. } = self.shape();
        let (files, bias) = (self.checkpoint(files), self.config.attention_bias);
        Ok(BlockWeights {
            q_norm: files.norm(layer, "self_attn.q_norm", n_heads * d_head)?,
            k_norm: files.norm(layer, "self_attn.k_norm", n_kv_heads * d_head)?,
            ln1_post: files.norm(layer, "post_attention_layernorm", d_model)?,
            ln2_post: files.norm(layer, "post_feedforward_layernorm", d_model)?,
            ..files.block(layer, Biases { qkv: bias, o: bias, mlp: false })?
        })
    }

    fn embed<M: Math>(
        &self,
        m: &M,
        at: &mut ForwardPass<'_>,
        w: &EmbedWeights<M>,
        tokens: &TokenBatch,
    ) -> PassResult<M::Value> {
        at.tap(HookPoint::Embed, m.embed(&w.w_e, tokens)?)
    }

    fn block<M: Math>(
        &self,
        m: &M,
        at: &mut BlockPass<'_, '_>,
        w: &BlockWeights<M>,
        _: usize,
        resid: M::Value,
    ) -> PassResult<M::Value> {
        let resid_pre = at.tap(Site::ResidPre, resid)?;
        let [q, k, v] = qkv_unnormed(m, at, w, self.shape(), &resid_pre)?;
        let [q, k] = qk_norm(m, at, w, self.norm(), NormAxis::Row, [q, k])?;
        let [q, k] = rotate(m, at, (&self.config.rope, &self.angles), [q, k])?;
        let rule = AttentionSpec::new((self.shape().d_head as f64).sqrt());
        let attn_out = attention(m, at, w, [q, k, v], rule)?;
        let points = [Site::Ln1PostScale, Site::Ln1PostNormalized];
        let attn_out = post_norm(m, at, points, self.norm(), &w.ln1_post, attn_out)?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let mlp_in = at.tap(Site::MlpIn, m.copy(&resid_mid)?)?;
        let mlp_in = at.tap(Site::MlpInput, mlp_in)?;
        let mlp_out = gated_mlp(m, at, w, self.config.activation, &m.rows(mlp_in)?)?;
        let points = [Site::Ln2PostScale, Site::Ln2PostNormalized];
        let mlp_out = post_norm(m, at, points, self.norm(), &w.ln2_post, mlp_out)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}
