//! Llama: RMS norms, rotary positions, grouped key-value heads, a gated MLP.

use super::Family;
use super::rope::{KeptAngles, Rope};
use super::steps::{attention, gated_mlp, mlp_input, qkv};
use crate::config::Config;
use crate::math::{AttentionRule, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::run::{Block, Stage, Step};
use crate::weights::{BlockWeights, Ends, Linear, NormWeights, Raw, RawEnds, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// What a Llama `config.json` (or the header of a GGUF file) says about the arithmetic.
#[derive(Clone, Debug)]
pub(crate) struct LlamaConfig {
    pub shape: ModelShape,
    pub eps: f64,
    pub activation: Activation,
    pub rope: Rope,
}

/// Which of the optional tensors a checkpoint has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub tied: bool,
}

impl LlamaConfig {
    fn parse(c: &Config) -> Result<(Self, Layout)> {
        let (d_model, n_heads) = (c.size("hidden_size")?, c.size("num_attention_heads")?);
        let n_kv_heads = c.optional_size("num_key_value_heads")?.unwrap_or(n_heads);
        if n_heads % n_kv_heads != 0 {
            return Err(c.bad("num_key_value_heads", &format!("a divisor of num_attention_heads = {n_heads}")));
        }
        let d_head = match c.optional_size("head_dim")? {
            Some(d_head) => d_head,
            None if d_model % n_heads == 0 => d_model / n_heads,
            None => return Err(c.bad("num_attention_heads", &format!("a divisor of hidden_size = {d_model}"))),
        };
        if d_head % 2 != 0 {
            return Err(c.bad("head_dim", "an even number: rotary embeddings turn pairs"));
        }
        let n_ctx = c.size("max_position_embeddings")?;
        let mut shape = ModelShape::new(d_model, c.size("num_hidden_layers")?, c.size("vocab_size")?, n_ctx);
        if shape.n_layers > usize::from(u16::MAX) {
            return Err(c.bad("num_hidden_layers", "at most 65535 layers"));
        }
        (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_kv_heads, d_head);
        shape.d_mlp = c.size("intermediate_size")?;
        let eps = c.positive("rms_norm_eps", Some(1e-6))?;
        let activation = c.activation("hidden_act", "silu")?;
        let layout = Layout {
            attention_bias: c.flag("attention_bias", false)?,
            mlp_bias: c.flag("mlp_bias", false)?,
            tied: c.flag("tie_word_embeddings", false)?,
        };
        Ok((Self { shape, eps, activation, rope: Rope::parse(c, d_head)? }, layout))
    }
}

/// Llama's equations.
#[derive(Debug)]
pub(crate) struct Llama {
    config: LlamaConfig,
    layout: Layout,
    angles: KeptAngles,
}

impl Llama {
    /// For weights with rows of Q and K in Hugging Face's order, pairs `(i, i + d_head/2)`.
    pub(crate) fn new(config: LlamaConfig, layout: Layout) -> Self {
        Self { config, layout, angles: KeptAngles::default() }
    }
}

impl Family for Llama {
    fn parse(c: &Config) -> Result<Self> {
        let (config, layout) = LlamaConfig::parse(c)?;
        Ok(Self::new(config, layout))
    }

    /// Rotary speeds are buffers of old checkpoints; a tied unembedding repeats the embedding.
    fn spares(&self, tensor: &str) -> bool {
        tensor.ends_with(".rotary_emb.inv_freq") || (self.layout.tied && tensor == "lm_head.weight")
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

    fn has(&self, site: Site) -> bool {
        !site.is_extra_norm()
    }

    /// `Linear` matrices are `[out, in]` in the files.
    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEnds> {
        let &ModelShape { d_model, d_vocab, .. } = self.shape();
        let own = (!self.layout.tied).then(|| files.transposed("lm_head.weight", d_model, d_vocab));
        Ok(RawEnds {
            w_e: files.matrix("embed_tokens.weight", d_vocab, d_model)?,
            w_pos: None,
            ln_final: NormWeights { w: Some(files.vector("norm.weight", d_model)?), b: None },
            w_u: own.transpose()?,
            b_u: None,
        })
    }

    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, n_heads, n_kv_heads, d_head, d_mlp, .. } = self.shape();
        let (q, kv) = (n_heads * d_head, n_kv_heads * d_head);
        let Layout { attention_bias, mlp_bias, .. } = self.layout;
        let norm = |name: &str| -> Result<NormWeights<Raw>> {
            Ok(NormWeights { w: Some(files.vector(&format!("layers.{layer}.{name}.weight"), d_model)?), b: None })
        };
        let linear = |name: &str, k, n, bias| -> Result<Linear<Raw>> {
            let w = files.transposed(&format!("layers.{layer}.{name}.weight"), k, n)?;
            Ok(Linear { w, b: files.vector_if(bias, &format!("layers.{layer}.{name}.bias"), n)? })
        };
        Ok(BlockWeights {
            ln1: norm("input_layernorm")?,
            q: linear("self_attn.q_proj", d_model, q, attention_bias)?,
            k: linear("self_attn.k_proj", d_model, kv, attention_bias)?,
            v: linear("self_attn.v_proj", d_model, kv, attention_bias)?,
            o: linear("self_attn.o_proj", q, d_model, attention_bias)?,
            ln2: norm("post_attention_layernorm")?,
            gate: Some(linear("mlp.gate_proj", d_model, d_mlp, mlp_bias)?),
            mlp_in: linear("mlp.up_proj", d_model, d_mlp, mlp_bias)?,
            mlp_out: linear("mlp.down_proj", d_mlp, d_model, mlp_bias)?,
            q_norm: NormWeights::default(),
            k_norm: NormWeights::default(),
            ln1_post: NormWeights::default(),
            ln2_post: NormWeights::default(),
        })
    }

    fn embed<M: Math>(&self, m: &M, at: &mut Stage<'_>, w: &Ends<M>, tokens: &TokenBatch) -> Step<M::Value> {
        at.tap(HookPoint::Embed, m.embed(&w.w_e, tokens)?)
    }

    fn block<M: Math>(
        &self,
        m: &M,
        at: &mut Block<'_, '_>,
        w: &BlockWeights<M>,
        _: usize,
        resid: M::Value,
    ) -> Step<M::Value> {
        let columns = at.stage().columns().clone();
        let angles = self.angles.get(&self.config.rope, columns.end());
        let resid_pre = at.tap(Site::ResidPre, resid)?;
        let [q, k, v] = qkv(m, at, w, self.norm(), self.shape(), &resid_pre)?;
        let q = at.tap(Site::RotQ, m.rotate(q, &angles, &columns)?)?;
        let k = at.tap(Site::RotK, m.rotate(k, &angles, &columns)?)?;
        let rule = AttentionRule::new((self.shape().d_head as f64).sqrt());
        let attn_out = attention(m, at, w, [q, k, v], rule)?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let x = mlp_input(m, at, w, self.norm(), &resid_mid)?;
        let mlp_out = gated_mlp(m, at, w, self.config.activation, &x)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}
