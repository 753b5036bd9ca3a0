//! Llama: RMS norms, rotary positions, grouped key-value heads, a gated MLP.

use super::Family;
use super::angles::RotaryEmbedding;
use super::grouped::{Biases, Checkpoint, parse_shape, spares};
use super::rope::Rope;
use super::steps::{attention, gated_mlp, mlp_input, qkv, rotate};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// The arithmetic of a Llama `config.json`.
#[derive(Clone, Debug)]
struct LlamaConfig {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    rope: Rope,
    attention_bias: bool,
    mlp_bias: bool,
    tied: bool,
}

impl LlamaConfig {
    fn parse(c: &Config) -> Result<Self> {
        let shape = parse_shape(c)?;
        Ok(Self {
            rope: Rope::parse(c, shape.d_head)?,
            shape,
            eps: c.positive("rms_norm_eps", Some(1e-6))?,
            activation: c.activation("hidden_act", "silu")?,
            attention_bias: c.flag("attention_bias", false)?,
            mlp_bias: c.flag("mlp_bias", false)?,
            tied: c.flag("tie_word_embeddings", false)?,
        })
    }
}

/// Llama's equations.
#[derive(Debug)]
pub(crate) struct Llama {
    config: LlamaConfig,
    angles: RotaryEmbedding,
}

impl Llama {
    fn checkpoint<'a>(&'a self, files: &'a dyn TensorSource) -> Checkpoint<'a> {
        Checkpoint { files, shape: self.shape(), gain_plus: 0.0 }
    }
}

impl Family for Llama {
    fn parse(c: &Config) -> Result<Self> {
        Ok(Self { config: LlamaConfig::parse(c)?, angles: RotaryEmbedding::default() })
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

    fn has_positions(&self) -> bool {
        false
    }

    fn turns_alike(&self, columns: [usize; 2]) -> bool {
        self.config.rope.turns_alike(columns)
    }

    fn has(&self, site: Site) -> bool {
        !site.is_extra_norm()
    }

    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed> {
        self.checkpoint(files).ends(self.config.tied)
    }

    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let (files, d_model) = (self.checkpoint(files), self.shape().d_model);
        let LlamaConfig { attention_bias, mlp_bias, .. } = self.config;
        Ok(BlockWeights {
            ln1: files.norm(layer, "input_layernorm", d_model)?,
            ln2: files.norm(layer, "post_attention_layernorm", d_model)?,
            ..files.block(layer, Biases { qkv: attention_bias, o: attention_bias, mlp: mlp_bias })?
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
        let [q, k, v] = qkv(m, at, w, self.norm(), self.shape(), &resid_pre)?;
        let [q, k] = rotate(m, at, (&self.config.rope, &self.angles), [q, k])?;
        let rule = AttentionSpec::new((self.shape().d_head as f64).sqrt());
        let attn_out = attention(m, at, w, [q, k, v], rule)?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let x = mlp_input(m, at, w, self.norm(), &resid_mid)?;
        let mlp_out = gated_mlp(m, at, w, self.config.activation, &x)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}
