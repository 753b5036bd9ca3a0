//! Encoding with the project's kernels: pre-activations never leave the tile that they are computed in.

use super::{EncodeScratch, Encoder, ROW_TILE, Read, tiles};
use crate::normalise::Rows;
use crate::{Result, SparseFeatures};
use rayon::prelude::*;
use std::ops::Range;
use tensor_kernels::{PackedMatrix, PackedRows, Store, product};

/// See [`Encoder::sparse`].
pub(super) fn sparse(
    encoder: &Encoder,
    packed: &PackedMatrix,
    rows: &Rows<'_>,
    scratch: &mut EncodeScratch,
    out: &mut SparseFeatures,
) -> Result<()> {
    let EncodeScratch { packed_rows, sparse_encoder, .. } = scratch;
    for range in tiles(rows.len(), ROW_TILE) {
        pack(packed, rows, range, packed_rows)?;
        let rule = encoder.rule.for_kernels();
        out.extend_with(|out| sparse_encoder.encode(packed_rows, packed, Some(&encoder.bias), rule, out))?;
    }
    Ok(())
}

/// See [`Encoder::dense`].
pub(super) fn dense(
    encoder: &Encoder,
    packed: &PackedMatrix,
    rows: &Rows<'_>,
    scratch: &mut EncodeScratch,
    read: Read,
    out: &mut [f32],
) -> Result<()> {
    let width = encoder.columns();
    for range in tiles(rows.len(), ROW_TILE) {
        let out = &mut out[range.start * width..range.end * width];
        pack(packed, rows, range, &mut scratch.packed_rows)?;
        product(&scratch.packed_rows, packed, Store::new(out, width, None)?)?;
        out.par_chunks_exact_mut(width).for_each(|out| {
            for (j, (value, &bias)) in out.iter_mut().zip(encoder.bias.iter()).enumerate() {
                *value = read(&encoder.rule, j, *value, bias);
            }
        });
    }
    Ok(())
}

/// Packs `x~`, rows less their shift.
fn pack(matrix: &PackedMatrix, rows: &Rows<'_>, range: Range<usize>, packed: &mut PackedRows) -> Result<()> {
    let d_in = rows.d_in;
    let x = &rows.flat[range.start * d_in..range.end * d_in];
    match rows.shift {
        None => packed.pack(matrix.arithmetic(), x, d_in)?,
        Some(shift) => packed.pack_with(matrix.arithmetic(), range.len(), d_in, |row, out| {
            let x = &x[row * d_in..(row + 1) * d_in];
            out.iter_mut().zip(x).zip(shift).for_each(|((out, x), b)| *out = x - b);
        })?,
    }
    Ok(())
}
