//! GPT-NeoX, Pythia: layer norms with bias, rotary positions on a part of each head, attention and MLP side by side or in turn.

use super::Family;
use super::angles::RotaryEmbedding;
use super::read::{layer_norm, linear};
use super::rope::{Rope, RopeKeys};
use super::rope_scaling::context;
use super::steps::{attention, mlp_input, plain_mlp, qkv, rotate};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, NormWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// GPT-NeoX' equations.
#[derive(Debug)]
pub(crate) struct GptNeoX {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    pub(super) rope: Rope,
    /// Whether the MLP reads what attention reads, and not what attention leaves.
    parallel: bool,
    attention_bias: bool,
    tied: bool,
    angles: RotaryEmbedding,
}

impl Family for GptNeoX {
    fn parse(c: &Config) -> Result<Self> {
        let (n_heads, d_head) = c.heads("num_attention_heads", "hidden_size")?;
        let (n_layers, n_ctx) = (c.layers("num_hidden_layers")?, context(c)?);
        let mut shape = ModelShape::new(c.size("hidden_size")?, n_layers, c.size("vocab_size")?, n_ctx);
        (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_heads, d_head);
        shape.d_mlp = c.size("intermediate_size")?;
        // Published files have the names of their own; those that transformers 4.4x wrote have both, or the common ones.
        let either = |own, common| if c.has(own) { own } else { common };
        let keys = RopeKeys {
            theta: either("rotary_emb_base", "rope_theta"),
            share: either("rotary_pct", "partial_rotary_factor"),
            default_share: 0.25,
        };
        Ok(Self {
            shape,
            eps: c.positive("layer_norm_eps", Some(1e-5))?,
            activation: c.activation("hidden_act", "gelu")?,
            rope: Rope::parse_named(c, d_head, keys)?,
            parallel: c.flag("use_parallel_residual", true)?,
            attention_bias: c.flag("attention_bias", true)?,
            tied: c.flag("tie_word_embeddings", false)?,
            angles: RotaryEmbedding::default(),
        })
    }

    /// Causal masks and rotary speeds are buffers of old checkpoints; a tied unembedding repeats the embedding.
    fn spares(&self, tensor: &str) -> bool {
        let buffers = [".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"];
        buffers.iter().any(|buffer| tensor.ends_with(buffer))
            || (self.tied && ["embed_out.weight", "lm_head.weight"].contains(&tensor))
    }

    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    fn norm(&self) -> Norm {
        Norm { kind: NormKind::Layer, eps: self.eps }
    }

    fn has_positions(&self) -> bool {
        false
    }

    fn turns_alike(&self, columns: [usize; 2]) -> bool {
        self.rope.turns_alike(columns)
    }

    fn has(&self, site: Site) -> bool {
        let absent = site == Site::MlpPreLinear || (self.parallel && site == Site::ResidMid);
        !absent && !site.is_extra_norm()
    }

    /// The unembedding is `embed_out` in published files.
    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed> {
        let &ModelShape { d_model, d_vocab, .. } = self.shape();
        let unembed = ["embed_out.weight", "lm_head.weight"];
        let (w_e, w_u) = files.embeddings(self.tied, "embed_in.weight", &unembed, [d_vocab, d_model])?;
        Ok(RawEmbed { w_e, w_pos: None, ln_final: layer_norm(files, "final_layer_norm", d_model)?, w_u, b_u: None })
    }

    /// Query, key and value of a head lie side by side: columns `(head, 3, d_head)`.
    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, n_heads, d_head, d_mlp, .. } = self.shape();
        let norm = |name| layer_norm(files, &format!("layers.{layer}.{name}"), d_model);
        let linear = |name, size, bias| linear(files, &format!("layers.{layer}.{name}"), size, bias);
        let qkv = linear("attention.query_key_value", [d_model, 3 * d_model], self.attention_bias)?;
        let part = |i: usize| {
            let heads = (0..n_heads).map(|head| (3 * head + i) * d_head..(3 * head + i + 1) * d_head);
            qkv.columns(&heads.collect::<Vec<_>>())
        };
        Ok(BlockWeights {
            ln1: norm("input_layernorm")?,
            q: part(0),
            k: part(1),
            v: part(2),
            o: linear("attention.dense", [d_model, d_model], self.attention_bias)?,
            ln2: norm("post_attention_layernorm")?,
            gate: None,
            mlp_in: linear("mlp.dense_h_to_4h", [d_model, d_mlp], true)?,
            mlp_out: linear("mlp.dense_4h_to_h", [d_mlp, d_model], true)?,
            q_norm: NormWeights::default(),
            k_norm: NormWeights::default(),
            ln1_post: NormWeights::default(),
            ln2_post: NormWeights::default(),
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
        let [q, k] = rotate(m, at, (&self.rope, &self.angles), [q, k])?;
        let rule = AttentionSpec::new((self.shape.d_head as f64).sqrt());
        let attn_out = attention(m, at, w, [q, k, v], rule)?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        if self.parallel {
            let x = mlp_input(m, at, w, self.norm(), &resid_pre)?;
            let mlp_out = plain_mlp(m, at, w, self.activation, &x)?;
            let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
            let both = m.add(resid_pre, attn_out)?;
            return at.tap(Site::ResidPost, m.add(both, mlp_out)?);
        }
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let x = mlp_input(m, at, w, self.norm(), &resid_mid)?;
        let mlp_out = plain_mlp(m, at, w, self.activation, &x)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}
