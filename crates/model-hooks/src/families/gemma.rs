//! Gemma 1: RMS norms whose files hold the gain less 1, a scaled embedding, wide heads, a gated MLP with GELU.

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

/// The arithmetic of a Gemma 1 `config.json`.
#[derive(Clone, Debug)]
struct GemmaConfig {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    rope: Rope,
    attention_bias: bool,
    tied: bool,
}

impl GemmaConfig {
    fn parse(c: &Config) -> Result<Self> {
        let c = &c.with_defaults([("head_dim", 256.into())]);
        c.refuse_unless("use_bidirectional_attention", &false.into(), "false: attention is causal")?;
        let shape = parse_shape(c)?;
        Ok(Self {
            rope: Rope::parse(c, shape.d_head)?,
            shape,
            eps: c.positive("rms_norm_eps", Some(1e-6))?,
            activation: activation(c)?,
            attention_bias: c.flag("attention_bias", false)?,
            tied: c.flag("tie_word_embeddings", true)?,
        })
    }
}

/// The published files say `gelu` under `hidden_act` and mean the approximation by tanh, which is what transformers computes.
/// Some versions of it read `hidden_activation` instead, so the two may not contradict each other.
fn activation(c: &Config) -> Result<Activation> {
    let activation = match c.activation("hidden_act", "gelu_pytorch_tanh")? {
        Activation::GeluErf => Activation::GeluTanh,
        other => other,
    };
    if c.has("hidden_activation") && c.activation("hidden_activation", "")? != activation {
        return Err(c.bad("hidden_activation", "what hidden_act says (there, gelu means gelu_pytorch_tanh)"));
    }
    Ok(activation)
}

/// Gemma 1's equations.
#[derive(Debug)]
pub(crate) struct Gemma {
    config: GemmaConfig,
    angles: RotaryEmbedding,
}

impl Gemma {
    fn checkpoint<'a>(&'a self, files: &'a dyn TensorSource) -> Checkpoint<'a> {
        Checkpoint { files, shape: self.shape(), gain_plus: 1.0 }
    }
}

impl Family for Gemma {
    fn parse(c: &Config) -> Result<Self> {
        Ok(Self { config: GemmaConfig::parse(c)?, angles: RotaryEmbedding::default() })
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
        let (files, d_model, bias) = (self.checkpoint(files), self.shape().d_model, self.config.attention_bias);
        Ok(BlockWeights {
            ln1: files.norm(layer, "input_layernorm", d_model)?,
            ln2: files.norm(layer, "post_attention_layernorm", d_model)?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::published::published;

    #[test]
    fn the_published_gelu_is_the_one_by_tanh() {
        assert_eq!(GemmaConfig::parse(&published!("gemma-2b")).unwrap().activation, Activation::GeluTanh);
    }
}
