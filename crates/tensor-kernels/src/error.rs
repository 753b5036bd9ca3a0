//! What can go wrong.

use crate::{Backend, Precision};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong before a kernel runs. Nothing fails while one runs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice is not as long as its shape says.
    #[error("{what}: expected {expected} values, found {found}")]
    Length {
        /// The slice.
        what: &'static str,
        /// How many values its shape asks for.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// Two operands do not fit.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// The dimension or property.
        what: &'static str,
        /// What the first operand has.
        expected: String,
        /// What the second has.
        found: String,
    },
    /// A shape whose size does not fit into memory's addresses.
    #[error("a matrix of {rows} x {cols} is too large to address")]
    TooLarge {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// A forced back end that this machine does not have.
    #[error("this machine has no {backend} for {precision}; it has {available}")]
    Unavailable {
        /// What was asked for.
        backend: Backend,
        /// With which precision.
        precision: Precision,
        /// What there is.
        available: String,
    },
}
