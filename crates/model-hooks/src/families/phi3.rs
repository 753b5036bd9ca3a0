//! Phi-3: as Llama, with fused projections, windows in every layer, and rotary speeds that depend on the length of the text.

use super::Family;
use super::grouped::{Checkpoint, parse_shape, spares};
use super::long_rope::LongRope;
use super::read::linear;
use super::rope::{Rope, RopeKeys};
use super::steps::{attention, gated_mlp, mlp_input, qkv};
use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::math::{AttentionSpec, Math};
use crate::ops::{Activation, Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, NormWeights, Raw, RawEmbed, TensorSource};
use crate::{HookPoint, ModelShape, Result, Site, TokenBatch};

/// Phi-3's equations.
#[derive(Debug)]
pub(crate) struct Phi3 {
    shape: ModelShape,
    eps: f64,
    activation: Activation,
    rope: LongRope,
    /// Maximum number of keys that a query sees, its own included.
    window: Option<usize>,
    tied: bool,
}

impl Phi3 {
    fn checkpoint<'a>(&'a self, files: &'a dyn TensorSource) -> Checkpoint<'a> {
        Checkpoint { files, shape: self.shape(), gain_plus: 0.0 }
    }
}

impl Family for Phi3 {
    fn parse(c: &Config) -> Result<Self> {
        for key in ["attention_bias", "mlp_bias"] {
            c.refuse_unless(key, &false.into(), "false: Phi-3 has no biases")?;
        }
        let shape = parse_shape(c)?;
        let (rope, scaling) = Rope::parse_unscaled(c, shape.d_head, RopeKeys::default())?;
        Ok(Self {
            eps: c.positive("rms_norm_eps", Some(1e-5))?,
            activation: c.activation("hidden_act", "silu")?,
            rope: LongRope::parse(c, scaling.as_ref(), rope, shape.n_ctx)?,
            shape,
            window: c.optional_size("sliding_window")?,
            tied: c.flag("tie_word_embeddings", false)?,
        })
    }

    fn spares(&self, tensor: &str) -> bool {
        spares(tensor, self.tied)
    }

    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    fn norm(&self) -> Norm {
        Norm { kind: NormKind::Rms, eps: self.eps }
    }

    fn has_positions(&self) -> bool {
        false
    }

    fn turns_alike(&self, columns: [usize; 2]) -> bool {
        self.rope.turns_alike(columns)
    }

    fn has(&self, site: Site) -> bool {
        !site.is_extra_norm()
    }

    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed> {
        self.checkpoint(files).ends(self.tied)
    }

    /// All queries, all keys, all values lie side by side in one matrix, `W_gate` and `W_in` in another.
    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, n_heads, n_kv_heads, d_head, d_mlp, .. } = self.shape();
        let (q, kv) = (n_heads * d_head, n_kv_heads * d_head);
        let norm = |name| self.checkpoint(files).norm(layer, name, d_model);
        let linear = |name, size| linear(files, &format!("layers.{layer}.{name}"), size, false);
        let qkv = linear("self_attn.qkv_proj", [d_model, q + 2 * kv])?;
        let gate_in = linear("mlp.gate_up_proj", [d_model, 2 * d_mlp])?;
        Ok(BlockWeights {
            ln1: norm("input_layernorm")?,
            q: qkv.part(0..q),
            k: qkv.part(q..q + kv),
            v: qkv.part(q + kv..q + 2 * kv),
            o: linear("self_attn.o_proj", [q, d_model])?,
            ln2: norm("post_attention_layernorm")?,
            gate: Some(gate_in.part(0..d_mlp)),
            mlp_in: gate_in.part(d_mlp..2 * d_mlp),
            mlp_out: linear("mlp.down_proj", [d_mlp, d_model])?,
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
        let columns = at.stage().columns().clone();
        let angles = self.rope.angles(&columns);
        let resid_pre = at.tap(Site::ResidPre, resid)?;
        let [q, k, v] = qkv(m, at, w, self.norm(), self.shape(), &resid_pre)?;
        let q = at.tap(Site::RotQ, m.rotate(q, &angles, &columns)?)?;
        let k = at.tap(Site::RotK, m.rotate(k, &angles, &columns)?)?;
        let rule = AttentionSpec { window: self.window, ..AttentionSpec::new((self.shape.d_head as f64).sqrt()) };
        let attn_out = attention(m, at, w, [q, k, v], rule)?;
        let attn_out = at.tap(Site::AttnOut, attn_out)?;
        let resid_mid = at.tap(Site::ResidMid, m.add(resid_pre, attn_out)?)?;
        let x = mlp_input(m, at, w, self.norm(), &resid_mid)?;
        let mlp_out = gated_mlp(m, at, w, self.activation, &x)?;
        let mlp_out = at.tap(Site::MlpOut, mlp_out)?;
        at.tap(Site::ResidPost, m.add(resid_mid, mlp_out)?)
    }
}
