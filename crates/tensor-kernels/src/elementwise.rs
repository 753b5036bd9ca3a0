//! Sums of slices, and rows looked up in a table.

use crate::parallel::{check_len, count_rows, for_row_pairs, for_rows};
use crate::simd::{Simd, entry, map, tanh, zip_map};
use crate::{Backend, Error, Result};

/// `y = y + x`.
///
/// # Errors
/// [`Error::Length`].
pub fn add_to(backend: Backend, x: &[f32], y: &mut [f32]) -> Result<()> {
    check_len("a summand", y.len(), x.len())?;
    for_row_pairs(x, 1, y, 1, |_, x, y| add_row(backend, x, y));
    Ok(())
}

entry! {
    /// `y = y + x`, serial.
    pub(crate) fn add_row(x: &[f32], y: &mut [f32]) = add_row_on;
}

#[inline(always)]
fn add_row_on<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    zip_map!(s, x, y, |x, y| y + x);
}

/// `x = cap tanh(x / cap)`: no value is farther from 0 than `cap`.
pub fn softcap(backend: Backend, x: &mut [f32], cap: f32) {
    for_rows(x, 1, |_, x| softcap_row(backend, cap, x));
}

entry! {
    /// As [`softcap`], serial.
    pub(crate) fn softcap_row(cap: f32, x: &mut [f32]) = softcap_row_on;
}

#[inline(always)]
fn softcap_row_on<S: Simd>(s: S, cap: f32, x: &mut [f32]) {
    let (cap, inverse) = (s.splat(cap), s.splat(1.0 / cap));
    map!(s, x, |x| tanh(s, x * inverse) * cap);
}

/// Rows of a table `[n, width]`, looked up by number, one after another into `out`: an embedding.
///
/// # Errors
/// [`Error::Mismatch`] for a row that there is not, [`Error::Length`].
pub fn gather_rows(table: &[f32], width: usize, rows: &[u32], out: &mut [f32]) -> Result<()> {
    let n = count_rows("a table of rows", table, width)?;
    let too_large = Error::TooLarge { rows: rows.len(), cols: width };
    check_len("rows looked up", rows.len().checked_mul(width).ok_or(too_large)?, out.len())?;
    if let Some(row) = rows.iter().find(|row| **row as usize >= n && width > 0) {
        let (expected, found) = (format!("less than {n}"), row.to_string());
        return Err(Error::Mismatch { what: "row of a table", expected, found });
    }
    for_rows(out, width, |first, out| {
        for (out, row) in out.chunks_exact_mut(width.max(1)).zip(&rows[first..]) {
            out.copy_from_slice(&table[*row as usize * width..][..width]);
        }
    });
    Ok(())
}
