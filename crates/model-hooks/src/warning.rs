//! [`LoadWarning`]: an oddity of a model's files that does not prevent loading.

use serde::Serialize;
use std::fmt;

/// Something in a model's files that contradicts itself or is not used, although nothing that is computed depends on it. What a
/// computation would depend on is an [`Error`](crate::Error) instead.
///
/// `Display` says what was found, in which file, and what was done. Files are named without their folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum LoadWarning {
    /// Two files name different tokens for one role; the first is used.
    TokensDiffer {
        /// The role: `bos_token`, `eos_token` ...
        role: String,
        /// The id in use.
        used: u32,
        /// The file that names it.
        used_from: String,
        /// The ids that the other file names.
        others: Vec<u32>,
        /// The other file.
        others_from: String,
    },
    /// A file names a token or an id that the vocabulary does not have. It has no role here; an id still ends generation.
    NotInVocabulary {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// The token or id.
        found: String,
        /// Number of ids of the vocabulary.
        vocab_size: usize,
    },
    /// A file gives an id to another token than the tokenizer does; the tokenizer's is used.
    OtherToken {
        /// The file.
        file: String,
        /// The id.
        id: u32,
        /// The tokenizer's token of that id.
        used: Option<String>,
        /// The file's.
        found: String,
    },
    /// A file or key that cannot be read, and is not used.
    Ignored {
        /// The file.
        file: String,
        /// The key, where one is to blame.
        key: Option<String>,
        /// The reason.
        reason: String,
    },
    /// The configuration ties the unembedding to the embedding, but the files hold two that differ: each is used for itself, as
    /// transformers does.
    NotTied {
        /// The embedding's tensor.
        embedding: String,
        /// The unembedding's tensor.
        unembedding: String,
    },
    /// The tokenizer has ids that the model does not embed: a text that contains one of them cannot be run.
    TokenizerLongerThanEmbeddings {
        /// Number of ids of the tokenizer.
        vocab_size: usize,
        /// Number of ids of the model.
        d_vocab: usize,
    },
}

impl fmt::Display for LoadWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokensDiffer { role, used, used_from, others, others_from } => {
                write!(f, "{role}: {used_from} names token {used}, which is used, and {others_from} names {others:?}")
            }
            Self::NotInVocabulary { file, key, found, vocab_size } => {
                write!(f, "{file}: {key} {found} is not in the vocabulary of {vocab_size} tokens and is not used")
            }
            Self::OtherToken { file, id, used: Some(used), found } => {
                write!(f, "{file}: token {id} is {found:?}, but the tokenizer has {used:?} there, which is used")
            }
            Self::OtherToken { file, id, used: None, found } => {
                write!(
                    f,
                    "{file}: token {id} is {found:?}, but the tokenizer gives that token another id, which is used"
                )
            }
            Self::Ignored { file, key: Some(key), reason } => write!(f, "{file}: {key} is not used: {reason}"),
            Self::Ignored { file, key: None, reason } => write!(f, "{file} is not used: {reason}"),
            Self::NotTied { embedding, unembedding } => write!(
                f,
                "tie_word_embeddings is true, but {embedding} and {unembedding} differ: each is used for itself, as transformers does"
            ),
            Self::TokenizerLongerThanEmbeddings { vocab_size, d_vocab } => write!(
                f,
                "the tokenizer has {vocab_size} ids, the model embeds {d_vocab}: texts with tokens from {d_vocab} on cannot be run"
            ),
        }
    }
}
