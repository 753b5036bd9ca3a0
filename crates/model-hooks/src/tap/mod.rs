//! Taps of a forward pass: the [`Tap`] trait, the taps of this crate, and combinations of taps.

mod capture;
mod combine;
mod edit;

pub use capture::Capture;
pub use edit::{Edit, Indices, Place, Selection, edit_at};

use crate::forward::positions::Positions;
use crate::{Error, HookPoint, Result, TokenBatch};
use candle_core::Tensor;

/// Interest of a tap in a point. Watching never changes which arithmetic runs; editing may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// Look at the value.
    Watch,
    /// Replace the value.
    Edit,
}

/// Context that a tap gets with each value.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TapContext<'a> {
    /// The point that fires.
    pub at: HookPoint,
    /// The tokens of this forward pass.
    pub tokens: &'a TokenBatch,
    /// Position of column 0 in the whole sequence (0 unless a cache holds earlier columns).
    pub offset: usize,
    /// Every hook point that this run reaches, as given to [`Tap::points`].
    pub points: &'a [HookPoint],
    pub(crate) columns: &'a Positions,
}

impl TapContext<'_> {
    /// Returns the position, from 0, of the token at a row and column of this forward pass in its own sequence: padding before the sequence does not count, and
    /// columns that a cache holds do.
    #[must_use]
    pub fn position(&self, row: usize, column: usize) -> usize {
        self.columns.position(row, column)
    }
}

/// Something attached to a forward pass: it watches values, or changes them.
///
/// Taps are arguments of one call; nothing stays on the model. Two taps combine as a pair `(a, b)`, many as a
/// `Vec<Box<dyn Tap>>`: each value goes through them in that order. `&mut T` is a tap where `T` is.
pub trait Tap {
    /// The points that this tap wants. `reached` holds those that this run will pass, in execution order: all of the model's,
    /// less those before its start or after its last point. A point named twice is edited if either naming says so.
    ///
    /// Asked before anything runs; a wanted point that is not reached is an error then. The answer must not change during a run.
    ///
    /// # Errors
    /// Anything that makes the tap unusable on this model.
    fn points(&self, reached: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>>;

    /// Called at each watched point with the value.
    ///
    /// # Errors
    /// Stops the forward pass.
    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()>;

    /// Called at each edited point; the returned tensor of the same shape and type takes the value's place.
    ///
    /// # Errors
    /// Stops the forward pass.
    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor>;

    /// Interest of the tap in one point of a run. Combined taps use it to pass each value to those that want it. The provided
    /// body looks it up in [`points`](Self::points); a tap with many points may answer faster.
    ///
    /// # Errors
    /// As [`points`](Self::points).
    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        Ok(self.points(cx.points)?.into_iter().filter(|(point, _)| *point == cx.at).map(|(_, i)| i).max())
    }
}

/// The tap that wants nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(Vec::new())
    }

    fn watch(&mut self, _: &TapContext<'_>, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn edit(&mut self, _: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

/// Calls a tap's edit and refuses an answer of another shape or type.
pub(crate) fn guarded_edit(tap: &mut (impl Tap + ?Sized), cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
    let (shape, dtype) = (x.shape().clone(), x.dtype());
    let y = tap.edit(cx, x)?;
    if *y.shape() != shape || y.dtype() != dtype {
        return Err(Error::EditChangedShape {
            point: cx.at,
            expected: format!("{:?} of {dtype:?}", shape.dims()),
            found: format!("{:?} of {:?}", y.dims(), y.dtype()),
        });
    }
    Ok(y)
}
