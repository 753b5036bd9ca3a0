//! The second product of a gated MLP, multiplied with the first while it is in the cache.

use super::{Epilogue, OnTiles, SharedOut, Tile, check_bias};
use crate::activation::gate_row;
use crate::{Activation, Result};

/// `inout = act(inout) * (x W + b)`, where `inout` holds the output of the gate's product; with the bits of
/// [`Store`](crate::Store) and then [`activate_gated`](crate::activate_gated).
pub struct Gate<'a> {
    act: Activation,
    inout: SharedOut<'a>,
    bias: Option<&'a [f32]>,
}

impl<'a> Gate<'a> {
    /// In rows of `width` one after another.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length).
    pub fn new(inout: &'a mut [f32], width: usize, bias: Option<&'a [f32]>, act: Activation) -> Result<Self> {
        check_bias(bias, width)?;
        Ok(Self { act, inout: SharedOut::new(inout, width)?, bias })
    }
}

impl Epilogue for Gate<'_> {}

impl OnTiles for Gate<'_> {
    fn tile(&self, mut tile: Tile<'_>) {
        let (backend, cols) = (tile.backend, tile.cols.clone());
        for (row, sums) in tile.each_row() {
            if let Some(bias) = self.bias {
                sums.iter_mut().zip(&bias[cols.clone()]).for_each(|(sum, b)| *sum += b);
            }
            // SAFETY: tiles do not overlap.
            let inout = unsafe { self.inout.row(row, cols.clone()) };
            gate_row(backend, self.act, inout, sums);
            inout.copy_from_slice(sums);
        }
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        self.inout.check(rows, cols)
    }
}
