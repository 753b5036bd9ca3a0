//! What can be attached to a forward pass: the [`Tap`] trait and how taps combine.

use crate::{HookPoint, Result, TokenBatch};
use candle_core::Tensor;

/// What a tap means to do at a point. Watching never changes which arithmetic runs; editing may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Look at the value.
    Watch,
    /// Replace the value.
    Edit,
}

/// What a tap is told beside the value.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Cx<'a> {
    /// The point that fires.
    pub at: HookPoint,
    /// The tokens of this forward pass.
    pub tokens: &'a TokenBatch,
    /// Position of column 0 in the whole sequence (0 unless a cache holds earlier columns).
    pub offset: usize,
}

/// Something attached to a forward pass: it watches values, or changes them.
///
/// Taps are arguments of one call; nothing stays on the model. Two taps combine as a pair `(a, b)`: `a` first.
pub trait Tap {
    /// The points that this tap wants, out of those that the model has (in execution order).
    /// Asked once, before anything runs; a wanted point that the model lacks is an error.
    ///
    /// # Errors
    /// Anything that makes the tap unusable on this model.
    fn points(&self, model: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>>;

    /// Called at each watched point with the value.
    ///
    /// # Errors
    /// Stops the forward pass.
    fn watch(&mut self, cx: &Cx<'_>, x: &Tensor) -> Result<()>;

    /// Called at each edited point; the returned tensor of the same shape and type takes the value's place.
    ///
    /// # Errors
    /// Stops the forward pass.
    fn edit(&mut self, cx: &Cx<'_>, x: Tensor) -> Result<Tensor>;
}
