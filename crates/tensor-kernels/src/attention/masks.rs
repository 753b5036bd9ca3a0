//! Which keys a query sees.

use super::{AttentionOptions, AttentionShape};
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

/// From the first to the last value that is not 0 (NaN is not), over all rows of `width`.
pub(crate) fn extent(rows: &[f32], width: usize) -> Range<usize> {
    let mut all = width..0;
    for row in rows.chunks_exact(width.max(1)) {
        // Only what lies outside of the extent so far is looked at.
        let start = row[..all.start].iter().position(|x| *x != 0.0);
        let end = row[all.end..].iter().rposition(|x| *x != 0.0).map(|last| all.end + last + 1);
        all = start.unwrap_or(all.start)..end.unwrap_or(all.end);
    }
    all.start.min(all.end)..all.end
}
