//! Epilogues: operations on the sums of a product while they are in the cache.

mod activate;
mod gate;
mod store;

use crate::{Backend, Error, Result, TILE_COLS};
use std::marker::PhantomData;
use std::ops::Range;

pub use activate::Activate;
pub use gate::Gate;
pub use store::{AddTo, Store};

/// Finished sums of some rows and up to [`TILE_COLS`] columns.
#[derive(Debug)]
#[non_exhaustive]
pub struct Tile<'a> {
    /// The back end that computed the sums.
    pub backend: Backend,
    /// Rows of the product.
    pub rows: Range<usize>,
    /// Columns of the product; starts at a multiple of [`TILE_COLS`].
    pub cols: Range<usize>,
    /// `[rows, TILE_COLS]`, 64-byte aligned; columns past `cols` hold zeros, or NaN in rows that are not finite. Free to be overwritten.
    pub sums: &'a mut [f32],
}

impl Tile<'_> {
    /// Row number and sums of each row.
    pub fn each_row(&mut self) -> impl Iterator<Item = (usize, &mut [f32])> {
        let width = self.cols.len();
        self.rows.clone().zip(self.sums.chunks_exact_mut(TILE_COLS)).map(move |(row, sums)| (row, &mut sums[..width]))
    }
}

/// Implementation of an [`Epilogue`]. Only this crate can name it: the safety of its outputs rests on tiles that only the driver hands out,
/// each once.
pub(crate) trait OnTiles: Sync {
    /// Takes one tile.
    fn tile(&self, tile: Tile<'_>);

    /// Checks that the product's shape is the expected one, before anything runs.
    ///
    /// # Errors
    /// [`Error::Mismatch`] or [`Error::Length`].
    fn check(&self, rows: usize, cols: usize) -> Result<()>;
}

/// An operation on the sums of a product, passed by value to [`product`](crate::product), which alone can run it. Operations that
/// this crate does not have can be done with [`product_on`](crate::product_on).
///
/// ```compile_fail
/// # use tensor_kernels::{Store, Epilogue, Tile};
/// fn anywhere(store: &Store, tile: Tile) { store.tile(tile) } // two threads could write to the same place
/// ```
#[allow(private_bounds)]
pub trait Epilogue: OnTiles {}

/// A matrix that tiles are written to from several threads.
///
/// It exclusively borrows the memory. Safety rests on tiles that never overlap: an epilogue is given to one product by value, and only
/// the driver hands out tiles.
pub(crate) struct SharedOut<'a> {
    at: *mut f32,
    rows: usize,
    width: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads write to disjoint parts only (see `row`).
unsafe impl Sync for SharedOut<'_> {}
// SAFETY: an exclusive borrow of plain memory.
unsafe impl Send for SharedOut<'_> {}

impl<'a> SharedOut<'a> {
    /// Rows of `width` one after another.
    pub fn new(out: &'a mut [f32], width: usize) -> Result<Self> {
        let rows = out.len().checked_div(width).unwrap_or(0);
        if rows * width != out.len() {
            return Err(Error::Length { what: "the output of a product", expected: rows * width, found: out.len() });
        }
        Ok(Self { at: out.as_mut_ptr(), rows, width, borrowed: PhantomData })
    }

    /// Part of a row.
    ///
    /// # Safety
    /// No two threads may hold overlapping parts.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn row(&self, row: usize, cols: Range<usize>) -> &mut [f32] {
        assert!(row < self.rows && cols.start <= cols.end && cols.end <= self.width);
        // SAFETY: inside the borrowed memory by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(row * self.width + cols.start), cols.len()) }
    }

    /// Checks the shape of the product.
    pub fn check(&self, rows: usize, cols: usize) -> Result<()> {
        if (rows, cols) == (self.rows, self.width) || (rows == 0 && self.rows == 0) || (cols == 0 && self.width == 0) {
            return Ok(());
        }
        let expected = format!("[{}, {}]", self.rows, self.width);
        Err(Error::Mismatch { what: "the shape of a product", expected, found: format!("[{rows}, {cols}]") })
    }
}

/// Checks a bias against the number of columns.
pub(crate) fn check_bias(bias: Option<&[f32]>, cols: usize) -> Result<()> {
    match bias {
        Some(bias) if bias.len() != cols => Err(Error::Length { what: "a bias", expected: cols, found: bias.len() }),
        _ => Ok(()),
    }
}
