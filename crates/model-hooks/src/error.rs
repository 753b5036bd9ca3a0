use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a model's files and its logits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A hook point's name is not one of TransformerLens'.
    #[error("unknown hook point `{name}`; nearest: {}", nearest.join(", "))]
    UnknownHookName {
        /// The name as given.
        name: String,
        /// The nearest known names.
        nearest: Vec<String>,
    },
    /// A batch without tokens.
    #[error("empty token batch: {rows} rows; at least one row of at least one token is needed")]
    EmptyBatch {
        /// Number of rows.
        rows: usize,
    },
    /// A batch with rows of different lengths.
    #[error("row {row} has {found} tokens, expected {expected} as in row 0")]
    RaggedBatch {
        /// The first deviating row.
        row: usize,
        /// Length of row 0.
        expected: usize,
        /// Length of this row.
        found: usize,
    },
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A tensor file is unusable.
    #[error(transparent)]
    Files(#[from] tensor_files::Error),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A folder without `tokenizer.json`.
    #[error("no tokenizer: {path} does not exist")]
    NoTokenizer {
        /// The file that is missing.
        path: PathBuf,
    },
    /// A tokenizer, or a file of its folder, is unusable.
    #[error("tokenizer{}: {reason}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    Tokenizer {
        /// The file, where one is to blame.
        path: Option<PathBuf>,
        /// What is wrong with it.
        reason: String,
    },
    /// A BOS was asked of a tokenizer that has none.
    #[error("a BOS token was asked for, but the tokenizer has none")]
    NoBos,
    /// A text that should be one token is none or several.
    #[error("`{text}` is {} tokens, expected exactly 1: {pieces:?}", pieces.len())]
    NotSingleToken {
        /// The text.
        text: String,
        /// Its tokens, printed.
        pieces: Vec<String>,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is not in the vocabulary of {vocab_size} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
}
