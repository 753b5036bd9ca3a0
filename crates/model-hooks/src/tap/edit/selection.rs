//! The part of a value that an edit changes.

use crate::{Error, HookPoint, Result};
use candle_core::Tensor;
use std::ops::{Range, RangeFrom, RangeInclusive};

/// Rows, positions or heads: a range or a list. The order of a list is the order in which an edit's tensor meets them.
///
/// ```
/// use model_hooks::Indices;
/// let _: [Indices; 4] = [3.into(), (2..5).into(), (4..).into(), [0, 7].into()];
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indices(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Range { start: usize, end: Option<usize> },
    List(Vec<usize>),
}

impl From<usize> for Indices {
    fn from(index: usize) -> Self {
        Self(Kind::List(vec![index]))
    }
}

impl From<Range<usize>> for Indices {
    fn from(range: Range<usize>) -> Self {
        Self(Kind::Range { start: range.start, end: Some(range.end) })
    }
}

impl From<RangeInclusive<usize>> for Indices {
    fn from(range: RangeInclusive<usize>) -> Self {
        Self::from(*range.start()..range.end().saturating_add(1))
    }
}

impl From<RangeFrom<usize>> for Indices {
    fn from(range: RangeFrom<usize>) -> Self {
        Self(Kind::Range { start: range.start, end: None })
    }
}

impl From<Vec<usize>> for Indices {
    fn from(list: Vec<usize>) -> Self {
        Self(Kind::List(list))
    }
}

impl From<&[usize]> for Indices {
    fn from(list: &[usize]) -> Self {
        Self(Kind::List(list.to_vec()))
    }
}

impl<const N: usize> From<[usize; N]> for Indices {
    fn from(list: [usize; N]) -> Self {
        Self(Kind::List(list.to_vec()))
    }
}

/// The part of a value that is meant: rows of the batch, positions, heads. What is not named is meant whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    rows: Option<Indices>,
    positions: Option<Indices>,
    heads: Option<Indices>,
}

impl Selection {
    /// Only these rows of the batch.
    #[must_use]
    pub fn rows(mut self, rows: impl Into<Indices>) -> Self {
        self.rows = Some(rows.into());
        self
    }

    /// Only these positions (query positions of `attn_scores` and `pattern`), counted in the columns of the whole sequence. A first run
    /// must have them all; the steps after it, behind a cache, pass over those that are not theirs.
    #[must_use]
    pub fn positions(mut self, positions: impl Into<Indices>) -> Self {
        self.positions = Some(positions.into());
        self
    }

    /// Only these heads. For keys and values of grouped attention they are key-value heads.
    #[must_use]
    pub fn heads(mut self, heads: impl Into<Indices>) -> Self {
        self.heads = Some(heads.into());
        self
    }

    /// The cut along the axes of a value at `point`, whose first column is `offset` in the whole sequence; `None` where no position is
    /// among its columns.
    pub(super) fn of(&self, point: HookPoint, x: &Tensor, offset: usize) -> Result<Option<Vec<AxisSelection>>> {
        let named = [
            ("row", &self.rows, Some(0)),
            ("position", &self.positions, Some(point.pos_axis())),
            ("head", &self.heads, point.head_axis()),
        ];
        let mut cuts = Vec::new();
        for (what, indices, axis) in named {
            let Some(indices) = indices else { continue };
            let no_such = |index| Error::IndexOutOfRange { point, what, index, shape: x.dims().to_vec() };
            let axis = axis.filter(|&axis| axis < x.rank()).ok_or_else(|| no_such(indices.first()))?;
            let size = x.dims()[axis];
            let indices = match what {
                "position" if offset > 0 => indices.among(offset..offset + size),
                _ => indices.list(size).map_err(no_such)?,
            };
            if indices.is_empty() {
                return Ok(None);
            }
            cuts.push(AxisSelection { axis, indices });
        }
        Ok(Some(cuts))
    }
}

impl Indices {
    fn first(&self) -> usize {
        match &self.0 {
            Kind::Range { start, .. } => *start,
            Kind::List(list) => list.first().copied().unwrap_or(0),
        }
    }

    /// Those within these columns, counted from the first of them, each once.
    fn among(&self, columns: Range<usize>) -> Vec<usize> {
        match &self.0 {
            Kind::Range { start, end } => {
                let end = end.unwrap_or(columns.end).min(columns.end);
                ((*start).max(columns.start)..end).map(|index| index - columns.start).collect()
            }
            Kind::List(list) => {
                let mut found: Vec<usize> = Vec::new();
                for index in list.iter().filter(|index| columns.contains(index)).map(|index| index - columns.start) {
                    if !found.contains(&index) {
                        found.push(index);
                    }
                }
                found
            }
        }
    }

    /// The indices within an axis of this size; the first that is outside, or named twice, is the error. So is an empty choice.
    fn list(&self, size: usize) -> std::result::Result<Vec<usize>, usize> {
        match &self.0 {
            Kind::Range { start, end } => {
                let end = end.unwrap_or(size);
                if *start >= end || end > size {
                    return Err((*start).max(end.saturating_sub(1)));
                }
                Ok((*start..end).collect())
            }
            Kind::List(list) => {
                let mut seen = vec![false; size];
                for &index in list {
                    if std::mem::replace(seen.get_mut(index).ok_or(index)?, true) {
                        return Err(index);
                    }
                }
                if list.is_empty() { Err(0) } else { Ok(list.clone()) }
            }
        }
    }
}

/// Chosen indices of one axis.
#[derive(Clone, Debug)]
pub(super) struct AxisSelection {
    axis: usize,
    /// At least one, each once.
    indices: Vec<usize>,
}

impl AxisSelection {
    /// Index `i` of the cut in the whole.
    pub fn axis_and_index(&self, i: usize) -> (usize, usize) {
        (self.axis, self.indices[i])
    }

    /// Neighbors that follow each other: where they start in the cut, where in the whole, and how many they are.
    fn runs(&self) -> Vec<(usize, usize, usize)> {
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for (i, &index) in self.indices.iter().enumerate() {
            match runs.last_mut() {
                Some((_, start, len)) if *start + *len == index => *len += 1,
                _ => runs.push((i, index, 1)),
            }
        }
        runs
    }

    /// The chosen part. Only `narrow` and `cat`: gradients pass through both.
    pub fn take(&self, x: &Tensor) -> Result<Tensor> {
        let parts = self.runs().into_iter().map(|(_, start, len)| x.narrow(self.axis, start, len));
        let parts: Vec<Tensor> = parts.collect::<candle_core::Result<_>>()?;
        Ok(match &parts[..] {
            [part] => part.clone(),
            parts => Tensor::cat(parts, self.axis)?,
        })
    }

    /// `x` with the chosen part replaced.
    pub fn put(&self, x: &Tensor, part: &Tensor) -> Result<Tensor> {
        let (mut runs, mut parts, mut done) = (self.runs(), Vec::new(), 0);
        runs.sort_unstable_by_key(|(_, start, _)| *start);
        for (from, start, len) in runs {
            if start > done {
                parts.push(x.narrow(self.axis, done, start - done)?);
            }
            parts.push(part.narrow(self.axis, from, len)?);
            done = start + len;
        }
        let size = x.dim(self.axis)?;
        if done < size {
            parts.push(x.narrow(self.axis, done, size - done)?);
        }
        Ok(Tensor::cat(&parts, self.axis)?)
    }
}
