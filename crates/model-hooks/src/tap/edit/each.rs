//! Edits by closures: on the cut tensor, slice by slice, or on the whole value.

use super::selection::AxisSelection;
use crate::tap::{Interest, Tap, TapContext};
use crate::{Error, HookPoint, Result};
use candle_core::Tensor;
use std::sync::Arc;

/// The slice of a value that a closure gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The row of the batch.
    pub row: usize,
    /// The column of the run (the query's, in `attn_scores` and `pattern`).
    pub pos: usize,
    /// The head, where the value has any.
    pub head: Option<usize>,
}

/// A closure over slices.
#[derive(Clone)]
pub(super) struct EachSlice(pub Arc<ChangeSlice>);

type ChangeSlice = dyn Fn(Place, &mut [f32]) + Send + Sync;

impl EachSlice {
    /// `x` is the part inside `cuts`.
    pub fn apply(&self, point: HookPoint, cuts: &[AxisSelection], x: &Tensor) -> Result<Tensor> {
        if x.track_op() {
            // A closure on numbers is invisible to gradients.
            return Err(Error::UntrackedEdit { point });
        }
        let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
        let dims = x.dims();
        let width = dims.last().copied().unwrap_or(1).max(1);
        // Row, position and head are all axes but the last; a value of one axis fewer has none for heads.
        let leading = &dims[..dims.len().saturating_sub(1)];
        let at = |i: usize, axis: usize| -> usize {
            let Some(&size) = leading.get(axis) else { return 0 };
            let index = i / leading[axis + 1..].iter().product::<usize>().max(1) % size.max(1);
            let cut = cuts.iter().find(|cut| cut.axis_and_index(0).0 == axis);
            cut.map_or(index, |cut| cut.axis_and_index(index).1)
        };
        for (i, slice) in values.chunks_exact_mut(width).enumerate() {
            let head = point.head_axis().filter(|&axis| axis < leading.len()).map(|axis| at(i, axis));
            (self.0)(Place { row: at(i, 0), pos: at(i, point.pos_axis()), head }, slice);
        }
        Ok(Tensor::from_vec(values, dims, x.device())?)
    }
}

/// A tap that edits the value at one point with a closure; the closure's own failure goes into [`Error::Tap`].
///
/// ```
/// use model_hooks::edit_at;
/// let clamp = edit_at("blocks.0.mlp.hook_post".parse()?, |_, x| Ok(x.clamp(-1f32, 1f32)?));
/// # Ok::<(), model_hooks::Error>(())
/// ```
pub fn edit_at<F>(point: HookPoint, f: F) -> impl Tap
where
    F: FnMut(&TapContext<'_>, Tensor) -> Result<Tensor>,
{
    Closure { point, f }
}

struct Closure<F> {
    point: HookPoint,
    f: F,
}

impl<F: FnMut(&TapContext<'_>, Tensor) -> Result<Tensor>> Tap for Closure<F> {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(vec![(self.point, Interest::Edit)])
    }

    fn watch(&mut self, _: &TapContext<'_>, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        (self.f)(cx, x)
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        Ok((cx.at == self.point).then_some(Interest::Edit))
    }
}
