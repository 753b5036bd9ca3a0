//! Encoding with the project's kernels: pre-activations never leave the tile that they are computed in.

use super::{EncodeScratch, Encoder, ROW_TILE, Read, tiles};
use crate::encoder::selection::Row;
use crate::normalization::Rows;
use crate::{Result, SparseFeatures};
use rayon::prelude::*;
use std::ops::Range;
use tensor_kernels::{Grid, PackedMatrix, PackedRows, SparseActivation, Store, Tile, product, product_on};

/// See [`Encoder::sparse`].
pub(super) fn sparse(
    encoder: &Encoder,
    packed: &PackedMatrix,
    rule: SparseActivation<'_>,
    rows: &Rows<'_>,
    scratch: &mut EncodeScratch,
    out: &mut SparseFeatures,
) -> Result<()> {
    let EncodeScratch { packed_rows, sparse_encoder, .. } = scratch;
    for range in tiles(rows.len(), ROW_TILE) {
        pack(packed, rows, &range, packed_rows)?;
        out.extend_with(|out| sparse_encoder.encode(packed_rows, packed, Some(&encoder.bias), rule, out))?;
    }
    Ok(())
}

/// See [`Encoder::collect`]: rules that the kernels do not know look at each tile of sums while it is in the cache.
pub(super) fn collect(
    encoder: &Encoder,
    packed: &PackedMatrix,
    rows: &Rows<'_>,
    range: &Range<usize>,
    floor: f32,
    scratch: &mut EncodeScratch,
    found: &mut [Row],
) -> Result<()> {
    let EncodeScratch { packed_rows, cells, .. } = scratch;
    pack(packed, rows, range, packed_rows)?;
    let grid = Grid::new(packed_rows, packed.n());
    cells.resize_with(cells.len().max(grid.len()), Vec::new);
    for (i, cell) in cells[..grid.len()].iter_mut().enumerate() {
        cell.resize_with(grid.cell(i).rows.len(), Row::default);
        cell.iter_mut().for_each(|row| row.start(floor));
    }
    product_on(&grid, packed_rows, packed, cells, |cell: &mut Vec<Row>, mut tile: Tile<'_>| {
        let first = tile.cols.start;
        for (row, (_, sums)) in cell.iter_mut().zip(tile.each_row()) {
            encoder.rule.collect(row, first, sums, &encoder.bias);
        }
    })?;
    for (part, beside) in cells[..grid.len()].chunks(grid.col_parts()).enumerate() {
        let rows = grid.cell(part * grid.col_parts()).rows;
        for cell in beside {
            found[rows.clone()].iter_mut().zip(cell).for_each(|(row, own)| row.entries.extend_from_slice(&own.entries));
        }
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
        pack(packed, rows, &range, &mut scratch.packed_rows)?;
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
fn pack(matrix: &PackedMatrix, rows: &Rows<'_>, range: &Range<usize>, packed: &mut PackedRows) -> Result<()> {
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
