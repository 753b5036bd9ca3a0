//! The taps that change values.

mod change;
mod each;
mod selection;

pub use each::{Place, edit_at};
pub use selection::{Indices, Selection};

use super::{Interest, Tap, TapContext};
use crate::{Error, HookPoint, Result};
use candle_core::Tensor;
use change::Change;
use each::EachSlice;
use std::sync::Arc;

/// Changes the value at one point, whole or only in some rows, at some positions, in some heads. Several edits go together as a tuple or
/// a vector, in their order.
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
    cut: Selection,
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
    /// (the same point of another run) is cut as the value is. A mean over some text, `[d_model]`, makes it mean ablation.
    #[must_use]
    pub fn patch(point: HookPoint, x: Tensor) -> Self {
        Self::new(point, Change::Patch(x))
    }

    /// Mean ablation: replaces the value in each row by the mean over the rows of `captured` `[rows, ..]`, which a run over other
    /// texts of the same length has left at this point.
    ///
    /// # Errors
    /// [`Error::EditShape`] where `captured` has no rows.
    pub fn mean_of(point: HookPoint, captured: &Tensor) -> Result<Self> {
        Ok(Self::patch(point, needs_rows(point, "mean", captured)?.mean_keepdim(0)?))
    }

    /// Resample ablation: row `i` gets row `from[i]` of `captured` `[rows, ..]`, the value at this point in another run. `from` has an index for each row of
    /// the batch, or of [`rows`](Self::rows).
    ///
    /// # Errors
    /// [`Error::EditShape`] where `captured` has no rows, [`Error::IndexOutOfRange`] where it lacks one of `from`, [`Error::BadOption`] where
    /// `from` is empty. The run ends with [`Error::EditShape`] where `from` has another length than the rows.
    pub fn resample(point: HookPoint, captured: &Tensor, from: &[usize]) -> Result<Self> {
        let rows = needs_rows(point, "resample", captured)?.dim(0)?;
        if let Some(&index) = from.iter().find(|&&row| row >= rows) {
            return Err(Error::IndexOutOfRange { point, what: "row", index, shape: captured.dims().to_vec() });
        }
        if from.is_empty() {
            let expected = "a row of the other run for each row of the batch".into();
            return Err(Error::BadOption { what: "`from` of a resample", expected, found: "an empty list".into() });
        }
        let parts: Vec<Tensor> =
            from.iter().map(|&row| captured.narrow(0, row, 1)).collect::<candle_core::Result<_>>()?;
        Ok(Self::new(point, Change::Resample(Tensor::cat(&parts, 0)?)))
    }

    /// Takes the component along `direction` `[width of the last axis]` out of every vector: `x - (x . d) d / |d|^2`.
    ///
    /// # Errors
    /// [`Error::EditDirection`] unless the direction is one vector of finite length greater than 0.
    pub fn project_out(point: HookPoint, direction: &Tensor) -> Result<Self> {
        let length = direction.to_dtype(candle_core::DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt();
        if direction.rank() != 1 || !length.is_finite() || length == 0.0 {
            return Err(Error::EditDirection { point, length, found: direction.dims().to_vec() });
        }
        // Of unit length, so that its square neither over- nor underflows.
        let unit = (direction.to_dtype(candle_core::DType::F64)? / length)?.to_dtype(candle_core::DType::F32)?;
        Ok(Self::new(point, Change::ProjectOut(unit)))
    }

    /// Replaces the part that the cut leaves by what `f` makes of it: a tensor of the same shape and type. A failure of `f` stops the run.
    #[must_use]
    pub fn map(point: HookPoint, f: impl Fn(Tensor) -> Result<Tensor> + Send + Sync + 'static) -> Self {
        Self::new(point, Change::Map(Arc::new(f)))
    }

    /// Gives `f` each vector along the last axis, with its row, position and head, to be changed in place.
    ///
    /// ```
    /// use model_hooks::Edit;
    /// // Head 2 attends nowhere but to the first token.
    /// let first = Edit::each("blocks.0.attn.hook_pattern".parse()?, |_, row| {
    ///     row.fill(0.0);
    ///     row[0] = 1.0;
    /// })
    /// .head(2);
    /// # Ok::<(), model_hooks::Error>(())
    /// ```
    #[must_use]
    pub fn each(point: HookPoint, f: impl Fn(Place, &mut [f32]) + Send + Sync + 'static) -> Self {
        Self::new(point, Change::Each(EachSlice(Arc::new(f))))
    }

    /// Only in one head; the head axis then has size 1 in the shape that `add` and `patch` broadcast to.
    #[must_use]
    pub fn head(self, head: usize) -> Self {
        self.heads(head)
    }

    /// As [`Selection::heads`].
    #[must_use]
    pub fn heads(mut self, heads: impl Into<Indices>) -> Self {
        self.cut = self.cut.heads(heads);
        self
    }

    /// As [`Selection::positions`].
    #[must_use]
    pub fn positions(mut self, positions: impl Into<Indices>) -> Self {
        self.cut = self.cut.positions(positions);
        self
    }

    /// As [`Selection::rows`].
    #[must_use]
    pub fn rows(mut self, rows: impl Into<Indices>) -> Self {
        self.cut = self.cut.rows(rows);
        self
    }

    /// Only in this part of the value, in place of what was said before.
    #[must_use]
    pub fn within(mut self, cut: Selection) -> Self {
        self.cut = cut;
        self
    }

    /// Hook point that it edits.
    #[must_use]
    pub fn point(&self) -> HookPoint {
        self.point
    }

    fn new(point: HookPoint, change: Change) -> Self {
        Self { point, change, cut: Selection::default() }
    }
}

fn needs_rows<'a>(point: HookPoint, op: &'static str, captured: &'a Tensor) -> Result<&'a Tensor> {
    if captured.rank() > 0 && captured.dims()[0] > 0 {
        return Ok(captured);
    }
    let expected = "[rows, ..] with at least one row".into();
    Err(Error::EditShape { point, op, expected, found: captured.dims().to_vec() })
}

impl Tap for Edit {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(vec![(self.point, Interest::Edit)])
    }

    fn watch(&mut self, _: &TapContext<'_>, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        match self.cut.of(self.point, &x, cx.offset)? {
            Some(cuts) => self.change.apply(self.point, &x, &cuts),
            None => Ok(x),
        }
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        Ok((cx.at == self.point).then_some(Interest::Edit))
    }
}
