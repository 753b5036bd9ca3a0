//! Changes of feature activations, as data.

use crate::error::{Error, Result};
use model_hooks::{HookPoint, TapContext};
use sae_core::{FeatureId, SparseFeatures};
use std::ops::{Bound, RangeBounds};

/// A change of the activations of some features, at all positions or at chosen ones.
///
/// ```text
/// ablate     f_j <- 0                       for the named features
/// keep_only  f_j <- 0                       for all other features
/// clamp      f_j <- value
/// scale      f_j <- f_j * factor
/// add        f_j <- f_j + value             steering: also where the feature is silent
/// ```
///
/// Values are in the units of the SAE's features (where the SAE normalizes its input per token, in normalized units).
///
/// ```
/// use sae_hooks::FeatureEdit;
/// let edit = FeatureEdit::clamp([7, 12], 20.0).positions(3..);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureEdit {
    /// Rising, unique.
    features: Vec<FeatureId>,
    change: Change,
    start: usize,
    end: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    KeepOnly,
    Clamp(f32),
    Scale(f32),
    Add(f32),
}

impl FeatureEdit {
    /// Silences features.
    #[must_use]
    pub fn ablate(features: impl IntoIterator<Item = FeatureId>) -> Self {
        Self::new(features, Change::Clamp(0.0))
    }

    /// Silences all features but these.
    #[must_use]
    pub fn keep_only(features: impl IntoIterator<Item = FeatureId>) -> Self {
        Self::new(features, Change::KeepOnly)
    }

    /// Silences all features.
    #[must_use]
    pub fn ablate_all() -> Self {
        Self::keep_only([])
    }

    /// Sets features to a value, wherever they stood.
    #[must_use]
    pub fn clamp(features: impl IntoIterator<Item = FeatureId>, value: f32) -> Self {
        Self::new(features, Change::Clamp(value))
    }

    /// Multiplies features by a factor.
    #[must_use]
    pub fn scale(features: impl IntoIterator<Item = FeatureId>, factor: f32) -> Self {
        Self::new(features, Change::Scale(factor))
    }

    /// Adds a value to features, silent ones too.
    #[must_use]
    pub fn add(features: impl IntoIterator<Item = FeatureId>, value: f32) -> Self {
        Self::new(features, Change::Add(value))
    }

    /// Only at these positions of the sequence, counted from its first column. A range with an end must lie within the positions that
    /// there are; one without (`7..`) goes on with the tokens that a generation adds.
    #[must_use]
    pub fn positions(mut self, positions: impl RangeBounds<usize>) -> Self {
        self.start = match positions.start_bound() {
            Bound::Unbounded => 0,
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
        };
        self.end = match positions.end_bound() {
            Bound::Unbounded => None,
            Bound::Included(last) => Some(last.saturating_add(1)),
            Bound::Excluded(end) => Some(*end),
        };
        self
    }

    fn new(features: impl IntoIterator<Item = FeatureId>, change: Change) -> Self {
        let mut features: Vec<FeatureId> = features.into_iter().collect();
        features.sort_unstable();
        features.dedup();
        Self { features, change, start: 0, end: None }
    }

    /// Every feature must exist and every number be one.
    pub(crate) fn check(&self, d_sae: usize) -> Result<()> {
        if let Some(&feature) = self.features.last().filter(|feature| **feature as usize >= d_sae) {
            return Err(Error::FeatureRange { feature, d_sae });
        }
        match self.change {
            Change::Clamp(x) | Change::Scale(x) | Change::Add(x) if !x.is_finite() => {
                let expected = "a finite number";
                Err(Error::Option { option: "value of a feature edit", expected, found: x.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// The edited features of a value whose rows are `[batch, pos]`.
    pub(crate) fn apply(
        &self,
        hook: HookPoint,
        cx: &TapContext<'_>,
        pos: usize,
        codes: &SparseFeatures,
    ) -> Result<SparseFeatures> {
        let len = cx.offset + pos;
        if let Some(end) = self.end.filter(|end| *end > len) {
            return Err(Error::NoSuchPosition { hook, end, len });
        }
        let chosen = |row: usize| {
            let position = cx.offset + row % pos.max(1);
            position >= self.start && self.end.is_none_or(|end| position < end)
        };
        let mut indptr = Vec::with_capacity(codes.rows() + 1);
        let mut out = (Vec::with_capacity(codes.nnz()), Vec::with_capacity(codes.nnz()));
        indptr.push(0);
        for (row, (index, value)) in codes.iter().enumerate() {
            if chosen(row) {
                self.edit_row(index, value, &mut out);
            } else {
                out.0.extend_from_slice(index);
                out.1.extend_from_slice(value);
            }
            indptr.push(out.0.len() as u64);
        }
        // d_sae is a u32 in the codes that it came from.
        Ok(SparseFeatures::new(indptr, out.0, out.1, codes.d_sae() as u32)?)
    }

    /// Appends one edited row; what becomes zero is left out.
    fn edit_row(&self, index: &[u32], value: &[f32], out: &mut (Vec<u32>, Vec<f32>)) {
        let mut push = |feature: u32, value: f32| {
            if value != 0.0 {
                out.0.push(feature);
                out.1.push(value);
            }
        };
        let change = |value: f32| match self.change {
            Change::KeepOnly => value,
            Change::Clamp(to) => to,
            Change::Scale(factor) => value * factor,
            Change::Add(more) => value + more,
        };
        let mut named = self.features.iter().copied().peekable();
        for (&feature, &value) in index.iter().zip(value) {
            while let Some(silent) = named.next_if(|named| *named < feature) {
                push(silent, change(0.0));
            }
            match named.next_if_eq(&feature) {
                Some(_) => push(feature, change(value)),
                None if self.change == Change::KeepOnly => {}
                None => push(feature, value),
            }
        }
        named.for_each(|silent| push(silent, change(0.0)));
    }
}
