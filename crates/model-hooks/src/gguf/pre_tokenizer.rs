//! Pre-tokenizers of byte-level BPE. A GGUF file does not hold the rule, only a name for it (`tokenizer.ggml.pre`).

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

/// The rules that are known exactly, by the names in files and the `tokenizer.json` that each stands for:
///
/// | name | rule |
/// |---|---|
/// | `gpt-2` | the expression of GPT-2 |
/// | `olmo` | Unicode NFC, then the expression of GPT-2: GPT-NeoX, Pythia, OLMo |
/// | `smollm`, `starcoder` | digits singly, then the expression of GPT-2 |
/// | `llama-bpe`, `llama3`, `llama-v3` | the expression of Llama 3; a cut that is a token is not merged anew; BOS is added |
/// | `qwen2`, `deepseek-r1-qwen` | Unicode NFC, then the expression of Qwen 2 |
///
/// `default` is not among them: converters wrote it when they knew no name, so it identifies no published tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreTokenizer {
    Gpt2,
    NeoX,
    DigitsThenGpt2,
    Llama3,
    Qwen2,
}

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

impl PreTokenizer {
    pub const NAMES: [(&str, Self); 9] = [
        ("gpt-2", Self::Gpt2),
        ("olmo", Self::NeoX),
        ("smollm", Self::DigitsThenGpt2),
        ("starcoder", Self::DigitsThenGpt2),
        ("llama-bpe", Self::Llama3),
        ("llama3", Self::Llama3),
        ("llama-v3", Self::Llama3),
        ("qwen2", Self::Qwen2),
        ("deepseek-r1-qwen", Self::Qwen2),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule)
    }

    /// Whether a cut that is itself a token is taken whole, without applying merges.
    pub fn ignores_merges(self) -> bool {
        self == Self::Llama3
    }

    /// Whether files that do not say so mean that a BOS is put before a text.
    pub fn adds_bos(self) -> bool {
        self == Self::Llama3
    }

    pub fn normalizer(self) -> Option<NormalizerWrapper> {
        matches!(self, Self::NeoX | Self::Qwen2).then(|| NFC.into())
    }

    /// `prefix_space`: whether a text that does not begin with a space is given one.
    pub fn build(self, prefix_space: bool) -> tokenizers::Result<PreTokenizerWrapper> {
        let then = |first: PreTokenizerWrapper, second: ByteLevel| Sequence::new(vec![first, second.into()]).into();
        let gpt2 = ByteLevel::default().add_prefix_space(prefix_space);
        Ok(match self {
            Self::Gpt2 | Self::NeoX => gpt2.into(),
            Self::DigitsThenGpt2 => then(Digits::new(true).into(), gpt2),
            Self::Llama3 => then(split(LLAMA3)?, gpt2.use_regex(false)),
            Self::Qwen2 => then(split(QWEN2)?, gpt2.use_regex(false)),
        })
    }
}

fn split(expression: &str) -> tokenizers::Result<PreTokenizerWrapper> {
    Ok(Split::new(SplitPattern::Regex(expression.into()), SplitDelimiterBehavior::Isolated, false)?.into())
}
