//! `phi3`: Phi-3, Phi-3.5, Phi-4 and Phi-4-mini. The converter changes nothing: Q, K and V stay fused, gate and up too.

use super::{Architecture, Change, NORMS, OUTER, Part, RMS_NORM, RMS_NORM_EPS};
use crate::Result;
use crate::gguf::rope::{self, ATTN_FACTOR, ORIGINAL_CONTEXT};
use crate::gguf::words::{SizeWords, Sizes, Words};
use serde_json::{Map, Value as Json};

/// LongRoPE's divisors of the speeds, one for each pair.
const FACTORS: [(&str, &str); 2] =
    [("long_factor", "rope_factors_long.weight"), ("short_factor", "rope_factors_short.weight")];
const WINDOW: &str = "attention.sliding_window";

pub(super) const PHI3: Architecture = Architecture {
    name: "phi3",
    model_type: "phi3",
    keys: &[RMS_NORM, rope::KEYS, &[WINDOW]],
    sizes: SizeWords::USUAL,
    describe,
    factors: &[FACTORS[0].1, FACTORS[1].1],
    outer: OUTER,
    blocks: "layers.",
    parts: &[
        &[
            Part("self_attn.qkv_proj", "attn_qkv", Change::None),
            Part("self_attn.o_proj", "attn_output", Change::None),
            Part("mlp.gate_up_proj", "ffn_up", Change::None),
            Part("mlp.down_proj", "ffn_down", Change::None),
        ],
        NORMS,
    ],
};

/// A window of 0 is how files say that there is none. One that is there holds in every layer, as in transformers; llama.cpp ignores it.
fn describe(words: &mut Words<'_>, sizes: &Sizes) -> Result<()> {
    words.set("hidden_act", "silu");
    words.say_positive("rms_norm_eps", RMS_NORM_EPS)?;
    let none = words.file().u32(&words.full(WINDOW))? == Some(0);
    if let Some(window) = if none { None } else { words.optional_size(WINDOW)? } {
        words.say("sliding_window", window, WINDOW);
    }
    if let Some(context) = words.optional_size(ORIGINAL_CONTEXT)? {
        words.say("original_max_position_embeddings", context, ORIGINAL_CONTEXT);
    }
    let (mut rope, turned) = words.partial_rope(sizes)?;
    if rope.get("rope_type").is_some_and(|kind| kind == "yarn" || kind == "dynamic") {
        return Err(words.bad("rope.scaling.type", "none or linear: Phi-3 has LongRoPE alone"));
    }
    let stretched = FACTORS.iter().any(|(_, tensor)| words.holds(tensor));
    if stretched {
        add_longrope(words, &mut rope, turned / 2)?;
    } else if words.positive(ATTN_FACTOR)?.is_some_and(|factor| factor != 1.0) {
        return Err(words.bad(ATTN_FACTOR, format!("1 where there is no {}", FACTORS[0].1)));
    }
    words.say_rope(rope);
    Ok(())
}

/// Long texts have speeds of their own.
fn add_longrope(words: &mut Words<'_>, rope: &mut Map<String, Json>, pairs: usize) -> Result<()> {
    rope.insert("rope_type".into(), "longrope".into());
    for (word, tensor) in FACTORS {
        let factors = words.file().read_f32(tensor, &[pairs])?;
        rope.insert(word.into(), factors.iter().map(|x| f64::from(*x)).collect());
        words.came_from_tensor(&format!("rope_parameters.{word}"), tensor, format!("{factors:?}"));
    }
    if let Some(factor) = words.positive(ATTN_FACTOR)? {
        rope.insert("attention_factor".into(), factor.into());
        words.came_from("rope_parameters.attention_factor", ATTN_FACTOR);
    }
    Ok(())
}
