//! The taps that change values.

use super::{Cx, Interest, Tap};
use crate::{Error, HookPoint, Result};
use candle_core::Tensor;
use std::ops::Range;

/// Changes the value at one point: zero, add, scale or patch it, whole or only at some positions or in one head.
///
/// ```
/// use model_hooks::Edit;
/// let ablate_head_3 = Edit::zero("blocks.0.attn.hook_z".parse()?).head(3);
/// let halve = Edit::scale("blocks.1.hook_mlp_out".parse()?, 0.5).positions(2..5);
/// let both = (ablate_head_3, halve); // in this order
/// # Ok::<(), model_hooks::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Edit {
    point: HookPoint,
    change: Change,
    head: Option<usize>,
    positions: Option<Range<usize>>,
}

#[derive(Clone, Debug)]
enum Change {
    Scale(f64),
    Add(Tensor),
    Patch(Tensor),
}

impl Edit {
    /// Replaces the value by zeros.
    #[must_use]
    pub fn zero(point: HookPoint) -> Self {
        Self::new(point, Change::Scale(0.0))
    }

    /// Multiplies the value by `factor`. A factor of 0 writes zeros, even over infinities.
    #[must_use]
    pub fn scale(point: HookPoint, factor: f64) -> Self {
        Self::new(point, Change::Scale(factor))
    }

    /// Adds `x`, broadcast to the cut value's shape: a direction `[d_model]`, or one vector per position. An `x` of the whole
    /// value's shape is cut as the value is.
    #[must_use]
    pub fn add(point: HookPoint, x: Tensor) -> Self {
        Self::new(point, Change::Add(x))
    }

    /// Replaces the value by `x`, broadcast to the cut value's shape: activation patching. An `x` of the whole value's shape
    /// (the same point of another run) is cut as the value is.
    #[must_use]
    pub fn patch(point: HookPoint, x: Tensor) -> Self {
        Self::new(point, Change::Patch(x))
    }

    /// Only in one head; the head axis then has size 1 in the shape that `add` and `patch` broadcast to.
    #[must_use]
    pub fn head(mut self, head: usize) -> Self {
        self.head = Some(head);
        self
    }

    /// Only at these positions (query positions of `attn_scores` and `pattern`).
    #[must_use]
    pub fn positions(mut self, positions: Range<usize>) -> Self {
        self.positions = Some(positions);
        self
    }

    fn new(point: HookPoint, change: Change) -> Self {
        Self { point, change, head: None, positions: None }
    }

    /// The axes that the edit is cut along, each with its range.
    fn cuts(&self, x: &Tensor) -> Result<Vec<(usize, Range<usize>)>> {
        let mut cuts = Vec::new();
        let size = |axis: usize| x.dims().get(axis).copied().unwrap_or(0);
        let no_such = |what, index| Error::NoSuchIndex { point: self.point, what, index, shape: x.dims().to_vec() };
        if let Some(positions) = self.positions.clone() {
            let axis = self.point.pos_axis();
            if positions.is_empty() || positions.end > size(axis) {
                return Err(no_such("position", positions.start.max(positions.end.saturating_sub(1))));
            }
            cuts.push((axis, positions));
        }
        if let Some(head) = self.head {
            let axis = self.point.head_axis().ok_or_else(|| no_such("head", head))?;
            if head >= size(axis) {
                return Err(no_such("head", head));
            }
            cuts.push((axis, head..head + 1));
        }
        Ok(cuts)
    }

    /// Applies the change to `x` inside the cuts, and keeps it outside.
    fn apply(&self, x: &Tensor, cuts: &[(usize, Range<usize>)]) -> Result<Tensor> {
        // A tensor of the whole value's shape (from another run, say) is cut as the value is.
        let cut_too = |y: &Tensor| -> Result<Tensor> {
            if y.shape() != x.shape() {
                return Ok(y.clone());
            }
            Ok(cuts.iter().try_fold(y.clone(), |y, (axis, range)| y.narrow(*axis, range.start, range.len()))?)
        };
        let change = match &self.change {
            Change::Scale(factor) => Change::Scale(*factor),
            Change::Add(y) => Change::Add(cut_too(y)?),
            Change::Patch(y) => Change::Patch(cut_too(y)?),
        };
        change.within(x, cuts)
    }
}

impl Change {
    fn within(&self, x: &Tensor, cuts: &[(usize, Range<usize>)]) -> Result<Tensor> {
        let Some(((axis, range), rest)) = cuts.split_first() else { return self.whole(x) };
        let (size, mut parts) = (x.dim(*axis)?, Vec::with_capacity(3));
        if range.start > 0 {
            parts.push(x.narrow(*axis, 0, range.start)?);
        }
        parts.push(self.within(&x.narrow(*axis, range.start, range.len())?, rest)?);
        if range.end < size {
            parts.push(x.narrow(*axis, range.end, size - range.end)?);
        }
        Ok(Tensor::cat(&parts, *axis)?)
    }

    fn whole(&self, x: &Tensor) -> Result<Tensor> {
        let fit = |y: &Tensor| -> Result<Tensor> { Ok(y.to_dtype(x.dtype())?.broadcast_as(x.shape())?) };
        Ok(match self {
            Self::Scale(0.0) => x.zeros_like()?,
            Self::Scale(factor) => (x * *factor)?,
            Self::Add(y) => (x + fit(y)?)?,
            Self::Patch(y) => fit(y)?.contiguous()?,
        })
    }
}

impl Tap for Edit {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(vec![(self.point, Interest::Edit)])
    }

    fn watch(&mut self, _: &Cx<'_>, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn edit(&mut self, _: &Cx<'_>, x: Tensor) -> Result<Tensor> {
        self.apply(&x, &self.cuts(&x)?)
    }

    fn interest(&self, cx: &Cx<'_>) -> Result<Option<Interest>> {
        Ok((cx.at == self.point).then_some(Interest::Edit))
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
    F: FnMut(&Cx<'_>, Tensor) -> Result<Tensor>,
{
    Closure { point, f }
}

struct Closure<F> {
    point: HookPoint,
    f: F,
}

impl<F: FnMut(&Cx<'_>, Tensor) -> Result<Tensor>> Tap for Closure<F> {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(vec![(self.point, Interest::Edit)])
    }

    fn watch(&mut self, _: &Cx<'_>, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn edit(&mut self, cx: &Cx<'_>, x: Tensor) -> Result<Tensor> {
        (self.f)(cx, x)
    }

    fn interest(&self, cx: &Cx<'_>) -> Result<Option<Interest>> {
        Ok((cx.at == self.point).then_some(Interest::Edit))
    }
}
