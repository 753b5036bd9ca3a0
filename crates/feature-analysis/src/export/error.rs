use activation_store::TokenPos;
use std::path::PathBuf;

/// What can go wrong with an export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Something is under the name already; it is left alone.
    #[error("{path} exists already; an export makes a new folder: move that one away or give another name")]
    Exists {
        /// The folder asked for.
        path: PathBuf,
    },
    /// A name that cannot be a folder's.
    #[error("{what} `{name}` cannot be the name of a folder: expected a plain name without `/`, `\\` and `..`")]
    Name {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An activation that the format cannot hold.
    #[error("feature {feature} has activation {value} at {at}; the format holds finite ones up to {most}")]
    Value {
        /// The feature.
        feature: u32,
        /// Its activation.
        value: f32,
        /// Where.
        at: TokenPos,
        /// The largest magnitude that can be written.
        most: f32,
    },
    /// A source that shuffles, or repeats itself.
    #[error(
        "row {found} came after row {after}; an export needs each row of tokens once and in order, as `ActivationStore::in_order` gives them"
    )]
    Order {
        /// The row that came.
        found: u64,
        /// The row before it.
        after: u64,
    },
    /// Rows of different lengths.
    #[error("row {row} has {found} tokens, the rows before it have {expected}; the format holds rows of one length")]
    Length {
        /// The row.
        row: u64,
        /// Its length.
        found: usize,
        /// The others'.
        expected: usize,
    },
    /// A source that does not remember its rows of tokens.
    #[error(
        "the source does not remember row {row}, whose tokens belong into the files (`ActivationStore::in_order` does)"
    )]
    NoRow {
        /// The row.
        row: u64,
    },
    /// A text without a single row of tokens.
    #[error("there is nothing to export: the text has no whole row of tokens")]
    NoText,
    /// The text is not the one that was counted.
    #[error(
        "{what} is {found} in the text and {expected} in the census; the export reads the text of the census again, from its start and packed in the same way"
    )]
    OtherText {
        /// What differs.
        what: String,
        /// In the text.
        found: String,
        /// In the census.
        expected: String,
    },
    /// A file that breaks its format.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
