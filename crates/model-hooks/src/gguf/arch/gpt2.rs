//! `gpt2`.

use super::{Architecture, Change, Part};
use crate::Result;
use crate::gguf::words::{SizeWords, Sizes, Words};

/// The converter transposes the `Conv1D` matrices. Older ones also stored the embedding a second time as `output.weight`, possibly in
/// other blocks; it is then the unembedding, as in llama.cpp.
pub(super) const GPT2: Architecture = Architecture {
    name: "gpt2",
    model_type: "gpt2",
    keys: &[&[EPS]],
    sizes: SizeWords {
        width: "n_embd",
        layers: "n_layer",
        context: "n_positions",
        heads: "n_head",
        kv_heads: None,
        head_width: None,
        mlp: "n_inner",
    },
    describe,
    factors: &[],
    outer: &[
        ("wte.weight", "token_embd.weight"),
        ("wpe.weight", "position_embd.weight"),
        ("ln_f.weight", "output_norm.weight"),
        ("ln_f.bias", "output_norm.bias"),
        ("lm_head.weight", "output.weight"),
    ],
    blocks: "h.",
    parts: &[&[
        Part("attn.c_attn", "attn_qkv", Change::Transposed),
        Part("attn.c_proj", "attn_output", Change::Transposed),
        Part("mlp.c_fc", "ffn_up", Change::Transposed),
        Part("mlp.c_proj", "ffn_down", Change::Transposed),
        Part("ln_1", "attn_norm", Change::None),
        Part("ln_2", "ffn_norm", Change::None),
    ]],
};

const EPS: &str = "attention.layer_norm_epsilon";

/// No key says how scores are scaled: variants with `scale_attn_by_inverse_layer_idx` are not told apart by the format.
fn describe(words: &mut Words<'_>, _: &Sizes) -> Result<()> {
    words.set("activation_function", "gelu_new");
    words.say_positive("layer_norm_epsilon", EPS)
}
