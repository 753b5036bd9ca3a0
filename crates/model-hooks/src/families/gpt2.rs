//! GPT-2: layer norms with bias, learned positions, full attention heads, a plain MLP.

use super::Family;
use super::read::layer_norm;
use super::steps::{attention, mlp_input, plain_mlp, qkv};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, Linear, NormWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// The arithmetic of a GPT-2 `config.json`.
#[derive(Clone, Debug)]
pub(crate) struct Gpt2Config {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    /// Scores are divided by `sqrt(d_head)`.
    scale_attn_weights: bool,
    /// Scores of layer `l` are also divided by `l + 1`.
    scale_attn_by_inverse_layer_idx: bool,
    tied: bool,
}

impl Gpt2Config {
    fn parse(c: &Config) -> Result<Self> {
        c.refuse_unless("add_cross_attention", &false.into(), "false: cross-attention is not supported")?;
        let (d_model, (n_heads, d_head)) = (c.size("n_embd")?, c.heads("n_head", "n_embd")?);
        let mut shape = ModelShape::new(d_model, c.layers("n_layer")?, c.size("vocab_size")?, c.size("n_positions")?);
        (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_heads, d_head);
        shape.d_mlp = c.optional_size("n_inner")?.unwrap_or(4 * d_model);
        Ok(Self {
            shape,
            eps: c.positive("layer_norm_epsilon", Some(1e-5))?,
            activation: c.activation("activation_function", "gelu_new")?,
            scale_attn_weights: c.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: c.flag("scale_attn_by_inverse_layer_idx", false)?,
            tied: c.flag("tie_word_embeddings", true)?,
        })
    }
}

/// GPT-2's equations.
#[derive(Debug)]
pub(crate) struct Gpt2 {
    config: Gpt2Config,
}

impl Gpt2 {
    /// Divisor of the scores of a layer.
    fn attn_divisor(&self, layer: usize) -> f64 {
        let by_width = if self.config.scale_attn_weights { (self.config.shape.d_head as f64).sqrt() } else { 1.0 };
        let by_layer = if self.config.scale_attn_by_inverse_layer_idx { (layer + 1) as f64 } else { 1.0 };
        by_width * by_layer
    }
}

impl Family for Gpt2 {
    fn parse(c: &Config) -> Result<Self> {
        Ok(Self { config: Gpt2Config::parse(c)? })
    }

    /// Causal masks are buffers of old checkpoints; a tied unembedding repeats the embedding.
    fn spares(&self, tensor: &str) -> bool {
        tensor.ends_with(".attn.bias")
            || tensor.ends_with(".attn.masked_bias")
            || (self.config.tied && tensor == "lm_head.weight")
    }

    fn shape(&self) -> &ModelShape {
        &self.config.shape
    }

    fn norm(&self) -> Norm {
        Norm { kind: NormKind::Layer, eps: self.config.eps }
    }

    fn has_positions(&self) -> bool {
        true
    }

    fn turns_alike(&self, _: [usize; 2]) -> bool {
        true
    }

    fn has(&self, site: Site) -> bool {
        !matches!(site, Site::RotQ | Site::RotK | Site::MlpPreLinear) && !site.is_extra_norm()
    }

    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed> {
        let &ModelShape { d_model, d_vocab, n_ctx, .. } = self.shape();
        let (w_e, w_u) = files.embeddings(self.config.tied, "wte.weight", &["lm_head.weight"], [d_vocab, d_model])?;
        Ok(RawEmbed {
            w_e,
            w_pos: Some(files.matrix("wpe.weight", n_ctx, d_model)?),
            ln_final: layer_norm(files, "ln_f", d_model)?,
            w_u,
            b_u: None,
        })
    }

    /// Hugging Face's `Conv1D` matrices are already `[in, out]`.
    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, d_mlp, .. } = self.shape();
        let h = format!("h.{layer}");
        let linear = |name: &str, k, n| -> Result<Linear<Raw>> {
            let w = files.matrix(&format!("{h}.{name}.weight"), k, n)?;
            Ok(Linear { w, b: Some(files.vector(&format!("{h}.{name}.bias"), n)?) })
        };
        let qkv = linear("attn.c_attn", d_model, 3 * d_model)?;
        let part = |i: usize| qkv.part(i * d_model..(i + 1) * d_model);
        Ok(BlockWeights {
            ln1: layer_norm(files, &format!("{h}.ln_1"), d_model)?,
            q: part(0),
            k: part(1),
            v: part(2),
            o: linear("attn.c_proj", d_model, d_model)?,
            ln2: layer_norm(files, &format!("{h}.ln_2"), d_model)?,
            gate: None,
            mlp_in: linear("mlp.c_fc", d_model, d_mlp)?,
            mlp_out: linear("mlp.c_proj", d_mlp, d_model)?,
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
        let embed = at.tap(HookPoint::Embed, m.embed(&w.w_e, tokens)?)?;
        let Some(w_pos) = &w.w_pos else { return Ok(embed) };
        let pos_embed = at.tap(HookPoint::PosEmbed, m.positions(w_pos, tokens.batch(), at.columns())?)?;
        Ok(m.add(embed, pos_embed)?)
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
        let qkv = qkv(m, at, w, self.norm(), self.shape(), &resid_pre)?;
        let attn_out = attention(m, at, w, qkv, AttentionSpec::new(self.attn_divisor(layer)))?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let x = mlp_input(m, at, w, self.norm(), &resid_mid)?;
        let mlp_out = plain_mlp(m, at, w, self.config.activation, &x)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}
