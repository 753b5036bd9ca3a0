//! The strongest features of a whole batch.

use super::{EncodeScratch, Encoder, ROW_TILE};
use crate::normalization::Rows;
use crate::{Result, SparseFeatures};

/// Candidates that a tile of rows should not add more of: 12 bytes each.
const CANDIDATES: usize = 1 << 20;

/// Row, column, value.
type Candidate = (u32, u32, f32);

/// Appends the `int(k * n)` largest positive activations of the n rows, row by row.
///
/// Candidates are at most about twice as many as wanted, and those of a tile: its rows double while few of their values exceed the floor
/// that was reached before.
pub(super) fn sparse(
    encoder: &Encoder,
    k: f64,
    rows: &Rows<'_>,
    scratch: &mut EncodeScratch,
    out: &mut SparseFeatures,
) -> Result<()> {
    let n = rows.len();
    // As Python's int() does: towards zero.
    let wanted = (k * n as f64) as usize;
    let (mut best, mut floor): (Vec<Candidate>, f32) = (Vec::new(), 0.0);
    let mut height = (CANDIDATES / encoder.columns()).clamp(1, ROW_TILE);
    let mut start = 0;
    while start < n {
        let range = start..n.min(start + height);
        let before = best.len();
        for (i, row) in encoder.collect(rows, range.clone(), floor, scratch)?.iter().enumerate() {
            best.extend(row.entries.iter().map(|&(column, value)| ((start + i) as u32, column, value)));
        }
        if 4 * (best.len() - before) < CANDIDATES {
            height = (2 * height).min(ROW_TILE);
        }
        if best.len() >= wanted.saturating_mul(2) {
            floor = keep(&mut best, wanted).unwrap_or(floor);
        }
        start = range.end;
    }
    keep(&mut best, wanted);
    best.sort_unstable_by_key(|&(row, column, _)| (row, column));
    let mut rest = best.as_slice();
    for row in 0..n as u32 {
        let (own, others) = rest.split_at(rest.partition_point(|candidate| candidate.0 == row));
        out.push_row(own.iter().map(|&(_, column, value)| (column, value)));
        rest = others;
    }
    Ok(())
}

/// Keeps the `wanted` largest, of equal ones the earlier rows' and lower columns; what a later one must exceed.
fn keep(best: &mut Vec<Candidate>, wanted: usize) -> Option<f32> {
    if wanted == 0 {
        best.clear();
        return Some(f32::INFINITY);
    }
    if best.len() < wanted {
        return None;
    }
    // Values are positive or NaN, which is larger than any number here.
    let order = |a: &Candidate, b: &Candidate| b.2.abs().total_cmp(&a.2.abs()).then((a.0, a.1).cmp(&(b.0, b.1)));
    let (_, last, _) = best.select_nth_unstable_by(wanted - 1, order);
    let floor = if last.2.is_nan() { f32::INFINITY } else { last.2 };
    best.truncate(wanted);
    Some(floor)
}
