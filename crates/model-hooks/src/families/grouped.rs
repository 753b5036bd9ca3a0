//! Shared by the configurations and checkpoints of Llama and its relatives: key-value heads that several query heads share, a
//! gated MLP, and the names of keys and tensors.

use super::read::linear;
use super::rope_scaling::context;
use crate::config::Config;
use crate::weights::{BlockWeights, NormWeights, Raw, RawEmbed, TensorSource};
use crate::{ModelShape, Result};

/// The dimensions, from `hidden_size`, `num_attention_heads`, `num_key_value_heads`, `head_dim` ...
pub(super) fn parse_shape(c: &Config) -> Result<ModelShape> {
    let (d_model, n_heads) = (c.size("hidden_size")?, c.size("num_attention_heads")?);
    let n_kv_heads = c.optional_size("num_key_value_heads")?.unwrap_or(n_heads);
    if n_heads % n_kv_heads != 0 {
        return Err(c.bad("num_key_value_heads", &format!("a divisor of num_attention_heads = {n_heads}")));
    }
    let d_head = match c.optional_size("head_dim")? {
        Some(d_head) => d_head,
        None => c.heads("num_attention_heads", "hidden_size")?.1,
    };
    if d_head % 2 != 0 {
        return Err(c.bad("head_dim", "an even number: rotary embeddings turn pairs"));
    }
    let n_ctx = context(c)?;
    let mut shape = ModelShape::new(d_model, c.layers("num_hidden_layers")?, c.size("vocab_size")?, n_ctx);
    (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_kv_heads, d_head);
    shape.d_mlp = c.size("intermediate_size")?;
    Ok(shape)
}

/// Maximum number of keys that a query sees in each layer, itself included (`None`: all up to itself): `sliding_window` in the layers that
/// `layer_types` calls `sliding_attention`, or in those that `slides` picks where there is no such list.
pub(super) fn parse_windows(c: &Config, n_layers: usize, slides: impl Fn(usize) -> bool) -> Result<Vec<Option<usize>>> {
    let expected = || format!("full_attention or sliding_attention for each of {n_layers} layers");
    let slides: Vec<bool> = match c.texts("layer_types")? {
        None => (0..n_layers).map(slides).collect(),
        Some(types) if types.len() != n_layers => return Err(c.bad("layer_types", &expected())),
        Some(types) => types
            .into_iter()
            .map(|layer| match layer {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                _ => Err(c.bad("layer_types", &expected())),
            })
            .collect::<Result<_>>()?,
    };
    let window = c.optional_size("sliding_window")?;
    if window.is_none() && slides.contains(&true) {
        return Err(c.missing("sliding_window", "the number of keys that queries see in layers of sliding attention"));
    }
    Ok(slides.into_iter().map(|slides| window.filter(|_| slides)).collect())
}

/// Tensors of checkpoints to ignore: the rotary frequencies of old ones, and a tied unembedding, which repeats the embedding.
pub(super) fn spares(tensor: &str, tied: bool) -> bool {
    tensor.ends_with(".rotary_emb.inv_freq") || (tied && tensor == "lm_head.weight")
}

/// Linear maps that have a bias.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Biases {
    /// The maps to queries, keys and values.
    pub qkv: bool,
    /// The one behind attention.
    pub o: bool,
    /// The maps of the MLP.
    pub mlp: bool,
}

/// Names of the weights: `embed_tokens`, `layers.{layer}.self_attn`, `layers.{layer}.mlp`, `norm`, `lm_head`.
pub(super) struct Checkpoint<'a> {
    /// The tensors.
    pub files: &'a dyn TensorSource,
    /// Their dimensions.
    pub shape: &'a ModelShape,
    /// Added to the gains of norms in the files (Gemma: 1).
    pub gain_plus: f32,
}

impl Checkpoint<'_> {
    /// The ends; `tied`: `W_U` is the transpose of `W_E`.
    pub fn ends(&self, tied: bool) -> Result<RawEmbed> {
        let &ModelShape { d_model, d_vocab, .. } = self.shape;
        let (w_e, w_u) = self.files.embeddings(tied, "embed_tokens.weight", &["lm_head.weight"], [d_vocab, d_model])?;
        Ok(RawEmbed { w_e, w_pos: None, ln_final: self.gain("norm", d_model)?, w_u, b_u: None })
    }

    /// A norm of a block over `len` values.
    pub fn norm(&self, layer: usize, name: &str, len: usize) -> Result<NormWeights<Raw>> {
        self.gain(&format!("layers.{layer}.{name}"), len)
    }

    fn gain(&self, name: &str, len: usize) -> Result<NormWeights<Raw>> {
        Ok(NormWeights { w: Some(self.files.gain(&format!("{name}.weight"), len, self.gain_plus)?), b: None })
    }

    /// The linear maps of a block, without norms.
    pub fn block(&self, layer: usize, biases: Biases) -> Result<BlockWeights<Raw>> {
        let &ModelShape { d_model, n_heads, n_kv_heads, d_head, d_mlp, .. } = self.shape;
        let (q, kv) = (n_heads * d_head, n_kv_heads * d_head);
        let linear = |name: &str, k, n, bias| linear(self.files, &format!("layers.{layer}.{name}"), [k, n], bias);
        Ok(BlockWeights {
            ln1: NormWeights::default(),
            q: linear("self_attn.q_proj", d_model, q, biases.qkv)?,
            k: linear("self_attn.k_proj", d_model, kv, biases.qkv)?,
            v: linear("self_attn.v_proj", d_model, kv, biases.qkv)?,
            q_norm: NormWeights::default(),
            k_norm: NormWeights::default(),
            o: linear("self_attn.o_proj", q, d_model, biases.o)?,
            ln1_post: NormWeights::default(),
            ln2: NormWeights::default(),
            gate: Some(linear("mlp.gate_proj", d_model, d_mlp, biases.mlp)?),
            mlp_in: linear("mlp.up_proj", d_model, d_mlp, biases.mlp)?,
            mlp_out: linear("mlp.down_proj", d_mlp, d_model, biases.mlp)?,
            ln2_post: NormWeights::default(),
        })
    }
}
