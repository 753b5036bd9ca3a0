use activation_store::TokenPos;
use std::path::PathBuf;

/// What can go wrong with a census.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CensusError {
    /// An option outside its range.
    #[error("census option `{option}` is {found}, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What it is.
        found: usize,
        /// Its range.
        expected: &'static str,
    },
    /// An activation that is NaN, infinite or too large for exact sums.
    #[error(
        "feature {feature} has activation {value} at {at}; a census takes finite values of magnitude below {}",
        super::fixed::LIMIT
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
    #[error("{tokens} tokens are more than a census takes in, {}", super::fixed::MOST_TOKENS)]
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
}
