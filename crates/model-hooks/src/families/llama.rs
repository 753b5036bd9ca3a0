//! Llama: RMS norms, rotary positions, grouped key-value heads, a gated MLP.

use super::decoder::Decoder;
use super::rope::Rope;
use crate::config::Config;
use crate::folder::WeightFolder;
use crate::ops::{Activation, Norm, linear, rotate};
use crate::processing::ProcessingSteps;
use crate::run::{Block, Step};
use crate::weights::{BlockWeights, NormWeights, TensorSource, Weights};
use crate::{HookPoint, HookedModel, ModelShape, Result, Site, Start, Tap, TokenBatch};
use candle_core::{Error as TensorError, Tensor};
use std::path::Path;

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
        Ok((Self { shape, eps, activation, rope: Rope::parse(c)? }, layout))
    }

    /// Reads the weights under Hugging Face's names; `Linear` matrices are `[out, in]` there.
    pub(crate) fn weights(&self, files: &mut dyn TensorSource, layout: &Layout) -> Result<Weights> {
        let ModelShape { d_model, n_layers, d_vocab, .. } = self.shape;
        let w_e = files.take("embed_tokens.weight", &[d_vocab, d_model])?;
        let w_u = if layout.tied { w_e.t()? } else { files.take_transposed("lm_head.weight", d_model, d_vocab)? };
        Ok(Weights {
            w_pos: None,
            blocks: (0..n_layers).map(|layer| self.block(files, layer, layout)).collect::<Result<_>>()?,
            ln_final: NormWeights { w: Some(files.take("norm.weight", &[d_model])?), b: None },
            w_e,
            w_u,
            b_u: None,
        })
    }

    fn block(&self, files: &mut dyn TensorSource, layer: usize, layout: &Layout) -> Result<BlockWeights> {
        let ModelShape { d_model, n_heads, n_kv_heads, d_head, d_mlp, .. } = self.shape;
        let (q, kv) = (n_heads * d_head, n_kv_heads * d_head);
        let name = |part: &str| format!("layers.{layer}.{part}");
        let norm = |files: &mut dyn TensorSource, part: &str| -> Result<NormWeights> {
            Ok(NormWeights { w: Some(files.take(&name(part), &[d_model])?), b: None })
        };
        let (attn, mlp) = (layout.attention_bias, layout.mlp_bias);
        Ok(BlockWeights {
            ln1: norm(files, "input_layernorm.weight")?,
            w_q: files.take_transposed(&name("self_attn.q_proj.weight"), d_model, q)?,
            b_q: files.take_if(attn, &name("self_attn.q_proj.bias"), &[q])?,
            w_k: files.take_transposed(&name("self_attn.k_proj.weight"), d_model, kv)?,
            b_k: files.take_if(attn, &name("self_attn.k_proj.bias"), &[kv])?,
            w_v: files.take_transposed(&name("self_attn.v_proj.weight"), d_model, kv)?,
            b_v: files.take_if(attn, &name("self_attn.v_proj.bias"), &[kv])?,
            w_o: files.take_transposed(&name("self_attn.o_proj.weight"), q, d_model)?,
            b_o: files.take_if(attn, &name("self_attn.o_proj.bias"), &[d_model])?,
            ln2: norm(files, "post_attention_layernorm.weight")?,
            w_gate: Some(files.take_transposed(&name("mlp.gate_proj.weight"), d_model, d_mlp)?),
            b_gate: files.take_if(mlp, &name("mlp.gate_proj.bias"), &[d_mlp])?,
            w_in: files.take_transposed(&name("mlp.up_proj.weight"), d_model, d_mlp)?,
            b_in: files.take_if(mlp, &name("mlp.up_proj.bias"), &[d_mlp])?,
            w_out: files.take_transposed(&name("mlp.down_proj.weight"), d_mlp, d_model)?,
            b_out: files.take_if(mlp, &name("mlp.down_proj.bias"), &[d_model])?,
        })
    }
}

/// A Llama that can be tapped.
#[derive(Debug)]
pub struct Llama {
    decoder: Decoder,
    rope: Rope,
}

impl Llama {
    /// Reads a Hugging Face folder whose `config.json` has been recognised as Llama's.
    pub(crate) fn from_folder(folder: &Path, config: &Config, processing: ProcessingSteps) -> Result<Self> {
        let (config, layout) = LlamaConfig::parse(config)?;
        let mut files = WeightFolder::open(folder, "model.")?;
        let weights = config.weights(&mut files, &layout)?;
        // Rotary speeds are buffers of old checkpoints; a tied unembedding repeats the embedding.
        files.finish(|name| name.ends_with(".rotary_emb.inv_freq") || (layout.tied && name == "lm_head.weight"))?;
        Self::new(config, weights, processing)
    }

    /// Processes raw weights (rows of Q and K in Hugging Face's order, pairs `(i, i + d_head/2)`) and builds the model.
    pub(crate) fn new(config: LlamaConfig, mut weights: Weights, processing: ProcessingSteps) -> Result<Self> {
        weights.check(&config.shape)?;
        processing.apply(&mut weights, &config.shape, Norm::Rms)?;
        let LlamaConfig { shape, eps, activation, rope } = config;
        Ok(Self { decoder: Decoder::new(shape, weights, (Norm::Rms, eps), activation, |_| true)?, rope })
    }

    fn block(&self, at: &mut Block<'_, '_>, layer: usize, resid: Tensor, (cos, sin): (&[f32], &[f32])) -> Step<Tensor> {
        let (d, w) = (&self.decoder, &self.decoder.weights.blocks[layer]);
        let ModelShape { n_heads, n_kv_heads, d_head, .. } = d.shape;
        let resid_pre = at.tap(Site::ResidPre, resid)?;
        let x = d.ln1(at, w, &resid_pre)?;
        let q = at.tap(Site::Q, d.heads(&x, &w.w_q, w.b_q.as_ref(), n_heads)?)?;
        let k = at.tap(Site::K, d.heads(&x, &w.w_k, w.b_k.as_ref(), n_kv_heads)?)?;
        let v = at.tap(Site::V, d.heads(&x, &w.w_v, w.b_v.as_ref(), n_kv_heads)?)?;
        let q = at.tap(Site::RotQ, rotate(&q, cos, sin)?)?;
        let k = at.tap(Site::RotK, rotate(&k, cos, sin)?)?;
        let attn_out = d.attention(at, w, [&q, &k, &v], (d_head as f64).sqrt())?;
        let resid_mid = at.tap(Site::ResidMid, (resid_pre + attn_out)?)?;
        let x = d.ln2(at, w, &resid_mid)?;
        let w_gate = w.w_gate.as_ref().ok_or(TensorError::Msg("a Llama block needs W_gate".into()))?;
        let pre = at.tap(Site::MlpPre, linear(&x, w_gate, w.b_gate.as_ref())?)?;
        let pre_linear = at.tap(Site::MlpPreLinear, linear(&x, &w.w_in, w.b_in.as_ref())?)?;
        let post = at.tap(Site::MlpPost, d.activation.gate(&pre, &pre_linear)?)?;
        let mlp_out = at.tap(Site::MlpOut, linear(&post, &w.w_out, w.b_out.as_ref())?)?;
        at.tap(Site::ResidPost, (resid_mid + mlp_out)?)
    }
}

impl HookedModel for Llama {
    fn shape(&self) -> &ModelShape {
        &self.decoder.shape
    }

    fn hook_points(&self) -> &[HookPoint] {
        &self.decoder.points
    }

    fn run(
        &self,
        tokens: &TokenBatch,
        start: Start<'_>,
        last: Option<HookPoint>,
        tap: &mut dyn Tap,
    ) -> Result<Option<Tensor>> {
        let d = &self.decoder;
        d.plan(tokens, start, last, tap)?.through(|at| {
            let (first, mut resid) = match start {
                Start::Tokens => (0, at.tap(HookPoint::Embed, d.embed(tokens)?)?),
                Start::Residual { layer, resid } => (layer, resid.clone()),
            };
            let (cos, sin) = self.rope.tables(d.shape.d_head, tokens.pos());
            for layer in first..d.shape.n_layers {
                resid = self.block(&mut at.block(layer as u16), layer, resid, (&cos, &sin))?;
            }
            d.logits(at, &resid)
        })
    }

    fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        self.decoder.unembed(resid)
    }

    fn w_u_columns(&self, start: usize, len: usize) -> Result<Tensor> {
        self.decoder.w_u_columns(start, len)
    }
}
