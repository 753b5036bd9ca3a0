//! The architectures that GGUF files name, one file per kind: which family each is, what its keys say in Hugging Face's words, how its
//! tensors are called, and what llama.cpp's converter did to them.

mod gemma;
mod gpt2;
mod gptneox;
mod llama;
mod phi3;
mod qwen;

use super::words::{SizeWords, Sizes, Words};
use super::{GgufFile, Value};
use crate::Result;

/// The key that names the architecture.
pub(super) const ARCHITECTURE: &str = "general.architecture";

/// Every architecture that is read, in alphabetical order.
static KNOWN: [&Architecture; 9] = [
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gpt2::GPT2,
    &gptneox::GPTNEOX,
    &llama::LLAMA,
    &phi3::PHI3,
    &qwen::QWEN2,
    &qwen::QWEN3,
];

/// A GGUF architecture in Hugging Face's terms.
pub(super) struct Architecture {
    /// `general.architecture`; also the prefix of its keys.
    pub name: &'static str,
    /// The family's `model_type`.
    pub model_type: &'static str,
    /// Keys that [`describe`](Self::describe) reads, beside [`COMMON`].
    pub keys: &'static [&'static [&'static str]],
    /// The words for sizes.
    pub sizes: SizeWords,
    /// Says everything but the sizes.
    pub describe: fn(&mut Words<'_>, &Sizes) -> Result<()>,
    /// Tensors that `describe` reads.
    pub factors: &'static [&'static str],
    /// Tensors outside of the blocks, without the family's prefix: Hugging Face's name and the file's.
    pub outer: &'static [(&'static str, &'static str)],
    /// Prefix of a block's number in Hugging Face's names; `blk.` in the file.
    pub blocks: &'static str,
    /// Tensors of a block, without `.weight` or `.bias`; the first of a name counts.
    pub parts: &'static [&'static [Part]],
}

/// A tensor of a block: Hugging Face's name, the file's, and what the converter did to it.
pub(super) struct Part(&'static str, &'static str, Change);

/// A change of a tensor by llama.cpp's converter, undone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// The rows of each query head are in the order in which neighbors are rotated.
    PairsOfQ,
    /// The rows of each key head are.
    PairsOfK,
    /// A matrix that Hugging Face holds as `[in, out]` is held as `[out, in]`.
    Transposed,
    /// The rows of queries, keys and values, which Hugging Face holds as `[head, part, d_head]`, are in the order `[part, head, d_head]`.
    HeadsOfParts,
}

/// Keys below an architecture's name that are read for all, or that change nothing. Any other might change the arithmetic, so it is
/// an error.
const COMMON: &[&str] = &[
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "tensor_data_layout",
    "use_parallel_residual",
    "vocab_size",
];

/// The RMS norms' epsilon.
const RMS_NORM_EPS: &str = "attention.layer_norm_rms_epsilon";
const RMS_NORM: &[&str] = &[RMS_NORM_EPS];

/// The tensors around the blocks of most families.
const OUTER: &[(&str, &str)] = &[
    ("embed_tokens.weight", "token_embd.weight"),
    ("norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// The matrices of blocks with a gated MLP.
const MATRICES: &[Part] = &[
    Part("self_attn.q_proj", "attn_q", Change::None),
    Part("self_attn.k_proj", "attn_k", Change::None),
    Part("self_attn.v_proj", "attn_v", Change::None),
    Part("self_attn.o_proj", "attn_output", Change::None),
    Part("mlp.gate_proj", "ffn_gate", Change::None),
    Part("mlp.up_proj", "ffn_up", Change::None),
    Part("mlp.down_proj", "ffn_down", Change::None),
];

/// The norms before attention and MLP.
const NORMS: &[Part] =
    &[Part("input_layernorm", "attn_norm", Change::None), Part("post_attention_layernorm", "ffn_norm", Change::None)];

/// The norms of queries and keys.
const HEAD_NORMS: &[Part] =
    &[Part("self_attn.q_norm", "attn_q_norm", Change::None), Part("self_attn.k_norm", "attn_k_norm", Change::None)];

impl Architecture {
    /// The architecture of a file.
    pub fn of(file: &GgufFile) -> Result<&'static Self> {
        let name = file.require(ARCHITECTURE, GgufFile::string)?;
        let known = || KNOWN.map(|arch| arch.name).join(", ");
        let found = KNOWN.into_iter().find(|arch| arch.name == name);
        found.ok_or_else(|| file.unsupported("architecture (general.architecture)", name, known()))
    }

    /// The value expected of a key below the architecture's name, if the given value is not supported here.
    pub fn objection(&self, key: &str, value: &Value) -> Option<&'static str> {
        let read_here = self.keys.iter().any(|keys| keys.contains(&key));
        match (key, value) {
            _ if read_here => None,
            ("attention.causal", Value::Bool(true)) | ("use_parallel_residual", Value::Bool(false)) => None,
            ("attention.causal", _) => Some("true"),
            ("use_parallel_residual", _) => Some("false"),
            ("expert_count" | "expert_used_count", Value::Unsigned(0)) => None,
            ("expert_count" | "expert_used_count", _) => Some("0: mixtures of experts are not supported"),
            _ if COMMON.contains(&key) => None,
            _ => Some("absent: its effect on the model is not known here"),
        }
    }

    /// The name in the file of a tensor that Hugging Face calls `name`, and what was done to it. A name that is not known is itself:
    /// it will not be found.
    pub fn stored(&self, name: &str) -> (String, Change) {
        if let Some((_, stored)) = self.outer.iter().find(|(outer, _)| *outer == name) {
            return ((*stored).into(), Change::None);
        }
        self.in_block(name).unwrap_or_else(|| (name.into(), Change::None))
    }

    fn in_block(&self, name: &str) -> Option<(String, Change)> {
        let (layer, rest) = name.strip_prefix(self.blocks)?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let Part(_, stored, change) = self.parts.iter().copied().flatten().find(|Part(ours, ..)| *ours == part)?;
        Some((format!("blk.{layer}.{stored}.{kind}"), *change))
    }
}
