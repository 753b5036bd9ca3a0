//! Products to sparse rows.

use super::stream::Stream;
use super::top::Top;
use super::{CsrBuffer, SparseActivation};
use crate::epilogue::check_bias;
use crate::{Error, Grid, Operand, PackedRows, Result, product_on};
use rayon::prelude::*;

/// Computes products of which only the active values are kept, as sparse rows. Holds the scratch memory, so that nothing is allocated once
/// a loop over batches has warmed up.
///
/// Memory: 12 bytes per active value of a batch; for `TopK` `8 (2k + 64)` per row and column part of the product's [`Grid`].
#[derive(Default)]
pub struct SparseEncoder {
    streams: Vec<Stream>,
    tops: Vec<Top>,
    /// Index of the next value of each row.
    next: Vec<u64>,
}

impl SparseEncoder {
    /// No memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the active values of `rule(rows x matrix + bias)` to `out`, columns rising within each row.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the operands do not fit or `out` is no sparse matrix, [`Error::Length`] for a bias or parameters of
    /// another width than the product's, [`Error::TooLarge`] for columns that no `u32` counts.
    pub fn encode<'a>(
        &mut self,
        rows: &PackedRows,
        matrix: impl Into<Operand<'a>>,
        bias: Option<&[f32]>,
        rule: SparseActivation<'_>,
        out: &mut CsrBuffer,
    ) -> Result<()> {
        let matrix = matrix.into();
        let cols = matrix.n();
        if u32::try_from(cols).is_err() {
            return Err(Error::TooLarge { rows: matrix.k(), cols });
        }
        check_bias(bias, cols)?;
        rule.check(cols)?;
        out.check()?;
        let backend = rows.arithmetic().backend();
        let grid = Grid::new(rows, cols);
        if let SparseActivation::TopK { k, norms } = rule {
            let cells = start(&mut self.tops, &grid, |top, rows| top.start(k.min(cols), rows));
            product_on(&grid, rows, matrix, cells, |top, tile| top.take(backend, &tile, bias, norms))?;
            cells.par_chunks_mut(grid.col_parts()).for_each(|cells| {
                if let Some((first, beside)) = cells.split_first_mut() {
                    first.finish(beside);
                }
            });
            append(cells, &grid, rows.rows(), &mut self.next, out);
        } else {
            let cells = start(&mut self.streams, &grid, |stream, rows| stream.start(rows));
            product_on(&grid, rows, matrix, cells, |stream, tile| stream.take(backend, &tile, bias, rule))?;
            append(cells, &grid, rows.rows(), &mut self.next, out);
        }
        Ok(())
    }
}

/// Makes a state per cell ready.
pub(super) fn start<'a, S: Default>(
    states: &'a mut Vec<S>,
    grid: &Grid,
    mut ready: impl FnMut(&mut S, usize),
) -> &'a mut [S] {
    states.resize_with(states.len().max(grid.len()), S::default);
    for (i, state) in states[..grid.len()].iter_mut().enumerate() {
        ready(state, grid.cell(i).rows.len());
    }
    &mut states[..grid.len()]
}

/// Values found in a cell.
pub(super) trait Found: Sync {
    /// Number of values in each of its rows.
    fn counts(&self) -> &[u32];

    /// Puts the values where their rows continue (`next` less `start`), and moves `next` (one position per row) behind them.
    fn place(&self, next: &mut [u64], start: u64, index: &mut [u32], value: &mut [f32]);
}

/// Appends what all cells found.
fn append(cells: &[impl Found], grid: &Grid, rows: usize, next: &mut Vec<u64>, out: &mut CsrBuffer) {
    let (start, first) = (out.index.len(), out.indptr.len() - 1);
    let mut end = start as u64;
    for beside in cells.chunks(grid.col_parts()) {
        for row in 0..beside[0].counts().len() {
            end += beside.iter().map(|cell| u64::from(cell.counts()[row])).sum::<u64>();
            out.indptr.push(end);
        }
    }
    out.indptr.resize(first + rows + 1, end);
    next.clear();
    next.extend_from_slice(&out.indptr[first..first + rows]);
    out.index.resize(end as usize, 0);
    out.value.resize(end as usize, 0.0);
    let (index, value) = (&mut out.index[start..], &mut out.value[start..]);
    place(cells, grid.col_parts(), next, start as u64, index, value);
}

/// Places the values of whole row parts, halves in parallel.
fn place<F: Found>(cells: &[F], col_parts: usize, next: &mut [u64], start: u64, index: &mut [u32], value: &mut [f32]) {
    let parts = cells.len() / col_parts;
    if parts <= 1 {
        return cells.iter().for_each(|cell| cell.place(next, start, index, value));
    }
    let (left, right) = cells.split_at(parts / 2 * col_parts);
    let left_rows = left.iter().step_by(col_parts).map(|cell| cell.counts().len()).sum();
    let middle = next[left_rows];
    let (left_next, right_next) = next.split_at_mut(left_rows);
    let (left_index, right_index) = index.split_at_mut((middle - start) as usize);
    let (left_value, right_value) = value.split_at_mut((middle - start) as usize);
    rayon::join(
        || place(left, col_parts, left_next, start, left_index, left_value),
        || place(right, col_parts, right_next, middle, right_index, right_value),
    );
}
