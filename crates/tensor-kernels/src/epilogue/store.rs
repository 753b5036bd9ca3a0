//! Tiles that are stored or added as they are.

use super::{Epilogue, OnTiles, SharedOut, Tile, check_bias};
use crate::Result;

/// `out = x W + b`.
pub struct Store<'a> {
    out: SharedOut<'a>,
    bias: Option<&'a [f32]>,
}

impl<'a> Store<'a> {
    /// Into rows of `width` one after another.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length).
    pub fn new(out: &'a mut [f32], width: usize, bias: Option<&'a [f32]>) -> Result<Self> {
        check_bias(bias, width)?;
        Ok(Self { out: SharedOut::new(out, width)?, bias })
    }
}

impl Epilogue for Store<'_> {}

impl OnTiles for Store<'_> {
    fn tile(&self, mut tile: Tile<'_>) {
        let cols = tile.cols.clone();
        for (row, sums) in tile.each_row() {
            // SAFETY: tiles do not overlap.
            let out = unsafe { self.out.row(row, cols.clone()) };
            match self.bias {
                None => out.copy_from_slice(sums),
                Some(bias) => {
                    let bias = &bias[cols.clone()];
                    out.iter_mut().zip(sums).zip(bias).for_each(|((out, sum), b)| *out = *sum + b);
                }
            }
        }
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        self.out.check(rows, cols)
    }
}

/// `out = out + (x W + b)`: what a block adds to the residual stream.
pub struct AddTo<'a> {
    out: SharedOut<'a>,
    bias: Option<&'a [f32]>,
}

impl<'a> AddTo<'a> {
    /// Onto rows of `width` one after another.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length).
    pub fn new(out: &'a mut [f32], width: usize, bias: Option<&'a [f32]>) -> Result<Self> {
        check_bias(bias, width)?;
        Ok(Self { out: SharedOut::new(out, width)?, bias })
    }
}

impl Epilogue for AddTo<'_> {}

impl OnTiles for AddTo<'_> {
    fn tile(&self, mut tile: Tile<'_>) {
        let cols = tile.cols.clone();
        for (row, sums) in tile.each_row() {
            // SAFETY: tiles do not overlap.
            let out = unsafe { self.out.row(row, cols.clone()) };
            match self.bias {
                None => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += *sum),
                Some(bias) => {
                    let bias = &bias[cols.clone()];
                    out.iter_mut().zip(sums).zip(bias).for_each(|((out, sum), b)| *out += *sum + b);
                }
            }
        }
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        self.out.check(rows, cols)
    }
}
