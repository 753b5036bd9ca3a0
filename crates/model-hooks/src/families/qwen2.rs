//! Qwen 2 and 2.5: Llama with biases on queries, keys and values, and windows in upper layers where a configuration asks for them.

use super::Family;
use super::angles::RotaryEmbedding;
use super::grouped::{Biases, Checkpoint, parse_shape, parse_windows, spares};
use super::rope::Rope;
use super::steps::{attention, gated_mlp, mlp_input, qkv, rotate};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// The arithmetic of a Qwen 2 `config.json`.
#[derive(Clone, Debug)]
struct Qwen2Config {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    rope: Rope,
    /// Number of keys that a query of each layer sees.
    windows: Vec<Option<usize>>,
    tied: bool,
}

impl Qwen2Config {
    fn parse(c: &Config) -> Result<Self> {
        let shape = parse_shape(c)?;
        Ok(Self {
            rope: Rope::parse(c, shape.d_head)?,
            windows: parse_upper_windows(c, shape.n_layers)?,
            shape,
            eps: c.positive("rms_norm_eps", Some(1e-6))?,
            activation: c.activation("hidden_act", "silu")?,
            tied: c.flag("tie_word_embeddings", false)?,
        })
    }
}

/// Number of keys that a query of each layer sees. `sliding_window` is only meant where `use_sliding_window` is true, and without
/// `layer_types` only from layer `max_window_layers` on (which the name does not say).
pub(super) fn parse_upper_windows(c: &Config, n_layers: usize) -> Result<Vec<Option<usize>>> {
    let c = &c.with_defaults([("sliding_window", 4096.into())]);
    let (used, first) = (c.flag("use_sliding_window", false)?, c.count("max_window_layers", 28)?);
    let windows = parse_windows(c, n_layers, |layer| used && c.has("sliding_window") && layer >= first)?;
    if !used && windows.iter().any(Option::is_some) {
        return Err(c.bad("use_sliding_window", "true, because layer_types has sliding_attention"));
    }
    Ok(windows)
}

/// Qwen 2's equations.
#[derive(Debug)]
pub(crate) struct Qwen2 {
    config: Qwen2Config,
    angles: RotaryEmbedding,
}

impl Qwen2 {
    fn checkpoint<'a>(&'a self, files: &'a dyn TensorSource) -> Checkpoint<'a> {
        Checkpoint { files, shape: self.shape(), gain_plus: 0.0 }
    }
}

impl Family for Qwen2 {
    fn parse(c: &Config) -> Result<Self> {
        Ok(Self { config: Qwen2Config::parse(c)?, angles: RotaryEmbedding::default() })
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
        Ok(BlockWeights {
            ln1: files.norm(layer, "input_layernorm", d_model)?,
            ln2: files.norm(layer, "post_attention_layernorm", d_model)?,
            ..files.block(layer, Biases { qkv: true, o: false, mlp: false })?
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::published::published;

    /// The published files state a window and say that it is not used.
    #[test]
    fn windows_that_are_not_used() {
        for config in [published!("Qwen2.5-7B"), published!("DeepSeek-R1-Distill-Qwen-1.5B")] {
            assert_eq!(Qwen2Config::parse(&config).unwrap().windows, [None; 28]);
        }
    }
}
