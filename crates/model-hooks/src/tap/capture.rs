//! The tap that keeps values.

use super::{Interest, Tap, TapContext};
use crate::{Error, HookPoint, Result, Site};
use candle_core::Tensor;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// Keeps the values at chosen points, or at all of them.
///
/// ```no_run
/// # fn demo(model: &dyn model_hooks::HookedModel, tokens: &model_hooks::TokenBatch) -> model_hooks::Result<()> {
/// use model_hooks::Capture;
/// let point = "blocks.2.hook_resid_pre".parse()?;
/// let mut capture = Capture::new([point]);
/// model.forward_until(tokens, point, &mut capture)?;
/// let resid = capture.get(point)?; // [batch, pos, d_model]
/// # Ok(()) }
/// ```
///
/// A second run replaces what it reaches. Whole values are kept without a copy; values cut to a head or to positions are copied, so that only the cut stays in memory.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// `None`: every point that the run reaches.
    wanted: Option<HashSet<HookPoint>>,
    head: Option<usize>,
    positions: Option<Range<usize>>,
    values: BTreeMap<HookPoint, Tensor>,
}

impl Capture {
    /// Keeps the values at `points`.
    #[must_use]
    pub fn new(points: impl IntoIterator<Item = HookPoint>) -> Self {
        Self { wanted: Some(points.into_iter().collect()), ..Self::default() }
    }

    /// Keeps the values at every point that a run reaches (and so makes it compute `hook_result` everywhere), but for
    /// [copies of the residual stream](crate::Site::is_input_copy).
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Keeps one head of per-head values (SAELens' `hook_head_index`): `[batch, pos, head, d_head]` becomes
    /// `[batch, pos, d_head]`, `[batch, head, q_pos, k_pos]` becomes `[batch, q_pos, k_pos]`. Values without a head axis are kept
    /// whole. For `k` and `v` of grouped attention this is a key-value head.
    #[must_use]
    pub fn head(mut self, head: usize) -> Self {
        self.head = Some(head);
        self
    }

    /// Keeps only these positions (query positions of `attn_scores` and `pattern`), counted in the columns of the whole sequence. A first
    /// run must have them all; of a step after it, behind a cache, those are kept that are its own, if any.
    #[must_use]
    pub fn positions(mut self, positions: Range<usize>) -> Self {
        self.positions = Some(positions);
        self
    }

    /// The value at a point.
    ///
    /// # Errors
    /// [`Error::NotCaptured`] when the point was not asked for or has not fired.
    pub fn get(&self, point: HookPoint) -> Result<&Tensor> {
        self.values.get(&point).ok_or_else(|| self.missing(point))
    }

    /// Takes the value at a point out.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn take(&mut self, point: HookPoint) -> Result<Tensor> {
        self.values.remove(&point).ok_or_else(|| self.missing(point))
    }

    /// All values, in execution order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (HookPoint, &Tensor)> {
        self.values.iter().map(|(point, x)| (*point, x))
    }

    /// All values, by point.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<HookPoint, Tensor> {
        self.values
    }

    fn missing(&self, point: HookPoint) -> Error {
        let mut held: Vec<String> = self.values.keys().take(8).map(ToString::to_string).collect();
        if self.values.len() > held.len() {
            held.push(format!("... ({} in all)", self.values.len()));
        }
        let held = if held.is_empty() { "nothing".into() } else { held.join(", ") };
        Error::NotCaptured { point, held }
    }
}

impl Tap for Capture {
    fn points(&self, reached: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(match &self.wanted {
            None => reached.iter().filter(|point| !is_copy(**point)).map(|&point| (point, Interest::Watch)).collect(),
            Some(wanted) => wanted.iter().map(|&point| (point, Interest::Watch)).collect(),
        })
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
        let mut positions = self.positions.clone();
        if let Some(Range { start, end }) = positions.as_mut().filter(|_| cx.offset > 0) {
            let columns = x.dims().get(cx.at.pos_axis()).copied().unwrap_or(0);
            (*start, *end) = (start.saturating_sub(cx.offset), end.saturating_sub(cx.offset).min(columns));
            if start >= end {
                return Ok(());
            }
        }
        let cut = cut_head(cx.at, cut_positions(cx.at, x.clone(), positions)?, self.head)?;
        let kept = if cut.elem_count() < x.elem_count() { cut.force_contiguous()? } else { cut };
        self.values.insert(cx.at, kept);
        Ok(())
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        self.watch(cx, &x)?;
        Ok(x)
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        let wanted = match &self.wanted {
            None => !is_copy(cx.at),
            Some(wanted) => wanted.contains(&cx.at),
        };
        Ok(wanted.then_some(Interest::Watch))
    }
}

fn is_copy(point: HookPoint) -> bool {
    point.site().is_some_and(Site::is_input_copy)
}

/// `x` at these positions only.
pub(super) fn cut_positions(point: HookPoint, x: Tensor, positions: Option<Range<usize>>) -> Result<Tensor> {
    let Some(Range { start, end }) = positions else { return Ok(x) };
    let axis = point.pos_axis();
    let size = x.dims().get(axis).copied().unwrap_or(0);
    if start >= end || end > size {
        let index = if start >= end { start } else { end - 1 };
        return Err(Error::IndexOutOfRange { point, what: "position", index, shape: x.dims().to_vec() });
    }
    Ok(x.narrow(axis, start, end - start)?)
}

fn cut_head(point: HookPoint, x: Tensor, head: Option<usize>) -> Result<Tensor> {
    let (Some(head), Some(axis)) = (head, point.head_axis()) else { return Ok(x) };
    if head >= x.dims().get(axis).copied().unwrap_or(0) {
        return Err(Error::IndexOutOfRange { point, what: "head", index: head, shape: x.dims().to_vec() });
    }
    Ok(x.narrow(axis, head, 1)?.squeeze(axis)?)
}
