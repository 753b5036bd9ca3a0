//! Errors of this crate: [`Error`].

use crate::fixed_point::{LIMIT, MOST_TOKENS};
use activation_store::TokenPos;
use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Error of a census.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option outside its range.
    #[error("option `{option}` is {found}, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A feature that the SAE does not have.
    #[error("feature {feature} is outside this SAE, whose features are 0..{d_sae}")]
    FeatureRange {
        /// The feature.
        feature: u32,
        /// Number of features of the SAE.
        d_sae: usize,
    },
    /// A feature that is not among those that were collected.
    #[error("feature {feature} was not collected; collected were {collected:?}")]
    NotCollected {
        /// The feature.
        feature: u32,
        /// Those that were collected.
        collected: Vec<u32>,
    },
    /// The parts do not fit together: widths of census and SAE, say.
    #[error("{left} is {left_size}, but {right} is {right_size}; they must be equal")]
    SizeMismatch {
        /// One side.
        left: &'static str,
        /// Its size.
        left_size: usize,
        /// The other side.
        right: &'static str,
        /// Its size.
        right_size: usize,
    },
    /// An activation that is NaN, infinite or too large for exact sums.
    #[error(
        "feature {feature} has activation {value} at {at}; a census takes finite values of magnitude below {}",
        LIMIT
    )]
    Value {
        /// The feature.
        feature: u32,
        /// Its activation.
        value: f32,
        /// Where.
        at: TokenPos,
    },
    /// An address too large to be packed.
    #[error("address {at} is out of range: rows are below 2^40, positions below 2^24")]
    Address {
        /// The address.
        at: TokenPos,
    },
    /// More tokens than exact sums have room for.
    #[error("{tokens} tokens are more than a census takes in, {}", MOST_TOKENS)]
    TooManyTokens {
        /// How many there would be.
        tokens: u64,
    },
    /// Parts of a batch that have different lengths or widths.
    #[error("a census batch has {found} {what}, expected {expected}")]
    Batch {
        /// Which part.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length needed.
        expected: usize,
    },
    /// A census that counts documents was given a batch without them.
    #[error(
        "this census counts documents, but the batch does not say which document each token is of (a source must deliver the text in order and \
         remember its rows; or switch `CensusOptions::documents` off)"
    )]
    NoDocuments,
    /// A row, or a part of one, that was taken in before.
    #[error("{at} was taken in before: every row of tokens goes into a census once, its positions in order")]
    Twice {
        /// The address.
        at: TokenPos,
    },
    /// Two censuses of different things.
    #[error("these censuses do not go together: their {what} differ ({left} and {right})")]
    Different {
        /// What differs.
        what: &'static str,
        /// One side.
        left: String,
        /// The other.
        right: String,
    },
    /// Two censuses that have rows in common.
    #[error("these censuses cannot be merged: both have row {row}")]
    Overlap {
        /// A row that both have.
        row: u64,
    },
    /// A feature for which co-firing was not counted.
    #[error("co-firing with feature {feature} was not counted; it was for {together:?}")]
    NotTogether {
        /// The feature.
        feature: u32,
        /// Those for which it was.
        together: Vec<u32>,
    },
    /// A source that is shorter than what was taken from it before.
    #[error("the source ended after {found} batches, but {expected} were taken from it before the run was interrupted")]
    SourceEnded {
        /// Batches it has.
        found: u64,
        /// Batches that were taken.
        expected: u64,
    },
    /// A checkpoint of a run that had gone further than this one is to go.
    #[error(
        "the interrupted run had counted {found} tokens, this one is to stop after {most}: start anew, or stop later"
    )]
    Beyond {
        /// Tokens counted.
        found: u64,
        /// Tokens to stop after.
        most: u64,
    },
    /// A checkpoint that cannot be read, and no earlier one that can.
    #[error(
        "{}: the checkpoint cannot be read ({reason}) and there is no earlier one: remove the folder to start anew", path.display()
    )]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint of a run over something else.
    #[error(
        "{}: the checkpoint is of another run: its {what} is {found}, this run's is {expected}; go on with what it was begun with, or remove the folder to \
         start anew", path.display()
    )]
    OtherRun {
        /// Its folder.
        path: PathBuf,
        /// What differs.
        what: String,
        /// What it is in the checkpoint.
        found: String,
        /// What it is in this run.
        expected: String,
    },
    /// A checkpoint that another version of this program wrote.
    #[error(
        "{}: it is of version {found}, this program reads version {expected}: finish the run with the program that began it, or remove the checkpoint to \
         start anew", path.display()
    )]
    CheckpointVersion {
        /// Its state file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is read.
        expected: u32,
    },
    /// A file that is no census, is damaged, or is of another version.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder could not be written under its name.
    #[error(transparent)]
    Files(#[from] tensor_files::Error),
    /// The columnar library refused.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// The Parquet writer refused.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The SAE refused. (The workspace's own errors are boxed: they are several times as large as all the others.)
    #[error(transparent)]
    Sae(Box<sae_core::Error>),
    /// The source of activations refused.
    #[error(transparent)]
    Store(Box<activation_store::Error>),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl From<sae_core::Error> for Error {
    fn from(error: sae_core::Error) -> Self {
        Self::Sae(Box::new(error))
    }
}

impl From<activation_store::Error> for Error {
    fn from(error: activation_store::Error) -> Self {
        Self::Store(Box::new(error))
    }
}
