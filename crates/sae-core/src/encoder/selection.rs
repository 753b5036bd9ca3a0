//! Activation functions as they are computed: row by row, columns left to right, nothing dense kept.

use std::cmp::Ordering;
use std::sync::Arc;
use tensor_kernels::SparseActivation;

/// An activation with what it needs per column worked out, for the columns of one encoder.
#[derive(Clone)]
pub(crate) enum Selection {
    Relu,
    JumpRelu {
        threshold: Arc<[f32]>,
    },
    Gated {
        gain: Arc<[f32]>,
        b_mag: Arc<[f32]>,
    },
    /// The k best of a row.
    Best {
        k: usize,
        norms: Option<Arc<[f32]>>,
        by: By,
    },
    /// The largest of each group of so many neighbors.
    GroupMax {
        width: usize,
    },
    /// The `k` best of a row on average: what is above the row's floor is kept, and the batch chooses.
    Batch {
        k: f64,
        norms: Option<Arc<[f32]>>,
    },
}

/// Order in which values are ranked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Its value, where that is above zero.
    Positive,
    /// Its distance from zero.
    Size,
    /// Its value, of either sign.
    Value,
}

impl By {
    fn score(self, value: f32) -> f32 {
        if self == Self::Size { value.abs() } else { value }
    }

    /// The better first; NaN is better than any number, as in torch.topk.
    fn order(self, a: f32, b: f32) -> Ordering {
        let score = |value: f32| if value.is_nan() { f32::NAN } else { self.score(value) };
        score(b).total_cmp(&score(a))
    }

    /// Initial threshold, before any value has been seen.
    pub(crate) fn least(self) -> f32 {
        if self == Self::Value { f32::NEG_INFINITY } else { 0.0 }
    }
}

/// The active features of one row while the columns are still being worked through, left to right.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) entries: Vec<(u32, f32)>,
    /// Only values with a larger score can still enter.
    floor: f32,
}

impl Row {
    pub(crate) fn start(&mut self, floor: f32) {
        self.entries.clear();
        self.floor = floor;
    }
}

/// Columns looked at together: most such groups hold no active feature and are passed over by one vectorized test.
const GROUP: usize = 16;

impl Selection {
    /// Whether features compete, so that none can be computed alone.
    pub(crate) fn is_coupled(&self) -> bool {
        matches!(self, Self::Best { .. } | Self::GroupMax { .. } | Self::Batch { .. })
    }

    /// The floor of a row before its first column.
    pub(crate) fn floor(&self) -> f32 {
        if let Self::Best { by, .. } = self { by.least() } else { 0.0 }
    }

    /// Maximum number of active features per token, for rules that have one.
    pub(crate) fn k(&self) -> Option<f64> {
        match self {
            Self::Best { k, .. } => Some(*k as f64),
            Self::Batch { k, .. } => Some(*k),
            _ => None,
        }
    }

    /// The same rule for the given columns. Coupled rules are never asked: they need all.
    pub(crate) fn gather(&self, columns: &[u32]) -> Self {
        let pick = |from: &[f32]| columns.iter().map(|&j| from[j as usize]).collect::<Arc<[f32]>>();
        match self {
            Self::JumpRelu { threshold } => Self::JumpRelu { threshold: pick(threshold) },
            Self::Gated { gain, b_mag } => Self::Gated { gain: pick(gain), b_mag: pick(b_mag) },
            other => other.clone(),
        }
    }

    /// Adds the active features among the columns `first..first + dots.len()` to `row`. Columns must come left to right.
    ///
    /// A NaN pre-activation counts as active, so that it shows in the result.
    pub(crate) fn collect(&self, row: &mut Row, first: usize, dots: &[f32], bias: &[f32]) {
        let bias = &bias[first..first + dots.len()];
        match self {
            Self::Relu | Self::Gated { .. } => {
                for_open_groups(dots, bias, 0.0, By::Positive, |at, dot| self.push(row, first + at, dot, bias[at]));
            }
            Self::JumpRelu { threshold } => {
                let threshold = &threshold[first..first + dots.len()];
                let open = |d: &[f32], b: &[f32], t: &[f32]| {
                    d.iter().zip(b).zip(t).fold(false, |open, ((d, b), t)| open | above(d + b, *t))
                };
                let groups = dots.chunks(GROUP).zip(bias.chunks(GROUP)).zip(threshold.chunks(GROUP));
                for (group, ((d, b), t)) in groups.enumerate() {
                    if open(d, b, t) {
                        for (at, (&dot, &b)) in d.iter().zip(b).enumerate() {
                            self.push(row, first + group * GROUP + at, dot, b);
                        }
                    }
                }
            }
            Self::Best { k, norms: None, by } => {
                for (group, (d, b)) in dots.chunks(GROUP).zip(bias.chunks(GROUP)).enumerate() {
                    if any(d, b, row.floor, *by) {
                        for (at, (dot, b)) in d.iter().zip(b).enumerate() {
                            compete(row, *k, *by, (first + group * GROUP + at) as u32, dot + b);
                        }
                    }
                }
            }
            Self::Best { k, norms: Some(norms), by } => {
                for (at, ((dot, b), norm)) in dots.iter().zip(bias).zip(&norms[first..]).enumerate() {
                    compete(row, *k, *by, (first + at) as u32, (dot + b) * norm);
                }
            }
            Self::GroupMax { width } => for_open_groups(dots, bias, 0.0, By::Positive, |at, dot| {
                let value = dot + bias[at];
                if above(value, 0.0) {
                    lead(&mut row.entries, *width, (first + at) as u32, value);
                }
            }),
            Self::Batch { norms, .. } => {
                for (at, (dot, b)) in dots.iter().zip(bias).enumerate() {
                    let value = (dot + b) * norms.as_ref().map_or(1.0, |norms| norms[first + at]);
                    if above(value, row.floor) {
                        row.entries.push(((first + at) as u32, value));
                    }
                }
            }
        }
    }

    /// Puts the entries of a row, which came left to right, into their final order and number.
    pub(crate) fn finish(&self, row: &mut Row) {
        match self {
            Self::Best { k, by, .. } => {
                keep_best(row, *k, *by);
                // Zeros are absent in sparse codes; they can be among the k best of signed values.
                row.entries.retain(|entry| entry.1 != 0.0);
                row.entries.sort_unstable_by_key(|entry| entry.0);
            }
            // The ends of a group may have been looked at apart.
            Self::GroupMax { width } => {
                let found = std::mem::take(&mut row.entries);
                found.into_iter().for_each(|(feature, value)| lead(&mut row.entries, *width, feature, value));
            }
            Self::Relu | Self::JumpRelu { .. } | Self::Gated { .. } | Self::Batch { .. } => {}
        }
    }

    /// The same rule as the kernels name it, if they know it.
    pub(crate) fn for_kernels(&self) -> Option<SparseActivation<'_>> {
        match self {
            Self::Relu => Some(SparseActivation::Relu),
            Self::JumpRelu { threshold } => Some(SparseActivation::JumpRelu { threshold }),
            Self::Gated { gain, b_mag } => Some(SparseActivation::Gated { gain, b_mag }),
            Self::Best { k, norms, by: By::Positive } => {
                Some(SparseActivation::TopK { k: *k, norms: norms.as_deref() })
            }
            Self::Best { .. } | Self::GroupMax { .. } | Self::Batch { .. } => None,
        }
    }

    /// The activation of one column, for rules whose columns are independent. Coupled rules are never asked.
    pub(crate) fn value(&self, column: usize, dot: f32, bias: f32) -> f32 {
        let pre = dot + bias;
        let (open, value) = match self {
            Self::JumpRelu { threshold } => (above(pre, threshold[column]), pre),
            Self::Gated { gain, b_mag } => (above(pre, 0.0), dot * gain[column] + b_mag[column]),
            _ => (true, pre),
        };
        if open && above(value, 0.0) { value } else { 0.0 }
    }

    /// Input of the activation function for one column; of a Gated SAE the magnitude.
    pub(crate) fn pre_activation(&self, column: usize, dot: f32, bias: f32) -> f32 {
        match self {
            Self::Gated { gain, b_mag } => dot * gain[column] + b_mag[column],
            _ => dot + bias,
        }
    }

    fn push(&self, row: &mut Row, column: usize, dot: f32, bias: f32) {
        let value = self.value(column, dot, bias);
        if value != 0.0 {
            row.entries.push((column as u32, value));
        }
    }
}

/// `value > limit`, and true for NaN.
fn above(value: f32, limit: f32) -> bool {
    let at_most = value <= limit;
    !at_most
}

fn any(dots: &[f32], bias: &[f32], limit: f32, by: By) -> bool {
    let open =
        |score: fn(f32) -> f32| dots.iter().zip(bias).fold(false, |open, (d, b)| open | above(score(d + b), limit));
    if by == By::Size { open(f32::abs) } else { open(|value| value) }
}

fn for_open_groups(dots: &[f32], bias: &[f32], limit: f32, by: By, mut each: impl FnMut(usize, f32)) {
    for (group, (d, b)) in dots.chunks(GROUP).zip(bias.chunks(GROUP)).enumerate() {
        if any(d, b, limit, by) {
            for (at, &dot) in d.iter().enumerate() {
                each(group * GROUP + at, dot);
            }
        }
    }
}

/// Lets a feature into the row if it can still be among the k best. Strictly above the floor: of equal values the one
/// that came first, the lower feature, stays.
fn compete(row: &mut Row, k: usize, by: By, feature: u32, value: f32) {
    if above(by.score(value), row.floor) {
        row.entries.push((feature, value));
        if row.entries.len() >= 2 * k + GROUP {
            keep_best(row, k, by);
        }
    }
}

/// Keeps the k best values, of equal values the lower features.
fn keep_best(row: &mut Row, k: usize, by: By) {
    if row.entries.len() < k {
        return;
    }
    let order = |a: &(u32, f32), b: &(u32, f32)| by.order(a.1, b.1).then(a.0.cmp(&b.0));
    let (_, last, _) = row.entries.select_nth_unstable_by(k - 1, order);
    row.floor = if last.1.is_nan() { f32::INFINITY } else { by.score(last.1) };
    row.entries.truncate(k);
}

/// Makes a value the entry of its group if it is the largest so far; of equal values the lower feature stays, and NaN is larger than any
/// number.
fn lead(entries: &mut Vec<(u32, f32)>, width: usize, feature: u32, value: f32) {
    match entries.last_mut() {
        Some(last) if last.0 as usize / width == feature as usize / width => {
            if !last.1.is_nan() && above(value, last.1) {
                *last = (feature, value);
            }
        }
        _ => entries.push((feature, value)),
    }
}
