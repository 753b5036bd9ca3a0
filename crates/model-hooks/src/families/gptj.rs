//! GPT-J: attention and MLP side by side behind one layer norm, rotary positions on neighboring pairs, an unembedding with bias.

use super::Family;
use super::angles::RotaryEmbedding;
use super::read::{layer_norm, linear};
use super::rope::Rope;
use super::rope_scaling::RopeScaling;
use super::steps::{attention, mlp_input, plain_mlp, qkv, rotate};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, NormWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};
use tensor_kernels::RopeLayout;

/// GPT-J's equations.
#[derive(Debug)]
pub(crate) struct GptJ {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    rope: Rope,
    tied: bool,
    angles: RotaryEmbedding,
}

impl Family for GptJ {
    fn parse(c: &Config) -> Result<Self> {
        c.refuse_unless("rotary", &true.into(), "true: GPT-J without rotary positions is not supported")?;
        c.refuse_unless("scale_attn_weights", &true.into(), "true: unscaled attention is not supported")?;
        let (n_heads, d_head) = c.heads("n_head", "n_embd")?;
        let d_model = c.size("n_embd")?;
        let mut shape = ModelShape::new(d_model, c.layers("n_layer")?, c.size("vocab_size")?, c.size("n_positions")?);
        (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_heads, d_head);
        shape.d_mlp = c.optional_size("n_inner")?.unwrap_or(4 * d_model);
        let d_rotary = c.size("rotary_dim")?;
        if d_rotary % 2 != 0 || d_rotary > d_head {
            return Err(c.bad("rotary_dim", &format!("an even number, at most the width of a head, {d_head}")));
        }
        Ok(Self {
            shape,
            eps: c.positive("layer_norm_epsilon", Some(1e-5))?,
            activation: c.activation("activation_function", "gelu_new")?,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default, d_rotary, pairs: RopeLayout::Interleaved },
            tied: c.flag("tie_word_embeddings", false)?,
            angles: RotaryEmbedding::default(),
        })
    }

    /// Causal masks and sines are buffers of old checkpoints; a tied unembedding repeats the embedding.
    fn spares(&self, tensor: &str) -> bool {
        let buffers = [".attn.bias", ".attn.masked_bias", ".attn.embed_positions"];
        buffers.iter().any(|buffer| tensor.ends_with(buffer)) || (self.tied && tensor == "lm_head.weight")
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
        !matches!(site, Site::ResidMid | Site::MlpPreLinear) && !site.is_extra_norm()
    }

    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed> {
        let &ModelShape { d_model, d_vocab, .. } = self.shape();
        let (w_e, w_u) = files.embeddings(self.tied, "wte.weight", &["lm_head.weight"], [d_vocab, d_model])?;
        Ok(RawEmbed {
            w_e,
            w_pos: None,
            ln_final: layer_norm(files, "ln_f", d_model)?,
            w_u,
            b_u: Some(files.vector("lm_head.bias", d_vocab)?),
        })
    }

    /// The one norm is `ln1` and `ln2`, as in TransformerLens.
    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, d_mlp, .. } = self.shape();
        let linear = |name, size, bias| linear(files, &format!("h.{layer}.{name}"), size, bias);
        let ln = layer_norm(files, &format!("h.{layer}.ln_1"), d_model)?;
        Ok(BlockWeights {
            ln1: ln.clone(),
            q: linear("attn.q_proj", [d_model, d_model], false)?,
            k: linear("attn.k_proj", [d_model, d_model], false)?,
            v: linear("attn.v_proj", [d_model, d_model], false)?,
            o: linear("attn.out_proj", [d_model, d_model], false)?,
            ln2: ln,
            gate: None,
            mlp_in: linear("mlp.fc_in", [d_model, d_mlp], true)?,
            mlp_out: linear("mlp.fc_out", [d_mlp, d_model], true)?,
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
        let x = mlp_input(m, at, w, self.norm(), &resid_pre)?;
        let mlp_out = plain_mlp(m, at, w, self.activation, &x)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        let both = m.add(resid_pre, attn_out)?;
        at.tap(Site::ResidPost, m.add(both, mlp_out)?)
    }
}
