//! GPT-Neo, TinyStories: as GPT-2, with scores that are not divided, and layers that see only the last positions.

use super::Family;
use super::read::{layer_norm, linear};
use super::steps::{attention, mlp_input, plain_mlp, qkv};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, NormWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};
use serde_json::Value;

/// GPT-Neo's equations.
#[derive(Debug)]
pub(crate) struct GptNeo {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    /// Maximum number of keys that a query of each layer sees, its own included; `None` in global layers.
    pub(super) windows: Vec<Option<usize>>,
    tied: bool,
}

impl Family for GptNeo {
    fn parse(c: &Config) -> Result<Self> {
        let (n_heads, d_head) = c.heads("num_heads", "hidden_size")?;
        let (d_model, n_ctx) = (c.size("hidden_size")?, c.size("max_position_embeddings")?);
        let mut shape = ModelShape::new(d_model, c.layers("num_layers")?, c.size("vocab_size")?, n_ctx);
        (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_heads, d_head);
        shape.d_mlp = c.optional_size("intermediate_size")?.unwrap_or(4 * d_model);
        Ok(Self {
            windows: windows(c, shape.n_layers)?,
            shape,
            eps: c.positive("layer_norm_epsilon", Some(1e-5))?,
            activation: c.activation("activation_function", "gelu_new")?,
            tied: c.flag("tie_word_embeddings", true)?,
        })
    }

    /// Causal masks are buffers of old checkpoints; a tied unembedding repeats the embedding.
    fn spares(&self, tensor: &str) -> bool {
        tensor.ends_with(".attn.attention.bias")
            || tensor.ends_with(".attn.attention.masked_bias")
            || (self.tied && tensor == "lm_head.weight")
    }

    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    fn norm(&self) -> Norm {
        Norm { kind: NormKind::Layer, eps: self.eps }
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
        let (w_e, w_u) = files.embeddings(self.tied, "wte.weight", &["lm_head.weight"], [d_vocab, d_model])?;
        Ok(RawEmbed {
            w_e,
            w_pos: Some(files.matrix("wpe.weight", n_ctx, d_model)?),
            ln_final: layer_norm(files, "ln_f", d_model)?,
            w_u,
            b_u: None,
        })
    }

    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, d_mlp, .. } = self.shape();
        let norm = |name| layer_norm(files, &format!("h.{layer}.{name}"), d_model);
        let linear = |name, size, bias| linear(files, &format!("h.{layer}.{name}"), size, bias);
        Ok(BlockWeights {
            ln1: norm("ln_1")?,
            q: linear("attn.attention.q_proj", [d_model, d_model], false)?,
            k: linear("attn.attention.k_proj", [d_model, d_model], false)?,
            v: linear("attn.attention.v_proj", [d_model, d_model], false)?,
            o: linear("attn.attention.out_proj", [d_model, d_model], true)?,
            ln2: norm("ln_2")?,
            gate: None,
            mlp_in: linear("mlp.c_fc", [d_model, d_mlp], true)?,
            mlp_out: linear("mlp.c_proj", [d_mlp, d_model], true)?,
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
        let rule = AttentionSpec { window: self.windows[layer], ..AttentionSpec::new(1.0) };
        let attn_out = attention(m, at, w, qkv, rule)?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let x = mlp_input(m, at, w, self.norm(), &resid_mid)?;
        let mlp_out = plain_mlp(m, at, w, self.activation, &x)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}

/// The window of each layer, from `attention_types` (`[[["global", "local"], 6]]`: the kinds, and how often they repeat) or, spelled
/// out, `attention_layers`. A query of a local layer sees itself and the `window_size - 1` positions before it.
fn windows(c: &Config, n_layers: usize) -> Result<Vec<Option<usize>>> {
    let key = if c.has("attention_types") { "attention_types" } else { "attention_layers" };
    let wanted = "\"global\" or \"local\" for each of the layers";
    let kinds = c.list(key)?.ok_or_else(|| c.missing(key, wanted))?;
    let kinds = if key == "attention_types" { repeated(kinds, n_layers) } else { Some(kinds.iter().collect()) };
    let kinds = kinds.filter(|kinds| kinds.len() == n_layers);
    let window = c.optional_size("window_size")?.unwrap_or(256);
    let kinds = kinds.and_then(|kinds| {
        let window = |kind: &Value| match kind.as_str()? {
            "global" => Some(None),
            "local" => Some(Some(window)),
            _ => None,
        };
        kinds.into_iter().map(window).collect()
    });
    kinds.ok_or_else(|| c.bad(key, &format!("{wanted}, of which num_layers says {n_layers}")))
}

/// The kinds of all layers, as long as they are not more than that.
fn repeated(types: &[Value], n_layers: usize) -> Option<Vec<&Value>> {
    let mut all = Vec::new();
    for item in types {
        let [Value::Array(kinds), times] = &item.as_array()?[..] else { return None };
        let times = usize::try_from(times.as_u64()?).ok()?;
        if all.len().checked_add(kinds.len().checked_mul(times)?)? > n_layers {
            return None;
        }
        all.extend(std::iter::repeat_n(kinds, if kinds.is_empty() { 0 } else { times }).flatten());
    }
    Some(all)
}
