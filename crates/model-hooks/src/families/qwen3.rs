//! Qwen 3: Llama with each head's query and key normalized before rotation, heads of their own width, and windows as in Qwen 2.

use super::Family;
use super::angles::RotaryEmbedding;
use super::grouped::{Biases, Checkpoint, parse_shape, spares};
use super::qwen2::parse_upper_windows;
use super::rope::Rope;
use super::steps::{attention, gated_mlp, mlp_input, qk_norm, qkv, rotate};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math, NormAxis};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// The arithmetic of a Qwen 3 `config.json`.
#[derive(Clone, Debug)]
struct Qwen3Config {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    rope: Rope,
    /// Number of keys that a query of each layer sees.
    windows: Vec<Option<usize>>,
    attention_bias: bool,
    tied: bool,
}

impl Qwen3Config {
    fn parse(c: &Config) -> Result<Self> {
        let c = &c.with_defaults([("head_dim", 128.into())]);
        let shape = parse_shape(c)?;
        Ok(Self {
            rope: Rope::parse(c, shape.d_head)?,
            windows: parse_upper_windows(c, shape.n_layers)?,
            shape,
            eps: c.positive("rms_norm_eps", Some(1e-6))?,
            activation: c.activation("hidden_act", "silu")?,
            attention_bias: c.flag("attention_bias", false)?,
            tied: c.flag("tie_word_embeddings", false)?,
        })
    }
}

/// Qwen 3's equations.
#[derive(Debug)]
pub(crate) struct Qwen3 {
    config: Qwen3Config,
    angles: RotaryEmbedding,
}

impl Qwen3 {
    fn checkpoint<'a>(&'a self, files: &'a dyn TensorSource) -> Checkpoint<'a> {
        Checkpoint { files, shape: self.shape(), gain_plus: 0.0 }
    }
}

impl Family for Qwen3 {
    fn parse(c: &Config) -> Result<Self> {
        Ok(Self { config: Qwen3Config::parse(c)?, angles: RotaryEmbedding::default() })
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
        !matches!(site, Site::Ln1PostScale | Site::Ln1PostNormalized | Site::Ln2PostScale | Site::Ln2PostNormalized)
    }

    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed> {
        self.checkpoint(files).ends(self.config.tied)
    }

    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, d_head, .. } = self.shape();
        let (files, bias) = (self.checkpoint(files), self.config.attention_bias);
        Ok(BlockWeights {
            ln1: files.norm(layer, "input_layernorm", d_model)?,
            q_norm: files.norm(layer, "self_attn.q_norm", d_head)?,
            k_norm: files.norm(layer, "self_attn.k_norm", d_head)?,
            ln2: files.norm(layer, "post_attention_layernorm", d_model)?,
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
        layer: usize,
        resid: M::Value,
    ) -> PassResult<M::Value> {
        let resid_pre = at.tap(Site::ResidPre, resid)?;
        let [q, k, v] = qkv(m, at, w, self.norm(), self.shape(), &resid_pre)?;
        let [q, k] = qk_norm(m, at, w, self.norm(), NormAxis::Width, [q, k])?;
        let [q, k] = rotate(m, at, (&self.config.rope, &self.angles), [q, k])?;
        let divisor = (self.shape().d_head as f64).sqrt();
        let rule = AttentionSpec { window: self.config.windows[layer], ..AttentionSpec::new(divisor) };
        let attn_out = attention(m, at, w, [q, k, v], rule)?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let x = mlp_input(m, at, w, self.norm(), &resid_mid)?;
        let mlp_out = gated_mlp(m, at, w, self.config.activation, &x)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}
