//! Encoding with candle's products: an independent path that the kernels are compared with.

use super::{Encoder, ROW_TILE, Read, tiles};
use crate::Result;
use crate::encoder::selection::Row;
use crate::normalization::Rows;
use crate::slices::with_f32;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Bound on a dense tile of pre-activations. Small enough that the allocator hands the same pages out again instead of
/// faulting in new ones, large enough that the product does not notice the seams.
const TILE_BYTES: usize = 16 << 20;

/// With at most so many rows on both sides `gemm` takes another path.
const SMALL: usize = 64;
/// So many rows against more than `SMALL` are enough for the common path.
const FEW: usize = 4;

/// See [`Encoder::collect`].
pub(super) fn collect(
    encoder: &Encoder,
    w_t: &Tensor,
    rows: &Rows<'_>,
    range: &Range<usize>,
    found: &mut [Row],
) -> Result<()> {
    let x = shifted(rows, range)?;
    for columns in tiles(encoder.columns(), column_tile(range.len())) {
        let dots = product(w_t, &x, &columns)?;
        with_f32(&dots, |dots| {
            let dots = dots.par_chunks_exact(columns.len());
            found.par_iter_mut().zip(dots).for_each(|(row, dots)| {
                encoder.rule.collect(row, columns.start, dots, &encoder.bias);
            });
        })?;
    }
    Ok(())
}

/// See [`Encoder::dense`].
pub(super) fn dense(encoder: &Encoder, w_t: &Tensor, rows: &Rows<'_>, read: Read, out: &mut [f32]) -> Result<()> {
    let width = encoder.columns();
    for range in tiles(rows.len(), ROW_TILE) {
        let x = shifted(rows, &range)?;
        let out = &mut out[range.start * width..range.end * width];
        for columns in tiles(width, column_tile(range.len())) {
            let dots = product(w_t, &x, &columns)?;
            with_f32(&dots, |dots| {
                let dots = dots.par_chunks_exact(columns.len());
                out.par_chunks_exact_mut(width).zip(dots).for_each(|(out, dots)| {
                    for (j, &dot) in columns.clone().zip(dots) {
                        out[j] = read(&encoder.rule, j, dot, encoder.bias[j]);
                    }
                });
            })?;
        }
    }
    Ok(())
}

/// `x~` of some rows.
fn shifted(rows: &Rows<'_>, range: &Range<usize>) -> Result<Tensor> {
    let d_in = rows.d_in;
    let mut x = rows.flat[range.start * d_in..range.end * d_in].to_vec();
    if let Some(shift) = rows.shift {
        x.chunks_exact_mut(d_in).for_each(|row| row.iter_mut().zip(shift).for_each(|(x, b)| *x -= b));
    }
    Ok(Tensor::from_vec(x, (range.len(), d_in), &Device::Cpu)?)
}

/// `x~ W_enc` for some columns, `[n, columns]`.
///
/// `gemm` goes along the inner dimension in another order when the product is a matrix times a vector, when the result has
/// at most 256 entries, or when both sides have at most 64 rows. Such products get rows of zeros, so that a value's bits
/// depend neither on the other tokens nor on the other columns. (Read in gemm 0.19; tests/laws.rs would notice a change.)
fn product(w_t: &Tensor, x: &Tensor, columns: &Range<usize>) -> Result<Tensor> {
    let w_t = w_t.narrow(0, columns.start, columns.len())?;
    let (n, width) = (x.dim(0)?, columns.len());
    let rows = if width <= SMALL { n.max(SMALL + 1) } else { n.max(FEW) };
    let product = pad(x, rows)?.matmul(&pad(&w_t, FEW)?.t()?)?;
    Ok(product.narrow(0, 0, n)?.narrow(1, 0, width)?.contiguous()?)
}

/// A matrix with rows of zeros put under it until there are at least `rows`.
fn pad(matrix: &Tensor, rows: usize) -> Result<Tensor> {
    match rows.saturating_sub(matrix.dim(0)?) {
        0 => Ok(matrix.clone()),
        missing => Ok(matrix.pad_with_zeros(0, 0, missing)?),
    }
}

fn column_tile(rows: usize) -> usize {
    TILE_BYTES / size_of::<f32>() / rows.max(1)
}
