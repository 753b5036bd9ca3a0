//! `llama`: Llama and what has its equations (SmolLM2, DeepSeek-R1-Distill-Llama ...); also Mistral, of whose window files say nothing.

use super::{Architecture, Change, Part};
use crate::Result;
use crate::gguf::rope;
use crate::gguf::words::{SizeWords, Sizes, Words};

/// The converter permutes the rows of Q and K here, and only here.
pub(super) static LLAMA: Architecture = Architecture {
    name: "llama",
    model_type: "llama",
    keys: &[RMS_NORM, rope::KEYS],
    sizes: SizeWords::USUAL,
    describe,
    factors: &[rope::FACTORS],
    outer: OUTER,
    blocks: "layers.",
    parts: &[
        Part("self_attn.q_proj", "attn_q", Change::PairsOfQ),
        Part("self_attn.k_proj", "attn_k", Change::PairsOfK),
        Part("self_attn.v_proj", "attn_v", Change::None),
        Part("self_attn.o_proj", "attn_output", Change::None),
        Part("mlp.gate_proj", "ffn_gate", Change::None),
        Part("mlp.up_proj", "ffn_up", Change::None),
        Part("mlp.down_proj", "ffn_down", Change::None),
        Part("input_layernorm", "attn_norm", Change::None),
        Part("post_attention_layernorm", "ffn_norm", Change::None),
    ],
};

pub(super) const RMS_NORM: &[&str] = &["attention.layer_norm_rms_epsilon"];

/// The tensors around the blocks of most families.
pub(super) const OUTER: &[(&str, &str)] = &[
    ("embed_tokens.weight", "token_embd.weight"),
    ("norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

fn describe(words: &mut Words<'_>, sizes: &Sizes) -> Result<()> {
    words.set("hidden_act", "silu");
    words.say_positive("rms_norm_eps", RMS_NORM[0])?;
    words.set("attention_bias", words.holds("blk.0.attn_q.bias"));
    words.set("mlp_bias", words.holds("blk.0.ffn_gate.bias"));
    words.say_whole_rope(sizes)?;
    if words.holds(rope::FACTORS) { say_factors(words, sizes) } else { Ok(()) }
}

/// Llama 3.1's scaling comes as the divisor of each pair's speed.
fn say_factors(words: &mut Words<'_>, sizes: &Sizes) -> Result<()> {
    let mut rope = words.rope_parameters()?;
    if rope.get("rope_type").is_none_or(|stretch| stretch != "default") {
        return Err(words.bad("rope.scaling.factor", format!("absent beside the tensor {}", rope::FACTORS)));
    }
    let factors = words.file().read_f32(rope::FACTORS, &[sizes.d_head / 2])?;
    rope.insert("rope_type".into(), "per_pair".into());
    rope.insert("factors".into(), factors.iter().map(|x| f64::from(*x)).collect());
    words.say_rope(rope);
    words.came_from_tensor("rope_parameters.factors", rope::FACTORS, format!("{factors:?}"));
    Ok(())
}
