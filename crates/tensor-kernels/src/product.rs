//! The driver: cells of a product in parallel, panels and blocks of `k` within a cell, tiles to the epilogue.

use crate::buffer::Buffer;
use crate::kernel::Part;
use crate::scratch::{self, Slot};
use crate::{Cell, Epilogue, Error, Grid, MatrixRef, PackedMatrix, PackedRows, Result, TILE_COLS, Tile};
use rayon::prelude::*;

/// The right-hand side of a product.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// Packed beforehand: weights.
    Packed(&'a PackedMatrix),
    /// Not packed; each panel is packed when it is needed, which costs about `1 / rows` of the product.
    Plain(MatrixRef<'a>),
}

impl<'a> From<&'a PackedMatrix> for Operand<'a> {
    fn from(matrix: &'a PackedMatrix) -> Self {
        Self::Packed(matrix)
    }
}

impl<'a> From<MatrixRef<'a>> for Operand<'a> {
    fn from(matrix: MatrixRef<'a>) -> Self {
        Self::Plain(matrix)
    }
}

impl Operand<'_> {
    /// Height: the inner size of products.
    #[must_use]
    pub fn k(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.k(),
            Self::Plain(matrix) => matrix.k(),
        }
    }

    /// Number of columns.
    #[must_use]
    pub fn n(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.n(),
            Self::Plain(matrix) => matrix.n(),
        }
    }

    fn check(&self, rows: &PackedRows) -> Result<()> {
        if self.k() != rows.k() {
            let (expected, found) = (rows.k().to_string(), self.k().to_string());
            return Err(Error::Mismatch { what: "the inner size of a product", expected, found });
        }
        match self {
            Self::Packed(matrix) if matrix.arithmetic() != rows.arithmetic() => {
                let (expected, found) = (rows.arithmetic().to_string(), matrix.arithmetic().to_string());
                Err(Error::Mismatch { what: "the arithmetic of a product's operands", expected, found })
            }
            _ => Ok(()),
        }
    }
}

/// `rows x matrix`, its tiles given to an epilogue, on the threads of the current rayon pool.
///
/// # Errors
/// [`Error::Mismatch`] when the operands or the epilogue do not fit.
pub fn product<'a>(rows: &PackedRows, matrix: impl Into<Operand<'a>>, epilogue: impl Epilogue) -> Result<()> {
    let matrix = matrix.into();
    epilogue.check(rows.rows(), matrix.n())?;
    matrix.check(rows)?;
    let grid = Grid::new(rows, matrix.n());
    // One by one: a thread that has finished takes the next cell from the others.
    let cells = (0..grid.len()).into_par_iter().with_max_len(1);
    cells.for_each(|i| run_cell(rows, matrix, &grid.cell(i), |tile| epilogue.tile(tile)));
    Ok(())
}

/// `rows x matrix`, each cell of the grid with a state of its own: its tiles come one after another, for each panel left to right all
/// rows of the cell.
///
/// # Errors
/// [`Error::Mismatch`] when the operands or the grid do not fit, or there are fewer states than cells.
pub fn product_on<'a, S: Send>(
    grid: &Grid,
    rows: &PackedRows,
    matrix: impl Into<Operand<'a>>,
    states: &mut [S],
    each: impl Fn(&mut S, Tile<'_>) + Sync,
) -> Result<()> {
    let matrix = matrix.into();
    matrix.check(rows)?;
    grid.check(rows, matrix.n())?;
    if states.len() < grid.len() {
        let (expected, found) = (grid.len().to_string(), states.len().to_string());
        return Err(Error::Mismatch { what: "the number of states of a product's cells", expected, found });
    }
    let states = states[..grid.len()].par_iter_mut().with_max_len(1).enumerate();
    states.for_each(|(i, state)| run_cell(rows, matrix, &grid.cell(i), |tile| each(state, tile)));
    Ok(())
}

/// One cell on one thread.
pub(crate) fn run_cell(rows: &PackedRows, matrix: Operand<'_>, cell: &Cell, mut each: impl FnMut(Tile<'_>)) {
    let (kernel, k) = (rows.arithmetic().kernel(), rows.k());
    let blocks = rows.blocks(cell.rows.clone());
    let padded_rows = cell.rows.len().next_multiple_of(kernel.block_rows());
    let steps = k.div_ceil(kernel.k_step());
    scratch::with(Slot::Sums, padded_rows * TILE_COLS * size_of::<f32>(), |sums| {
        for first in cell.cols.clone().step_by(TILE_COLS) {
            let sums = &mut sums.as_mut_slice::<f32>()[..padded_rows * TILE_COLS];
            with_panel(rows, matrix, first, |panel| {
                if steps == 0 {
                    sums.fill(0.0);
                }
                for start in (0..steps).step_by(kernel.k_block()) {
                    let end = (start + kernel.k_block()).min(steps);
                    kernel.multiply(&Part { blocks, rows: cell.rows.len(), panel, k, steps: start..end }, sums);
                }
            });
            let cols = first..(first + TILE_COLS).min(cell.cols.end);
            let backend = rows.arithmetic().backend();
            each(Tile { backend, rows: cell.rows.clone(), cols, sums: &mut sums[..cell.rows.len() * TILE_COLS] });
        }
    });
}

/// The panel of columns that starts at `first`, packed now if it is not yet.
fn with_panel<R>(rows: &PackedRows, matrix: Operand<'_>, first: usize, work: impl FnOnce(&[u8]) -> R) -> R {
    match matrix {
        Operand::Packed(matrix) => work(matrix.panel(first / TILE_COLS)),
        Operand::Plain(matrix) => {
            let bytes = rows.arithmetic().kernel().panel_bytes(rows.k());
            scratch::with(Slot::Operand, bytes, |buffer: &mut Buffer| {
                let panel = &mut buffer.as_mut_slice::<u8>()[..bytes];
                matrix.pack_panel(rows.arithmetic(), first, panel);
                work(panel)
            })
        }
    }
}
