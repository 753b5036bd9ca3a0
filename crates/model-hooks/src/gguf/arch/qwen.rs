//! `qwen2` (Qwen 1.5, 2 and 2.5, DeepSeek-R1-Distill-Qwen) and `qwen3`. The converter changes nothing.

use super::{Architecture, HEAD_NORMS, MATRICES, NORMS, OUTER, RMS_NORM, RMS_NORM_EPS};
use crate::Result;
use crate::gguf::rope;
use crate::gguf::words::{SizeWords, Sizes, Words};

pub(super) const QWEN2: Architecture = Architecture {
    name: "qwen2",
    model_type: "qwen2",
    keys: &[RMS_NORM, rope::KEYS],
    sizes: SizeWords::USUAL,
    describe,
    factors: &[],
    outer: OUTER,
    blocks: "layers.",
    parts: &[MATRICES, NORMS],
};

pub(super) const QWEN3: Architecture = Architecture {
    name: "qwen3",
    model_type: "qwen3",
    describe: |words, sizes| {
        words.set("attention_bias", words.holds("blk.0.attn_q.bias"));
        describe(words, sizes)
    },
    parts: &[MATRICES, NORMS, HEAD_NORMS],
    ..QWEN2
};

/// Windows, which published models do not use, are not written.
fn describe(words: &mut Words<'_>, sizes: &Sizes) -> Result<()> {
    words.set("hidden_act", "silu");
    words.set("use_sliding_window", false);
    words.say_positive("rms_norm_eps", RMS_NORM_EPS)?;
    words.say_whole_rope(sizes)
}
