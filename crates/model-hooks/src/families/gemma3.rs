//! Gemma 3: Gemma 2 with normalized queries and keys instead of soft-caps, and with two rotary bases: one in the layers that have a window,
//! one in every sixth, which has none. Of checkpoints that also see, the text model is read.

use super::Family;
use super::angles::RotaryEmbedding;
use super::grouped::{Biases, Checkpoint, parse_shape, parse_windows, spares};
use super::rope::Rope;
use super::steps::{attention, gated_mlp, mlp_input, post_norm, qk_norm, qkv, rotate};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math, NormAxis};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};
use serde_json::Value;

/// The arithmetic of a Gemma 3 `config.json`.
#[derive(Clone, Debug)]
struct Gemma3Config {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    /// Of layers with a window.
    local_rope: Rope,
    /// Of layers without.
    global_rope: Rope,
    /// Scores are divided by its root.
    query_pre_attn_scalar: f64,
    /// Number of keys that a query of each layer sees.
    windows: Vec<Option<usize>>,
    attention_bias: bool,
    tied: bool,
    /// Whether the checkpoint also holds a vision tower.
    sees: bool,
}

impl Gemma3Config {
    /// Published configurations of models that see leave out what equals the defaults.
    fn parse(top: &Config) -> Result<Self> {
        let text = top.object("text_config")?;
        let sees = text.is_some();
        if top.text("model_type")? == Some("gemma3") && !sees {
            return Err(top.missing("text_config", "the configuration of the text model"));
        }
        let c = &text.as_ref().unwrap_or(top).with_defaults([
            ("vocab_size", 262_208.into()),
            ("num_attention_heads", 8.into()),
            ("num_key_value_heads", 4.into()),
            ("head_dim", 256.into()),
            ("max_position_embeddings", 131_072.into()),
            ("sliding_window", 4096.into()),
        ]);
        c.refuse_unless("use_bidirectional_attention", &false.into(), "false: attention is causal")?;
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            c.refuse_unless(key, &Value::Null, "null: Gemma 3 has no soft-caps")?;
        }
        let (shape, pattern) = (parse_shape(c)?, c.optional_size("sliding_window_pattern")?.unwrap_or(6));
        let [local_rope, global_rope] = parse_ropes(c, shape.d_head)?;
        Ok(Self {
            windows: parse_windows(c, shape.n_layers, |layer| (layer + 1) % pattern != 0)?,
            shape,
            local_rope,
            global_rope,
            eps: c.positive("rms_norm_eps", Some(1e-6))?,
            activation: c.activation("hidden_activation", "gelu_pytorch_tanh")?,
            query_pre_attn_scalar: c.positive("query_pre_attn_scalar", Some(256.0))?,
            attention_bias: c.flag("attention_bias", false)?,
            tied: c.flag("tie_word_embeddings", top.flag("tie_word_embeddings", true)?)?,
            sees,
        })
    }
}

/// The angles of layers with a window and without: by layer type in `rope_parameters`, or `rope_local_base_freq` and `rope_theta`. The
/// old `rope_scaling` is of layers without a window alone.
fn parse_ropes(c: &Config, d_head: usize) -> Result<[Rope; 2]> {
    if let Some(theta) = c.object("rope_parameters")?.filter(|flat| flat.has("rope_theta")) {
        return Err(theta.bad("rope_theta", "under full_attention and sliding_attention"));
    }
    let local = Rope::parse_of_layers(c, "sliding_attention", ("rope_local_base_freq", 10_000.0), None, d_head)?;
    let scaling = c.object("rope_scaling")?;
    let global = Rope::parse_of_layers(c, "full_attention", ("rope_theta", 1_000_000.0), scaling, d_head)?;
    Ok([local, global])
}

/// Gemma 3's equations.
#[derive(Debug)]
pub(crate) struct Gemma3 {
    config: Gemma3Config,
    local_angles: RotaryEmbedding,
    global_angles: RotaryEmbedding,
}

impl Gemma3 {
    fn checkpoint<'a>(&'a self, files: &'a dyn TensorSource) -> Checkpoint<'a> {
        Checkpoint { files, shape: self.shape(), gain_plus: 1.0 }
    }
}

impl Family for Gemma3 {
    fn parse(c: &Config) -> Result<Self> {
        let [local_angles, global_angles] = [RotaryEmbedding::default(), RotaryEmbedding::default()];
        Ok(Self { config: Gemma3Config::parse(c)?, local_angles, global_angles })
    }

    fn spares(&self, tensor: &str) -> bool {
        let sight = tensor.starts_with("vision_tower.") || tensor.starts_with("multi_modal_projector.");
        (self.config.sees && sight) || spares(tensor, self.config.tied)
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
        self.config.local_rope.turns_alike(columns) && self.config.global_rope.turns_alike(columns)
    }

    fn has(&self, _: Site) -> bool {
        true
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
        let [q, k] = qk_norm(m, at, w, self.norm(), NormAxis::Width, [q, k])?;
        let window = self.config.windows[layer];
        let turns = match window {
            Some(_) => (&self.config.local_rope, &self.local_angles),
            None => (&self.config.global_rope, &self.global_angles),
        };
        let [q, k] = rotate(m, at, turns, [q, k])?;
        let rule = AttentionSpec { window, ..AttentionSpec::new(self.config.query_pre_attn_scalar.sqrt()) };
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
    use crate::families::rope_scaling::RopeScaling;

    #[test]
    fn every_sixth_layer_sees_everything() {
        for (config, window, scaling) in [
            (published!("gemma-3-270m"), 512, RopeScaling::Default),
            (published!("gemma-3-4b-pt"), 1024, RopeScaling::Linear { factor: 8.0 }),
        ] {
            let config = Gemma3Config::parse(&config).unwrap();
            let expected = |layer| (layer % 6 != 5).then_some(window);
            assert_eq!(config.windows, (0..config.shape.n_layers).map(expected).collect::<Vec<_>>());
            assert_eq!((config.local_rope.theta, &config.local_rope.scaling), (1e4, &RopeScaling::Default));
            assert_eq!((config.global_rope.theta, config.global_rope.scaling), (1e6, scaling));
        }
    }
}
