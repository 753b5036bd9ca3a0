//! `gptneox`: GPT-NeoX, Pythia.

use super::{Architecture, Change, Part};
use crate::Result;
use crate::gguf::rope;
use crate::gguf::words::{SizeWords, Sizes, Words};

/// The converter sorts the rows of the fused matrix: all queries, all keys, all values, where Hugging Face has a query, a key and a value
/// for each head in turn.
pub(super) const GPTNEOX: Architecture = Architecture {
    name: "gptneox",
    model_type: "gpt_neox",
    keys: &[&[EPS, PARALLEL], rope::KEYS],
    sizes: SizeWords { kv_heads: None, head_width: None, ..SizeWords::USUAL },
    describe,
    factors: &[],
    outer: &[
        ("embed_in.weight", "token_embd.weight"),
        ("final_layer_norm.weight", "output_norm.weight"),
        ("final_layer_norm.bias", "output_norm.bias"),
        ("embed_out.weight", "output.weight"),
    ],
    blocks: "layers.",
    parts: &[&[
        Part("attention.query_key_value", "attn_qkv", Change::HeadsOfParts),
        Part("attention.dense", "attn_output", Change::None),
        Part("mlp.dense_h_to_4h", "ffn_up", Change::None),
        Part("mlp.dense_4h_to_h", "ffn_down", Change::None),
        Part("input_layernorm", "attn_norm", Change::None),
        Part("post_attention_layernorm", "ffn_norm", Change::None),
    ]],
};

const EPS: &str = "attention.layer_norm_epsilon";
const PARALLEL: &str = "use_parallel_residual";

/// No key names the activation. Pythia and GPT-NeoX-20B are configured with exact gelu, which is what runs here; llama.cpp runs the
/// approximation by tanh.
fn describe(words: &mut Words<'_>, sizes: &Sizes) -> Result<()> {
    words.set("hidden_act", "gelu");
    words.say_positive("layer_norm_eps", EPS)?;
    let parallel = words.file().require(&words.full(PARALLEL), super::GgufFile::bool)?;
    words.say("use_parallel_residual", parallel, PARALLEL);
    words.set("attention_bias", words.holds("blk.0.attn_qkv.bias"));
    let (rope, _) = words.partial_rope(sizes)?;
    words.refuse_attn_factor(&rope)?;
    words.say_rope(rope);
    Ok(())
}
