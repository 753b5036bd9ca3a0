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
}
