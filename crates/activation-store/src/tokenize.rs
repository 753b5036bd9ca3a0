//! What this crate needs of a tokenizer.

use crate::Result;
use std::ops::Range;

/// The ids of a text and where each came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizedText {
    /// The token ids.
    pub ids: Vec<u32>,
    /// For each id its byte span in the text; starts never go back.
    pub spans: Vec<Range<usize>>,
}

/// A tokenizer as the packing of tokens needs it.
pub trait Tokenize: Send + Sync {
    /// The tokens of a text, with no special tokens added (those that the text spells out are found).
    ///
    /// # Errors
    /// Whatever the tokenizer refuses.
    fn tokenize(&self, text: &str) -> Result<TokenizedText>;

    /// Whether `tokenize(a + b)` is `tokenize(a)` followed by `tokenize(b)` whenever `a` ends in a letter or digit and `b` starts
    /// with whitespace, and whenever `a` ends in any non-whitespace character and `b` starts with a space. True of byte-level
    /// BPE with the splitting rules of GPT-2 and Llama 3; then long documents are tokenized piece by piece, in parallel.
    fn splits_at_whitespace(&self) -> bool;
}

impl Tokenize for model_hooks::Tokenizer {
    fn tokenize(&self, text: &str) -> Result<TokenizedText> {
        let model_hooks::Encoding { ids, spans, .. } = self.encode(text)?;
        Ok(TokenizedText { ids, spans })
    }

    fn splits_at_whitespace(&self) -> bool {
        Self::splits_at_whitespace(self)
    }
}
