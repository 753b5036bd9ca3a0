//! `llama`: Llama and what has its equations (SmolLM2, DeepSeek-R1-Distill-Llama ...); also Mistral, of whose window files say nothing.

use super::{Architecture, Change, MATRICES, NORMS, OUTER, Part, RMS_NORM, RMS_NORM_EPS};
use crate::Result;
use crate::gguf::rope;
use crate::gguf::words::{SizeWords, Sizes, Words};

/// The converter permutes the rows of Q and K here, and only here.
pub(super) const LLAMA: Architecture = Architecture {
    name: "llama",
    model_type: "llama",
    keys: &[RMS_NORM, rope::KEYS],
    sizes: SizeWords::USUAL,
    describe,
    factors: &[rope::FACTORS],
    outer: OUTER,
    blocks: "layers.",
    parts: &[PERMUTED, MATRICES, NORMS],
};

const PERMUTED: &[Part] =
    &[Part("self_attn.q_proj", "attn_q", Change::PairsOfQ), Part("self_attn.k_proj", "attn_k", Change::PairsOfK)];

fn describe(words: &mut Words<'_>, sizes: &Sizes) -> Result<()> {
    words.set("hidden_act", "silu");
    words.say_positive("rms_norm_eps", RMS_NORM_EPS)?;
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
