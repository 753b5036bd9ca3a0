//! Rows in parts that are worth handing to another thread.

use crate::{Error, Result};
use rayon::prelude::*;

/// Values of a part: smaller ones cost more to hand over than to compute.
const PART: usize = 16_384;

/// Rows of `width` in a part.
fn rows_of_part(width: usize) -> usize {
    (PART / width.max(1)).max(1)
}

/// Calls `f(first row, rows)` for parts of `x`, on the threads of the current rayon pool.
pub(crate) fn for_rows(x: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = rows_of_part(width);
    let part = (rows * width).max(1);
    if x.len() <= part {
        return f(0, x);
    }
    x.par_chunks_mut(part).enumerate().for_each(|(i, x)| f(i * rows, x));
}

/// Calls `f(first row, rows of x, rows of y)` for parts of `x` and `y`, whose rows have the widths `x_width` and `y_width`.
pub(crate) fn for_row_pairs(
    x: &[f32],
    x_width: usize,
    y: &mut [f32],
    y_width: usize,
    f: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) {
    let rows = rows_of_part(x_width.max(y_width));
    let (x_part, y_part) = ((rows * x_width).max(1), (rows * y_width).max(1));
    if x.len() <= x_part {
        return f(0, x, y);
    }
    let parts = x.par_chunks(x_part).zip(y.par_chunks_mut(y_part));
    parts.enumerate().for_each(|(i, (x, y))| f(i * rows, x, y));
}

/// Number of rows of `width` in a slice.
pub(crate) fn count_rows(what: &'static str, x: &[f32], width: usize) -> Result<usize> {
    let rows = x.len().checked_div(width).unwrap_or(0);
    check_len(what, rows * width, x.len())?;
    Ok(rows)
}

/// That a slice is as long as its shape says.
pub(crate) fn check_len(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}
