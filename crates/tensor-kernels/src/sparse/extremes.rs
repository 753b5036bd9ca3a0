//! The largest and smallest values of each row of a product that is never stored.

use super::best::{self, by_value};
use super::encoder::start;
use super::scan::{Hit, Line, Test, scan};
use crate::epilogue::check_bias;
use crate::{Backend, Error, Grid, Operand, PackedRows, Result, TILE_COLS, Tile, product_on};
use rayon::prelude::*;

/// The `k_top` largest and `k_bottom` smallest values of each row, with their columns; of equal values the lower columns. NaN counts as
/// larger than any number among the largest, and as smaller among the smallest, so that it shows.
///
/// Filled by any number of [`scan`](Self::scan)s over blocks of rows and columns; the answer is the same for any division into blocks.
///
/// Memory: `8 (k_top + k_bottom) + 20` bytes per row, and while it scans `16 (k_top + k_bottom + 64)` per row and column part of the
/// product's [`Grid`].
#[derive(Default)]
pub struct TopBottom {
    k: [usize; 2],
    /// The best so far, best first: `[rows, k]` keys and how many there are in each row.
    kept: [Vec<u64>; 2],
    counts: [Vec<u32>; 2],
    /// Bounds `[low, high]` per row: values outside of them are kept; NaN while every value is kept.
    low: Vec<f32>,
    high: Vec<f32>,
    /// The first column that a row has not seen.
    next: Vec<u32>,
    cells: Vec<Ends>,
}

const TOP: usize = 0;
const BOTTOM: usize = 1;

/// The extremes of the rows of one product. See [`TopBottom`].
///
/// # Errors
/// As [`TopBottom::scan`].
pub fn extremes<'a>(
    rows: &PackedRows,
    matrix: impl Into<Operand<'a>>,
    bias: Option<&[f32]>,
    k_top: usize,
    k_bottom: usize,
) -> Result<TopBottom> {
    let mut found = TopBottom::new(rows.rows(), k_top, k_bottom)?;
    found.scan(0, rows, 0, matrix, bias)?;
    Ok(found)
}

impl TopBottom {
    /// Nothing seen yet of so many rows.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn new(rows: usize, k_top: usize, k_bottom: usize) -> Result<Self> {
        let fits = |k: usize| rows.checked_mul(k).is_some_and(|n| n <= isize::MAX as usize / 8);
        let k = [k_top, k_bottom];
        if let Some(&cols) = k.iter().find(|&&k| !fits(k)) {
            return Err(Error::TooLarge { rows, cols });
        }
        let everything = |k| vec![if k == 0 { f32::INFINITY } else { f32::NAN }; rows];
        Ok(Self {
            k,
            kept: k.map(|k| vec![0; rows * k]),
            counts: k.map(|_| vec![0; rows]),
            low: everything(k_bottom).into_iter().map(|limit: f32| -limit).collect(),
            high: everything(k_top),
            next: vec![0; rows],
            cells: Vec::new(),
        })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.next.len()
    }

    /// A row's largest values, largest first, with their columns.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn top(&self, row: usize) -> impl ExactSizeIterator<Item = (u32, f32)> + '_ {
        self.kept(TOP, row).iter().map(|&key| (by_value::column(key), by_value::top_value(key)))
    }

    /// A row's smallest values, smallest first, with their columns.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn bottom(&self, row: usize) -> impl ExactSizeIterator<Item = (u32, f32)> + '_ {
        self.kept(BOTTOM, row).iter().map(|&key| (by_value::column(key), by_value::bottom_value(key)))
    }

    fn kept(&self, end: usize, row: usize) -> &[u64] {
        &self.kept[end][row * self.k[end]..][..self.counts[end][row] as usize]
    }

    /// Looks at the values of `rows x matrix + bias`, which are those of rows `first_row..` and columns `first_col..`. A row's columns
    /// must come left to right.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the operands do not fit or the block does not (rows that there are not, columns seen already),
    /// [`Error::Length`] for a bias of another width, [`Error::TooLarge`] for columns that no `u32` counts.
    pub fn scan<'a>(
        &mut self,
        first_row: usize,
        rows: &PackedRows,
        first_col: usize,
        matrix: impl Into<Operand<'a>>,
        bias: Option<&[f32]>,
    ) -> Result<()> {
        let matrix = matrix.into();
        check_bias(bias, matrix.n())?;
        let last = self.check(first_row, rows.rows(), first_col, matrix)?;
        let (backend, k, first) = (rows.arithmetic().backend(), self.k, first_col as u32);
        let grid = Grid::new(rows, matrix.n());
        let cells = start(&mut self.cells, &grid, |cell, rows| cell.start(k, rows));
        for (i, cell) in cells.iter_mut().enumerate() {
            let rows = grid.cell(i).rows;
            cell.low.copy_from_slice(&self.low[first_row + rows.start..first_row + rows.end]);
            cell.high.copy_from_slice(&self.high[first_row + rows.start..first_row + rows.end]);
        }
        product_on(&grid, rows, matrix, cells, |cell, tile| cell.take(backend, &tile, bias, first))?;
        let mut cells = std::mem::take(&mut self.cells);
        let parts = cells[..grid.len()].par_chunks_mut(grid.col_parts()).enumerate();
        parts.for_each(|(part, beside)| self.join(first_row + grid.cell(part * grid.col_parts()).rows.start, beside));
        for (part, beside) in cells[..grid.len()].chunks(grid.col_parts()).enumerate() {
            self.replace(first_row + grid.cell(part * grid.col_parts()).rows.start, &beside[0]);
        }
        self.cells = cells;
        self.next[first_row..first_row + rows.rows()].fill(last);
        Ok(())
    }

    /// Checks that the block is new; its end.
    fn check(&self, first_row: usize, rows: usize, first_col: usize, matrix: Operand<'_>) -> Result<u32> {
        let last = first_col.checked_add(matrix.n()).and_then(|last| u32::try_from(last).ok());
        let last = last.ok_or(Error::TooLarge { rows: matrix.k(), cols: matrix.n() })?;
        let Some(seen) = first_row.checked_add(rows).and_then(|end| self.next.get(first_row..end)) else {
            let (expected, found) = (self.rows().to_string(), format!("rows {first_row}.. + {rows}"));
            return Err(Error::Mismatch { what: "rows of extremes", expected, found });
        };
        match seen.iter().max() {
            Some(&seen) if seen as usize > first_col => {
                let (expected, found) = (format!("at least {seen}"), first_col.to_string());
                Err(Error::Mismatch { what: "the first column of a block of a row", expected, found })
            }
            _ => Ok(last),
        }
    }

    /// Brings together in the first of the cells what they found of the same rows and what was known of them, best first.
    fn join(&self, first_row: usize, cells: &mut [Ends]) {
        let Some((first, beside)) = cells.split_first_mut() else { return };
        for end in [TOP, BOTTOM] {
            for i in 0..first.room.len() {
                let keys = &mut first.keys[end][i];
                best::keep(keys, self.k[end]);
                keys.extend_from_slice(self.kept(end, first_row + i));
                best::keep(keys, self.k[end]);
                beside.iter_mut().for_each(|cell| best::join(keys, &mut cell.keys[end][i], self.k[end]));
                keys.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
    }

    /// Takes over what was brought together.
    fn replace(&mut self, first_row: usize, found: &Ends) {
        for (end, limits) in [(TOP, &mut self.high), (BOTTOM, &mut self.low)] {
            let k = self.k[end];
            for (row, keys) in (first_row..).zip(&found.keys[end][..found.room.len()]) {
                self.kept[end][row * k..][..keys.len()].copy_from_slice(keys);
                self.counts[end][row] = keys.len() as u32;
                if keys.len() == k
                    && let Some(&last) = keys.last()
                {
                    limits[row] = limit(end, last);
                }
            }
        }
    }
}

/// The bound once `last` is the last value kept at this end.
fn limit(end: usize, last: u64) -> f32 {
    let value = if end == TOP { by_value::top_value(last) } else { by_value::bottom_value(last) };
    match (value.is_nan(), end) {
        (false, _) => value,
        (true, TOP) => f32::INFINITY,
        (true, _) => f32::NEG_INFINITY,
    }
}

/// Candidates of one cell.
#[derive(Default)]
struct Ends {
    k: [usize; 2],
    /// A list per row.
    keys: [Vec<Vec<u64>>; 2],
    low: Vec<f32>,
    high: Vec<f32>,
    room: Vec<Hit>,
}

impl Ends {
    fn start(&mut self, k: [usize; 2], rows: usize) {
        self.k = k;
        for (keys, k) in self.keys.iter_mut().zip(k) {
            keys.resize_with(rows.max(keys.len()), Vec::new);
            for keys in &mut keys[..rows] {
                keys.clear();
                keys.reserve(best::room(k));
            }
        }
        self.low.resize(rows, 0.0);
        self.high.resize(rows, 0.0);
        self.room.resize(rows, Hit::default());
    }

    fn take(&mut self, backend: Backend, tile: &Tile<'_>, bias: Option<&[f32]>, first_col: u32) {
        let bias = Line::of(bias, &tile.cols, 0.0);
        let test = Test::Outside { low: &self.low, high: &self.high };
        let hits = scan(backend, tile.sums, tile.cols.len(), &bias, test, &mut self.room);
        let [top, bottom] = &mut self.keys;
        for &hit in hits {
            let row = hit.row as usize;
            let (low, high, sums) = (self.low[row], self.high[row], &tile.sums[row * TILE_COLS..][..TILE_COLS]);
            for i in hit.columns() {
                let (value, column) = (sums[i] + bias.0[i], first_col + (tile.cols.start + i) as u32);
                if outside(value, high, value > high) {
                    top[row].push(by_value::top(value, column));
                }
                if outside(value, low, value < low) {
                    bottom[row].push(by_value::bottom(value, column));
                }
            }
            for (end, keys, limits) in [(TOP, &mut top[row], &mut self.high), (BOTTOM, &mut bottom[row], &mut self.low)]
            {
                if keys.len() >= best::limit(self.k[end])
                    && let Some(last) = best::keep(keys, self.k[end])
                {
                    limits[row] = limit(end, last);
                }
            }
        }
    }
}

/// The tests' comparison: true for NaN on either side.
fn outside(value: f32, limit: f32, is: bool) -> bool {
    is || value.is_nan() || limit.is_nan()
}
