//! `gemma`, `gemma2` and `gemma3`.
//!
//! The converter adds 1 to the gain of every norm, those of queries and keys included, so that files hold whole gains. The factor
//! `sqrt(d_model)` of the embedding is not in the file. The unembedding is the embedding, unless a file holds another.

use super::{Architecture, Change, HEAD_NORMS, MATRICES, NORMS, OUTER, Part, RMS_NORM, RMS_NORM_EPS};
use crate::Result;
use crate::gguf::rope;
use crate::gguf::words::{SizeWords, Sizes, Words};
use crate::gguf::{Array, Value};
use serde_json::{Value as Json, json};

pub(super) const GEMMA: Architecture = Architecture {
    name: "gemma",
    model_type: "gemma",
    keys: &[RMS_NORM, rope::KEYS],
    sizes: SizeWords::USUAL,
    describe: |words, sizes| {
        describe(words)?;
        words.say_whole_rope(sizes)
    },
    factors: &[],
    outer: OUTER,
    blocks: "layers.",
    parts: &[MATRICES, NORMS],
};

pub(super) const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    model_type: "gemma2",
    keys: &[RMS_NORM, rope::KEYS, &[WINDOW, PATTERN, ATTN_CAP, LOGIT_CAP]],
    describe: describe_gemma2,
    parts: &[MATRICES, FOUR_NORMS],
    ..GEMMA
};

pub(super) const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    model_type: "gemma3_text",
    keys: &[RMS_NORM, rope::KEYS, &[WINDOW, PATTERN, LOGIT_CAP, LOCAL_BASE]],
    describe: describe_gemma3,
    parts: &[MATRICES, FOUR_NORMS, HEAD_NORMS],
    ..GEMMA
};

/// From Gemma 2 on there is a norm before and behind each part of a block.
const FOUR_NORMS: &[Part] = &[
    Part("input_layernorm", "attn_norm", Change::None),
    Part("post_attention_layernorm", "post_attention_norm", Change::None),
    Part("pre_feedforward_layernorm", "ffn_norm", Change::None),
    Part("post_feedforward_layernorm", "post_ffw_norm", Change::None),
];

const WINDOW: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";
const ATTN_CAP: &str = "attn_logit_softcapping";
const LOGIT_CAP: &str = "final_logit_softcapping";
const LOCAL_BASE: &str = "rope.freq_base_swa";

fn describe(words: &mut Words<'_>) -> Result<()> {
    words.set("hidden_activation", "gelu_pytorch_tanh");
    words.set("attention_bias", words.holds("blk.0.attn_q.bias"));
    words.say_positive("rms_norm_eps", RMS_NORM_EPS)
}

/// The first files of this kind lack caps and window, which are then those of all published models, as in llama.cpp: 50, 30, 4096.
fn describe_gemma2(words: &mut Words<'_>, sizes: &Sizes) -> Result<()> {
    describe(words)?;
    words.say_whole_rope(sizes)?;
    for (key, default) in [(ATTN_CAP, 50.0), (LOGIT_CAP, 30.0)] {
        words.say(key, words.positive(key)?.unwrap_or(default), key);
    }
    words.say("sliding_window", words.optional_size(WINDOW)?.unwrap_or(4096), WINDOW);
    say_layers(words, sizes, 2)?;
    say_score_divisor(words, sizes, 46);
    Ok(())
}

/// Layers with a window have rotary speeds of their own, never stretched. Without the key of the window no layer has one.
fn describe_gemma3(words: &mut Words<'_>, sizes: &Sizes) -> Result<()> {
    describe(words)?;
    words.whole_heads(sizes)?;
    if words.positive("rope.freq_base")?.is_none() {
        return Err(words.missing("rope.freq_base", "the rotary base of layers without a window"));
    }
    let local = words.positive(LOCAL_BASE)?.unwrap_or(10_000.0);
    let global = words.rope_parameters()?;
    words.refuse_attn_factor(&global)?;
    words.set("rope_parameters", json!({ "full_attention": global, "sliding_attention": { "rope_theta": local } }));
    words.came_from("rope_parameters.full_attention.rope_theta", "rope.freq_base");
    words.came_from("rope_parameters.full_attention.factor", "rope.scaling.factor");
    words.came_from("rope_parameters.sliding_attention.rope_theta", LOCAL_BASE);
    if let Some(cap) = words.positive(LOGIT_CAP)? {
        words.say(LOGIT_CAP, cap, LOGIT_CAP);
    }
    match words.optional_size(WINDOW)? {
        Some(window) => {
            words.say("sliding_window", window, WINDOW);
            say_layers(words, sizes, 6)?;
        }
        None => words.set("layer_types", vec!["full_attention"; sizes.n_layers]),
    }
    say_score_divisor(words, sizes, 62);
    Ok(())
}

/// Which layers have a window: all but the last of every `period`, where the file does not say otherwise.
fn say_layers(words: &mut Words<'_>, sizes: &Sizes, period: usize) -> Result<()> {
    let n_layers = sizes.n_layers;
    let every = |period: usize| (0..n_layers).map(|layer| layer % period < period - 1).collect::<Vec<_>>();
    let slides = match words.file().get(&words.full(PATTERN)) {
        None => every(period),
        Some(Value::Array(Array::Bool(list))) if list.len() == n_layers => list.clone(),
        Some(Value::Array(_)) => return Err(words.bad(PATTERN, format!("true or false for each of {n_layers} layers"))),
        Some(_) => every(words.size(PATTERN)?),
    };
    let name = |slides| if slides { "sliding_attention" } else { "full_attention" };
    let types: Json = slides.into_iter().map(name).collect();
    words.say("layer_types", types, PATTERN);
    Ok(())
}

/// Scores are divided by the root of the width of a head, but in the largest model by that of `d_model / n_heads`. No key says so: it is
/// told by its number of layers, as in llama.cpp.
fn say_score_divisor(words: &mut Words<'_>, sizes: &Sizes, layers_of_the_largest: usize) {
    let largest = sizes.n_layers == layers_of_the_largest;
    words.set("query_pre_attn_scalar", if largest { sizes.d_model / sizes.n_heads } else { sizes.d_head });
}
