//! Streams of activation rows: [`ActivationSource`], [`ActivationBatch`], and the address of a row, [`TokenPos`].

use crate::{ActivationSpec, Result};
use candle_core::Tensor;

/// The address of an activation row, for ever: a row of tokens and a position in it. `Ord` is corpus order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenPos {
    /// Number of the row of tokens in the stream, from 0.
    pub row: u64,
    /// Position in it, from 0.
    pub pos: u32,
}

impl std::fmt::Display for TokenPos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.row, self.pos)
    }
}

/// Activation rows with their addresses.
#[derive(Clone, Debug)]
pub struct ActivationBatch {
    /// One `[n, width]` of f32 for each hook, in the order of the spec; row `i` of each belongs to `at[i]`.
    pub rows: Vec<Tensor>,
    /// Where each row comes from.
    pub at: Vec<TokenPos>,
    /// The token at each address.
    pub tokens: Vec<u32>,
}

impl ActivationBatch {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }
}

/// A stream of activation batches that knows what it delivers. A user's own source composes with [`crate::Shuffled`] and the rest.
pub trait ActivationSource: Iterator<Item = Result<ActivationBatch>> + Send {
    /// What it delivers.
    fn spec(&self) -> &ActivationSpec;
}

impl<S: ActivationSource + ?Sized> ActivationSource for Box<S> {
    fn spec(&self) -> &ActivationSpec {
        (**self).spec()
    }
}
