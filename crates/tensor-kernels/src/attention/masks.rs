//! Masks: the keys that a query sees.

use super::{AttentionOptions, AttentionShape};
use crate::simd::{Simd, Vector, entry, fold, total};
use std::ops::Range;

/// Keys that query `i` of a sequence sees, but for those that are left out one by one.
pub(crate) fn seen(shape: &AttentionShape, options: &AttentionOptions<'_>, i: usize) -> Range<usize> {
    let end = shape.keys - shape.queries + i + 1;
    end - options.window.unwrap_or(end).min(end)..end
}

/// Writes -inf over the scores of one row that are masked; `row` holds the keys from `first` on, `seen` is the query's.
pub(crate) fn mask_row(row: &mut [f32], first: usize, seen: &Range<usize>, kept: Option<&[bool]>) {
    let end = seen.end.clamp(first, first + row.len()) - first;
    let start = (seen.start.max(first) - first).min(end);
    row[..start].fill(f32::NEG_INFINITY);
    row[end..].fill(f32::NEG_INFINITY);
    if let Some(kept) = kept {
        for (score, kept) in row.iter_mut().zip(&kept[first..]) {
            *score = if *kept { *score } else { f32::NEG_INFINITY };
        }
    }
}

/// Values that are looked at together.
const RUN: usize = 16;

/// A range of columns outside of which all values are 0 (NaN is not), over all rows of `width`; within a run of the smallest one.
pub(crate) fn extent(rows: &[f32], width: usize) -> Range<usize> {
    let some = |run: &[f32]| run.iter().fold(false, |some, x| some | (*x != 0.0));
    let mut all = width..0;
    for row in rows.chunks_exact(width.max(1)) {
        // Only what lies outside of the extent so far is looked at.
        if let Some(run) = row[..all.start].chunks(RUN).position(some) {
            all.start = run * RUN;
        }
        if let Some(run) = row[all.end..].chunks(RUN).rposition(some) {
            all.end = (all.end + (run + 1) * RUN).min(width);
        }
    }
    all.start.min(all.end)..all.end
}

entry! {
    /// The rows `[rows, width]` that lie `stride` apart hold nothing that a product with 0 makes NaN: no infinity, no NaN, and no
    /// number that becomes infinite when it is rounded to bf16.
    pub(crate) fn all_finite(x: &[f32], rows: usize, width: usize, stride: usize) -> bool = all_finite_on;
}

#[inline(always)]
fn all_finite_on<S: Simd>(s: S, x: &[f32], rows: usize, width: usize, stride: usize) -> bool {
    // The largest bf16 is 0.4 % below the largest f32.
    let (zero, more) = (s.splat(0.0), s.splat(1.01));
    let mut zeros = 0.0;
    for row in 0..rows {
        zeros += total(fold!(s, x[row * stride..][..width], 0.0, 0.0, |sum, x| (x * more).mul_add(zero, sum)));
    }
    zeros == 0.0
}
