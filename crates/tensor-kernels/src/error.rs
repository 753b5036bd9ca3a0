//! [`Error`].

use crate::{Backend, Precision};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors before a kernel runs. A running kernel does not fail.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice is not as long as its shape says.
    #[error("{what}: expected {expected} values, found {found}")]
    Length {
        /// The slice.
        what: &'static str,
        /// Number of values that its shape asks for.
        expected: usize,
        /// Number of values that it has.
        found: usize,
    },
    /// Two operands do not fit.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// The dimension or property.
        what: &'static str,
        /// The first operand's value.
        expected: String,
        /// The second operand's value.
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
        /// The requested back end.
        backend: Backend,
        /// The requested precision.
        precision: Precision,
        /// The available back ends.
        available: String,
    },
}
