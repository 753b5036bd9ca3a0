use crate::OpenNote;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The model and hook point of an SAE and its training data: the `metadata` of a SAELens configuration.
///
/// Keys that this crate's users act on have a field; all others are kept verbatim in `other` and never consulted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SaeMetadata {
    /// The model's name, as TransformerLens knows it.
    pub model_name: Option<String>,
    /// The hook point whose activations go in.
    pub hook_name: Option<String>,
    /// The hook point that a transcoder writes, if it is not the one that it reads.
    pub hook_name_out: Option<String>,
    /// The single head of a per-head hook point that goes in, if only one does.
    pub hook_head_index: Option<usize>,
    /// Tokens per training sequence.
    pub context_size: Option<usize>,
    /// Whether sequences began with the BOS token.
    pub prepend_bos: Option<bool>,
    /// Token positions of a sequence used in training.
    pub seqpos_slice: Option<SeqposSlice>,
    /// Special tokens excluded from training.
    pub exclude_special_tokens: Option<ExcludeSpecialTokens>,
    /// The token between documents packed into one sequence. `None`: the key is absent.
    pub sequence_separator_token: Option<SeparatorToken>,
    /// Whether documents were kept apart instead of being packed.
    pub disable_concat_sequences: Option<bool>,
    /// Keyword arguments for loading the model (for the GPT-2 SAEs of res-jb: `center_writing_weights`).
    pub model_from_pretrained_kwargs: Map<String, Value>,
    /// The training text.
    pub dataset_path: Option<String>,
    /// The page on Neuronpedia.
    pub neuronpedia_id: Option<String>,
    /// All other keys, as they were.
    pub other: Map<String, Value>,
    /// Notes from opening the files: a factor that was folded, a file that could not be used. Not saved.
    pub notes: Vec<OpenNote>,
}

impl SaeMetadata {
    /// The nested widths of a matryoshka SAE, rising, if the metadata say so (`training_architecture_details.matryoshka_widths`).
    #[must_use]
    pub fn matryoshka_widths(&self) -> Option<Vec<usize>> {
        let widths = self.other.get("training_architecture_details")?.get("matryoshka_widths")?.as_array()?;
        widths.iter().map(|width| usize::try_from(width.as_u64()?).ok()).collect()
    }
}

/// Python's `slice(start, stop, step)` over the positions of a sequence; negative numbers count from its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeqposSlice {
    /// First position.
    pub start: Option<i64>,
    /// Position after the last.
    pub stop: Option<i64>,
    /// Distance between positions.
    pub step: Option<i64>,
}

/// Special tokens excluded from training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExcludeSpecialTokens {
    /// All that the tokenizer knows, or none.
    All(bool),
    /// These ids.
    Ids(Vec<u32>),
}

/// The token put between documents that share a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeparatorToken {
    /// None at all (the key is null).
    Nothing,
    /// The tokenizer's `bos`, `eos` or `sep`.
    Named(String),
    /// A token id.
    Id(u32),
}
