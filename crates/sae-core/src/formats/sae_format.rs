use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A file format in which SAEs are published.
///
/// Shown and parsed by its name in snake case, as the table of releases writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SaeFormat {
    /// SAELens' own folders, of every version: `cfg.json` and `sae_weights.safetensors`.
    SaeLens,
    /// Gemma Scope: `params.npz`; the transcoders of Gemma 2 as well.
    GemmaScope,
    /// Gemma Scope 2: `params.safetensors`, or a file of one layer of a cross-layer transcoder.
    GemmaScope2,
    /// Kissane and Krzyzanowski's attention SAEs: `<name>.pt` and `<name>_cfg.json`.
    ConnorRob,
    /// OpenAI's sparse_autoencoder: a `.pt` state dict.
    OpenAi,
    /// dictionary_learning: `ae.pt` and `config.json`.
    DictionaryLearning,
    /// EleutherAI's sparsify: `sae.safetensors` and `cfg.json`.
    Sparsify,
    /// Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`.
    LlamaScope,
    /// Llama Scope's R1 distill: `config.json` and `sae_weights.safetensors`.
    LlamaScopeR1,
    /// qresearch's DeepSeek R1 distill: one `.pt`.
    DeepseekR1,
    /// Qwen Scope: `layerN.sae.pt`.
    QwenScope,
    /// Goodfire's Llama SAEs: one `.pt` or `.pth`.
    Goodfire,
    /// Hanna's transcoders: `layer_N.safetensors` with a YAML configuration beside it.
    Mwhanna,
    /// circuit-tracer's cross-layer transcoders: `W_enc_L.safetensors`, `W_dec_L.safetensors`, `config.yaml`; mntss' releases.
    Clt,
    /// circuit-tracer's per-layer transcoders: `layer_L.safetensors` and `config.yaml`.
    Slt,
    /// Temporal feature analysis: `conf.yaml` and `latest_ckpt.safetensors`.
    Temporal,
}

impl SaeFormat {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SaeLens,
        Self::GemmaScope,
        Self::GemmaScope2,
        Self::ConnorRob,
        Self::OpenAi,
        Self::DictionaryLearning,
        Self::Sparsify,
        Self::LlamaScope,
        Self::LlamaScopeR1,
        Self::DeepseekR1,
        Self::QwenScope,
        Self::Goodfire,
        Self::Mwhanna,
        Self::Clt,
        Self::Slt,
        Self::Temporal,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SaeLens => "saelens",
            Self::GemmaScope => "gemma_scope",
            Self::GemmaScope2 => "gemma_scope_2",
            Self::ConnorRob => "connor_rob",
            Self::OpenAi => "openai",
            Self::DictionaryLearning => "dictionary_learning",
            Self::Sparsify => "sparsify",
            Self::LlamaScope => "llama_scope",
            Self::LlamaScopeR1 => "llama_scope_r1",
            Self::DeepseekR1 => "deepseek_r1",
            Self::QwenScope => "qwen_scope",
            Self::Goodfire => "goodfire",
            Self::Mwhanna => "mwhanna",
            Self::Clt => "clt",
            Self::Slt => "slt",
            Self::Temporal => "temporal",
        }
    }
}

impl fmt::Display for SaeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SaeFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| Error::Parameter {
            name: "format",
            expected: Self::ALL.map(Self::name).join(", "),
            found: format!("`{name}`"),
        })
    }
}
