//! GPT-2: layer norms with bias, learned positions, full attention heads, a plain MLP.

use super::decoder::Decoder;
use crate::config::Config;
use crate::folder::WeightFolder;
use crate::ops::{Activation, Norm, linear};
use crate::processing::ProcessingSteps;
use crate::run::{Block, Stage, Step};
use crate::weights::{BlockWeights, NormWeights, TensorSource, Weights};
use crate::{HookPoint, HookedModel, ModelShape, Result, Site, Start, Tap, TokenBatch};
use candle_core::Tensor;
use std::path::Path;

/// What a GPT-2 `config.json` says about the arithmetic.
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
        let (d_model, n_heads) = (c.size("n_embd")?, c.size("n_head")?);
        if d_model % n_heads != 0 {
            return Err(c.bad("n_head", &format!("a divisor of n_embd = {d_model}")));
        }
        let mut shape = ModelShape::new(d_model, c.size("n_layer")?, c.size("vocab_size")?, c.size("n_positions")?);
        if shape.n_layers > usize::from(u16::MAX) {
            return Err(c.bad("n_layer", "at most 65535 layers"));
        }
        (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_heads, d_model / n_heads);
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

    /// Reads the weights under Hugging Face's names; `Conv1D` matrices are already `[in, out]`.
    fn weights(&self, files: &mut WeightFolder) -> Result<Weights> {
        let ModelShape { d_model, n_layers, d_vocab, n_ctx, .. } = self.shape;
        let w_e = files.take("wte.weight", &[d_vocab, d_model])?;
        let w_u = if self.tied { w_e.t()? } else { files.take_transposed("lm_head.weight", d_model, d_vocab)? };
        Ok(Weights {
            w_pos: Some(files.take("wpe.weight", &[n_ctx, d_model])?),
            blocks: (0..n_layers).map(|layer| self.block(files, layer)).collect::<Result<_>>()?,
            ln_final: norm(files, "ln_f", d_model)?,
            w_e,
            w_u,
            b_u: None,
        })
    }

    fn block(&self, files: &mut WeightFolder, layer: usize) -> Result<BlockWeights> {
        let ModelShape { d_model, d_mlp, .. } = self.shape;
        let h = format!("h.{layer}");
        let w_qkv = files.take(&format!("{h}.attn.c_attn.weight"), &[d_model, 3 * d_model])?;
        let b_qkv = files.take(&format!("{h}.attn.c_attn.bias"), &[3 * d_model])?;
        let w = |i| w_qkv.narrow(1, i * d_model, d_model);
        let b = |i| b_qkv.narrow(0, i * d_model, d_model);
        Ok(BlockWeights {
            ln1: norm(files, &format!("{h}.ln_1"), d_model)?,
            w_q: w(0)?,
            b_q: Some(b(0)?),
            w_k: w(1)?,
            b_k: Some(b(1)?),
            w_v: w(2)?,
            b_v: Some(b(2)?),
            w_o: files.take(&format!("{h}.attn.c_proj.weight"), &[d_model, d_model])?,
            b_o: Some(files.take(&format!("{h}.attn.c_proj.bias"), &[d_model])?),
            ln2: norm(files, &format!("{h}.ln_2"), d_model)?,
            w_gate: None,
            b_gate: None,
            w_in: files.take(&format!("{h}.mlp.c_fc.weight"), &[d_model, d_mlp])?,
            b_in: Some(files.take(&format!("{h}.mlp.c_fc.bias"), &[d_mlp])?),
            w_out: files.take(&format!("{h}.mlp.c_proj.weight"), &[d_mlp, d_model])?,
            b_out: Some(files.take(&format!("{h}.mlp.c_proj.bias"), &[d_model])?),
        })
    }
}

fn norm(files: &mut WeightFolder, name: &str, d_model: usize) -> Result<NormWeights> {
    let mut take = |part| files.take(&format!("{name}.{part}"), &[d_model]).map(Some);
    Ok(NormWeights { w: take("weight")?, b: take("bias")? })
}

/// A GPT-2 that can be tapped.
#[derive(Debug)]
pub struct Gpt2 {
    decoder: Decoder,
    config: Gpt2Config,
}

impl Gpt2 {
    /// Reads a Hugging Face folder whose `config.json` has been recognised as GPT-2's.
    pub(crate) fn from_folder(folder: &Path, config: &Config, processing: ProcessingSteps) -> Result<Self> {
        let config = Gpt2Config::parse(config)?;
        let mut files = WeightFolder::open(folder, "transformer.")?;
        let mut weights = config.weights(&mut files)?;
        // Causal masks are buffers of old checkpoints; a tied unembedding repeats the embedding.
        files.finish(|name| {
            name.ends_with(".attn.bias")
                || name.ends_with(".attn.masked_bias")
                || (config.tied && name == "lm_head.weight")
        })?;
        processing.apply(&mut weights, &config.shape, Norm::Layer)?;
        Self::new(config, weights)
    }

    fn new(config: Gpt2Config, weights: Weights) -> Result<Self> {
        let has = |site| !matches!(site, Site::RotQ | Site::RotK | Site::MlpPreLinear);
        let norm = (Norm::Layer, config.eps);
        let decoder = Decoder::new(config.shape.clone(), weights, norm, config.activation, has)?;
        Ok(Self { decoder, config })
    }

    /// What the scores of a layer are divided by.
    fn attn_divisor(&self, layer: usize) -> f64 {
        let by_width = if self.config.scale_attn_weights { (self.config.shape.d_head as f64).sqrt() } else { 1.0 };
        let by_layer = if self.config.scale_attn_by_inverse_layer_idx { (layer + 1) as f64 } else { 1.0 };
        by_width * by_layer
    }

    fn embed(&self, at: &mut Stage<'_>, tokens: &TokenBatch) -> Step<Tensor> {
        let embed = at.tap(HookPoint::Embed, self.decoder.embed(tokens)?)?;
        match &self.decoder.weights.w_pos {
            None => Ok(embed),
            Some(w_pos) => {
                let pos_embed = w_pos.narrow(0, 0, tokens.pos())?.broadcast_as(embed.shape())?.contiguous()?;
                let pos_embed = at.tap(HookPoint::PosEmbed, pos_embed)?;
                Ok((embed + pos_embed)?)
            }
        }
    }

    fn block(&self, at: &mut Block<'_, '_>, layer: usize, resid: Tensor) -> Step<Tensor> {
        let (d, w) = (&self.decoder, &self.decoder.weights.blocks[layer]);
        let heads = d.shape.n_heads;
        let resid_pre = at.tap(Site::ResidPre, resid)?;
        let x = d.ln1(at, w, &resid_pre)?;
        let q = at.tap(Site::Q, d.heads(&x, &w.w_q, w.b_q.as_ref(), heads)?)?;
        let k = at.tap(Site::K, d.heads(&x, &w.w_k, w.b_k.as_ref(), heads)?)?;
        let v = at.tap(Site::V, d.heads(&x, &w.w_v, w.b_v.as_ref(), heads)?)?;
        let attn_out = d.attention(at, w, [&q, &k, &v], self.attn_divisor(layer))?;
        let resid_mid = at.tap(Site::ResidMid, (resid_pre + attn_out)?)?;
        let x = d.ln2(at, w, &resid_mid)?;
        let pre = at.tap(Site::MlpPre, linear(&x, &w.w_in, w.b_in.as_ref())?)?;
        let post = at.tap(Site::MlpPost, d.activation.apply(&pre)?)?;
        let mlp_out = at.tap(Site::MlpOut, linear(&post, &w.w_out, w.b_out.as_ref())?)?;
        at.tap(Site::ResidPost, (resid_mid + mlp_out)?)
    }
}

impl HookedModel for Gpt2 {
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
        self.decoder.plan(tokens, start, last, tap)?.through(|at| {
            let (first, mut resid) = match start {
                Start::Tokens => (0, self.embed(at, tokens)?),
                Start::Residual { layer, resid } => (layer, resid.clone()),
            };
            for layer in first..self.decoder.shape.n_layers {
                resid = self.block(&mut at.block(layer as u16), layer, resid)?;
            }
            self.decoder.logits(at, &resid)
        })
    }

    fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        self.decoder.unembed(resid)
    }

    fn w_u_columns(&self, start: usize, len: usize) -> Result<Tensor> {
        self.decoder.w_u_columns(start, len)
    }
}
