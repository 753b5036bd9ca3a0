//! Division of a product into cells that run in parallel.

use crate::{Error, PackedRows, Result, TILE_COLS};
use std::ops::Range;

/// Rows of a cell, about: the sums of a panel of so many rows stay in the second-level cache. 256 to 1024 were equally fast.
const ROWS: usize = 512;
/// Cells that each thread should get, so that one slow cell does not hold up the rest.
const CELLS_PER_THREAD: usize = 8;
/// Multiply-adds below which a cell is not worth handing to another thread.
const MIN_WORK: usize = 1 << 18;

/// A division of `rows x cols` into cells, row ranges by column ranges. Cells split neither a panel of [`TILE_COLS`] columns nor a
/// block of rows that the kernel computes together.
///
/// The result of a product does not depend on it, only the thread that computes each cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    rows: usize,
    cols: usize,
    /// Rows that a kernel computes together; ranges of rows start at multiples of it.
    block: usize,
    row_parts: usize,
    col_parts: usize,
}

/// One cell of a [`Grid`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns; starts at a multiple of [`TILE_COLS`].
    pub cols: Range<usize>,
}

impl Grid {
    /// Cells for the product of these rows with a matrix of so many columns, on the threads of the current rayon pool.
    #[must_use]
    pub fn new(rows: &PackedRows, cols: usize) -> Self {
        let block = rows.arithmetic().kernel().block_rows();
        Self::divide(rows.rows(), rows.k(), cols, block, rayon::current_num_threads())
    }

    pub(crate) fn divide(rows: usize, k: usize, cols: usize, block: usize, threads: usize) -> Self {
        let panels = cols.div_ceil(TILE_COLS);
        let row_parts = ((rows + ROWS / 2) / ROWS).clamp(1, rows.div_ceil(block).max(1));
        let work = rows.saturating_mul(cols).saturating_mul(k.max(1));
        let wanted = if threads <= 1 { 1 } else { (work / MIN_WORK).clamp(1, threads * CELLS_PER_THREAD) };
        let col_parts = wanted.div_ceil(row_parts).clamp(1, panels.max(1));
        Self { rows, cols, block, row_parts, col_parts }
    }

    /// Number of cells.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.rows == 0 || self.cols == 0 { 0 } else { self.row_parts * self.col_parts }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ranges of rows.
    #[must_use]
    pub fn row_parts(&self) -> usize {
        self.row_parts
    }

    /// Ranges of columns.
    #[must_use]
    pub fn col_parts(&self) -> usize {
        self.col_parts
    }

    /// Checks that this is a grid for the product of these rows with so many columns.
    pub(crate) fn check(&self, rows: &PackedRows, cols: usize) -> Result<()> {
        let found = (rows.rows(), cols, rows.arithmetic().kernel().block_rows());
        if (self.rows, self.cols, self.block) == found {
            return Ok(());
        }
        let expected = format!("{} x {} in blocks of {} rows", self.rows, self.cols, self.block);
        let found = format!("{} x {} in blocks of {}", found.0, found.1, found.2);
        Err(Error::Mismatch { what: "the product that a grid was made for", expected, found })
    }

    /// Cell `i`: row ranges one after another, within each its column ranges left to right.
    ///
    /// # Panics
    /// If there is no cell `i`.
    #[must_use]
    pub fn cell(&self, i: usize) -> Cell {
        assert!(i < self.len(), "cell {i} of {}", self.len());
        let (row_part, col_part) = (i / self.col_parts, i % self.col_parts);
        let panels = part(self.cols.div_ceil(TILE_COLS), self.col_parts, col_part);
        let cols = panels.start * TILE_COLS..(panels.end * TILE_COLS).min(self.cols);
        let blocks = part(self.rows.div_ceil(self.block), self.row_parts, row_part);
        Cell { rows: blocks.start * self.block..(blocks.end * self.block).min(self.rows), cols }
    }
}

/// Part `i` of `parts` nearly equal parts of `0..n`.
fn part(n: usize, parts: usize, i: usize) -> Range<usize> {
    let (each, more) = (n / parts, n % parts);
    let start = i * each + i.min(more);
    start..start + each + usize::from(i < more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cover_everything_once() {
        for (rows, cols, threads) in [(1, 1, 1), (7, 31, 4), (1024, 24_576, 2), (513, 50_257, 16), (3, 33, 64)] {
            let grid = Grid::divide(rows, 768, cols, 12, threads);
            let mut seen = vec![0u8; rows * cols];
            for i in 0..grid.len() {
                let cell = grid.cell(i);
                assert_eq!((cell.cols.start % TILE_COLS, cell.rows.start % 12), (0, 0));
                assert!(cell.rows.len() <= ROWS + ROWS / 2 + 12 && !cell.rows.is_empty() && !cell.cols.is_empty());
                for r in cell.rows {
                    seen[r * cols..][cell.cols.clone()].iter_mut().for_each(|s| *s += 1);
                }
            }
            assert!(seen.iter().all(|&s| s == 1), "{rows} x {cols} on {threads}");
        }
        assert!(Grid::divide(0, 8, 5, 12, 2).is_empty() && Grid::divide(5, 8, 0, 12, 2).is_empty());
    }
}
